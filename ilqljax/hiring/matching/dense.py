"""Match by dense vectors: candidates lie on the devices, and the exact k best of a million are found in blocks.

The devices *screen*: each multiplies the texts' vectors with one block of its candidates at a time, in float32, and
keeps the best few scores of all blocks, so nothing grows with texts x candidates. The host *settles*: it computes the
kept candidates' scores again in float64. A float32 product of vectors of width D is off by at most

    D u / (1 - D u) x |text| x |candidate|,   u = 2^-24      (Higham 2002, section 3.1)

so where the k-th settled score lies above everything that was dropped by more than that, the result is proven to be
exact: the ranking does not depend on blocks, devices, or the other texts of a batch. Where it does not (dozens of
equal candidates at the k-th place), the host searches that text again in full.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jaxtyping import Float, Int

from ilqljax.data.types import Array
from ilqljax.errors import UserError, check_known
from ilqljax.hiring.matching.matcher import CheckedMatcher, Matches, check_k, join_matches, select_top_k

METRICS = ("cosine", "dot")
AXIS = "candidates"
GROUP = 16
# A block of scores of 256 texts is 4 MB, which stays in a CPU's cache.
MAX_BLOCK, MERGED_BLOCKS, MAX_TEXTS = 4096, 16, 256
# The screen keeps a power of two above k + SPARE candidates; a longer shortlist is searched for on the host.
MIN_KEPT, SPARE, MAX_KEPT = 32, 8, 4096
HOST_BLOCK = 8192
CHUNK = 1024  # candidates that are prepared at a time
# Scores of longer vectors might overflow float32.
MAX_NORM = 1e18


class DenseIndex:
    """Rank fixed candidate vectors for any query vector, exactly.

    Scores are the products of float32 vectors, computed in float64 and rounded to float32; with `metric="cosine"` all
    vectors are first scaled to length 1 (a zero vector stays zero). Equal scores go by the lower row.
    """

    def __init__(
        self,
        vectors: Float[Array, "N D"],
        *,
        metric: Literal["cosine", "dot"] = "cosine",
        devices: Sequence[jax.Device] = (),
        max_block: int = MAX_BLOCK,
    ):
        """Deal the candidates, one row each, out over the devices: () is all of this process.

        At most `max_block` of them are multiplied at a time. No candidate, a value that is not finite, a vector that is
        too long and an unknown metric raise a `UserError`.
        """
        check_known(METRICS, metric=metric)
        vectors = check_shape(vectors, name="The candidates' vectors")
        if not len(vectors):
            raise UserError("The list of candidates is empty. A matcher needs at least one candidate.")
        self.metric = metric
        self.n_candidates, self.width = vectors.shape
        devices = list(devices) or jax.local_devices()
        n_rows = -(-self.n_candidates // len(devices))  # of a device
        n_blocks = -(-n_rows // max_block)
        self._n_blocks = min(MERGED_BLOCKS, n_blocks)
        n_blocks = _round_up(n_blocks, self._n_blocks)
        self._block = _round_up(-(-n_rows // n_blocks), GROUP)
        self._rows = n_rows = n_blocks * self._block
        self._mesh = jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)
        sharding = NamedSharding(self._mesh, PartitionSpec(AXIS))
        parts, lengths = zip(*(self._place(vectors, i, device) for i, device in enumerate(devices)), strict=True)
        self._vectors = jax.make_array_from_single_device_arrays((n_rows * len(devices), self.width), sharding, parts)
        # On a CPU these are views of what the device holds, so candidates are in memory once.
        self._host = [np.asarray(part) for part in parts]
        n_valid = np.clip(self.n_candidates - n_rows * np.arange(len(devices)), 0, n_rows).astype(np.int32)
        self._n_valid = jax.device_put(n_valid, sharding)
        unit = self.width * 2.0**-24
        # A thousandth more than the bound covers the float64 arithmetic on it.
        self._longest, self._error_per_length = max(lengths), 1.001 * unit / (1.0 - unit) * max(lengths)

    def _place(self, vectors: np.ndarray, i: int, device: jax.Device) -> tuple[jax.Array, float]:
        """Put the i-th device's candidates there, a chunk at a time; return them and the length of the longest."""
        part, longest = jnp.zeros((self._rows, self.width), jnp.float32, device=device), 0.0
        for at in range(0, self._rows, CHUNK):
            start = i * self._rows + at
            given = vectors[start : min(start + CHUNK, (i + 1) * self._rows)]
            if not len(given):
                break
            check_values(given, name="The candidates' vectors", first=start)
            ready = prepare_vectors(given, metric=self.metric)
            longest = max(longest, float(measure_lengths(ready).max()))
            part = _write_rows(part, ready, at)
        return part, longest

    def top_k(self, queries: Float[Array, "B D"], k: int) -> Matches:
        """Return each query's k best candidates; a k, width or value that does not fit raises a `UserError`."""
        check_k(k, n_candidates=self.n_candidates)
        queries = check_shape(queries, name="The texts' vectors")
        check_values(queries, name="The texts' vectors")
        if queries.shape[1] != self.width:
            raise UserError(
                f"The texts' vectors have {queries.shape[1]} numbers and the candidates' {self.width}. Both must come "
                "from the same encoder."
            )
        queries = prepare_vectors(queries, metric=self.metric)
        starts = range(0, len(queries), MAX_TEXTS)
        return join_matches([self._search(queries[at : at + MAX_TEXTS], k) for at in starts], k)

    def _search(self, queries: Float[Array, "B D"], k: int) -> Matches:
        n_kept = max(MIN_KEPT, 1 << (k + SPARE - 1).bit_length())
        if n_kept > MAX_KEPT:
            return join_matches([self._search_fully(query, k, -np.inf) for query in queries], k)
        rows, bounds = self._screen(queries, n_kept)
        lengths = measure_lengths(queries)
        # The last term is for devices that take numbers below 2^-126 for zero.
        errors = self._error_per_length * lengths + self.width * 2.0**-125 * (1.0 + lengths + self._longest)
        found = []
        for query, near, bound, error in zip(queries, rows, bounds, errors, strict=True):
            settled = _keep_best(near, score_exactly(query, self._take(near)), k)
            # Rounding is monotone: nothing that was dropped can have a higher score than this.
            if settled.scores[0, -1] <= np.float32(bound + error):
                settled = self._search_fully(query, k, float(settled.scores[0, -1]) - 2.0 * error)
            found.append(settled)
        return join_matches(found, k)

    def _screen(self, queries: Float[Array, "B D"], n_kept: int) -> tuple[Int[Array, "B kept"], Float[Array, " B"]]:
        """Return the rows of each query's K best screened scores, sorted by row, and the most that another may have."""
        n_texts = len(queries)
        padded = np.zeros((1 << max(3, (n_texts - 1).bit_length()), self.width), np.float32)
        padded[:n_texts] = queries
        blocks = {"mesh": self._mesh, "block": self._block, "n_blocks": self._n_blocks}
        scores, rows, tops = screen(self._vectors, padded, self._n_valid, **blocks, n_kept=min(n_kept, self._rows))
        first = self._rows * np.arange(len(self._host))[:, None, None]
        rows = np.concatenate(np.asarray(rows) + first, axis=1)[:n_texts]
        # The lowest kept group and the lowest kept score of each device bound what it dropped.
        bounds = np.maximum(np.asarray(tops)[:, :, -1], np.asarray(scores)[:, :, -1]).max(axis=0)[:n_texts]
        scores = np.concatenate(np.asarray(scores), axis=1)[:n_texts]  # [B devices*K]
        # Padding scores -inf and sorts last; there is as much of it for every query.
        n_kept = min(n_kept, self.n_candidates)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :n_kept]
        last = np.take_along_axis(scores, order[:, -1:], axis=1)[:, 0]
        bounds = np.maximum(bounds, last).astype(np.float64)
        if n_kept == self.n_candidates:
            bounds[:] = -np.inf
        return np.sort(np.take_along_axis(rows, order, axis=1)), bounds

    def _search_fully(self, query: Float[Array, " D"], k: int, least: float) -> Matches:
        """Search all candidates on the host; those whose float32 score is below `least` are known not to be among k."""
        rows, scores = [], []
        for start in range(0, self.n_candidates, HOST_BLOCK):
            part = self._take(np.arange(start, min(start + HOST_BLOCK, self.n_candidates)))
            near = np.flatnonzero(part @ query >= least)
            rows.append(start + near)
            scores.append(score_exactly(query, part[near]))
        return _keep_best(np.concatenate(rows), np.concatenate(scores), k)

    def _take(self, rows: Int[Array, " n"]) -> Float[Array, "n D"]:
        device, local = np.divmod(rows, self._rows)
        taken = np.empty((len(rows), self.width), np.float32)
        for i in np.unique(device):
            here = device == i
            taken[here] = self._host[i][local[here]]
        return taken


class DenseMatcher(CheckedMatcher):
    """Rank candidates by the vectors of an encoder: `Matcher` over a `DenseIndex`."""

    def __init__(
        self, index: DenseIndex, encode: Callable[[Sequence[str]], Float[Array, "B D"]], *, fingerprint: str
    ) -> None:
        """Hold the candidates, what turns texts into vectors, and the fingerprint of both and the metric."""
        self.index, self.encode, self.fingerprint = index, encode, fingerprint
        self.n_candidates = index.n_candidates

    def _rank(self, texts: Sequence[str], k: int) -> Matches:
        return self.index.top_k(self.encode(texts), k)


def _keep_best(rows: Int[Array, " n"], scores: Float[Array, " n"], k: int) -> Matches:
    """Return the matches of the one text that has these scores."""
    best = select_top_k(scores[None], k)
    return Matches(rows[best.indices], best.scores)


@partial(jax.jit, static_argnames=("mesh", "block", "n_blocks", "n_kept"))
def screen(
    vectors: Float[Array, "N D"],  # dealt out over the mesh; each device's last rows may be padding, which scores -inf
    queries: Float[Array, "B D"],
    n_valid: Int[Array, " devices"],  # how many rows of each device are candidates
    *,
    mesh: jax.sharding.Mesh,
    block: int,  # candidates multiplied at a time, a multiple of `GROUP`
    n_blocks: int,  # blocks whose maxima are merged at a time; `block * n_blocks` divides a device's rows
    n_kept: int,
) -> tuple[Float[Array, "devices B kept"], Int[Array, "devices B kept"], Float[Array, "devices B groups"]]:
    """Return each device's K <= `n_kept` best float32 scores, best first, their rows there, and maxima of G groups.

    Of every 16 candidates only the maximum is looked at. The groups of the `n_kept` highest maxima hold the `n_kept`
    highest scores; these few are computed a second time, because keeping all scores would be N x texts of them. No
    other candidate has a float32 score above the lowest of a device's maxima and scores.
    """
    local = partial(_screen_device, block=block, n_blocks=n_blocks, n_kept=n_kept)
    dealt, specs = PartitionSpec(AXIS), (PartitionSpec(AXIS), PartitionSpec(), PartitionSpec(AXIS))
    return jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=dealt, check_vma=False)(vectors, queries, n_valid)


def _screen_device(vectors, queries, n_valid, *, block: int, n_blocks: int, n_kept: int):
    n_rows, n_texts, n_groups = vectors.shape[0], queries.shape[0], block // GROUP
    n_best = min(n_kept, n_rows // GROUP)

    def reduce_block(_, start):
        part = lax.dynamic_slice_in_dim(vectors, start, block)
        scores = lax.dot_general(queries, part, (((1,), (1,)), ((), ())), precision=lax.Precision.HIGHEST)
        is_valid = jnp.arange(block, dtype=jnp.int32) < n_valid[0] - start
        scores = jnp.where(is_valid[None], scores, -jnp.inf)
        return None, scores.reshape(n_texts, n_groups, GROUP).max(axis=2)

    def merge_blocks(best, start):
        starts = start + block * jnp.arange(n_blocks, dtype=jnp.int32)
        _, tops = lax.scan(reduce_block, None, starts)
        tops = jnp.swapaxes(tops, 0, 1).reshape(n_texts, n_blocks * n_groups)
        rows = start + GROUP * jnp.arange(n_blocks * n_groups, dtype=jnp.int32)
        joined_rows = jnp.concatenate([best[1], jnp.broadcast_to(rows[None], tops.shape)], axis=1)
        values, at = lax.top_k(jnp.concatenate([best[0], tops], axis=1), n_best)
        return (values, _pick(joined_rows, at)), None

    def score_rows(row_and_query):
        rows, query = row_and_query
        near = vectors.at[rows].get(mode="promise_in_bounds")
        return jnp.einsum("nd,d->n", near, query, precision=lax.Precision.HIGHEST)

    none = (jnp.full((n_texts, n_best), -jnp.inf), jnp.zeros((n_texts, n_best), jnp.int32))
    starts = jnp.arange(0, n_rows, n_blocks * block, dtype=jnp.int32)
    (tops, first), _ = lax.scan(merge_blocks, none, starts)
    rows = first[:, :, None] + jnp.arange(GROUP, dtype=jnp.int32)[None, None]  # [B best 16]
    scores = lax.map(score_rows, (rows.reshape(n_texts, -1), queries), batch_size=max(1, min(8, 512 // n_best)))
    # A place that was never filled, or that padding fills, has no candidate.
    is_valid = (rows < n_valid[0]) & (tops > -jnp.inf)[:, :, None]
    scores, at = lax.top_k(jnp.where(is_valid.reshape(scores.shape), scores, -jnp.inf), min(n_kept, n_best * GROUP))
    return scores[None], _pick(rows.reshape(n_texts, -1), at)[None], tops[None]


def _pick(values: Int[Array, "B N"], at: Int[Array, "B kept"]) -> Int[Array, "B kept"]:
    return jnp.take_along_axis(values, at, axis=1, mode="promise_in_bounds")


def score_exactly(query: Float[Array, " D"], rows: Float[Array, "n D"]) -> Float[Array, " n"]:
    """Multiply float32 vectors in float64, each row by the same sequence of sums: equal rows get equal scores."""
    return (rows.astype(np.float64) * query.astype(np.float64)).sum(axis=-1)


def check_shape(vectors: Float[Array, "B D"], *, name: str) -> np.ndarray:
    """Return vectors as an array, or raise a `UserError` unless they are rows of numbers."""
    vectors = np.asarray(vectors)
    if vectors.ndim != 2 or not vectors.shape[1] or vectors.dtype.kind not in "fiu":
        raise UserError(f"{name} must be rows of numbers of one width, got shape {vectors.shape} of {vectors.dtype}.")
    return vectors


def check_values(vectors: Float[Array, "B D"], *, name: str, first: int = 0) -> None:
    """Raise a `UserError` unless values are finite and lengths moderate; `first` is the number of the first row."""
    largest = np.abs(vectors).max(axis=1, initial=0.0).astype(np.float64)
    wrong = np.flatnonzero(~(largest * vectors.shape[1] ** 0.5 < MAX_NORM))
    if wrong.size:
        raise UserError(
            f"{name}: row {first + wrong[0]} holds a value that is NaN, infinite or too large for float32 scores. "
            "Compute that vector again."
        )


def prepare_vectors(vectors: Float[Array, "B D"], *, metric: str) -> Float[Array, "B D"]:
    """Return vectors in float32, scaled to length 1 for `cosine`; a zero vector stays zero."""
    if metric == "dot":
        return vectors.astype(np.float32)
    exact = vectors.astype(np.float64)
    largest = np.abs(exact).max(axis=1, keepdims=True)
    exact /= np.where(largest > 0.0, largest, 1.0)  # so that squares of tiny numbers do not vanish
    length = measure_lengths(exact)[:, None]
    return (exact / np.where(length > 0.0, length, 1.0)).astype(np.float32)


def measure_lengths(vectors: Float[Array, "B D"]) -> Float[Array, " B"]:
    """Return the length of each vector, in float64."""
    exact = vectors.astype(np.float64)
    return np.sqrt((exact * exact).sum(axis=1))


@partial(jax.jit, donate_argnums=0)
def _write_rows(rows: Float[Array, "N D"], part: Float[Array, "n D"], at: int) -> Float[Array, "N D"]:
    return lax.dynamic_update_slice_in_dim(rows, part, at, axis=0)


def _round_up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple
