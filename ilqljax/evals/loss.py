"""Exact mean losses over a dataset."""

from collections.abc import Callable

import jax
from jax.sharding import Mesh

from ilqljax.data.dataset import ListRLDataset
from ilqljax.data.loader import eval_batches
from ilqljax.sharding import shard_batch
from ilqljax.state import TrainState


def evaluate_loss(
    eval_step: Callable,
    state: TrainState,
    dataset: ListRLDataset,
    *,
    mesh: Mesh,
    batch_size: int,
    length_buckets: tuple[int, ...],
    action_buckets: tuple[int, ...] = (),
) -> dict[str, float]:
    """Return each metric of the loss over all rows, each counted once.

    Every batch is divided by the counts of the whole dataset, so the sum over batches is exactly the mean over its
    actions (or tokens): a short last batch weighs what it holds.
    """
    counts = dataset.count_rows()
    batches = eval_batches(
        dataset,
        batch_size=batch_size,
        length_buckets=length_buckets,
        action_buckets=action_buckets,
        n_hosts=jax.process_count(),
        host=jax.process_index(),
    )
    totals: dict[str, float] = {}
    for batch in batches:
        metrics = jax.device_get(eval_step(state, shard_batch(batch, mesh), counts))
        for name, value in metrics.items():
            totals[name] = totals.get(name, 0.0) + float(value)
    return totals
