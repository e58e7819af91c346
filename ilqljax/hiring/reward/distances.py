"""Distances between two distributions over categories, each 0 for equals."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import scipy  # its parts are loaded when they are used
from jaxtyping import Float

from ilqljax.data.types import Array
from ilqljax.errors import UserError, check_known

Distance = Callable[[Float[Array, "... C"], Float[Array, "... C"]], Float[Array, "..."] | float]
DEFAULT_SMOOTHING = 0.01
TRANSPORTS_PER_PROGRAM = 200


def total_variation(shares: Float[Array, "... C"], target: Float[Array, "... C"]) -> Float[Array, "..."] | float:
    """Return half the sum of absolute differences, 0 to 1: the share of members who would have to change category."""
    return 0.5 * np.abs(np.asarray(shares) - np.asarray(target)).sum(axis=-1)


def jensen_shannon(shares: Float[Array, "... C"], target: Float[Array, "... C"]) -> Float[Array, "..."] | float:
    """Return the Jensen-Shannon distance: the root of the divergence in bits, a metric from 0 to 1."""
    shares, target = np.asarray(shares, float), np.asarray(target, float)
    middle = 0.5 * (shares + target)
    nats = 0.5 * (scipy.special.rel_entr(shares, middle) + scipy.special.rel_entr(target, middle)).sum(axis=-1)
    return np.sqrt(np.maximum(nats, 0.0) / np.log(2.0))


def original_wasserstein(shares: Float[Array, "... C"], target: Float[Array, "... C"]) -> Float[Array, "..."] | float:
    """Return the number the original code computed, for comparison only (`compat="original"`).

    It passed the two *vectors of shares* to `scipy.stats.wasserstein_distance`, which takes them as two samples: the
    mean absolute difference of the sorted values. Which category holds which share is lost: (.8, .2) against (.2, .8)
    gives 0.
    """
    differences = np.sort(np.asarray(shares), axis=-1) - np.sort(np.asarray(target), axis=-1)
    return np.abs(differences).mean(axis=-1)


def kullback_leibler(
    shares: Float[Array, "... C"], target: Float[Array, "... C"], *, smoothing: float = DEFAULT_SMOOTHING
) -> Float[Array, "..."] | float:
    """Return KL(shares || target) in nats, 0 to about ln(C / smoothing), both mixed with the uniform distribution.

    Each side becomes (1 - smoothing) p + smoothing / C, so equal sides stay at 0 and an absent category stays finite.
    With smoothing 0 a category that the target lacks and the shares have gives infinity.
    """
    shares, target = np.asarray(shares, float), np.asarray(target, float)
    even = smoothing / shares.shape[-1]
    mixed, aim = (1.0 - smoothing) * shares + even, (1.0 - smoothing) * target + even
    return np.maximum(scipy.special.rel_entr(mixed, aim).sum(axis=-1), 0.0)


def wasserstein(
    shares: Float[Array, "... C"], target: Float[Array, "... C"], *, ground: Float[Array, "C C"]
) -> Float[Array, "..."] | float:
    """Return the least cost of moving the shares onto the target, where a share moved from i to j costs `ground[i, j]`.

    Exact, 0 to the longest ground distance. Equal ones give that distance times total variation; categories on a line
    give the area between the cumulative shares; anything else is a small linear program. NaN shares stay NaN.
    """
    shares, target = np.broadcast_arrays(np.asarray(shares, float), np.asarray(target, float))
    places = find_line(ground)
    if places is not None:
        order = np.argsort(places)
        ahead = np.cumsum((shares - target)[..., order], axis=-1)[..., :-1]
        return np.abs(ahead) @ np.diff(places[order])
    off_diagonal = ground[~np.eye(len(ground), dtype=bool)]
    if (off_diagonal == off_diagonal[:1]).all():
        return total_variation(shares, target) * (off_diagonal[0] if off_diagonal.size else 0.0)
    pairs = np.concatenate([shares.reshape(-1, len(ground)), target.reshape(-1, len(ground))], axis=1)
    distinct, row_of = np.unique(pairs, axis=0, return_inverse=True)
    costs = np.full(len(distinct), np.nan)
    defined = np.flatnonzero(~np.isnan(distinct).any(axis=1))
    for start in range(0, len(defined), TRANSPORTS_PER_PROGRAM):
        chosen = defined[start : start + TRANSPORTS_PER_PROGRAM]
        costs[chosen] = _solve_transports(distinct[chosen], ground=ground)
    return costs[row_of.reshape(-1)].reshape(shares.shape[:-1])[()]


def find_line(ground: Float[Array, "C C"]) -> Float[Array, " C"] | None:
    """Return places on a line whose differences are the ground distances, or None if there are none."""
    far = ground[int(np.argmax(ground.max(axis=1)))]  # distances from one end, if there is a line
    on_line = np.allclose(np.abs(far[:, None] - far[None, :]), ground, rtol=0, atol=1e-12)
    return far if on_line else None


def _solve_transports(pairs: Float[Array, "R {2*len(ground)}"], *, ground: Float[Array, "C C"]) -> Float[Array, " R"]:
    """Solve many independent transports as one linear program, whose start-up would otherwise cost the most."""
    n = len(ground)
    leaves, arrives = np.kron(np.eye(n), np.ones(n)), np.kron(np.ones(n), np.eye(n))
    # The last constraint follows from the others; left in, rounding could make the program infeasible.
    constraints = scipy.sparse.csr_array(np.vstack([leaves, arrives])[:-1])
    result = scipy.optimize.linprog(
        np.tile(ground.ravel(), len(pairs)),
        A_eq=scipy.sparse.kron(scipy.sparse.eye_array(len(pairs)), constraints, format="csr"),
        b_eq=pairs[:, :-1].ravel(),
    )
    if not result.success:
        raise UserError(
            f"The shares could not be moved onto the target ({result.message}). Both must be distributions."
        )
    return result.x.reshape(len(pairs), n * n) @ ground.ravel()


def parse_ground(text: str, categories: Sequence[str]) -> Float[Array, "C C"]:
    """Read a ground distance: "" (1 between any two), an order, or a distance for every pair.

    | text                              | distances                                                      |
    |-----------------------------------|----------------------------------------------------------------|
    | ""                                | 1 between different categories (the result is total variation) |
    | "junior < middle < senior"        | steps along the order over the number of steps: 0.5 and 1      |
    | "a|b=0.5, a|c=1, b|c=1"           | as given, symmetric                                            |

    Raises:
        UserError: a category or pair is missing, unknown or named twice, or a distance is negative or no number.
    """
    n = len(categories)
    if not text.strip():
        return 1.0 - np.eye(n)
    if "<" in text:
        order = [name.strip() for name in text.split("<")]
        if sorted(order) != sorted(categories):
            raise UserError(
                f"The order '{text}' must name each category once; the categories are {', '.join(categories)}."
            )
        place = {name: i / max(1, n - 1) for i, name in enumerate(order)}
        places = np.array([place[name] for name in categories])
        return np.abs(places[:, None] - places[None, :])
    ground = np.full((n, n), np.nan)
    np.fill_diagonal(ground, 0.0)
    for pair, value in parse_numbers(text, example="a|b=0.5, a|c=1").items():
        names = [name.strip() for name in pair.split("|")]
        if len(names) != 2 or not set(names) <= set(categories) or names[0] == names[1]:
            raise UserError(f"'{pair}' is not a pair of categories such as {'|'.join(categories[:2])}=0.5.")
        i, j = map(categories.index, names)
        if not np.isnan(ground[i, j]):
            raise UserError(f"The ground distance '{text}' names the pair {pair} twice. Give every pair one.")
        ground[i, j] = ground[j, i] = value
    if np.isnan(ground).any():
        i, j = np.argwhere(np.isnan(ground))[0]
        raise UserError(f"The ground distance lacks the pair {categories[i]}|{categories[j]}. Give every pair one.")
    return ground


def parse_numbers(text: str, *, example: str) -> dict[str, float]:
    """Read "name=number, ..."; a part of another form, a name twice or a number below 0 raises a `UserError`."""
    numbers: dict[str, float] = {}
    for part in filter(str.strip, text.split(",")):
        name, _, value = (piece.strip() for piece in part.rpartition("="))
        if not name or name in numbers:
            raise UserError(
                f"'{part.strip()}' is not name=number, or its name is there twice. Write it as '{example}'."
            )
        try:
            numbers[name] = float(value)
        except ValueError:
            numbers[name] = np.nan
        if not 0.0 <= numbers[name] < np.inf:
            raise UserError(f"'{name}' must be a number from 0 on, got '{value}'.")
    return numbers


DISTANCES: dict[str, Distance] = {
    "total_variation": total_variation,
    "jensen_shannon": jensen_shannon,
    "original_wasserstein": original_wasserstein,
    "kullback_leibler": kullback_leibler,
}
DISTANCE_NAMES = (*DISTANCES, "wasserstein")


def make_distance(
    name: str, categories: Sequence[str], *, smoothing: float = DEFAULT_SMOOTHING, ground: str = ""
) -> Distance:
    """Return a distance of `DISTANCE_NAMES` with its options bound to the categories, in the order of the shares.

    An unknown name, and an option out of its range or of another distance, raise a `UserError`.
    """
    check_known(DISTANCE_NAMES, distance=name)
    for option, owner, is_set in (
        (f"ground='{ground}'", "wasserstein", ground.strip()),
        (f"smoothing={smoothing}", "kullback_leibler", smoothing != DEFAULT_SMOOTHING),
    ):
        if is_set and name != owner:
            raise UserError(f"{option} is of distance='{owner}', got '{name}'. Change one, or leave it out.")
    if not 0.0 <= smoothing < 1.0:
        raise UserError(f"smoothing={smoothing} must be from 0 to below 1. Use {DEFAULT_SMOOTHING}.")
    if name == "kullback_leibler":
        return partial(kullback_leibler, smoothing=smoothing)
    return partial(wasserstein, ground=parse_ground(ground, categories)) if name == "wasserstein" else DISTANCES[name]
