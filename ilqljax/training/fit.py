"""Train in memory, from Python: an algorithm by name, a model, a dataset."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax

from ilqljax.data.dataset import ListRLDataset, RLDataset
from ilqljax.models.value_lm import ValueLM
from ilqljax.rl.algorithms import make_learner, select_acting_params
from ilqljax.training.loop import Start, make_stage, train_stage
from ilqljax.training.mesh import MeshConfig, make_mesh
from ilqljax.training.run_config import TrainConfig


class Fitted(NamedTuple):
    """The online networks, the target networks ({} without a critic), and what was recorded on the way.

    A record of the curve has "step", and metrics such as "train/loss", "validation/loss".
    """

    params: dict
    target: dict
    curve: list[dict[str, float]]

    @property
    def networks(self) -> dict[str, dict]:
        """The networks as keywords of `ilqljax.decoding.policy.TextPolicy`."""
        return {"params": self.params, "target": self.target}


def fit(
    name: str,
    model: ValueLM,
    dataset: RLDataset,
    settings: TrainConfig,
    *,
    seed: int = 0,
    validation: ListRLDataset | None = None,
    trunk: dict | None = None,
    networks: tuple[dict, dict] | None = None,
    watch: Callable[[int, dict, dict], bool | None] | None = None,
    watch_every: int = 0,
) -> Fitted:
    """Train an algorithm of `ilqljax.rl.algorithms` on one device; progress goes to stderr.

    Args:
        settings: how long and how; `loss` holds the algorithm's options. `select="best"` returns the networks of the
            lowest validation loss.
        seed: of the parameters and the batches' order.
        validation: rows whose loss is evaluated every `settings.eval_every` steps.
        trunk: a language model to start from; random where absent.
        networks: (params, target) that a critic starts from instead.
        watch: called with the step, the parameters and the targets, at step 0, every `watch_every` steps and the last.
            Where it returns True the training ends.
        watch_every: steps between these calls.

    Raises:
        UserError: an algorithm without a critic was given networks, an option is wrong, or the rows do not suit it.
        NonFiniteError: the loss of a step is NaN or infinite.
    """
    settings, curve = replace(settings, n_rollouts=0), []
    stage = make_stage(name, make_learner(name, model, settings.loss), settings, dataset, validation)

    def write(step: int, metrics: Mapping[str, float]) -> None:
        curve.append({"step": step} | {name: float(value) for name, value in metrics.items()})

    state = train_stage(
        stage,
        key=jax.random.key(seed),
        seed=seed,
        mesh=make_mesh(MeshConfig(data=1)),
        store=_MemoryStore(keep_best=settings.select == "best"),
        open_writers=lambda first: [SimpleNamespace(write=write, close=lambda: None)],
        start=Start(trunk, networks),
        watch=watch and (lambda step, state: watch(step, select_acting_params(state), state.target)),
        watch_every=watch_every,
    )
    return Fitted(select_acting_params(state), state.target, curve)


class _MemoryStore:
    """Keep the state of the lowest metric, in the host's memory, where that is wanted; nothing else is kept."""

    def __init__(self, *, keep_best: bool) -> None:
        self.keep_best = keep_best
        self.best: tuple[float, int, Any] | None = None
        self.latest_step: Callable = lambda: None  # there is nothing from before
        self.check_metrics = self.wait = self.latest_step

    def best_step(self) -> int | None:
        return self.best and self.best[1]

    def save(self, step: int, state: Any, extra: dict[str, Any], *, metric: float | None = None) -> None:
        if self.keep_best and metric is not None and (self.best is None or metric <= self.best[0]):
            self.best = metric, step, jax.device_get(state._replace(key=jax.random.key_data(state.key)))

    def restore(self, template: Any, *, step: str = "last") -> tuple[Any, dict[str, Any], int]:
        _, best, state = self.best
        return state._replace(key=jax.random.wrap_key_data(state.key)), {}, best
