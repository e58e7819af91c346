"""The training loop, the only one: an algorithm's loss over a dataset until its steps are done.

`ilqljax.train.run_stage` runs it with checkpoints and writers, `ilqljax.training.fit` in memory. Checkpoints hold the
whole state and the loader's position, so that a killed stage continues as if nothing had been; metrics are fetched one
step late, so that the loop never waits for the device.
"""

import contextlib
import io
import json
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ilqljax.data.dataset import ROUNDING, ListRLDataset, RLDataset
from ilqljax.data.loader import eval_batches, expect_counts, make_train_loader
from ilqljax.data.pages import clean_text
from ilqljax.data.transforms import Transform
from ilqljax.data.types import Array
from ilqljax.errors import Interrupted, UserError
from ilqljax.models.builders import count_parameters
from ilqljax.rl.algorithms import Learner, find_unreached, init_learner_state
from ilqljax.rl.optim import make_optimizer
from ilqljax.rl.steps import TrainState, are_finite, make_eval_step, make_train_step
from ilqljax.training.compilation import CompilationCounter, count_product_flops
from ilqljax.training.ending import Ending
from ilqljax.training.evaluation import evaluate_loss
from ilqljax.training.hidden_states import with_hidden_states
from ilqljax.training.mesh import batch_sharding, infer_param_shardings, shard_batch, trace_on
from ilqljax.training.metrics import MetricWriter, NonFiniteError, ProgressBar, Recorder
from ilqljax.training.processes import broadcast_from_leader, check_same, is_first_process
from ilqljax.training.run_config import TrainConfig
from ilqljax.training.validation import Patience, Returns, describe_shortfall, has_risen, measure_returns

logger = logging.getLogger(__name__)
EMPTY_SHARE = 0.01  # rows without an action are warned of from this share on
SHOWN = ("train/loss", "validation/loss", "rollout/return", "rollout/return_standard_error")  # on the terminal


class Stage(NamedTuple):
    """One training, settled: the algorithm, its settings, and its rows as it wants them.

    Attributes:
        name: of its folders, and in front of its progress.
        transform: what the algorithm made of the training rows.
        validation: rows whose mean loss is watched; None for none.
    """

    name: str
    learner: Learner
    settings: TrainConfig
    transform: Transform
    rows: RLDataset
    validation: ListRLDataset | None = None

    @property
    def best_is_return(self) -> bool:
        """Whether the best checkpoint has the highest return: only a clone is as good as its validation loss is low."""
        algorithm = self.learner.algorithm
        return (algorithm.has_critic or algorithm.has_reference) and self.settings.n_rollouts > 0

    @property
    def is_clone(self) -> bool:
        """Whether the policy is to act as its data do, not better."""
        algorithm = self.learner.algorithm
        return not (algorithm.has_critic or algorithm.has_reference) and type(self.transform) is Transform

    @property
    def batching(self) -> dict[str, Any]:
        """How rows come in batches, and which of them are this process's, as loaders take it."""
        settings = self.settings
        return {
            "batch_size": settings.batch_size,
            "length_buckets": settings.length_buckets,
            "action_buckets": settings.action_buckets,
            "n_hosts": jax.process_count(),
            "host": jax.process_index(),
        }


class Start(NamedTuple):
    """What a stage starts from: a language model's trunk, random where absent, or a critic's (params, target)."""

    trunk: dict | None = None
    networks: tuple[dict, dict] | None = None


class Store(Protocol):
    """Where a stage keeps its states: `checkpoint.CheckpointStore`, or that of `fit`."""

    def latest_step(self) -> int | None: ...
    def best_step(self) -> int | None: ...
    def restore(self, template: Any, *, step: str = "last") -> tuple[Any, dict[str, Any], int]: ...
    def check_metrics(self) -> None: ...
    def save(self, step: int, state: Any, extra: dict[str, Any], *, metric: float | None = None) -> None: ...
    def amend(self, step: int, extra: dict[str, Any], *, metric: float | None = None) -> None: ...
    def wait(self) -> None: ...


def make_stage(
    name: str, learner: Learner, settings: TrainConfig, rows: RLDataset, validation: ListRLDataset | None = None
) -> Stage:
    """Fit an algorithm's transform to its training rows, and apply it to them and to the validation rows.

    Rows that are not what the algorithm needs or fit no bucket, a microbatch that would tear a group of rows apart, a
    stream that is to be sorted, and stopping early without anything to evaluate are a `UserError`.
    """
    if settings.stop_after and validation is None and not settings.n_rollouts:
        raise UserError(f"stop_after={settings.stop_after} needs something to evaluate. Give validation rows.")
    transform = learner.algorithm.transform.fit(rows, learner.config)
    transformed = transform.apply(rows)
    size = settings.batch_size // settings.accumulate_steps
    if size % transformed.group_size:
        raise UserError(
            f"batch_size={settings.batch_size} in accumulate_steps={settings.accumulate_steps} gives microbatches of "
            f"{size} rows, and rows come in groups of {transformed.group_size}. Make it a multiple of that."
        )
    if settings.sort_window > 1 and not isinstance(transformed, ListRLDataset):
        raise UserError(
            f"sort_window={settings.sort_window} sorts rows by length, and a stream has none beforehand. Use 1."
        )
    watched = None if validation is None else transform.apply(validation)
    stage = Stage(name, learner, settings, transform, transformed, watched)
    if (transformed.reward_shift, transformed.reward_scale) != (0.0, 1.0):
        applied = "%s: rewards are those of the dialogues less %.6g, times %.6g"
        logger.info(applied, name, transformed.reward_shift, transformed.reward_scale)
    if isinstance(rows, ListRLDataset) and (fault := transform.find_fault(rows)):
        logger.warning("%s: %s", name, fault)
    # A row that fits no bucket must stop the run here, not after the stage before it.
    for data in (transformed, watched):
        if isinstance(data, ListRLDataset):
            eval_batches(data, **stage.batching)
    if isinstance(transformed, ListRLDataset):
        check_teaching(stage.name, transformed, critic=learner.algorithm.has_critic)
    return stage


def check_teaching(name: str, rows: ListRLDataset, *, critic: bool) -> None:
    """Refuse rows of which none holds anything to learn, and warn of many, or of rewards that tell nothing apart."""
    n, n_empty = rows.size(), int((rows.row_sizes[:, 1] == 0).sum())
    if n_empty and n_empty >= EMPTY_SHARE * n:
        found = f"{name}: {n_empty} of {n} rows hold no token of the agent's to learn from"
        cause = (
            "Are the roles swapped, or the agent's texts cut away by max_length? The agent's are those with a reward."
        )
        if n_empty == n:
            raise UserError(f"{found}. {cause}")
        logger.warning("%s. %s", found, cause)
    if critic and n > 1:
        returns = (float(rows.get_item(i).rewards.sum()) for i in range(n))  # read until two differ
        first = next(returns)
        if all(abs(other - first) <= ROUNDING * max(abs(other), abs(first)) for other in returns):
            advice = "a critic finds nothing to prefer in them. Check the rewards, or clone (bc)."
            logger.warning("%s: all %d rows have the same return: %s", name, n, advice)


def compile_stage(
    stage: Stage, *, key: Array, mesh: Mesh, start: Start
) -> tuple[TrainState, TrainState, Callable, Callable, Callable]:
    """Create the sharded state on the mesh and compile what the loop calls.

    Returns the state, what checkpoints are read into, the step, the evaluation's step, and whether a state is finite.
    """
    learner, settings = stage.learner, stage.settings
    optimizer = make_optimizer(settings)

    def init(key: Array, trunk: dict | None, networks: tuple[dict, dict] | None) -> TrainState:
        return init_learner_state(learner, optimizer=optimizer, key=key, trunk=trunk, networks=networks)

    shapes = jax.eval_shape(init, key, *start)
    shardings = infer_param_shardings(shapes, mesh)
    state = jax.jit(init, out_shardings=shardings)(key, *start)
    # `state` itself is donated to the steps.
    template = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)
    template = template._replace(key=jax.jit(lambda: jax.random.key(0), out_shardings=shardings.key)())
    replicated = NamedSharding(mesh, PartitionSpec())  # on every device whole
    step = make_train_step(
        learner.loss_fn,
        optimizer,
        target=settings.target,
        accumulate_steps=settings.accumulate_steps,
        group_size=stage.rows.group_size,
        dropout=learner.model.backbone.config.dropout > 0,
        unreached=find_unreached(learner, state),
        counts=expect_counts(stage.rows, batch_size=settings.batch_size) if settings.sort_window > 1 else None,
    )
    shardings_in, shardings_out = (shardings, batch_sharding(mesh)), (shardings, replicated)
    step = jax.jit(trace_on(mesh, step), donate_argnums=0, in_shardings=shardings_in, out_shardings=shardings_out)
    evaluate = jax.jit(trace_on(mesh, make_eval_step(learner.loss_fn)), out_shardings=replicated)
    is_finite = jax.jit(are_finite, out_shardings=replicated)  # replicated: all processes come to one decision
    return state, template, step, evaluate, is_finite


def bring_hidden_states(stage: Stage, state: TrainState) -> Stage:
    """Let rows bring the hidden states of what stays as it is of a value trunk, so that it is run over them once.

    A stream has no rows to keep them of, and with many processes none has the trunk whole: there it runs at every step.
    """
    learner = stage.learner
    if not (stage.settings.keep_hidden and learner.reads_frozen_trunk() and isinstance(stage.rows, ListRLDataset)):
        return stage
    if jax.process_count() > 1:
        return stage
    say(f"{stage.name}: hidden states of {stage.rows.size()} rows")
    datasets = [data for data in (stage.rows, stage.validation) if data is not None]
    rows, *watched = with_hidden_states(learner.model, state.frozen["base"], *datasets)
    return stage._replace(rows=rows, validation=watched[0] if watched else None)


def train_stage(
    stage: Stage,
    *,
    key: Array,
    seed: int,
    mesh: Mesh,
    store: Store,
    open_writers: Callable[[int], Sequence[MetricWriter]],
    start: Start = Start(),  # noqa: B008  (immutable)
    play: Callable[[TrainState], dict[str, float]] | None = None,
    on_restored: Callable[[], object] = lambda: None,
    watch: Callable[[int, TrainState], bool | None] | None = None,
    watch_every: int = 0,
    ending: Ending | None = None,
) -> TrainState:
    """Train one algorithm and return the state of the selected checkpoint; continues where the store's states end.

    Args:
        key: of the first parameters and of every step's randomness.
        seed: of the batches' order.
        open_writers: from the step that the stage continues at to those that are told the metrics.
        start: what the networks start from.
        play: from a state to the metrics of its policy's rollouts, at each evaluation.
        on_restored: called before the first step, when the states that are there have been found to fit.
        watch: called with the step and the state, at the first step, every `watch_every` steps and the last; the
            state's arrays are gone after the call. Where it returns True the training ends.
        watch_every: steps between these calls; 0 is only the first and the last.
        ending: asks the training to end; it then saves the step it has finished.

    Raises:
        Interrupted: the training was asked to end.
        NonFiniteError: the loss, or a state that was to be saved, is NaN or infinite; nothing is saved from then on.
        UserError: a checkpoint in the store is of another shape, the data changed under it, or processes have other
            data than the first.
    """
    settings, ending = stage.settings, ending or Ending()
    state, template, step_fn, eval_fn, finite_fn = compile_stage(stage, key=key, mesh=mesh, start=start)
    with ending.losing(f"the preparation of {stage.name}"):
        stage = bring_hidden_states(stage, state)
    loader = make_train_loader(stage.rows, seed=seed, sort_window=settings.sort_window, **stage.batching)
    check_same(json.dumps(loader.get_state()), what="training rows")
    first, extra = 0, {}
    patience, results = Patience(), {}
    if broadcast_from_leader(store.latest_step) is not None:
        state, extra, first = store.restore(template)
        loader.set_state(extra["loader"])
        patience = Patience.from_json(extra.get("patience", {}))
        if first < settings.total_steps:  # there will be a save
            store.check_metrics()
        say(f"{stage.name}: continuing from step {first}")
    on_restored()

    def evaluate(step: int, state: TrainState) -> float | None:
        """Record an evaluation, and return the metric that ranks the step; a request to end breaks it off."""
        nonlocal results
        losses = {}
        # What all processes compute together cannot be left by one of them.
        with ending.losing("an evaluation") if jax.process_count() == 1 else contextlib.nullcontext():
            if stage.validation is not None:
                losses = evaluate_loss(eval_fn, state, stage.validation, mesh=mesh, **stage.batching)
            found = {f"validation/{k}": v for k, v in losses.items()}
            found |= {f"rollout/{k}": v for k, v in (play(state) if play else {}).items()}
        if found:
            recorder.write(step, found)
            beside = found | recorder.take_mean_loss()
            shown = ", ".join(f"{name} {beside[name]:.4g}" for name in SHOWN if name in beside)
            bar.message(f"{stage.name} step {step}: {shown}")
        metric = found.get("rollout/return" if stage.best_is_return else "validation/loss")
        patience.count(step, metric, maximise=stage.best_is_return)
        if settings.select == "last" or patience.best_step == step:
            results = found
        return metric

    def is_enough() -> bool:
        return 0 < settings.stop_after <= patience.n_worse

    done = f"{first}/{settings.total_steps} steps done"
    say(f"{stage.name}: {count_parameters(state.params):,} parameters, {done}, {dict(mesh.shape)} devices")
    flops: dict[tuple[tuple[int, ...], ...], float] = {}  # operations of a step's products, by its batch's shape
    stream = None if is_first_process() else io.StringIO()
    bar = ProgressBar(settings.total_steps, stage.name, initial=first, stream=stream)
    with CompilationCounter() as compilations, contextlib.ExitStack() as opened, bar:
        writers = [opened.enter_context(contextlib.closing(writer)) for writer in open_writers(first)]
        recorder = Recorder(settings, writers=writers, bar=bar, compilations=compilations)
        if jax.process_count() > 1:  # no process ends alone
            opened.enter_context(ending.deferred())
        if watch is not None:
            watch(first, state)
        if extra.get("unevaluated"):  # the process was asked to end before it was
            metric = evaluate(first, state)
            store.amend(first, {"unevaluated": False, "patience": patience.to_json()}, metric=metric)
        for step in range(first + 1, 1 + (first if is_enough() else settings.total_steps)):
            asked = time.monotonic()
            rows = next(loader)
            waited = time.monotonic() - asked
            batch = shard_batch(rows, mesh)
            shape = tuple(x.shape for x in jax.tree.leaves(batch))
            if shape not in flops:
                flops[shape] = count_product_flops(step_fn, state, batch)
            state, metrics = step_fn(state, batch)
            if step == first + 1:  # from here on there is something to save; the first step may compile for long
                opened.enter_context(ending.deferred())
            recorder.push(step, metrics | {"data_wait": waited, "flops": flops[shape]})
            last = step == settings.total_steps
            if watch is not None and (last or (watch_every and step % watch_every == 0)):
                recorder.flush()
                last = bool(watch(step, state)) or last
            evaluating, asked_to_end = step % settings.eval_every == 0 or last, ending.reached()
            if evaluating or asked_to_end or step % settings.save_every == 0:
                # A state that is not finite must stop the run before it is saved over a good one. The step's loss does
                # not tell: it is that of the parameters before the update.
                recorder.flush()
                if not finite_fn(state.params):
                    raise NonFiniteError(f"parameters are NaN or infinite after step {step}")
                metric, unevaluated = None, evaluating
                if evaluating and not asked_to_end:
                    with contextlib.suppress(Interrupted):
                        metric, unevaluated = evaluate(step, state), False
                extra = {"loader": loader.get_state(), "patience": patience.to_json()}
                extra |= {"unevaluated": True} if unevaluated else {}
                store.save(step, state, extra, metric=metric)
                if asked_to_end or unevaluated:
                    store.wait()
                    ending.check()
                recorder.pace.restart()
                if is_enough() and not last:
                    last = True
                    bar.message(
                        f"{stage.name} ends at step {step}, {patience.n_worse} evaluations after its best at step "
                        f"{patience.best_step} (stop_after={settings.stop_after})"
                    )
                    if watch is not None and not (watch_every and step % watch_every == 0):
                        watch(step, state)
            if last:
                break
        store.wait()
        report_end(stage, patience, results)
        if settings.select == "best" and store.best_step() is not None:
            state, _, _ = store.restore(template, step="best")
    return state


def report_end(stage: Stage, patience: Patience, results: Mapping[str, float]) -> None:
    """Say where the last networks overfit and are kept, and warn where a clone's rollouts are worse than its data."""
    is_likelihood = not stage.learner.algorithm.has_critic and not stage.best_is_return
    if is_likelihood and stage.settings.select == "last" and has_risen(patience):
        say(
            f"{stage.name}: the validation loss was {patience.best:.4g} at step {patience.best_step} and is "
            f"{patience.last:.4g} now; select='best' takes the networks of that step"
        )
    if stage.is_clone and "rollout/return" in results and is_first_process():
        played = Returns(results["rollout/return"], results["rollout/return_standard_error"])
        if shortfall := describe_shortfall(played, measure_returns(stage.validation, stage.rows), patience):
            logger.warning("%s: %s", stage.name, shortfall)


def say(text: str) -> None:
    """Tell the user something, once however many processes there are."""
    if is_first_process():
        sys.stderr.write(clean_text(text) + "\n")
        sys.stderr.flush()
