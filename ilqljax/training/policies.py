"""Trained policies: what they are made of, how they act, how they are judged, and how they leave the house."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jax.sharding import Mesh

from ilqljax.config import from_section
from ilqljax.config.files import load_config_json, save_config_json
from ilqljax.data.dataset import ListRLDataset
from ilqljax.data.files import save_text
from ilqljax.data.loader import eval_batches
from ilqljax.data.tokenizer import Tokenizer
from ilqljax.data.transforms import Transform
from ilqljax.decoding.policy import TextPolicy
from ilqljax.envs.base import LanguageEnvironment, Policy, interact_environments
from ilqljax.models.builders import BuiltModel
from ilqljax.models.io.networks import Networks, save_networks
from ilqljax.models.value_lm import policy_trunk
from ilqljax.rl.algorithms import Learner
from ilqljax.rl.state import TrainState
from ilqljax.training.mesh import shard_batch
from ilqljax.training.processes import broadcast_from_leader, is_first_process
from ilqljax.training.run_config import RunConfig
from ilqljax.training.runs import save_json

TRANSFORMS = "transforms"


class Trained(NamedTuple):
    """A trained policy: its algorithm, how dialogues are shown to it, and the networks that act."""

    learner: Learner
    transform: Transform
    params: dict
    target: dict


class PolicyMaker(Protocol):
    """Makes a trained policy by name; keywords override options of `DecodeConfig`."""

    def __call__(self, name: str, **overrides: Any) -> TextPolicy: ...


class Judge(Protocol):
    """A task's final judgement: acts with the policies, writes what they did into `out_dir`, returns a table."""

    def __call__(self, names: Sequence[str], make: PolicyMaker, *, out_dir: Path) -> tuple[list[dict], str]: ...


def make_policy(config: RunConfig, built: BuiltModel, trained: Trained, **overrides: Any) -> TextPolicy:
    """Make a policy that acts as `config.decode` says.

    Without a critic there is no advantage: its weight is 0, and where samples are to be chosen by it, one is drawn.
    """
    if not trained.learner.algorithm.has_critic:
        chosen = {"n_generations": 1} if config.decode.rank_by in ("advantage", "value") else {}
        overrides = {"beta": 0.0} | chosen | overrides
    return TextPolicy(
        trained.learner.model,
        dataclasses.replace(config.decode, **overrides),
        built.tokenizer,
        params=trained.params,
        target=trained.target,
        view=trained.transform.view,
        value_range=trained.learner.value_range,
        seed=config.seed,
        batch_size=config.acting.batch_size,
        length_buckets=config.acting.length_buckets,
    )


def evaluate_policies(
    config: RunConfig, built: BuiltModel, policies: Mapping[str, Trained], *, judge: Judge, out_dir: Path
) -> None:
    """Judge trained policies, print the table and write it to `results.json` and `results.txt` in `out_dir`.

    The first of several processes does so; the others wait.
    """

    def make(name: str, **overrides: Any) -> TextPolicy:
        return make_policy(config, built, policies[name], **overrides)

    def act() -> None:
        rows, table = judge(list(policies), make, out_dir=out_dir)
        save_json(out_dir / "results.json", rows)
        save_text(out_dir / "results.txt", table + "\n")
        print(table, flush=True)

    broadcast_from_leader(act)


def evaluate_loss(
    eval_step: Callable, state: TrainState, dataset: ListRLDataset, *, mesh: Mesh, **batching: Any
) -> dict[str, float]:
    """Return each metric of the loss over all rows, each counted once, in batches as `loop.Stage.batching` says.

    Every batch is divided by the counts of the whole dataset, so the sum over batches is exactly the mean over its
    actions (or tokens): a short last batch weighs what it holds.
    """
    counts = dataset.count_rows()
    totals: dict[str, float] = {}
    for batch in eval_batches(dataset, **batching):
        metrics = jax.device_get(eval_step(state, shard_batch(batch, mesh), counts))
        for name, value in metrics.items():
            totals[name] = totals.get(name, 0.0) + float(value)
    return totals


def evaluate_rollouts(environments: Sequence[LanguageEnvironment], policy: Policy) -> dict[str, float]:
    """Play every environment once and return the mean return, its standard error and the mean number of turns."""
    played = [sequence for _, sequence in interact_environments(environments, policy)]
    returns = np.array([sum(reward for _, _, reward, _ in sequence) for sequence in played])
    error = returns.std(ddof=1) / np.sqrt(len(returns)) if len(returns) > 1 else float("nan")
    return {
        "return": float(returns.mean()),
        "return_standard_error": float(error),
        "turns": float(np.mean([len(sequence) for sequence in played])),
    }


def export_policy(directory: Path, built: BuiltModel, trained: Trained, *, critic: bool = False) -> None:
    """Write a policy's language model as a directory for transformers, with the tokenizer beside it.

    With `critic` the value heads and targets go there too, as `ilqljax.models.io.networks` describes.
    """
    if is_first_process():
        params, target = (trained.params, trained.target) if critic else ({"policy": policy_trunk(trained.params)}, {})
        save_model(directory, Networks(trained.learner.model, params, target), built.tokenizer)


def save_model(directory: Path, networks: Networks, tokenizer: Tokenizer | None) -> None:
    """Write networks, and the tokenizer beside them, if there is one."""
    if tokenizer is None:
        save_networks(directory, networks, special_ids={})
        return
    ids = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eoa_id, "pad_token_id": tokenizer.pad_id}
    save_networks(directory, networks, special_ids=ids)
    tokenizer.save(directory)


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
