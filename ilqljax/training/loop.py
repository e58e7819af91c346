"""One stage of training: an algorithm's loss, run over a dataset until its steps are done, with what keeps it safe.

Checkpoints hold the whole state and the loader's position, so that a killed stage continues as if nothing had been;
metrics are fetched one step late, so that the loop never waits for the device.
"""

import io
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ilqljax.data.dataset import ListRLDataset, RLDataset
from ilqljax.data.loader import expect_counts, make_train_loader
from ilqljax.envs.base import LanguageEnvironment, Policy
from ilqljax.errors import UserError
from ilqljax.models.builders import count_parameters
from ilqljax.rl.algorithms import Learner, find_unreached, init_learner_state
from ilqljax.rl.optim import OptimConfig, make_optimizer
from ilqljax.rl.state import TrainState, are_finite
from ilqljax.rl.steps import TargetConfig, make_eval_step, make_train_step
from ilqljax.training.checkpoint import CheckpointStore
from ilqljax.training.compilation import CompilationCounter
from ilqljax.training.flops import count_product_flops
from ilqljax.training.mesh import batch_sharding, infer_param_shardings, replicated_sharding, shard_batch
from ilqljax.training.metrics import (
    DelayedMetrics,
    JsonlWriter,
    MultiWriter,
    NonFiniteParamsError,
    Pace,
    ProgressBar,
    TensorBoardWriter,
    WandbWriter,
)
from ilqljax.training.processes import ask_first_process, check_same, gather_networks, is_first_process
from ilqljax.training.validation import evaluate_loss, evaluate_rollouts
from ilqljax.types import Array


@dataclass(frozen=True)
class TrainConfig(OptimConfig):
    """How long, on what batches and with what optimizer one stage trains; `total_steps` 0 skips it.

    Attributes:
        batch_size: rows of a step over all devices and microbatches.
        accumulate_steps: microbatches that a step is computed in.
        length_buckets: row lengths that batches are padded to.
        action_buckets: numbers of actions that batches are padded to; () is powers of two.
        sort_window: how many batches are sorted by length together, which saves padding. Above 1, losses divide by what
            a batch holds on average instead of what it holds, so that short rows weigh no more than others; the loss
            that is shown then rises and falls with the lengths of a batch. Not for streams.
        eval_every: steps between evaluations; there is always one at the end.
        save_every: steps between checkpoints; there is always one at the end.
        log_every: steps between records in the metrics.
        n_rollouts: environments that the policy acts in at each evaluation; 0 for none.
        select: which checkpoint the next stage and the final judgement use: "best" (validation loss for a policy,
            rollouts' return for a critic) or "last".
        target: how target networks follow.
        loss: the algorithm's options.
    """

    batch_size: int = 8
    accumulate_steps: int = 1
    length_buckets: tuple[int, ...] = (1024,)
    action_buckets: tuple[int, ...] = ()
    sort_window: int = 1
    eval_every: int = 500
    save_every: int = 500
    log_every: int = 10
    n_rollouts: int = 32
    select: str = "last"
    target: TargetConfig = field(default_factory=TargetConfig)
    loss: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.total_steps:  # a skipped stage needs no valid schedule
            super().__post_init__()
        if self.select not in ("best", "last"):
            raise UserError(f"select={self.select!r} is unknown. Use 'best' or 'last'.")
        for name in ("eval_every", "save_every", "log_every", "batch_size", "accumulate_steps", "sort_window"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)} is not positive. Use 1 or more.")
        if self.n_rollouts < 0:
            raise UserError(f"n_rollouts={self.n_rollouts} is negative. Use 0 for no rollouts, or more.")
        if not self.length_buckets:
            raise UserError("length_buckets is empty. List the row lengths to pad to, such as (128, 256).")
        if self.batch_size % self.accumulate_steps:
            raise UserError(
                f"batch_size={self.batch_size} is not divisible by accumulate_steps={self.accumulate_steps}. "
                "Change one of the two."
            )


class StageInputs(NamedTuple):
    """What a stage works on.

    Attributes:
        dataset: training rows.
        validation: rows whose mean loss is watched.
        make_environments: makes where the policy acts, `n_rollouts` of them, for each evaluation anew: what a generator
            of theirs draws then depends on no evaluation before, which a resumed run would not have had.
        make_policy: from a state, its networks whole in this process, to the policy that acts.
        trunk: a language model to start from; None is random.
        networks: (params, target) of a whole critic to start from instead; None begins with new heads.
    """

    dataset: RLDataset
    validation: ListRLDataset
    make_environments: Callable[[], Sequence[LanguageEnvironment]]
    make_policy: Callable[[TrainState], Policy]
    trunk: dict | None
    networks: tuple[dict, dict] | None = None


def train_stage(
    name: str,
    learner: Learner,
    settings: TrainConfig,
    inputs: StageInputs,
    *,
    config: ConfigDict,
    mesh: Mesh,
    run_dir: Path,
    on_restored: Callable[[], object] = lambda: None,
) -> TrainState:
    """Train one algorithm and return the state of the selected checkpoint; continues where its checkpoints end.

    Args:
        name: of the stage; names its folders.
        learner: the algorithm.
        settings: how long and how.
        inputs: data, environments, start.
        config: the run's config, for the seed and the writers.
        mesh: devices.
        run_dir: the run's folder.
        on_restored: called before the first step, when the checkpoints that are there have been found to fit.

    Raises:
        NonFiniteLossError: the loss is NaN or infinite; nothing is saved from then on.
        NonFiniteParamsError: a state that was to be saved is NaN or infinite; it is not.
        UserError: a checkpoint in the folder is of another shape, the data changed under it, or processes have other
            data than the first.
    """
    optimizer = make_optimizer(settings)
    key = jax.random.fold_in(jax.random.key(config.seed), sum(name.encode()))

    def init(key: Array, trunk: dict | None, networks: tuple[dict, dict] | None) -> TrainState:
        return init_learner_state(learner, optimizer=optimizer, key=key, trunk=trunk, networks=networks)

    shapes = jax.eval_shape(init, key, inputs.trunk, inputs.networks)
    shardings = infer_param_shardings(shapes, mesh)
    state = jax.jit(init, out_shardings=shardings)(key, inputs.trunk, inputs.networks)
    # What a checkpoint is read into; `state` itself is donated to the steps.
    template = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)
    template = template._replace(key=jax.jit(lambda: jax.random.key(0), out_shardings=shardings.key)())
    replicated = replicated_sharding(mesh)
    counts = expect_counts(inputs.dataset, batch_size=settings.batch_size) if settings.sort_window > 1 else None
    step_fn = jax.jit(
        make_train_step(
            learner.loss_fn,
            optimizer,
            target=settings.target,
            accumulate_steps=settings.accumulate_steps,
            group_size=inputs.dataset.group_size,
            dropout=learner.model.backbone.config.dropout > 0,
            unreached=find_unreached(learner, state),
            counts=counts,
        ),
        donate_argnums=0,
        in_shardings=(shardings, batch_sharding(mesh)),
        out_shardings=(shardings, replicated),
    )
    eval_fn = jax.jit(make_eval_step(learner.loss_fn), out_shardings=replicated)
    finite_fn = jax.jit(are_finite, out_shardings=replicated)  # replicated: all processes come to one decision
    buckets = {"length_buckets": settings.length_buckets, "action_buckets": settings.action_buckets}
    loader = make_train_loader(
        inputs.dataset,
        batch_size=settings.batch_size,
        seed=config.seed,
        n_hosts=jax.process_count(),
        host=jax.process_index(),
        sort_window=settings.sort_window,
        **buckets,
    )
    check_same(json.dumps(loader.get_state()), what="training rows")
    # A clone is as good as its likelihood; what was taught to prefer some answers is as good as its return.
    algorithm = learner.algorithm
    by_return = (algorithm.has_critic or algorithm.has_reference) and settings.n_rollouts > 0
    store = CheckpointStore(
        run_dir / "checkpoints" / name,
        metric_name="return" if by_return else "validation_loss",
        mode="max" if by_return else "min",
    )
    start = 0
    if store.latest_step() is not None:
        state, extra, start = store.restore(template)
        loader.set_state(extra["loader"])
        if start < settings.total_steps:  # there will be a save
            store.check_metrics()
        say(f"{name}: continuing from step {start}")
    on_restored()

    def evaluate(state: TrainState) -> dict[str, float]:
        losses = evaluate_loss(eval_fn, state, inputs.validation, mesh=mesh, batch_size=settings.batch_size, **buckets)
        results = {f"validation/{k}": v for k, v in losses.items()}
        if settings.n_rollouts:
            acting = gather_networks(state)
            # Once for all: a return that differed in its last digit would make another checkpoint the best one.
            played = ask_first_process(
                lambda: evaluate_rollouts(inputs.make_environments(), inputs.make_policy(acting))
            )
            results |= {f"rollout/{k}": v for k, v in played.items()}
        return results

    say(
        f"{name}: {count_parameters(state.params):,} parameters, {start}/{settings.total_steps} steps done, "
        f"{dict(mesh.shape)} devices"
    )
    # Operations of a step's products, by the shape of its batch.
    flops: dict[tuple[tuple[int, ...], ...], float] = {}
    with (
        store,
        CompilationCounter() as compilations,
        open_writers(config, run_dir, name, resume_step=start) as writer,
        ProgressBar(
            settings.total_steps,
            initial=start,
            description=name,
            stream=None if is_first_process() else io.StringIO(),
        ) as bar,
    ):
        delayed = DelayedMetrics()
        pace = Pace()

        def record(fetched: tuple[int, dict[str, float]] | None) -> None:
            if fetched is None:
                return
            step, metrics = fetched
            n_flops = metrics.pop("flops")
            bar.update(step, tokens=int(metrics["tokens"]), loss=metrics["loss"], flops=n_flops)
            pace.count(tokens=metrics["tokens"], waited=metrics.pop("data_wait"), flops=n_flops)
            if step % settings.log_every == 0 or step == settings.total_steps:
                found = metrics | pace.read() | compilations.read()
                writer.write(step, {f"train/{k}": v for k, v in found.items()})

        for step in range(start + 1, settings.total_steps + 1):
            asked = time.monotonic()
            rows = next(loader)
            waited = time.monotonic() - asked
            batch = shard_batch(rows, mesh)
            shape = tuple(x.shape for x in jax.tree.leaves(batch))
            if shape not in flops:
                flops[shape] = count_product_flops(step_fn, state, batch)
            state, metrics = step_fn(state, batch)
            metrics |= {"data_wait": waited, "flops": flops[shape]}
            record(delayed.push(step, metrics))
            last = step == settings.total_steps
            evaluating = step % settings.eval_every == 0 or last
            if evaluating or step % settings.save_every == 0:
                # A state that is not finite must stop the run before it is saved over a good one. The step's loss does
                # not tell: it is that of the parameters before the update.
                record(delayed.flush())
                if not finite_fn(state.params):
                    raise NonFiniteParamsError(step)
                results = evaluate(state) if evaluating else {}
                if results:
                    writer.write(step, results)
                    bar.message(f"{name} step {step}: " + ", ".join(f"{k} {v:.4g}" for k, v in brief(results)))
                metric = results.get("rollout/return" if by_return else "validation/loss")
                store.save(step, state, {"loader": loader.get_state()}, metric=metric)
                pace.restart()
        store.wait()
        if settings.select == "best" and store.best_step() is not None:
            state, _, _ = store.restore(template, step="best")
    return state


def brief(results: dict[str, float]) -> list[tuple[str, float]]:
    """Pick what is worth a line on the terminal."""
    wanted = ("validation/loss", "rollout/return", "rollout/return_standard_error")
    return [(name, results[name]) for name in wanted if name in results]


def open_writers(config: ConfigDict, run_dir: Path, name: str, *, resume_step: int) -> MultiWriter:
    """Open a stage's metric writers: JSONL and TensorBoard always, W&B when asked; only in the first process."""
    if not is_first_process():
        return MultiWriter([])
    folder = run_dir / "metrics" / name
    # Also from step 0: a run that was killed before its first checkpoint has written records that come again.
    writers = [
        JsonlWriter(folder / "metrics.jsonl", resume_step=resume_step),
        TensorBoardWriter(folder, resume_step=resume_step),
    ]
    if config.wandb.use_wandb:
        writers.append(
            WandbWriter(
                project=config.wandb.project,
                name=f"{run_dir.name}-{name}",
                directory=run_dir,
                config=config.to_dict(),
                mode=config.wandb.mode,
            )
        )
    return MultiWriter(writers)


def say(text: str) -> None:
    """Tell the user something, once however many processes there are."""
    if is_first_process():
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
