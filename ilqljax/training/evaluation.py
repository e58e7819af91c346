"""Trained policies: how they act and are judged, and how a run is opened to have them back."""

import dataclasses
import importlib.metadata
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jax.sharding import Mesh
from markupsafe import Markup

from ilqljax.config import BuildContext, build, from_section
from ilqljax.config.files import load_config_json, save_config_json
from ilqljax.config.sections import to_plain
from ilqljax.data.dataset import ListRLDataset
from ilqljax.data.files import hash_arrays, make_folder, remove_tree, save_text
from ilqljax.data.loader import eval_batches
from ilqljax.data.pages import clean_text
from ilqljax.data.tokenizer import Tokenizer
from ilqljax.data.transforms import Transform
from ilqljax.decoding.options import DecodeConfig
from ilqljax.decoding.policy import ActingConfig, TextPolicy, check_choice
from ilqljax.envs.base import LanguageEnvironment, Policy, interact_environments
from ilqljax.errors import UserError
from ilqljax.models.builders import BuiltModel
from ilqljax.rl.algorithms import Learner, init_learner_state, make_learner, select_acting_params
from ilqljax.rl.optim import make_optimizer
from ilqljax.rl.steps import TrainState
from ilqljax.training.checkpoint import CheckpointStore
from ilqljax.training.judgement import JUDGEMENT, RESULTS, UNFINISHED, begin_judgement, choose_folder
from ilqljax.training.mesh import path_name, shard_batch
from ilqljax.training.processes import broadcast_from_leader, is_first_process
from ilqljax.training.run_config import RunConfig
from ilqljax.training.runs import open_run_config, save_json
from ilqljax.training.shared_acting import share_acting

logger = logging.getLogger(__name__)

TRANSFORMS = "transforms"


class Trained(NamedTuple):
    """A trained policy: its algorithm, how dialogues are shown to it, and the networks that act."""

    learner: Learner
    transform: Transform
    params: dict
    target: dict

    def make_policy(
        self, decode: DecodeConfig, tokenizer: Tokenizer, seed: int, acting: ActingConfig, **overrides: Any
    ) -> TextPolicy:
        """Make a policy that acts as `decode` says, with `overrides` of its options.

        Without a critic there is no advantage: its weight is 0, and where samples are to be chosen by it, one is drawn.

        Raises:
            UserError: an override is no option of `DecodeConfig` or has a wrong value, or prompts have no room.
        """
        if not self.learner.algorithm.has_critic:
            chosen = {"n_generations": 1} if decode.rank_by in ("advantage", "value") else {}
            overrides = {"beta": 0.0} | chosen | overrides
        return TextPolicy(
            self.learner.model,
            override_decoding(decode, overrides),
            tokenizer,
            params=self.params,
            target=self.target,
            view=self.transform.view,
            value_range=self.learner.value_range,
            seed=seed,
            batch_size=acting.batch_size,
            length_buckets=acting.length_buckets,
            too_long=acting.too_long,
        )


def override_decoding(decode: DecodeConfig, overrides: Mapping[str, Any]) -> DecodeConfig:
    """Change options of decoding; errors are those of `from_section`."""
    return from_section(DecodeConfig, {**dataclasses.asdict(decode), **overrides}, path="decode")


class Judge(Protocol):
    """A task's final judgement: acts with the policies, writes what they did into `out_dir`, returns rows and a table.

    `make` makes a trained policy by name; keywords override options of `DecodeConfig`. A judge may have a method
    `report_sections(rows, *, out_dir)`, which returns what it adds to the run's page: HTML with headings from h2 on, as
    `markupsafe.Markup`. What it makes by `judgement.keep_made` is kept where it is interrupted.
    """

    def __call__(
        self, names: Sequence[str], make: Callable[..., TextPolicy], *, out_dir: Path
    ) -> tuple[list[dict], str]: ...


def make_policy(config: RunConfig, built: BuiltModel, trained: Trained, **overrides: Any) -> TextPolicy:
    """Make a policy that acts as `config.decode` says; errors are those of `Trained.make_policy`."""
    return trained.make_policy(config.decode, built.tokenizer, config.seed, config.acting, **overrides)


def evaluate_policies(
    config: RunConfig,
    built: BuiltModel,
    policies: Mapping[str, Trained],
    *,
    judge: Judge,
    run_dir: Path,
    out_dir: Path | None,
) -> Path:
    """Judge a run's policies, print the table, and write `results.json`, `results.txt` and `report.html` in a folder.

    That is `out_dir`, or one that `choose_folder` chooses, and is returned; `judgement.json` says with what they were
    made. What a judgement that was interrupted there kept is used if it was made in the same way. The first of several
    processes does so; the others act with it (`share_acting`).
    """

    def make(name: str, **overrides: Any) -> TextPolicy:
        return make_policy(config, built, policies[name], **overrides)

    def act(make: Callable[..., TextPolicy]) -> str:
        made_with = describe_judgement(config, policies, run_dir=run_dir)
        out = choose_folder(run_dir, made_with) if out_dir is None else out_dir
        make_folder(out)
        begin_judgement(out, made_with)
        rows, table = judge(list(policies), make, out_dir=out)
        save_json(out / JUDGEMENT, made_with)
        save_text(out / "results.txt", table + "\n")
        save_json(out / RESULTS, rows)
        remove_tree(out / UNFINISHED)
        print(clean_text(table), flush=True)
        # Last, so that a drawing that fails loses no result; and matplotlib, imported here, takes a second.
        from ilqljax.training.report import save_report

        sections = judge.report_sections(rows, out_dir=out) if hasattr(judge, "report_sections") else Markup()
        have_critic = {name: trained.learner.algorithm.has_critic for name, trained in policies.items()}
        save_report(out, config, run_dir=run_dir, policies=have_critic, table=table, sections=sections)
        return str(out)

    with share_acting(make) as make_shared:
        return Path(broadcast_from_leader(lambda: act(make_shared)))


def describe_judgement(config: RunConfig, policies: Mapping[str, Trained], *, run_dir: Path) -> dict[str, Any]:
    """Return what a judgement is made with.

    That is the version, the time, the kind of device, the run, the policies and checksums of their networks, the seed,
    how they decode and act, and the named sections.
    """
    return {
        "version": importlib.metadata.version("ilqljax"),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": jax.devices()[0].platform,
        "run": str(run_dir.absolute()),
        "policies": list(policies),
        "networks": {name: hash_networks(trained) for name, trained in policies.items()},
        "seed": config.seed,
        "decode": dataclasses.asdict(config.decode),
        "acting": dataclasses.asdict(config.acting),
        "sections": to_plain(config.objects),
    }


def hash_networks(trained: Trained) -> str:
    """Return a checksum of the networks that act, whatever their precision and where they are."""
    leaves = jax.tree_util.tree_leaves_with_path({"params": trained.params, "target": trained.target})
    return hash_arrays({path_name(path): leaf for path, leaf in leaves})


def evaluate_loss(
    eval_step: Callable, state: TrainState, dataset: ListRLDataset, *, mesh: Mesh, **batching: Any
) -> dict[str, float]:
    """Return each metric of the loss over all rows, each counted once, in batches as `loop.Stage.batching` says.

    Every batch is divided by the counts of the whole dataset, so the sum over batches is exactly the mean over its
    actions (or tokens): a short last batch weighs what it holds.
    """
    counts = dataset.count_rows()
    batches = eval_batches(dataset, **batching)
    shares = [jax.device_get(eval_step(state, shard_batch(batch, mesh), counts)) for batch in batches]
    return {name: sum(float(share[name]) for share in shares) for name in shares[0]}


def evaluate_rollouts(environments: Sequence[LanguageEnvironment], policy: Policy) -> dict[str, float]:
    """Play every environment once and return the mean return, its standard error and the mean number of turns.

    Where dialogues grew longer than the policy's model, also "dropped_turns", how many old turns it did not see, a turn
    counted whenever it acted without it, and "ended", how many dialogues ended because they had no room
    (`ActingConfig.too_long`).

    Raises:
        UserError: there is no environment, or `interact_environments` refuses them.
    """
    if not environments:
        raise UserError("There is no environment to play in. Give a list of them.")
    dropped_before = getattr(policy, "n_dropped_turns", 0)
    played = [sequence for _, sequence in interact_environments(environments, policy)]
    n_dropped = getattr(policy, "n_dropped_turns", 0) - dropped_before
    n_ended = sum(not environment.is_terminal() for environment in environments)
    if n_dropped or n_ended:
        told = "dialogues grew longer than the model: %d old turns were not seen, %d of %d dialogues ended (%s)"
        logger.warning(told, n_dropped, n_ended, len(played), "config.acting.too_long; n_positions is the model's room")
    returns = np.array([sum(reward for _, _, reward, _ in sequence) for sequence in played])
    error = returns.std(ddof=1) / np.sqrt(len(returns)) if len(returns) > 1 else float("nan")
    return {
        "return": float(returns.mean()),
        "return_standard_error": float(error),
        "turns": float(np.mean([len(sequence) for sequence in played])),
        **({"dropped_turns": float(n_dropped)} if n_dropped else {}),
        **({"ended": float(n_ended)} if n_ended else {}),
    }


def save_transform(run_dir: Path, name: str, transform: Transform) -> None:
    """Keep what an algorithm made of its data with the run, where acting needs it."""
    if is_first_process():
        (run_dir / TRANSFORMS).mkdir(exist_ok=True)
        save_config_json(dataclasses.asdict(transform), run_dir / TRANSFORMS / f"{name}.json")


def load_transform(run_dir: Path, name: str, learner: Learner) -> Transform:
    """Read back what `save_transform` kept; runs from before there was any have nothing to read."""
    cls = learner.algorithm.transform
    path = run_dir / TRANSFORMS / f"{name}.json"
    if not path.is_file():
        path = run_dir / "arrangements" / path.name  # where runs of version 0.1 have it
    if not dataclasses.fields(cls) and not path.is_file():
        return cls()
    return from_section(cls, load_config_json(path), path=str(path))


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
        """Return a policy by name, "" for that of the run's algorithm."""
        return self.policies[self.name_policy(name)]

    def name_policy(self, name: str = "") -> str:
        """Return the name of the policy that `select_policy` returns; raise a `UserError` if the run has none of it."""
        name = name or list(self.policies)[-1]
        if name not in self.policies:
            raise UserError(f"{self.folder} has no checkpoint of {name!r}. It has {', '.join(self.policies)}.")
        return name

    def make_policy(self, name: str = "", **overrides: Any) -> TextPolicy:
        """Make the policy that `select_policy` names act as the run's config says, with overrides of its decoding.

        Raises:
            UserError: the run has no policy of that name, or an override is no option or has a wrong value.
        """
        return make_policy(self.config, self.built, self.select_policy(name), **overrides)

    def build_section(self, name: str) -> Any:
        """Build the section of that name; raise a `UserError` if the run's task has none."""
        if name not in self.config.objects:
            raise UserError(
                f"{self.folder} is a run of the task {self.config.task!r}, which has no {name!r}. Give another."
            )
        return self.context.build(name)


def open_run(run_dir: str | Path, *, imports: tuple[str, ...] = ()) -> OpenRun:
    """Open a finished or interrupted run with the tokenizer and the checkpoints that it saved.

    `imports` are files and modules of its task, where that is not installed (`config.imports`). What the run names
    itself is code of whoever trained it, and is imported only if it is given here too.

    Raises:
        UserError: the folder is no path or holds no run, no checkpoint is complete, a file is damaged or was changed,
            or the run's task is neither installed nor in `imports`.
    """
    folder, config = open_run_config(run_dir, imports=imports)
    # The saved tokenizer, not one trained again: ids must mean what they meant.
    saved = {"name": "saved", "path": str(folder / "tokenizer")}
    config = dataclasses.replace(config, objects={**config.objects, "tokenizer": saved})
    context = config.make_context()
    built = context.build("model")
    return OpenRun(folder, config, built, context, load_policies(config, built, folder))


def build_rows(run: OpenRun, section: str, *, split: str = "") -> ListRLDataset:
    """Build rows of a section of a run's config, such as "validation_dataset", in its own split or in another."""
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
    """Judge a finished or interrupted run again, and return the folder with the results.

    That is `out_dir`, or else the run's own, or, where it has results, a new one in its `judged`. A judgement that was
    interrupted in one of these, and was made in the same way, is gone on with. The `overrides` are of `config.decode`,
    and `imports` as those of `open_run`.

    Raises:
        UserError: `out_dir` has results already, `open_run` refuses the run, an override is no option or has a wrong
            value, or nothing tells samples apart (`check_choice`).
    """
    if out_dir and (Path(out_dir) / RESULTS).exists():
        raise UserError(f"{out_dir} has the results of another judgement, which stay. Name another folder.")
    run = open_run(run_dir, imports=imports)
    config = dataclasses.replace(run.config, decode=override_decoding(run.config.decode, overrides or {}))
    for learner in (trained.learner for trained in run.policies.values()):
        if learner.algorithm.has_critic:
            check_choice(config.decode, level=learner.algorithm.level, frozen=not learner.trains_policy())
    judge = run.build_section("evaluator")
    out = Path(out_dir) if out_dir else None
    return evaluate_policies(config, run.built, run.policies, judge=judge, run_dir=run.folder, out_dir=out)
