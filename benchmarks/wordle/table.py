"""What a table would learn from a dataset: ILQL's fixed point, computed instead of trained.

A state is everything said before it, so the rows form a tree, and values are computed from its leaves: Q(s, a) is the
mean over the rows that took a in s of reward + discount * V(next state), and V(s) the expectile of Q(s, a) over the
rows that pass through s. A network that fits the data perfectly has these values; one that generalises has others.
"""

from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from ilqljax.data.datapoint import DataPoint

State = tuple[int, ...]


def solve_table(
    rows: Iterable[DataPoint], *, discount: float, expectile: float
) -> tuple[dict[State, float], dict[tuple[State, int], float]]:
    """Return V by state and Q by state and action (token level), for finished dialogues."""
    visits: dict[State, list[tuple[int, float, State]]] = defaultdict(list)
    for row in rows:
        tokens = tuple(int(token) for token in row.tokens)
        following = [tokens[: i + 1] for i in row.action_idxs[1:]] + [()]  # () is the end
        for i, reward, after in zip(row.action_idxs, row.rewards, following, strict=True):
            visits[tokens[: i + 1]].append((tokens[i + 1], float(reward), after))
    v: dict[State, float] = {(): 0.0}
    q: dict[tuple[State, int], float] = {}
    for state in sorted(visits, key=len, reverse=True):
        targets = defaultdict(list)
        for action, reward, after in visits[state]:
            targets[action].append(reward + discount * v[after])
        means = {action: float(np.mean(values)) for action, values in targets.items()}
        q |= {(state, action): mean for action, mean in means.items()}
        counts = np.array([len(values) for values in targets.values()])
        v[state] = find_expectile(np.array(list(means.values())), counts, expectile=expectile)
    return v, q


def find_expectile(values: np.ndarray, counts: np.ndarray, *, expectile: float) -> float:
    """Return the v that minimises the sum of counts * |expectile - 1(values < v)| * (values - v)^2.

    Raises:
        ValueError: the expectile is not between 0 and 1, both excluded: there is no such v, or it is an end of a range.
    """
    if not 0 < expectile < 1:
        raise ValueError(f"expectile={expectile} is not between 0 and 1")
    v = float(np.average(values, weights=counts))
    while True:
        weights = counts * np.where(values < v, 1 - expectile, expectile)
        better = float(np.average(values, weights=weights))
        if abs(better - v) < 1e-12:
            return better
        v = better
