"""Train a model in memory, for experiments that compare many short trainings; `ilqljax.train` is the full program."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import jax

from ilqljax.data.dataset import RLDataset
from ilqljax.data.loader import expect_counts, make_train_loader
from ilqljax.models.value_lm import ValueLM
from ilqljax.rl.algorithms import find_unreached, init_learner_state, make_learner, select_acting_params
from ilqljax.rl.optim import OptimConfig, make_optimizer
from ilqljax.rl.steps import TargetConfig, make_train_step
from ilqljax.training.metrics import DelayedMetrics, ProgressBar

Watch = Callable[[int, dict, dict], None]


@dataclass(frozen=True)
class FitConfig:
    """How long and how one training goes.

    Attributes:
        steps: optimizer steps.
        batch_size: rows of a step.
        lr: peak learning rate; it falls along a cosine to a tenth.
        polyak: how fast targets follow.
        optimizer: "adamw" or "muon".
        sort_window: how many batches are sorted by length together; a stream has 1.
        length_buckets: row lengths that batches are padded to.
        action_buckets: numbers of actions that batches are padded to.
        loss: the algorithm's options.
    """

    steps: int
    batch_size: int
    lr: float
    length_buckets: Sequence[int]
    action_buckets: Sequence[int]
    polyak: float = 0.01
    optimizer: str = "adamw"
    sort_window: int = 1
    loss: dict = field(default_factory=dict)


def fit(
    name: str,
    model: ValueLM,
    dataset: RLDataset,
    config: FitConfig,
    *,
    seed: int,
    trunk: dict | None = None,
    networks: tuple[dict, dict] | None = None,
    watch: Watch | None = None,
    watch_every: int = 0,
) -> dict:
    """Train an algorithm of `ilqljax.rl.algorithms`; progress goes to stderr.

    Args:
        name: of the algorithm.
        model: the networks.
        dataset: what is learned from.
        config: how.
        seed: of the parameters and the batches' order.
        trunk: a language model to start from; random where absent.
        networks: (params, target) that a critic starts from instead.
        watch: called with the step, the parameters and the targets, at step 0, every `watch_every` steps and the last.

    Returns:
        `{"params", "target"}`, as `ilqljax.decoding.policy.TextPolicy` takes them.

    Raises:
        UserError: an algorithm without a critic was given networks, or one of its options is unknown or out of range.
        NonFiniteLossError: the loss of a step is NaN or infinite.
    """
    learner = make_learner(name, model, config.loss)
    optimizer = make_optimizer(
        OptimConfig(
            optimizer=config.optimizer,
            lr=config.lr,
            schedule="cosine",
            warmup_steps=config.steps // 20,
            total_steps=config.steps,
            end_lr_fraction=0.1,
            max_grad_norm=1.0,
        )
    )
    state = init_learner_state(learner, optimizer=optimizer, key=jax.random.key(seed), trunk=trunk, networks=networks)
    rows = learner.arrange(dataset).apply(dataset)
    step_fn = jax.jit(
        make_train_step(
            learner.loss_fn,
            optimizer,
            target=TargetConfig(polyak=config.polyak),
            group_size=rows.group_size,
            unreached=find_unreached(learner, state),
            counts=expect_counts(rows, batch_size=config.batch_size) if config.sort_window > 1 else None,
        ),
        donate_argnums=0,
    )
    loader = make_train_loader(
        rows,
        batch_size=config.batch_size,
        seed=seed,
        length_buckets=config.length_buckets,
        action_buckets=config.action_buckets,
        sort_window=config.sort_window,
    )
    if watch:
        watch(0, select_acting_params(state), state.target)
    delayed = DelayedMetrics()
    with ProgressBar(config.steps, description=name) as bar:

        def record(fetched: tuple[int, dict[str, float]] | None) -> None:
            if fetched is not None:
                bar.update(fetched[0], tokens=int(fetched[1]["tokens"]), loss=fetched[1]["loss"])

        for step in range(1, config.steps + 1):
            state, metrics = step_fn(state, next(loader))
            record(delayed.push(step, metrics))
            if watch is not None and watch_every > 0 and (step % watch_every == 0 or step == config.steps):
                record(delayed.flush())
                watch(step, select_acting_params(state), state.target)
        record(delayed.flush())
    return {"params": select_acting_params(state), "target": state.target}
