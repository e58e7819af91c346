"""What validation says of a training: whether it still betters, when it stops, and whether a clone is worth its data.

A clone that plays worse than what it was cloned from has learned too little or too much (overfitting), or is let act
otherwise than its data did; nothing in a training loss shows it.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from ilqljax.data.dataset import ListRLDataset, RLDataset
from ilqljax.data.transforms import read_rows, total_return

SMALL_RISE = 0.01  # of a validation loss, relative, that is not worth a word


@dataclass
class Patience:
    """Count evaluations in a row without a better metric.

    | metrics, lower is better | 3 | 2 | 2 | 4 | 1 |
    |--------------------------|---|---|---|---|---|
    | `n_worse`                | 0 | 0 | 1 | 2 | 0 |

    Attributes:
        best: the best metric yet; NaN before there is one.
        best_step: where it was.
        last: the newest metric.
        n_worse: evaluations since `best_step`.
    """

    best: float = math.nan
    best_step: int = 0
    last: float = math.nan
    n_worse: int = 0

    def count(self, step: int, metric: float | None, *, maximise: bool) -> None:
        """Take the metric of an evaluation, if it had one; one that is NaN betters nothing."""
        if metric is None:
            return
        self.last = metric
        if math.isnan(self.best) or (metric > self.best if maximise else metric < self.best):
            self.best, self.best_step, self.n_worse = metric, step, 0
        else:
            self.n_worse += 1

    def to_json(self) -> dict[str, Any]:
        """Return the fields; NaN as None."""
        return {name: None if value != value else value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Patience":
        """Read back what `to_json` gave; of runs from before there was any, nothing."""
        return cls(**{name: math.nan if value is None else value for name, value in values.items()})


class Returns(NamedTuple):
    """The mean return of dialogues, in the task's unit, and its standard error."""

    mean: float
    standard_error: float


def measure_returns(*datasets: RLDataset | None) -> Returns | None:
    """Return what dialogues are worth: those of the first dataset that can be compared with played ones.

    That is one of at least two whole dialogues with the rewards that the environment pays (`RLDataset.as_paid`), of
    which not all are the same. None where there is no such dataset.
    """
    for data in datasets:
        if data is None or not data.as_paid or (isinstance(data, ListRLDataset) and data.size() < 2):
            continue
        rows = list(read_rows(data))
        returns = np.array([total_return(data, row) for row in rows])
        if all(row.terminals[-1] for row in rows) and np.ptp(returns) > 0.0:
            return Returns(float(returns.mean()), float(returns.std(ddof=1) / math.sqrt(len(returns))))
    return None


def describe_shortfall(played: Returns, data: Returns | None, patience: Patience) -> str:
    """Say that a clone's dialogues are worth less than its data's, and what to change; "" where they are not.

    Less is by more than the standard error of the difference; one that is not known says nothing. The `patience` is of
    the validation loss.
    """
    if data is None or not data.mean - played.mean > math.hypot(played.standard_error, data.standard_error):
        return ""
    told = [f"{each.mean:.4g} (standard error {each.standard_error:.2g})" for each in (played, data)]
    return f"the clone's dialogues are worth {told[0]}, those of its data {told[1]}. {advise_clone(patience)}"


def advise_clone(patience: Patience) -> str:
    """Say what to change where a clone plays worse than its data."""
    sampling = "or sample fewer unlikely tokens (decode.top_p=0.9, decode.temperature=0.8)"
    if math.isnan(patience.best):
        return f"Give validation rows, which tell whether it overfits; train longer, {sampling}."
    if has_risen(patience):
        return (
            f"It overfits: its validation loss was {patience.best:.4g} at step {patience.best_step} and is "
            f"{patience.last:.4g}. Set select='best' and stop_after=3, give more dialogues or a smaller model, "
            f"{sampling}."
        )
    return (
        f"Its validation loss still falls: train longer (total_steps), with a higher lr or a larger model, {sampling}."
    )


def has_risen(patience: Patience) -> bool:
    """Say whether a loss is above its lowest by more than `SMALL_RISE` of that."""
    return patience.last - patience.best > SMALL_RISE * abs(patience.best)
