"""Train a policy: `python -m ilqljax.train --config configs/workable.py`.

Read from top to bottom this is the whole program: plan the run (everything a user can have got wrong is refused there),
clone the data's behaviour (BC), train the algorithm (ILQL unless told otherwise), and judge the result. Whatever
differs between algorithms is in `ilqljax.rl.algorithms`; each training is one call of
`ilqljax.training.loop.train_stage`.
"""

import logging
import os
import shlex
import sys
import time
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from absl import app, flags
from ml_collections import ConfigDict, config_flags

from ilqljax.cli import PlainFormatter, run_main
from ilqljax.config.files import find_config_file, read_overrides
from ilqljax.config.sections import Section
from ilqljax.errors import Interrupted, UserError
from ilqljax.models.builders import BuiltModel
from ilqljax.models.cpu import restart_with_huge_pages
from ilqljax.models.value_lm import policy_trunk
from ilqljax.rl.algorithms import Learner, select_acting_params
from ilqljax.rl.steps import TrainState
from ilqljax.training import processes
from ilqljax.training.checkpoint import CheckpointStore
from ilqljax.training.commands.train import find_config
from ilqljax.training.compilation import enable_compilation_cache
from ilqljax.training.ending import SIGNALS, Ending, heed_signals
from ilqljax.training.evaluation import (
    Trained,
    evaluate_policies,
    evaluate_rollouts,
    make_policy,
    save_transform,
)
from ilqljax.training.export import export_policy, save_card
from ilqljax.training.loop import Stage, Start, say, train_stage
from ilqljax.training.metrics import (
    JsonlWriter,
    MetricWriter,
    TensorBoardWriter,
    WandbWriter,
    measure_peak_memory,
)
from ilqljax.training.plan import Plan, plan_run
from ilqljax.training.processes import broadcast_from_leader, gather_networks, is_first_process
from ilqljax.training.run_config import RunConfig, complete_config, load_run_config
from ilqljax.training.runs import claim_run_dir, record_changes, save_tokenizer

# The algorithms of version 0.1 (`stage_seed`).
FIRST_ALGORITHMS = (
    "bc", "filtered_bc", "ilql", "ilql_utterance", "mc", "sarsa", "cql", "psi", "chai", "decision_transformer", "dpo"
)  # fmt: skip


def train(config: Section, *, overrides: Mapping[str, Any] | None = None, command: str = "") -> Path:
    """Run the whole program for a config, to which defaults are added, and return the run's folder.

    The `overrides` are what the user changed from the config file's values, and `command` what the user typed, for the
    record. In the main thread SIGTERM and Ctrl-C ask the run to end, as `heed_signals` says, until it returns; in
    another thread they do what they did.

    Raises:
        Interrupted: the run was asked to end, and has said what is saved and how to go on; a `KeyboardInterrupt`, whose
            `status` is what the command exits with.
        UserError: what the user can put right; before a device computes anything where possible (`plan_run`).
    """
    completed = complete_config(config)
    with heed_signals(grace_seconds=completed.grace_seconds) as ending:
        return train_until_asked(completed, overrides=overrides, command=command, ending=ending)


def train_until_asked(config: ConfigDict, *, overrides: Mapping[str, Any] | None, command: str, ending: Ending) -> Path:
    """Run the program of `train`, unless the `ending` asks it to end."""
    started = time.monotonic()
    try:
        with ending.losing("the preparation"):
            plan = plan_run(config, overrides=overrides)
    except Interrupted:
        say("ended before the training began: the same command starts again, with what was prepared until then")
        raise
    with claim_run_dir(plan.run_dir, plan.saved, overrides=plan.overrides, command=command) as run_dir:
        with processes.first_process_first():  # the others compare theirs
            save_tokenizer(run_dir, plan.built.tokenizer)
        say(f"run folder: {run_dir}")
        begun = [name for name in plan.stages if (run_dir / "checkpoints" / name).is_dir()]
        last_begun = begun[-1] if begun else next(iter(plan.stages))
        policies: dict[str, Trained] = {}
        try:
            for name, stage in plan.stages.items():
                trunk = policy_trunk(policies["bc"].params) if policies else plan.built.pretrained
                networks = None if policies else select_networks(plan.built, stage.learner)
                # Once the last stage's checkpoints fit, nothing refuses the config that a resumed run goes on with.
                settles = bool(plan.config.resume) and name == last_begun
                start = Start(trunk, networks)
                policies[name] = run_stage(plan, stage, run_dir, start, settles=settles, ending=ending)
            exported, (name, trained) = run_dir / "export" / "policy", list(policies.items())[-1]
            with ending.losing("the judgement"):
                export_policy(exported, plan.config, plan.built, trained)
                evaluate_policies(plan.config, plan.built, policies, judge=plan.judge, run_dir=run_dir, out_dir=run_dir)
                save_card(exported, plan.config, plan.built, trained, policy=name, run_dir=run_dir)
        except KeyboardInterrupt:
            say(describe_end(run_dir, list(plan.stages), lost=ending.lost))
            raise
    peak = measure_peak_memory()
    memory = "" if peak is None else f", peak memory {peak:.2f} GB"
    say(f"everything is in {run_dir} (total {time.monotonic() - started:.0f} s{memory})")
    return run_dir


def describe_end(run_dir: Path, stages: Sequence[str], *, lost: str) -> str:
    """Say where a run that was interrupted continues, and what it had under way."""
    saved = {name: CheckpointStore(run_dir / "checkpoints" / name).latest_step() for name in stages}
    last = [f"step {step} of {name}" for name, step in saved.items() if step is not None]
    again = f" ({lost} was broken off and comes again)" if lost else ""
    if not last:
        return f"no step was saved in {run_dir}, so there is nothing to resume{again}"
    return f"the same command with --config.resume={run_dir} continues from {last[-1]}{again}"


def run_stage(
    plan: Plan, stage: Stage, run_dir: Path, start: Start, *, settles: bool, ending: Ending | None = None
) -> Trained:
    """Train one stage with checkpoints and metrics in the run's folder; continues where they end.

    A stage that `settles` records the config of a resumed run once its checkpoints have been found to fit. The `ending`
    asks the run to end.
    """

    def describe(state: TrainState) -> Trained:
        return Trained(stage.learner, stage.transform, select_acting_params(state), state.target)

    def play(state: TrainState) -> dict[str, float]:
        acting = gather_networks(state)
        # New environments: what a generator of theirs draws depends on no evaluation before, which a resumed run would
        # not have had. Once for all processes: a return that differed in its last digit would make another the best.
        return broadcast_from_leader(
            lambda: evaluate_rollouts(
                [plan.make_environment(i) for i in range(stage.settings.n_rollouts)],
                make_policy(plan.config, plan.built, describe(acting)),
            )
        )

    def settle() -> None:
        save_transform(run_dir, stage.name, stage.transform)
        if settles:
            broadcast_from_leader(lambda: record_changes(run_dir, plan.saved, overrides=plan.overrides))

    by_return = stage.best_is_return
    store = CheckpointStore(
        run_dir / "checkpoints" / stage.name,
        metric_name="return" if by_return else "validation_loss",
        mode="max" if by_return else "min",
        **{name: getattr(stage.settings, name) for name in ("keep_last", "keep_best", "keep_every")},
    )
    store.clear_leftovers()
    with store:
        state = train_stage(
            stage,
            key=jax.random.fold_in(jax.random.key(plan.config.seed), stage_seed(stage.name)),
            seed=plan.config.seed,
            mesh=plan.mesh,
            store=store,
            open_writers=lambda first: open_writers(plan.config, plan.saved, run_dir, stage.name, resume_step=first),
            start=start,
            play=play if stage.settings.n_rollouts else None,
            on_restored=settle,
            ending=ending,
        )
    return describe(gather_networks(state))


def stage_seed(name: str) -> int:
    """Return a stage's own number, which its first parameters are drawn with: a checksum, which anagrams do not share.

    The first algorithms have the sum of their names' letters, as in version 0.1, so that trainings repeat.
    """
    return sum(name.encode()) if name in FIRST_ALGORITHMS else zlib.crc32(name.encode())


def select_networks(built: BuiltModel, learner: Learner) -> tuple[dict, dict] | None:
    """Return the loaded critic that an algorithm goes on with; None where there is none of its kind."""
    same_kind = learner.algorithm.has_critic and built.model.config.level == learner.model.config.level
    return (built.networks.params, built.networks.target) if built.networks and same_kind else None


def open_writers(
    config: RunConfig, saved: ConfigDict, run_dir: Path, name: str, *, resume_step: int
) -> list[MetricWriter]:
    """Open a stage's metric writers: JSONL and TensorBoard always, W&B when asked; only in the first process."""
    if not is_first_process():
        return []
    folder, since = run_dir / "metrics" / name, {"resume_step": resume_step}
    # Also from step 0: a run that was killed before its first checkpoint has written records that come again.
    writers = [JsonlWriter(folder / "metrics.jsonl", **since), TensorBoardWriter(folder, **since)]
    if config.wandb.use_wandb:
        shown = {"name": f"{run_dir.name}-{name}", "config": saved.to_dict()}
        writers.append(WandbWriter(config.wandb.project, directory=run_dir, mode=config.wandb.mode, **shown))
    return writers


def read_config(argv: list[str]) -> tuple[ConfigDict, list[str]]:
    """Load the config file that the command line names, with all defaults; return it and the other arguments."""
    name = find_config(argv)
    if not name:
        return ConfigDict(), argv
    config = load_run_config(name)
    rest = [word for word in argv if word != name and word.split("=", 1)[0] not in ("--config", "-config")]
    return config, read_overrides(config, rest)


def parse_flags(argv: list[str]) -> None:
    """Read the config and the flags, the config's keys among them; a mistake is a `UserError`."""
    advice = "--config configs/workable.py, and --config.KEY=VALUE for its keys."
    config, rest = read_config(argv[1:])
    if not config and not {"--help", "-h", "--helpfull", "--helpshort"} & set(argv):
        raise UserError(f"Say what to train: {advice}")
    words = [argv[0], *rest]
    config_flags.DEFINE_config_dict("config", config, help_string="Options of the config file.", sys_argv=words)
    try:
        flags.FLAGS(words)
    except flags.Error as error:
        raise UserError(f"{str(error).rstrip('.')}. Try {advice}") from error


def main(argv: list[str] | None = None) -> None:
    """Read the command line and train; a mistake in it ends the program with one line, like any other."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    distributed = flags.DEFINE_bool("distributed", False, "One of several processes that train together.")

    words = sys.argv[1:] if argv is None else argv

    def parse(argv: list[str]) -> list[str]:
        run_main(lambda: parse_flags(argv))
        return argv[:1]

    def start(_: list[str]) -> None:
        # After absl has put its own handler in place, whose prefix is for server logs.
        logging.basicConfig(level=logging.WARNING, force=True)
        logging.getLogger().handlers[0].setFormatter(PlainFormatter())
        logging.getLogger("ilqljax").setLevel(logging.INFO)
        enable_compilation_cache()
        if distributed.value:
            run_main(processes.start_processes)
            logging.getLogger("ilqljax").setLevel(logging.INFO if is_first_process() else logging.WARNING)
        say(f"config: {find_config_file(find_config(words).partition(':')[0])}")
        overrides = config_flags.get_override_values(flags.FLAGS["config"])
        command = shlex.join(["ilqljax", "train", *words])
        try:
            run_main(lambda: train(flags.FLAGS.config, overrides=overrides, command=command))
        except SystemExit as error:
            if error.code in {Interrupted(number).status for number in SIGNALS}:  # all are asked, and come
                processes.leave_together(longest_ms=int(1000 * flags.FLAGS.config.grace_seconds))
            raise
        processes.leave_together()

    app.run(start, argv=["ilqljax.train", *words], flags_parser=parse)


if __name__ == "__main__":
    restart_with_huge_pages()
    main()
