"""What a stage is watched by: exact mean losses over a dataset, and returns of a policy that acts."""

from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from ilqljax.data.dataset import ListRLDataset
from ilqljax.data.loader import eval_batches
from ilqljax.envs.base import LanguageEnvironment, Policy, interact_environments
from ilqljax.rl.steps import TrainState
from ilqljax.training.mesh import shard_batch


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


def evaluate_rollouts(environments: Sequence[LanguageEnvironment], policy: Policy) -> dict[str, float]:
    """Play every environment once and return the mean return, its standard error and the mean number of turns."""
    played = [sequence for _, sequence in interact_environments(environments, policy)]
    returns = np.array([sum(reward for _, _, reward, _ in sequence) for sequence in played])
    error = returns.std(ddof=1) / np.sqrt(len(returns)) if len(returns) > 1 else float("nan")
    return {
        "return": float(returns.mean()),
        "return_standard_error": float(error),
        "turns": float(np.mean([len(sequence) for sequence in played])),
    }
