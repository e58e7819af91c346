"""What one run of the train program is: every option of it, typed, and whole.

A config file states what differs (`ilqljax.config`); `complete_config` adds the defaults, so that everything can be set
on the command line and is in the run's folder; `RunConfig` is what the program sees. Configs that runs of version 0.1
saved, which repeat sections within sections, are read as well.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from ml_collections import ConfigDict

from ilqljax.config import BuildContext, from_section, load_tasks, to_plain
from ilqljax.config.files import config_to_json, diff_overrides, load_config_file
from ilqljax.config.registry import complete_section, infer_kind, is_named
from ilqljax.config.sections import REQUIRED, Section, fill_defaults, list_fields, suggest
from ilqljax.decoding.generate import DecodeConfig
from ilqljax.decoding.policy import ActingConfig
from ilqljax.errors import UserError, check_divisible, check_known, check_range, check_type
from ilqljax.rl.algorithms import Algorithm, read_options
from ilqljax.rl.optim import OptimConfig
from ilqljax.rl.steps import TargetConfig
from ilqljax.training.mesh import MeshConfig

# Objects that every run has, and that it may have besides; further named sections are the task's own.
OBJECTS = ("model", "tokenizer", "dataset", "validation_dataset", "environment", "evaluator")
CLONING_DATASETS = ("pretrain_dataset", "pretrain_validation_dataset")


@dataclass(frozen=True)
class TrainConfig(OptimConfig):
    """How long, on what batches and with what optimizer one stage trains; `total_steps` 0 skips it.

    Attributes:
        warmup_steps: as of `OptimConfig`; -1 is a twentieth of `total_steps`.
        batch_size: rows of a step over all devices and microbatches.
        accumulate_steps: microbatches that a step is computed in.
        length_buckets: row lengths that batches are padded to.
        action_buckets: numbers of actions that batches are padded to; () is powers of two.
        sort_window: how many batches are sorted by length together, which saves padding. Above 1, losses divide by what
            a batch holds on average instead of what it holds, so that short rows weigh no more than others; the loss
            that is shown then rises and falls with the lengths of a batch. Not for streams.
        eval_every: steps between evaluations; there is always one at the end.
        save_every: steps between checkpoints; there is always one at the end.
        keep_last: newest checkpoints that are kept; with two, one that a disk damaged costs no more than `save_every`.
        keep_best: best checkpoints that are kept.
        keep_every: checkpoints whose step is a multiple of this are kept for good; 0 for none.
        log_every: steps between records in the metrics.
        n_rollouts: environments that the policy acts in at each evaluation; 0 for none.
        keep_hidden: a critic on a frozen trunk (`config.model.frozen_value` or `frozen_value_layers`) has its rows'
            hidden states computed once and kept, in bfloat16, in `~/.cache/ilqljax/hidden`; False runs the trunk at
            every step.
        stop_after: evaluations in a row without a better one that end the stage; 0 for never. Better is a lower
            validation loss or, for a critic that is played (`n_rollouts`), a higher return.
        select: which checkpoint the next stage and the final judgement use: "best" (validation loss for a policy,
            rollouts' return for a critic) or "last".
        target: how target networks follow.
        loss: the algorithm's options.

    Raises:
        UserError: a number is none or out of its range, a name is unknown, there is no bucket, microbatches do not
            divide a batch, or the checkpoint that is selected would not be kept.
    """

    schedule: str = "cosine"
    warmup_steps: int = -1
    end_lr_fraction: float = 0.1
    max_grad_norm: float = 1.0
    batch_size: int = 8
    accumulate_steps: int = 1
    length_buckets: tuple[int, ...] = (1024,)
    action_buckets: tuple[int, ...] = ()
    sort_window: int = 1
    eval_every: int = 500
    save_every: int = 500
    keep_last: int = 2
    keep_best: int = 1
    keep_every: int = 0
    log_every: int = 10
    n_rollouts: int = 32
    keep_hidden: bool = True
    stop_after: int = 0
    select: str = "last"
    target: TargetConfig = field(default_factory=TargetConfig)
    loss: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_range(self, "[0, inf)", "total_steps")
        if self.warmup_steps == -1:
            object.__setattr__(self, "warmup_steps", self.total_steps // 20)
        if self.total_steps:  # a skipped stage needs no valid schedule
            super().__post_init__()
        check_known(("best", "last"), select=self.select)
        steps = ("eval_every", "save_every", "log_every", "keep_last")
        check_range(self, "[1, inf)", *steps, "batch_size", "accumulate_steps", "sort_window")
        check_range(self, "[0, inf)", "n_rollouts", "keep_best", "keep_every", "stop_after")
        if self.select == "best" and not self.keep_best:
            raise UserError("select='best' needs the best checkpoint, and keep_best=0 does not keep it. Set it to 1.")
        if not self.length_buckets:
            raise UserError("length_buckets is empty. List the row lengths to pad to, such as (128, 256).")
        check_divisible(self, "batch_size", "accumulate_steps")


@dataclass(frozen=True)
class WandbConfig:
    """Whether and where Weights & Biases gets the metrics too.

    Attributes:
        use_wandb: whether it does.
        project: its project there.
        mode: "online", "offline" or "disabled"; "" leaves it to the environment.
    """

    use_wandb: bool = False
    project: str = "ilqljax"
    mode: str = ""

    def __post_init__(self) -> None:
        check_known(("", "online", "offline", "disabled"), mode=self.mode)


@dataclass(frozen=True)
class RunConfig:
    """Everything that a run is made of.

    Attributes:
        task: names the run's folder.
        algorithm: a name in `ilqljax.rl.algorithms.ALGORITHMS`.
        objects: the named sections by key: model, tokenizer, datasets, environment, evaluator and the task's own.
        train: the main stage; its `loss` holds the algorithm's options.
        pretrain: the cloning stage before it.
        acting: in what batches policies act.
        seed: of parameters, batches and acting.
        run_dir: the new run's folder; "" is a new one below runs/.
        resume: folder of the run to continue, or "latest".
        imports: files and modules that register a task that is not installed (`ilqljax.config.load_tasks`).
        grace_seconds: that a run which is asked to end (SIGTERM, Ctrl-C) has to finish its step and save it.
    """

    task: str
    algorithm: str
    objects: Mapping[str, Mapping[str, Any]]
    train: TrainConfig
    pretrain: TrainConfig = field(default_factory=TrainConfig)
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    acting: ActingConfig = field(default_factory=ActingConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    wandb: WandbConfig = field(default_factory=WandbConfig)
    seed: int = 0
    run_dir: str = ""
    resume: str = ""
    imports: tuple[str, ...] = ()
    grace_seconds: float = 25.0

    def __post_init__(self) -> None:
        check_range(self, "[0, inf)", "grace_seconds", "seed")

    @property
    def options(self) -> tuple[Algorithm, Any]:
        """The algorithm and its options; errors are those of `read_options`."""
        return read_options(self.algorithm, self.train.loss)

    def make_context(self, **values: Any) -> BuildContext:
        """Make what builds the run's objects, which may ask for values by name."""
        return BuildContext({"seed": self.seed, **values}, self.objects)

    def settle_stages(self) -> tuple[TrainConfig, TrainConfig]:
        """Return the settings of the cloning stage and of the main one.

        A policy that is trained with its critic (`awac_weight`) is not cloned first: the main stage, as `config.train`
        says, then takes the steps of both.
        """
        pretrain, main = self.pretrain, self.train
        if pretrain.total_steps and main.total_steps and main.loss.get("awac_weight", 0.0) > 0:
            main = replace(main, total_steps=pretrain.total_steps + main.total_steps)
            pretrain = replace(pretrain, total_steps=0)
        return pretrain, main


_FIELDS = list_fields(RunConfig)
_STAGES = {"pretrain": "bc", "train": ""}  # "" is the run's algorithm


def load_run_config(path_with_arg: str) -> ConfigDict:
    """Load "configs/task.py:arg" with all its defaults; "workable:bc" names a config that comes with ilqljax.

    Raises:
        UserError: there is no such file, it has no `get_config`, or a flag, key or name is unknown.
    """
    return complete_config(load_config_file(path_with_arg))


def complete_config(config: Section, *, imports: bool = True) -> ConfigDict:
    """Return a config with the defaults of all options that it leaves out; a saved one of version 0.1 in today's form.

    The files and modules that it names (`config.imports`) are imported unless `imports` is False. An unknown key or
    name, or a section that is missing, is a `UserError`.
    """
    plain_config = to_plain(config)
    check_type(Mapping, "Give a config, such as load_run_config('workable:bc').", config=plain_config)
    values = _drop_repeats(plain_config)
    load_tasks(values.get("imports", ()) if imports else ())
    for name in ("task", "algorithm", *OBJECTS):
        if name not in values:
            raise UserError(f"The config lacks {name}, which every run needs. Set config.{name}.")
    objects = {key: value for key, value in values.items() if is_named(value)}
    known = _FIELDS.keys() - {"objects"}
    if unknown := [key for key in values if key not in objects and key not in known]:
        raise UserError(f"config.{unknown[0]} is not an option of a run.{suggest(unknown[0], known)}")
    filled = {key: complete_section(infer_kind(key), section, path=f"config.{key}") for key, section in objects.items()}
    plain = fill_defaults(
        {name: option for name, option in _FIELDS.items() if option.default is not REQUIRED},
        {key: value for key, value in values.items() if key not in objects},
    )
    for name, algorithm in _STAGES.items():
        stage = fill_defaults(list_fields(TrainConfig), plain.get(name, {}))
        found, _ = read_options(algorithm or values["algorithm"], stage["loss"], path=f"config.{name}.loss")
        stage["loss"] = fill_defaults(list_fields(found.config_class), dict(found.fixed) | stage["loss"])
        plain[name] = stage
    return ConfigDict(plain | filled)


def find_long_warmups(config: Section, overrides: Mapping[str, Any]) -> dict[str, int]:
    """Return each stage's `warmup_steps` that the config set and that the user's `total_steps` has made too long.

    A warm-up of more than half of the steps is too long, where the overrides have the steps and not the warm-up.
    """
    own = {name: config[name] for name in _STAGES if f"{name}.total_steps" in overrides}
    given = {name for name in own if f"{name}.warmup_steps" in overrides}
    long = {name: stage for name, stage in own.items() if 2 * stage["warmup_steps"] > stage["total_steps"] > 0}
    return {name: stage["warmup_steps"] for name, stage in long.items() if name not in given}


def read_run_config(config: Section) -> RunConfig:
    """Check a config, completed or not, with the values of its options, and return it typed."""
    values = to_plain(complete_config(config))
    objects = {key: value for key, value in values.items() if is_named(value)}
    plain = {key: value for key, value in values.items() if key not in objects}
    found = from_section(RunConfig, plain | {"objects": objects})
    read_options("bc", found.pretrain.loss, path="config.pretrain.loss")
    return replace(found, objects=MappingProxyType(objects))


def find_differing(saved: Section, config: Section) -> list[str]:
    """List the dotted keys that two completed configs do not have alike, as JSON has them."""
    first, second = (json.loads(config_to_json(each)) for each in (saved, config))
    return list(diff_overrides(first, second) | diff_overrides(second, first))


def _drop_repeats(values: dict[str, Any]) -> dict[str, Any]:
    """Drop what version 0.1 saved besides: `cache_id`, and within a section copies of the config's own sections."""

    def clean(section: Mapping[str, Any]) -> dict[str, Any]:
        cleaned = {}
        for key, value in section.items():
            if isinstance(value, Mapping):
                value = clean(value)
                if is_named(value) and key in top and value == top[key]:
                    continue
            if key != "cache_id":
                cleaned[key] = value
        return cleaned

    top: dict[str, Any] = {}
    # Sections of which others hold copies come first: each is clean before it is looked for.
    names = sorted(values, key=lambda name: _count_named(values[name]))
    for name in names:
        top[name] = clean(values[name]) if isinstance(values[name], Mapping) else values[name]
    return {name: top[name] for name in values}


def _count_named(value: Any) -> int:
    if not isinstance(value, Mapping):
        return 0
    return is_named(value) + sum(map(_count_named, value.values()))
