"""Train a policy: `python -m ilqljax.train --config configs/workable.py`.

Read from top to bottom this is the whole program: settle the config, build the objects it names, clone the data's
behaviour (BC), train the algorithm (ILQL unless told otherwise), and judge the result. Each training is one call of
`ilqljax.training.loop.train_stage`; whatever differs between algorithms is in `ilqljax.rl.algorithms`.
"""

import logging
import os
import resource
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import jax
from absl import app, flags
from ml_collections import ConfigDict, config_flags

from ilqljax.cli import run_main
from ilqljax.config import (
    BuildContext,
    build,
    check_override_names,
    config_to_json,
    from_section,
    load_config_file,
    load_tasks,
)
from ilqljax.data.dataset import ListRLDataset, RLDataset
from ilqljax.data.loader import eval_batches
from ilqljax.data.transforms import Arrangement
from ilqljax.decoding.generate import DecodeConfig
from ilqljax.decoding.policy import check_choice, check_rows
from ilqljax.errors import UserError
from ilqljax.models.builders import BuiltModel
from ilqljax.models.cpu.allocator import restart_with_huge_pages
from ilqljax.rl.algorithms import Learner, make_learner, read_options, select_acting_params
from ilqljax.rl.state import TrainState
from ilqljax.training.compilation import enable_compilation_cache
from ilqljax.training.evaluation import Trained, evaluate_policies, export_policy, make_policy, save_arrangement
from ilqljax.training.loop import StageInputs, TrainConfig, say, train_stage
from ilqljax.training.mesh import MeshConfig, check_batch_size, make_mesh
from ilqljax.training.processes import (
    ask_first_process,
    check_same,
    first_process_first,
    gather_networks,
    is_first_process,
    start_processes,
)
from ilqljax.training.runs import choose_run_dir, claim_run_dir, record_changes, save_tokenizer


def train(config: ConfigDict, *, overrides: dict[str, Any] | None = None) -> Path:
    """Run the whole program for a config and return the run's folder.

    Args:
        config: what to run.
        overrides: what the user changed from the config file's values, for the record.

    Raises:
        UserError: anything that the user can put right; where possible before any work is done.
    """
    started = time.monotonic()
    load_tasks()
    pretrain, main = read_stages(config)
    if not pretrain.total_steps and not main.total_steps:
        raise UserError("config.pretrain.total_steps and config.train.total_steps are both 0: there is nothing to do.")
    if config.algorithm == "bc" and pretrain.total_steps and main.total_steps:
        raise UserError("config.pretrain and config.train would both clone. Set one of their total_steps to 0.")
    mesh = make_mesh(from_section(MeshConfig, config.mesh, path="config.mesh"))
    check_same(config_to_json(config), what="config")
    for stage in (pretrain, main):
        check_batch_size(stage.batch_size // stage.accumulate_steps, mesh)
    algorithm, options = read_options(config.algorithm, main.loss)
    read_options("bc", pretrain.loss, path="config.pretrain.loss")
    decode = from_section(DecodeConfig, config.decode, path="config.decode")
    check_rows(config.acting.batch_size)
    if algorithm.has_critic:
        check_choice(decode, level=algorithm.level, frozen=not options.awac_weight)
    run_dir = choose_run_dir(config)

    context = BuildContext({"seed": config.seed})
    names = ["dataset", "validation_dataset"]
    if pretrain.total_steps:  # a skipped stage's data are not made
        names = ["pretrain_dataset", *names, *(n for n in ("pretrain_validation_dataset",) if n in config)]
    with first_process_first():  # it prepares files that the others find
        built: BuiltModel = build("model", config.model, context=context, path="config.model")
        check_room(built.model.backbone.config.n_positions, (pretrain, main), decode)
        datasets = {name: build("dataset", config[name], context=context, path=f"config.{name}") for name in names}
        make_environment = build("environment", config.environment, context=context, path="config.environment")
        judge = build("evaluator", config.evaluator, context=context, path="config.evaluator")
    learner = make_learner(config.algorithm, built.model, main.loss)
    if main.total_steps:
        check_trunks(learner)
    cloner = make_learner("bc", built.model, pretrain.loss, path="config.pretrain.loss")
    validation = datasets["validation_dataset"]
    stages: dict[str, Stage] = {}
    if pretrain.total_steps:
        own = datasets.get("pretrain_validation_dataset", validation)
        stages["bc"] = plan_stage(cloner, pretrain, datasets["pretrain_dataset"], own)
    if main.total_steps:
        stages[config.algorithm] = plan_stage(learner, main, datasets["dataset"], validation)

    def run(name: str, trunk: dict | None) -> Trained:
        stage = stages[name]

        def settle() -> None:
            save_arrangement(run_dir, name, stage.arrangement)
            if config.resume and name == last_begun:  # no stage's checkpoints refuse the new config any more
                ask_first_process(lambda: record_changes(run_dir, config, overrides=overrides or {}))

        def describe(state: TrainState) -> Trained:
            return Trained(stage.learner, stage.arrangement, select_acting_params(state), state.target)

        inputs = StageInputs(
            dataset=stage.rows,
            validation=stage.validation,
            make_environments=lambda: [make_environment(i) for i in range(stage.settings.n_rollouts)],
            make_policy=lambda state: make_policy(config, built, describe(state)),
            trunk=trunk,
            networks=select_networks(built, stage.learner) if name == next(iter(stages)) else None,
        )
        state = train_stage(
            name,
            stage.learner,
            stage.settings,
            inputs,
            config=config,
            mesh=mesh,
            run_dir=run_dir,
            on_restored=settle,
        )
        return describe(gather_networks(state))

    policies: dict[str, Trained] = {}
    with claim_run_dir(run_dir, config, overrides=overrides or {}) as run_dir:
        with first_process_first():  # the others compare theirs
            save_tokenizer(run_dir, built.tokenizer)
        say(f"run folder: {run_dir}")
        begun = [name for name in stages if (run_dir / "checkpoints" / name).is_dir()]
        last_begun = begun[-1] if begun else next(iter(stages))
        try:
            for name in stages:
                trunk = policies["bc"].params["policy"] if policies else built.pretrained
                policies[name] = run(name, trunk)
            export_policy(run_dir / "export" / "policy", built, list(policies.values())[-1])
            evaluate_policies(config, built, policies, judge=judge, run_dir=run_dir)
        except KeyboardInterrupt:
            say(f"the same command with --config.resume={run_dir} continues from the last checkpoint")
            raise
    say(f"everything is in {run_dir} (total {time.monotonic() - started:.0f} s, peak memory {peak_memory_gb():.2f} GB)")
    return run_dir


def read_stages(config: ConfigDict) -> tuple[TrainConfig, TrainConfig]:
    """Read the settings of the cloning stage and of the main one.

    A policy that is trained with its critic (`awac_weight`) is not cloned first: the main stage, as `config.train`
    says, then takes the steps of both.
    """
    pretrain = from_section(TrainConfig, config.pretrain, path="config.pretrain")
    main = from_section(TrainConfig, config.train, path="config.train")
    if pretrain.total_steps and main.total_steps and main.loss.get("awac_weight", 0.0) > 0:
        main = replace(main, total_steps=pretrain.total_steps + main.total_steps)
        pretrain = replace(pretrain, total_steps=0)
    return pretrain, main


class Stage(NamedTuple):
    """One training: the algorithm, its settings, and its rows as it wants them."""

    learner: Learner
    settings: TrainConfig
    arrangement: Arrangement
    rows: RLDataset
    validation: ListRLDataset


def plan_stage(learner: Learner, settings: TrainConfig, rows: RLDataset, validation: ListRLDataset) -> Stage:
    """Fit an algorithm's arrangement to its training rows, and arrange them and the validation rows.

    Raises:
        UserError: the rows are not what the algorithm needs, one fits no bucket, a batch or microbatch would tear a
            group of rows apart, or a stream is to be sorted.
    """
    arrangement = learner.arrange(rows)
    arranged = arrangement.apply(rows)
    if (settings.batch_size // settings.accumulate_steps) % arranged.group_size:
        raise UserError(
            f"batch_size={settings.batch_size} in accumulate_steps={settings.accumulate_steps} gives microbatches of "
            f"{settings.batch_size // settings.accumulate_steps} rows, and rows come in groups of "
            f"{arranged.group_size}. Make it a multiple of {arranged.group_size}."
        )
    if settings.sort_window > 1 and not isinstance(arranged, ListRLDataset):
        raise UserError(
            f"sort_window={settings.sort_window} sorts rows by length, and a stream has none beforehand. Use 1."
        )
    stage = Stage(learner, settings, arrangement, arranged, arrangement.apply(validation))
    # A row that fits no bucket must stop the run here, not after the stage before it.
    for data in (stage.rows, stage.validation):
        if isinstance(data, ListRLDataset):
            eval_batches(
                data,
                batch_size=settings.batch_size,
                length_buckets=settings.length_buckets,
                action_buckets=settings.action_buckets,
                n_hosts=jax.process_count(),
                host=jax.process_index(),
            )
    return stage


def select_networks(built: BuiltModel, learner: Learner) -> tuple[dict, dict] | None:
    """Return the loaded critic that an algorithm goes on with; None where there is none of its kind."""
    same_kind = learner.algorithm.has_critic and built.model.config.level == learner.model.config.level
    if built.networks is None or not same_kind:
        return None
    return built.networks.params, built.networks.target


def peak_memory_gb() -> float:
    """Return the largest memory this process had, in GB (10^9 bytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def check_room(n_positions: int, stages: Sequence[TrainConfig], decode: DecodeConfig) -> None:
    """Refuse rows and utterances longer than the model; an embedding past its end would be read as its last one.

    Raises:
        UserError: a length bucket of a stage that runs, or `max_new_tokens`, does not fit.
    """
    longest = max((max(stage.length_buckets) for stage in stages if stage.total_steps), default=0)
    if longest > n_positions or decode.max_new_tokens >= n_positions:
        raise UserError(
            f"The model has n_positions={n_positions}, but length_buckets go up to {longest} and "
            f"decode.max_new_tokens is {decode.max_new_tokens}. Raise config.model.n_positions, or lower these "
            "(and the dataset's max_length)."
        )


def check_trunks(learner: Learner) -> None:
    """Refuse a critic that would change the trunk it shares with a policy that no loss keeps as it is.

    Raises:
        UserError: there is one trunk, the critic trains it, and the policy is not trained.
    """
    if learner.trains_policy() or learner.model.config.separate_policy:
        return
    if not (learner.config.detach_v and learner.config.detach_q):
        raise UserError(
            "config.model.separate_policy=False with awac_weight=0: the critic would train the trunk that the policy "
            "acts with, and nothing would keep the policy. Set config.model.separate_policy=True, "
            "config.train.loss.awac_weight=1.0 (which trains both at once), or detach_v=True and detach_q=True."
        )


def parse_flags(argv: list[str]) -> list[str]:
    """Read the command line; a mistake in it ends the program with one line, like every other mistake of the user."""
    words = [word for argument in argv[1:] for word in argument.split("=", 1)]
    config_file = next((b for a, b in pairwise(words) if a in ("--config", "-config")), "")

    def parse() -> list[str]:
        if config_file:
            check_override_names(load_config_file(config_file), argv[1:])
        return flags.FLAGS(argv)

    rest: list[str] = []
    try:
        run_main(lambda: rest.extend(parse()))
    except flags.Error as error:
        run_main(partial(refuse, str(error)))
    return rest


def refuse(message: str) -> None:
    """Raise what the command line's parser complained of as a mistake of the user."""
    raise UserError(f"{message} Try --config configs/workable.py, and --config.KEY=VALUE for its keys.")


def main() -> None:
    """Read the flags and train."""
    distributed = flags.DEFINE_bool("distributed", False, "One of several processes that train together.")
    config_flag = config_flags.DEFINE_config_file("config", None, "A file of configs/, such as configs/workable.py:bc")
    flags.mark_flag_as_required("config")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

    def start(argv: list[str]) -> None:
        # After absl has put its own handler in place, whose prefix is for server logs.
        logging.basicConfig(format="%(message)s", level=logging.WARNING, force=True)
        logging.getLogger("ilqljax").setLevel(logging.INFO)
        enable_compilation_cache()
        if distributed.value:
            run_main(start_processes)
            logging.getLogger("ilqljax").setLevel(logging.INFO if is_first_process() else logging.WARNING)
        overrides = config_flags.get_override_values(flags.FLAGS["config"])
        run_main(lambda: train(config_flag.value, overrides=overrides))

    app.run(start, flags_parser=parse_flags)


if __name__ == "__main__":
    restart_with_huge_pages()
    main()
