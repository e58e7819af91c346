"""Open a run, act with its policies and judge them again."""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax

from ilqljax.config import BuildContext, build
from ilqljax.data.dataset import ListRLDataset
from ilqljax.decoding.policy import check_choice
from ilqljax.errors import UserError
from ilqljax.models.builders import BuiltModel
from ilqljax.rl.algorithms import init_learner_state, make_learner, select_acting_params
from ilqljax.rl.optim import make_optimizer
from ilqljax.training.checkpoint import CheckpointStore
from ilqljax.training.policies import Trained, evaluate_policies, load_transform
from ilqljax.training.run_config import RunConfig
from ilqljax.training.runs import open_run_config


def load_policies(config: RunConfig, built: BuiltModel, run_dir: Path) -> dict[str, Trained]:
    """Restore every stage's networks from a run's checkpoints, without their optimizer states."""
    policies = {}
    for name, settings in (("bc", config.pretrain), (config.algorithm, config.train)):
        store = CheckpointStore(run_dir / "checkpoints" / name)
        if store.latest_step() is None:
            continue
        learner = make_learner(name, built.model, settings.loss)
        init = partial(init_learner_state, learner, optimizer=make_optimizer(settings))
        # Orbax restores onto shapes; only a key must be a real one, which says its generator.
        template = jax.eval_shape(lambda init=init: init(key=jax.random.key(0)))._replace(key=jax.random.key(0))
        best = settings.select == "best" and store.best_step() is not None
        state, _, _ = store.restore(template, step="best" if best else "last")
        transform = load_transform(run_dir, name, learner)
        policies[name] = Trained(learner, transform, select_acting_params(state), state.target)
    if not policies:
        raise UserError(f"{run_dir} has no complete checkpoint yet. Wait for the first one, or resume the run.")
    return policies


class OpenRun(NamedTuple):
    """A run read back: its folder, config, model and the networks of its policies by name."""

    folder: Path
    config: RunConfig
    built: BuiltModel
    context: BuildContext
    policies: dict[str, Trained]

    def select_policy(self, name: str = "") -> Trained:
        """Return a policy by name, "" for that of the run's algorithm; raise a `UserError` if it has none of it."""
        return self.policies[self.name_policy(name)]

    def name_policy(self, name: str = "") -> str:
        """Return the name of the policy that `select_policy` returns, with its error."""
        name = name or list(self.policies)[-1]
        if name not in self.policies:
            raise UserError(f"{self.folder} has no checkpoint of {name!r}. It has {', '.join(self.policies)}.")
        return name

    def build_section(self, name: str) -> Any:
        """Build the section of that name; raise a `UserError` if the run's task has none."""
        if name not in self.config.objects:
            raise UserError(
                f"{self.folder} is a run of the task {self.config.task!r}, which has no {name!r}. Give another."
            )
        return self.context.build(name)


def open_run(run_dir: str | Path, *, imports: tuple[str, ...] = ()) -> OpenRun:
    """Open a finished or interrupted run with the tokenizer and the checkpoints that it saved.

    Args:
        run_dir: its folder.
        imports: files and modules of the run's task, where it is not installed (`config.imports`). What the run itself
            names is code of whoever trained it, and is imported only if it is given here too.

    Raises:
        UserError: the folder holds no run, or no complete checkpoint, or its task must be imported.
    """
    folder, config = open_run_config(run_dir, imports=imports)
    # The saved tokenizer, not one trained again: ids must mean what they meant.
    saved = {"name": "saved", "path": str(folder / "tokenizer")}
    config = dataclasses.replace(config, objects={**config.objects, "tokenizer": saved})
    context = config.make_context()
    built = context.build("model")
    return OpenRun(folder, config, built, context, load_policies(config, built, folder))


def build_rows(run: OpenRun, section: str, *, split: str = "") -> ListRLDataset:
    """Build rows of a run's own data with the tokenizer that it saved.

    Args:
        run: the run.
        section: of its config, such as "validation_dataset".
        split: another split than the section's own; "" leaves it.
    """
    objects = run.config.objects
    if section not in objects or not section.endswith("dataset"):
        known = ", ".join(name for name in objects if name.endswith("dataset"))
        raise UserError(f"{run.folder}: the config has no dataset section {section!r}. It has {known}.")
    if split and "split" not in objects[section]:
        raise UserError(f"{run.folder}: config.{section} has no splits. Leave split={split!r} out.")
    settings = {**objects[section], **({"split": split} if split else {})}
    dataset = build("dataset", settings, context=run.context, path=f"config.{section}")
    if not isinstance(dataset, ListRLDataset):
        raise UserError(f"{run.folder}: config.{section} is a stream. Choose a section with a fixed list of rows.")
    return dataset


def evaluate_run(
    run_dir: str | Path,
    *,
    out_dir: str | Path = "",
    overrides: dict[str, Any] | None = None,
    imports: tuple[str, ...] = (),
) -> Path:
    """Judge a finished or interrupted run again.

    Args:
        run_dir: its folder.
        out_dir: where results go; "" is the run's folder.
        overrides: options of `config.decode` to change.
        imports: as of `open_run`.

    Returns:
        The folder with the results.

    Raises:
        UserError: there is no such run, or its critic is asked to choose and cannot (`check_choice`).
    """
    run = open_run(run_dir, imports=imports)
    config = dataclasses.replace(run.config, decode=dataclasses.replace(run.config.decode, **(overrides or {})))
    for learner in (trained.learner for trained in run.policies.values()):
        if learner.algorithm.has_critic:
            check_choice(config.decode, level=learner.algorithm.level, frozen=not learner.trains_policy())
    judge = run.build_section("evaluator")
    out = Path(out_dir) if out_dir else run.folder
    out.mkdir(parents=True, exist_ok=True)
    evaluate_policies(config, run.built, run.policies, judge=judge, out_dir=out)
    return out
