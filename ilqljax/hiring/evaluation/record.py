"""One rewrite of one posting, from a policy's sample to the report, and evaluation files, which hold many.

`make_rewrites` makes records of what a policy wrote; the judge, the proposals, the audit and every table read them. An
evaluation file is JSONL, and may hold several policies, of each one line a posting:

    {"policy": "ilql", "posting_id": "p7", "company": "...", "prompt": "...", "original": "...", "rewrite": "...",
     "reward_original": -22.0, "reward": -8.0, "log_probability": -31.2, "guardrail_failures": ["company_kept"],
     "shortlist_before": {"ids": ["c3", ...], "attributes": {"gender": ["female", "", ...], "region": [...]}},
     "shortlist_after": {...}}

and may also say "held_out_reward_original" and "held_out_reward", "advantage", "fluency" (null where it was not
checked) and "guardrail_reasons".

A shortlist lists candidates best first; each attribute has one value a candidate, "" where unknown. Both lists of an
empty rewrite's `shortlist_after` may be empty. `log_probability` may be null (a policy that copies has none). Rewards
are numbers, not NaN.
"""

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from ilqljax.data.files import check_checksum, save_with_checksum
from ilqljax.data.json_lines import read_json_lines
from ilqljax.data.types import Array
from ilqljax.errors import UserError
from ilqljax.hiring.environment import Reward
from ilqljax.hiring.guardrails import check_rewrite
from ilqljax.hiring.guardrails.fluency import Fluency
from ilqljax.hiring.postings.posting import Posting, build_prompt, normalize_spaces

EVALUATION_FILE = "evaluation.jsonl"

# The roles of matchers, and the keys of their rewards in a file.
TRAINING, HELD_OUT = "training", "held_out"
_REWARDS = {
    TRAINING: ("reward_original", "reward"),
    HELD_OUT: ("held_out_reward_original", "held_out_reward"),
}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# What a value may have to be, in the words of an error.
_KINDS = {
    "text": lambda value: isinstance(value, str),
    "an object": lambda value: isinstance(value, dict),
    "a number": _is_number,
    "a number or null": lambda value: value is None or _is_number(value),
    "a finite number": lambda value: _is_number(value) and abs(value) <= sys.float_info.max,
    "a list of texts": lambda value: isinstance(value, list) and all(isinstance(item, str) for item in value),
}
# The other keys of a line, with the attributes they hold and what these must be.
_FIELDS = {
    **{name: (name, "text") for name in ("policy", "posting_id", "company", "prompt", "original")},
    "rewrite": ("text", "text"),
    "log_probability": ("log_probability", "a number or null"),
    "advantage": ("advantage", "a number"),
    "fluency": ("fluency", "a number or null"),
    "guardrail_failures": ("failed_checks", "a list of texts"),
    "guardrail_reasons": ("reasons", "a list of texts"),
    "shortlist_before": ("before", "an object"),
    "shortlist_after": ("after", "an object"),
}
_OPTIONAL = ("advantage", "fluency", "guardrail_reasons")


class BeforeAfter(NamedTuple):
    """Hold one matcher's reward of the original and of the rewrite."""

    before: float
    after: float


@dataclass(frozen=True)
class Shortlist:
    """Hold a posting's candidates, best first, and their attribute values ("" is unknown)."""

    ids: tuple[str, ...] = ()
    attributes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Rewrite:
    """Hold one rewrite; texts have their white space folded."""

    policy: str  # who wrote it
    posting_id: str
    company: str
    prompt: str  # what the policy read
    original: str
    text: str  # the rewrite
    rewards: Mapping[str, BeforeAfter] = field(default_factory=dict)  # by the role of the matcher
    log_probability: float = math.nan  # under the policy, natural logarithm; NaN where there is none
    advantage: float = 0.0  # the critic's, summed over its tokens; 0 without a critic
    fluency: float = math.nan  # what the fluency check measured; NaN where it was not checked
    failed_checks: tuple[str, ...] = ()  # names of the guardrails that it fails, sorted
    reasons: tuple[str, ...] = ()  # what is wrong, for a person
    before: Shortlist = Shortlist()  # whom the original reaches; nobody where it was not asked
    after: Shortlist = Shortlist()
    where: str = field(default="", compare=False)  # what the record is from, for errors

    @property
    def reward(self) -> float:
        """Return the reward under the matcher of training."""
        return self.rewards[TRAINING].after

    @property
    def gain(self) -> float:
        """Return what the rewrite gains under the matcher of training."""
        before, after = self.rewards[TRAINING]
        return after - before

    def to_json(self) -> dict[str, Any]:
        """Return the record as a line of an evaluation file (module docstring)."""
        fields = {key: _to_json(getattr(self, name)) for key, (name, _) in _FIELDS.items()}
        texts = {key: value for key, value in fields.items() if isinstance(value, str)}
        rewards = {_REWARDS[role][i]: reward[i] for i in (0, 1) for role, reward in self.rewards.items()}
        return texts | rewards | fields

    @classmethod
    def from_json(cls, row: Mapping[str, Any], *, where: str) -> "Rewrite":
        """Return the record of a line of an evaluation file; a `UserError` says what is malformed or missing."""
        kinds = {key: kind for key, (_, kind) in _FIELDS.items() if key in row or key not in _OPTIONAL}
        roles = {role: keys for role, keys in _REWARDS.items() if role == TRAINING or row.keys() & set(keys)}
        finite = dict.fromkeys((key for keys in roles.values() for key in keys), "a finite number")
        _check(row, kinds | finite, where=where)
        return cls(
            **{_FIELDS[key][0]: _from_json(row[key], where=f"{where}: '{key}'") for key in kinds},
            rewards={role: BeforeAfter(*(float(row[key]) for key in keys)) for role, keys in roles.items()},
            where=where,
        )


def make_rewrites(
    postings: Sequence[Posting],
    samples: Sequence[tuple[str, float, float]],
    *,
    policy: str,
    rewards: Mapping[str, Reward],
    fluency: Fluency | None = None,
    guardrails: str = "edits",
) -> list[Rewrite]:
    """Reward and check what a policy wrote: one sample (text, advantage, log-probability) a posting.

    One posting may come several times. The rewards are by the role of the matcher, the guardrails a mode of `MODES`.
    """
    if not postings:
        return []
    prompts = [build_prompt(posting) for posting in postings]
    originals = [normalize_spaces(posting.description) for posting in postings]
    texts = [normalize_spaces(text) for text, _, _ in samples]
    scores = {role: [reward.score(prompts, part) for part in (originals, texts)] for role, reward in rewards.items()}
    fluent = fluency.compare(prompts, originals, texts).tolist() if fluency else [math.nan] * len(texts)
    rewrites = []
    for i, (posting, (_, advantage, log_probability)) in enumerate(zip(postings, samples, strict=True)):
        failures = check_rewrite(posting, texts[i], prompts[i], mode=guardrails)
        failures += fluency.judge(fluent[i]) if fluency else []
        rewrites.append(
            Rewrite(
                policy=policy,
                posting_id=posting.id,
                company=posting.company,
                prompt=prompts[i],
                original=originals[i],
                text=texts[i],
                rewards={role: BeforeAfter(float(old[i]), float(new[i])) for role, (old, new) in scores.items()},
                log_probability=log_probability,
                advantage=advantage,
                fluency=fluent[i],
                failed_checks=tuple(sorted({failure.check for failure in failures})),
                reasons=tuple(failure.reason for failure in failures),
                where=f"policy '{policy}', posting '{posting.id}'",
            )
        )
    return rewrites


def guard_gains(gains: Float[Array, " G"], failed: Bool[Array, " G"]) -> Float[Array, " G"]:
    """Return gains in which a rewrite that fails a guardrail never counts as an improvement: at most 0."""
    return np.where(failed, np.minimum(gains, 0.0), gains)


def save_evaluations(path: str | Path, policies: Mapping[str, Sequence[Rewrite]]) -> None:
    """Write an evaluation file and its checksum, whole or not at all."""
    lines = [json.dumps(row.to_json(), ensure_ascii=False) for rows in policies.values() for row in rows]
    save_with_checksum(path, "".join(f"{line}\n" for line in lines))


def load_evaluations(path: str | Path) -> dict[str, list[Rewrite]]:
    """Load an evaluation, a file or the folder that holds it: each policy's rewrites, in the order of the file.

    Raises:
        UserError: the file is missing, empty or not the one its checksum is of, a line is malformed, lacks a key, or
        repeats a posting of its policy, or the policies were not judged on the same postings.
    """
    path = Path(path)
    if path.is_dir():
        path /= EVALUATION_FILE
    if not path.is_file():
        raise UserError(f"{path}: no such file. Give the folder of a run, or of `ilqljax evaluate --out`.")
    check_checksum(path)
    policies: dict[str, dict[str, Rewrite]] = {}
    for where, row in read_json_lines(path):
        rewrite = Rewrite.from_json(row, where=where)
        known = policies.setdefault(rewrite.policy, {}).setdefault(rewrite.posting_id, rewrite)
        if known is not rewrite:
            raise UserError(
                f"{rewrite.where}: policy '{rewrite.policy}' already has posting '{rewrite.posting_id}' at "
                f"{known.where}. Each posting is evaluated once; delete one of the lines."
            )
    if not policies:
        raise UserError(f"{path}: holds no evaluation. Write it with `ilqljax evaluate`.")
    first, whole = next(iter(policies.items()))
    for name, judged in policies.items():
        if judged.keys() != whole.keys():
            raise UserError(
                f"{path}: policy '{name}' has {len(judged)} postings and '{first}' has {len(whole)}, which are not the "
                "same ones. Is the file complete? Write it again with `ilqljax evaluate`."
            )
    return {name: list(rewrites.values()) for name, rewrites in policies.items()}


def _to_json(value: Any) -> Any:
    if isinstance(value, Shortlist):
        return {"ids": list(value.ids), "attributes": {name: list(each) for name, each in value.attributes.items()}}
    if isinstance(value, tuple):
        return list(value)
    return None if isinstance(value, float) and math.isnan(value) else value


def _from_json(value: Any, *, where: str) -> Any:
    if isinstance(value, dict):
        return _parse_shortlist(value, where=where)
    if isinstance(value, list):
        return tuple(value)
    return math.nan if value is None else value


def _parse_shortlist(value: dict[str, Any], *, where: str) -> Shortlist:
    _check(value, {"ids": "a list of texts", "attributes": "an object"}, where=where)
    ids, attributes = value["ids"], value["attributes"]
    _check(attributes, dict.fromkeys(attributes, "a list of texts"), where=f"{where}: 'attributes'")
    for name, values in attributes.items():
        if len(values) != len(ids):
            raise UserError(f"{where}: {len(ids)} ids but {len(values)} values of '{name}'. Give one a candidate.")
    return Shortlist(tuple(ids), {name: tuple(values) for name, values in attributes.items()})


def _check(row: Mapping[str, Any], kinds: Mapping[str, str], *, where: str) -> None:
    """Raise a `UserError` unless an object has the keys, each of its kind."""
    missing = [name for name in kinds if name not in row]
    if missing:
        raise UserError(f"{where}: missing {', '.join(map(repr, missing))}; the keys are {sorted(row)}. Add them.")
    for name, kind in kinds.items():
        if not _KINDS[kind](row[name]):
            raise UserError(f"{where}: '{name}' must be {kind}, got {json.dumps(row[name])[:60]}.")
