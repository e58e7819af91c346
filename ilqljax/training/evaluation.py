"""Open a run, act with its policies and judge them; training ends with it, `ilqljax evaluate` does it again."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
from ml_collections import ConfigDict

from ilqljax.config import BuildContext, build, from_section, load_config_json, load_tasks, save_config_json
from ilqljax.data.dataset import ListRLDataset
from ilqljax.data.files import save_text
from ilqljax.data.transforms import Arrangement
from ilqljax.decoding.options import DecodeConfig
from ilqljax.decoding.policy import TextPolicy, check_choice
from ilqljax.errors import UserError
from ilqljax.models.builders import BuiltModel
from ilqljax.models.io.networks import Networks, save_networks
from ilqljax.models.value_lm import policy_trunk
from ilqljax.rl.algorithms import Learner, init_learner_state, make_learner, select_acting_params
from ilqljax.rl.optim import make_optimizer
from ilqljax.training.checkpoint import CheckpointStore
from ilqljax.training.loop import TrainConfig
from ilqljax.training.processes import ask_first_process, is_first_process
from ilqljax.training.runs import load_run_config, save_json

ARRANGEMENTS = "arrangements"


class Trained(NamedTuple):
    """A trained policy: its algorithm, how dialogues are shown to it, and the networks that act."""

    learner: Learner
    arrangement: Arrangement
    params: dict
    target: dict


class PolicyMaker(Protocol):
    """Makes a trained policy by name; keywords override options of `DecodeConfig`."""

    def __call__(self, name: str, **overrides: Any) -> TextPolicy: ...


class Judge(Protocol):
    """A task's final judgement: acts with the policies, writes what they did into `out_dir`, returns a table."""

    def __call__(self, names: Sequence[str], make: PolicyMaker, *, out_dir: Path) -> tuple[list[dict], str]: ...


def make_policy(config: ConfigDict, built: BuiltModel, trained: Trained, **overrides: Any) -> TextPolicy:
    """Make a policy that acts as `config.decode` says.

    Without a critic there is no advantage: its weight is 0, and where samples are to be chosen by it, one is drawn.
    """
    decode = from_section(DecodeConfig, config.decode, path="config.decode")
    if not trained.learner.algorithm.has_critic:
        chosen = {"n_generations": 1} if decode.rank_by in ("advantage", "value") else {}
        overrides = {"beta": 0.0} | chosen | overrides
    return TextPolicy(
        trained.learner.model,
        dataclasses.replace(decode, **overrides),
        built.tokenizer,
        params=trained.params,
        target=trained.target,
        view=trained.arrangement.view,
        value_range=trained.learner.value_range,
        seed=config.seed,
        batch_size=config.acting.batch_size,
        length_buckets=tuple(config.acting.length_buckets),
    )


def evaluate_policies(
    config: ConfigDict, built: BuiltModel, policies: dict[str, Trained], *, judge: Judge, run_dir: Path
) -> None:
    """Judge trained policies, print the table and write it to `results.json` and `results.txt`.

    The first of several processes does so; the others wait.

    Args:
        config: the run's config.
        built: the model.
        policies: by the algorithm's name.
        judge: the task's evaluator.
        run_dir: where results go.
    """

    def make(name: str, **overrides: Any) -> TextPolicy:
        return make_policy(config, built, policies[name], **overrides)

    def act() -> None:
        rows, table = judge(list(policies), make, out_dir=run_dir)
        save_json(run_dir / "results.json", rows)
        save_text(run_dir / "results.txt", table + "\n")
        print(table, flush=True)

    ask_first_process(act)


def export_policy(directory: Path, built: BuiltModel, trained: Trained, *, critic: bool = False) -> None:
    """Write a policy's language model as a directory for transformers, with the tokenizer beside it.

    With `critic` the value heads and targets go there too, as `ilqljax.models.io.networks` describes.
    """
    if not is_first_process():
        return
    t = built.tokenizer
    ids = {"bos_token_id": t.bos_id, "eos_token_id": t.eoa_id, "pad_token_id": t.pad_id}
    networks = Networks(trained.learner.model, trained.params, trained.target)
    if not critic:
        networks = Networks(trained.learner.model, {"policy": policy_trunk(trained.params)}, {})
    save_networks(directory, networks, special_ids=ids)
    t.save(directory)


def load_policies(config: ConfigDict, built: BuiltModel, run_dir: Path) -> dict[str, Trained]:
    """Restore every stage's networks from a run's checkpoints, without their optimizer states.

    Raises:
        UserError: the run has no complete checkpoint.
    """
    policies = {}
    for name, section in (("bc", config.pretrain), (config.algorithm, config.train)):
        store = CheckpointStore(run_dir / "checkpoints" / name)
        if store.latest_step() is None:
            continue
        settings = from_section(TrainConfig, section, path="config")
        learner = make_learner(name, built.model, settings.loss)
        template = jax.eval_shape(
            lambda learner=learner, settings=settings: init_learner_state(
                learner, optimizer=make_optimizer(settings), key=jax.random.key(0)
            )
        )
        # Orbax restores onto shapes; only a key must be a real one, which says its generator.
        template = template._replace(key=jax.random.key(0))
        best = settings.select == "best" and store.best_step() is not None
        state, _, _ = store.restore(template, step="best" if best else "last")
        arrangement = load_arrangement(run_dir, name, learner)
        policies[name] = Trained(learner, arrangement, select_acting_params(state), state.target)
    if not policies:
        raise UserError(f"{run_dir} has no complete checkpoint yet. Wait for the first one, or resume the run.")
    return policies


def save_arrangement(run_dir: Path, name: str, arrangement: Arrangement) -> None:
    """Keep what an algorithm made of its data with the run, where acting needs it."""
    if is_first_process():
        (run_dir / ARRANGEMENTS).mkdir(exist_ok=True)
        save_config_json(dataclasses.asdict(arrangement), run_dir / ARRANGEMENTS / f"{name}.json")


def load_arrangement(run_dir: Path, name: str, learner: Learner) -> Arrangement:
    """Read back what `save_arrangement` kept; runs from before there was any have nothing to read."""
    cls = learner.algorithm.arrangement
    path = run_dir / ARRANGEMENTS / f"{name}.json"
    if not dataclasses.fields(cls) and not path.is_file():
        return cls()
    return from_section(cls, load_config_json(path), path=str(path))


class OpenRun(NamedTuple):
    """A run read back: its folder, config, model and the networks of its policies by name."""

    folder: Path
    config: ConfigDict
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
        if name not in self.config:
            task = self.config.get("task", "")
            raise UserError(f"{self.folder} is a run of the task {task!r}, which has no {name!r}. Give another.")
        return build(name, self.config[name], context=self.context, path=f"config.{name}")


def open_run(run_dir: str | Path) -> OpenRun:
    """Open a finished or interrupted run with the tokenizer and the checkpoints that it saved.

    Raises:
        UserError: the folder holds no run, or no complete checkpoint.
    """
    load_tasks()
    folder, config = load_run_config(run_dir)
    # The saved tokenizer, not one trained again: ids must mean what they meant.
    config.model.tokenizer = ConfigDict({"name": "saved", "cache_id": "tokenizer", "path": str(folder / "tokenizer")})
    context = BuildContext({"seed": config.seed})
    built = build("model", config.model, context=context, path="config.model")
    return OpenRun(folder, config, built, context, load_policies(config, built, folder))


def build_rows(run: OpenRun, section: str, *, split: str = "") -> ListRLDataset:
    """Build rows of a run's own data with the tokenizer that it saved.

    Args:
        run: the run.
        section: of its config, such as "validation_dataset".
        split: another split than the section's own; "" leaves it.

    Raises:
        UserError: there is no such section, it has no splits, or it is a stream.
    """
    if section not in run.config or not section.endswith("dataset"):
        known = ", ".join(name for name in run.config if name.endswith("dataset"))
        raise UserError(f"{run.folder}: the config has no dataset section {section!r}. It has {known}.")
    settings = run.config[section].copy_and_resolve_references()
    settings.cache_id = ""
    settings.tokenizer = run.config.model.tokenizer
    if split and "split" not in settings:
        raise UserError(f"{run.folder}: config.{section} has no splits. Leave split={split!r} out.")
    if split:
        settings.split = split
    dataset = build("dataset", settings, context=run.context, path=f"config.{section}")
    if not isinstance(dataset, ListRLDataset):
        raise UserError(f"{run.folder}: config.{section} is a stream. Choose a section with a fixed list of rows.")
    return dataset


def evaluate_run(run_dir: str | Path, *, out_dir: str | Path = "", overrides: dict[str, Any] | None = None) -> Path:
    """Judge a finished or interrupted run again.

    Args:
        run_dir: its folder.
        out_dir: where results go; "" is the run's folder.
        overrides: options of `config.decode` to change.

    Returns:
        The folder with the results.

    Raises:
        UserError: there is no such run, or its critic is asked to choose and cannot (`check_choice`).
    """
    run = open_run(run_dir)
    run.config.decode.update(overrides or {})
    decode = from_section(DecodeConfig, run.config.decode, path="config.decode")
    for learner in (trained.learner for trained in run.policies.values()):
        if learner.algorithm.has_critic:
            check_choice(decode, level=learner.algorithm.level, frozen=not learner.trains_policy())
    judge = run.build_section("evaluator")
    out = Path(out_dir) if out_dir else run.folder
    out.mkdir(parents=True, exist_ok=True)
    evaluate_policies(run.config, run.built, run.policies, judge=judge, run_dir=out)
    return out
