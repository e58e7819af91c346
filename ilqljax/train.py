"""Train a policy: `python -m ilqljax.train --config configs/workable.py`.

Read from top to bottom this is the whole program: settle the config, build the objects it names, clone the data's
behaviour (BC), train the algorithm (ILQL unless told otherwise), and judge the result. Each training is one call of
`train_stage`; whatever differs between algorithms is in `ilqljax.algorithms`.
"""

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jax
from absl import app, flags
from ml_collections import ConfigDict, config_flags

import ilqljax.tasks.objects  # noqa: F401  (registers the tasks' objects)
from ilqljax.algorithms import Learner, find_unreached, init_learner_state, make_learner
from ilqljax.checkpoint import CheckpointStore
from ilqljax.cli import run_main
from ilqljax.config import BuildContext, build, from_section
from ilqljax.data.loader import make_train_loader
from ilqljax.errors import UserError
from ilqljax.evaluate import evaluate_policies, export_policy, make_policy
from ilqljax.evals.loss import evaluate_loss
from ilqljax.evals.rollout import evaluate_rollouts
from ilqljax.metrics import DelayedMetrics, JsonlWriter, MultiWriter, ProgressBar, TensorBoardWriter, WandbWriter
from ilqljax.models.builders import BuiltModel, count_parameters
from ilqljax.optim import OptimConfig, make_optimizer
from ilqljax.runs import make_run_dir, save_tokenizer
from ilqljax.sharding import MeshConfig, batch_sharding, check_batch_size, infer_param_shardings, make_mesh
from ilqljax.sharding import replicated_sharding, shard_batch
from ilqljax.state import TrainState
from ilqljax.steps import TargetConfig, make_eval_step, make_train_step


@dataclass(frozen=True)
class TrainConfig(OptimConfig):
    """How long, on what batches and with what optimizer one stage trains; `total_steps` 0 skips it.

    Attributes:
        batch_size: rows of a step over all devices and microbatches.
        accumulate_steps: microbatches that a step is computed in.
        length_buckets: row lengths that batches are padded to.
        action_buckets: numbers of actions that batches are padded to; () is powers of two.
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
    eval_every: int = 500
    save_every: int = 500
    log_every: int = 10
    n_rollouts: int = 32
    select: str = "last"
    target: TargetConfig = TargetConfig()
    loss: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.select not in ("best", "last"):
            raise UserError(f"select={self.select!r} is unknown. Use 'best' or 'last'.")
        for name in ("eval_every", "save_every", "log_every", "batch_size", "accumulate_steps"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)} is not positive. Use 1 or more.")
        if self.batch_size % self.accumulate_steps:
            raise UserError(
                f"batch_size={self.batch_size} is not divisible by accumulate_steps={self.accumulate_steps}. "
                "Change one of the two."
            )


def train(config: ConfigDict) -> Path:
    """Run the whole program for a config and return the run's folder.

    Raises:
        UserError: anything that the user can put right; where possible before any work is done.
    """
    started = time.monotonic()
    pretrain = from_section(TrainConfig, config.pretrain, path="config.pretrain")
    main = from_section(TrainConfig, config.train, path="config.train")
    mesh = make_mesh(from_section(MeshConfig, config.mesh, path="config.mesh"))
    for stage in (pretrain, main):
        check_batch_size(stage.batch_size // stage.accumulate_steps, mesh)
    run_dir = make_run_dir(config)

    context = BuildContext({"run_dir": run_dir, "seed": config.seed})
    built: BuiltModel = build("model", config.model, context=context, path="config.model")
    datasets = {
        name: build("dataset", config[name], context=context, path=f"config.{name}")
        for name in ("pretrain_dataset", "dataset", "validation_dataset")
    }
    make_environment = build("environment", config.environment, context=context, path="config.environment")
    judge = build("evaluator", config.evaluator, context=context, path="config.evaluator")
    learner = make_learner(config.algorithm, built.model, main.loss)
    cloner = make_learner("bc", built.model, pretrain.loss, path="config.pretrain.loss")
    save_tokenizer(run_dir, built.tokenizer)
    say(f"run folder: {run_dir}")

    def run(name: str, learner: Learner, settings: TrainConfig, dataset: object, trunk: dict | None) -> TrainState:
        return train_stage(
            name,
            learner,
            settings,
            config=config,
            built=built,
            dataset=dataset,
            validation=datasets["validation_dataset"],
            environments=[make_environment(i) for i in range(settings.n_rollouts)],
            mesh=mesh,
            run_dir=run_dir,
            trunk=trunk,
        )

    policies = {}
    trunk = built.pretrained
    if pretrain.total_steps:
        trunk = run("bc", cloner, pretrain, datasets["pretrain_dataset"], trunk).params["policy"]
        policies["bc"] = {"params": {"policy": trunk}, "target": {}}
    if main.total_steps:
        state = run(config.algorithm, learner, main, datasets["dataset"], trunk)
        policies[config.algorithm] = {"params": {**state.params, **state.frozen}, "target": state.target}
    if not policies:
        raise UserError("config.pretrain.total_steps and config.train.total_steps are both 0: there is nothing to do.")
    export_policy(run_dir, built, policies)
    evaluate_policies(config, built, policies, judge=judge, run_dir=run_dir)
    say(f"everything is in {run_dir} (total {time.monotonic() - started:.0f} s, peak memory {peak_memory_gb():.2f} GB)")
    return run_dir


def train_stage(
    name: str,
    learner: Learner,
    settings: TrainConfig,
    *,
    config: ConfigDict,
    built: BuiltModel,
    dataset: object,
    validation: object,
    environments: Sequence,
    mesh: jax.sharding.Mesh,
    run_dir: Path,
    trunk: dict | None,
) -> TrainState:
    """Train one algorithm and return the state of the selected checkpoint; continues where its checkpoints end."""
    optimizer = make_optimizer(settings)
    key = jax.random.fold_in(jax.random.key(config.seed), sum(name.encode()))

    def init() -> TrainState:
        return init_learner_state(learner, built.model, optimizer=optimizer, key=key, trunk=trunk)

    shardings = infer_param_shardings(jax.eval_shape(init), mesh)
    state = jax.device_put(init(), shardings)
    template = state
    replicated = replicated_sharding(mesh)
    step_fn = jax.jit(
        make_train_step(
            learner.loss_fn,
            optimizer,
            target=settings.target,
            accumulate_steps=settings.accumulate_steps,
            dropout=built.model.backbone.config.dropout > 0,
            unreached=find_unreached(learner, built.model, state),
        ),
        donate_argnums=0,
        in_shardings=(shardings, batch_sharding(mesh)),
        out_shardings=(shardings, replicated),
    )
    eval_fn = jax.jit(make_eval_step(learner.loss_fn), out_shardings=replicated)
    buckets = {"length_buckets": settings.length_buckets, "action_buckets": settings.action_buckets}
    loader = make_train_loader(
        dataset,
        batch_size=settings.batch_size,
        seed=config.seed,
        n_hosts=jax.process_count(),
        host=jax.process_index(),
        **buckets,
    )
    has_critic = learner.algorithm.has_critic
    by_return = has_critic and bool(environments)
    store = CheckpointStore(
        run_dir / "checkpoints" / name,
        metric_name="return" if by_return else "validation_loss",
        mode="max" if by_return else "min",
    )
    start = 0
    if store.latest_step() is not None:
        state, extra, start = store.restore(template)
        loader.set_state(extra["loader"])
        say(f"{name}: continuing from step {start}")

    def evaluate(state: TrainState) -> dict[str, float]:
        losses = evaluate_loss(eval_fn, state, validation, mesh=mesh, batch_size=settings.batch_size, **buckets)
        results = {f"validation/{k}": v for k, v in losses.items()}
        if environments:
            params = {**state.params, **state.frozen}
            policy = make_policy(config, built, params=params, target=state.target, critic=has_critic)
            results |= {f"rollout/{k}": v for k, v in evaluate_rollouts(environments, policy).items()}
        return results

    say(
        f"{name}: {count_parameters(state.params):,} parameters, {start}/{settings.total_steps} steps done, "
        f"{dict(mesh.shape)} devices"
    )
    with (
        store,
        open_writers(config, run_dir, name, resume_step=start) as writer,
        ProgressBar(settings.total_steps, initial=start, description=name) as bar,
    ):
        delayed = DelayedMetrics()

        def record(fetched: tuple[int, dict[str, float]] | None) -> None:
            if fetched is None:
                return
            step, metrics = fetched
            bar.update(step, tokens=int(metrics["tokens"]), loss=metrics["loss"])
            if step % settings.log_every == 0 or step == settings.total_steps:
                writer.write(step, {f"train/{k}": v for k, v in metrics.items()})

        for step in range(start + 1, settings.total_steps + 1):
            batch = shard_batch(next(loader), mesh)
            state, metrics = step_fn(state, batch)
            record(delayed.push(step, metrics))
            last = step == settings.total_steps
            evaluating = step % settings.eval_every == 0 or last
            if evaluating or step % settings.save_every == 0:
                # A state whose loss is not finite must stop the run before it is saved over a good one.
                record(delayed.flush())
                results = evaluate(state) if evaluating else {}
                if results:
                    writer.write(step, results)
                    bar.message(f"{name} step {step}: " + ", ".join(f"{k} {v:.4g}" for k, v in brief(results)))
                metric = results.get("rollout/return" if by_return else "validation/loss")
                store.save(step, state, {"loader": loader.get_state()}, metric=metric)
        store.wait()
        if settings.select == "best" and store.best_step() is not None:
            state, _, _ = store.restore(template, step="best")
    return state


def brief(results: dict[str, float]) -> list[tuple[str, float]]:
    """Pick what is worth a line on the terminal."""
    wanted = ("validation/loss", "rollout/return", "rollout/return_standard_error")
    return [(name, results[name]) for name in wanted if name in results]


def open_writers(config: ConfigDict, run_dir: Path, name: str, *, resume_step: int) -> MultiWriter:
    """Open a stage's metric writers: JSONL and TensorBoard always, W&B when asked; only on the first host."""
    if jax.process_index() != 0:
        return MultiWriter([])
    folder = run_dir / "metrics" / name
    resumed = resume_step or None
    writers = [
        JsonlWriter(folder / "metrics.jsonl", resume_step=resumed),
        TensorBoardWriter(folder, resume_step=resumed),
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
    """Tell the user something, once however many hosts there are."""
    if jax.process_index() == 0:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def peak_memory_gb() -> float:
    """Return the largest memory this process had, in GB (10^9 bytes)."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main() -> None:
    """Read the flags and train."""
    config_flag = config_flags.DEFINE_config_file("config", None, "A file of configs/, such as configs/workable.py:bc")
    flags.mark_flag_as_required("config")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    app.run(lambda argv: run_main(lambda: train(config_flag.value)))


if __name__ == "__main__":
    main()
