"""A run, planned: everything a user can have got wrong is refused here, before a device computes anything."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jax.sharding import Mesh
from ml_collections import ConfigDict

from ilqljax.config.files import config_to_json
from ilqljax.config.sections import Section
from ilqljax.decoding.generate import DecodeConfig
from ilqljax.decoding.policy import check_choice
from ilqljax.envs.base import LanguageEnvironment
from ilqljax.errors import UserError
from ilqljax.models.builders import BuiltModel
from ilqljax.rl.algorithms import Learner, make_learner
from ilqljax.training.evaluation import Judge
from ilqljax.training.loop import Stage, make_stage, say
from ilqljax.training.mesh import check_batch_size, make_mesh, make_placer
from ilqljax.training.metrics import import_wandb
from ilqljax.training.processes import broadcast_from_leader, check_same, first_process_first
from ilqljax.training.run_config import (
    CLONING_DATASETS,
    RunConfig,
    TrainConfig,
    complete_config,
    find_long_warmups,
    read_run_config,
)
from ilqljax.training.runs import check_tokenizer, choose_run_dir


@dataclass(frozen=True)
class Plan:
    """What a run will do.

    Attributes:
        saved: the config as the run's folder keeps it.
        run_dir: the folder, not made yet where the run is new.
        stages: what is trained, in order, by name.
        make_environment: from a number to where a policy acts.
    """

    config: RunConfig
    saved: ConfigDict
    overrides: Mapping[str, Any]
    run_dir: Path
    mesh: Mesh
    built: BuiltModel
    stages: Mapping[str, Stage]
    make_environment: Callable[[int], LanguageEnvironment]
    judge: Judge


def plan_run(config: Section, *, overrides: Mapping[str, Any] | None = None) -> Plan:
    """Check a config, prepare its data, and settle what the run will do; arguments are those of `ilqljax.train.train`.

    Raises:
        UserError: an option, the data, the tokenizer, the model or the run's folder does not fit, or nothing is to do.
    """
    saved = complete_config(config)
    for name, warmup in find_long_warmups(saved, overrides or {}).items():
        saved[name].warmup_steps = -1
        total = saved[name].total_steps
        say(
            f"config.{name}.warmup_steps={warmup} is for longer trainings: with total_steps={total} it is "
            f"{total // 20}, a twentieth, unless you give it"
        )
    settings = read_run_config(saved)
    pretrain, main = settings.settle_stages()
    algorithm, options = settings.options
    if not pretrain.total_steps and not main.total_steps:
        raise UserError("config.pretrain.total_steps and config.train.total_steps are both 0: there is nothing to do.")
    if settings.algorithm == "bc" and pretrain.total_steps and main.total_steps:
        raise UserError("config.pretrain and config.train would both clone. Set one of their total_steps to 0.")
    mesh = make_mesh(settings.mesh)
    check_same(config_to_json(saved), what="config")
    if settings.wandb.use_wandb:
        broadcast_from_leader(lambda: import_wandb() and None)
    for stage in (pretrain, main):
        check_batch_size(stage.batch_size // stage.accumulate_steps, mesh)
    if algorithm.has_critic:
        check_choice(settings.decode, level=algorithm.level, frozen=not options.awac_weight)
    run_dir = choose_run_dir(saved)
    context = settings.make_context(place=make_placer(mesh))
    with first_process_first():  # it prepares files that the others find
        built: BuiltModel = context.build("model")
        if settings.resume:
            check_tokenizer(run_dir, built.tokenizer)
        check_room(built.model.backbone.config.n_positions, (pretrain, main), settings.decode)
        skipped = () if pretrain.total_steps else CLONING_DATASETS  # a skipped stage's data are not made
        names = [name for name in settings.objects if name.endswith("dataset") and name not in skipped]
        datasets = {name: context.build(name) for name in names}
        make_environment, judge = context.build("environment"), context.build("evaluator")
    if pretrain.total_steps and "pretrain_dataset" not in datasets:
        raise UserError("Cloning needs config.pretrain_dataset. Add it, or set config.pretrain.total_steps=0.")
    stages = {}
    validation = datasets["validation_dataset"]
    if pretrain.total_steps:
        cloner = make_learner("bc", built.model, pretrain.loss, path="config.pretrain.loss")
        watched = datasets.get("pretrain_validation_dataset", validation)
        stages["bc"] = make_stage("bc", cloner, pretrain, datasets["pretrain_dataset"], watched)
    if main.total_steps:
        learner = make_learner(settings.algorithm, built.model, main.loss)
        check_trunks(learner)
        stages[settings.algorithm] = make_stage(settings.algorithm, learner, main, datasets["dataset"], validation)
    return Plan(settings, saved, overrides or {}, run_dir, mesh, built, stages, make_environment, judge)


def check_room(n_positions: int, stages: tuple[TrainConfig, ...], decode: DecodeConfig) -> None:
    """Refuse rows and utterances longer than the model; an embedding past its end would be read as its last one."""
    longest = max((max(stage.length_buckets) for stage in stages if stage.total_steps), default=0)
    if longest > n_positions or decode.max_new_tokens >= n_positions:
        raise UserError(
            f"The model has n_positions={n_positions}, but length_buckets go up to {longest} and "
            f"decode.max_new_tokens is {decode.max_new_tokens}. Raise config.model.n_positions, or lower these "
            "(and the dataset's max_length)."
        )


def check_trunks(learner: Learner) -> None:
    """Refuse a critic that would change the trunk it shares with a policy that no loss keeps as it is."""
    kept = learner.trains_policy() or learner.model.config.separate_policy
    if not kept and not (learner.config.detach_v and learner.config.detach_q):
        raise UserError(
            "config.model.separate_policy=False with awac_weight=0: the critic would train the trunk that the policy "
            "acts with, and nothing would keep the policy. Set config.model.separate_policy=True, "
            "config.train.loss.awac_weight=1.0 (which trains both at once), or detach_v=True and detach_q=True."
        )
