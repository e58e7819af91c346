"""One rewrite of one posting, from a policy's sample to the report: texts, rewards, guardrails and shortlists.

`make_rewrites` makes records of what a policy wrote; the judge, the proposals, the audit and every table read them. An
evaluation file holds one a line:

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
from typing import Any, NamedTuple

from ilqljax.errors import UserError
from ilqljax.hiring.environment import Reward
from ilqljax.hiring.guardrails import check_rewrite
from ilqljax.hiring.guardrails.fluency import Fluency
from ilqljax.hiring.postings.posting import Posting, normalize_spaces
from ilqljax.hiring.postings.prompts import build_prompt

# The roles of matchers, and what their rewards' keys begin with in a file.
TRAINING, HELD_OUT = "training", "held_out"
_PREFIXES = {TRAINING: "", HELD_OUT: "held_out_"}
_TEXTS = {
    "policy": "policy",
    "posting_id": "posting_id",
    "company": "company",
    "prompt": "prompt",
    "original": "original",
    "rewrite": "text",
}
_REQUIRED = (
    *_TEXTS,
    "reward_original",
    "reward",
    "log_probability",
    "guardrail_failures",
    "shortlist_before",
    "shortlist_after",
)


class BeforeAfter(NamedTuple):
    """Hold one matcher's reward of the original and of the rewrite."""

    before: float
    after: float

    @property
    def gain(self) -> float:
        """Return the rewrite's reward less the original's."""
        return self.after - self.before


@dataclass(frozen=True)
class Shortlist:
    """Hold a posting's candidates, best first, and their attribute values ("" is unknown)."""

    ids: tuple[str, ...] = ()
    attributes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Rewrite:
    """Hold one rewrite.

    Attributes:
        policy: who wrote it.
        posting_id: of which posting.
        company: the posting's.
        prompt: what the policy read.
        original: the posting's text, white space folded.
        text: the rewrite, likewise.
        rewards: by the role of the matcher, `TRAINING` or `HELD_OUT`.
        log_probability: under the policy, natural logarithm; NaN where there is none.
        advantage: the critic's, summed over its tokens; 0 without a critic.
        fluency: what the fluency check measured; NaN where it was not checked.
        failed_checks: names of the guardrails that it fails, sorted; () for none.
        reasons: what is wrong, for a person.
        before: whom the original reaches; nobody where it was not asked.
        after: whom the rewrite reaches.
        where: for errors, where the record is from.
    """

    policy: str
    posting_id: str
    company: str
    prompt: str
    original: str
    text: str
    rewards: Mapping[str, BeforeAfter] = field(default_factory=dict)
    log_probability: float = math.nan
    advantage: float = 0.0
    fluency: float = math.nan
    failed_checks: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    before: Shortlist = Shortlist()
    after: Shortlist = Shortlist()
    where: str = field(default="", compare=False)

    @property
    def reward(self) -> float:
        """Return the reward under the matcher of training."""
        return self.rewards[TRAINING].after

    @property
    def gain(self) -> float:
        """Return what the rewrite gains under the matcher of training."""
        return self.rewards[TRAINING].gain

    def to_json(self) -> dict[str, Any]:
        """Return the record as a line of an evaluation file (module docstring)."""
        rewards = [(_PREFIXES[role], reward) for role, reward in self.rewards.items()]
        return {
            **{key: getattr(self, name) for key, name in _TEXTS.items()},
            **{f"{prefix}reward_original": reward.before for prefix, reward in rewards},
            **{f"{prefix}reward": reward.after for prefix, reward in rewards},
            "log_probability": None if math.isnan(self.log_probability) else self.log_probability,
            "advantage": self.advantage,
            "fluency": None if math.isnan(self.fluency) else self.fluency,
            "guardrail_failures": list(self.failed_checks),
            "guardrail_reasons": list(self.reasons),
            "shortlist_before": _show_shortlist(self.before),
            "shortlist_after": _show_shortlist(self.after),
        }

    @classmethod
    def from_json(cls, row: Any, *, where: str) -> "Rewrite":
        """Return the record of a line of an evaluation file.

        Raises:
            UserError: it is malformed or lacks a key.
        """
        _require(isinstance(row, dict), "the line", "an object", row, where=where)
        _require_keys(row, _REQUIRED, where=where)
        for key in _TEXTS:
            _require(isinstance(row[key], str), f"'{key}'", "text", row[key], where=where)
        for key in ("log_probability", "fluency"):
            is_valid = row.get(key) is None or _is_number(row[key])
            _require(is_valid, f"'{key}'", "a number or null", row.get(key), where=where)
        advantage = row.get("advantage", 0.0)
        _require(_is_number(advantage), "'advantage'", "a number", advantage, where=where)
        for key in ("guardrail_failures", "guardrail_reasons"):
            texts = row.get(key, [])
            _require(_is_list_of_text(texts), f"'{key}'", "a list of texts", texts, where=where)
        return cls(
            **{name: row[key] for key, name in _TEXTS.items()},
            rewards=_parse_rewards(row, where=where),
            log_probability=math.nan if row["log_probability"] is None else row["log_probability"],
            advantage=advantage,
            fluency=math.nan if row.get("fluency") is None else row["fluency"],
            failed_checks=tuple(row["guardrail_failures"]),
            reasons=tuple(row.get("guardrail_reasons", ())),
            before=_parse_shortlist(row["shortlist_before"], where=f"{where}: 'shortlist_before'"),
            after=_parse_shortlist(row["shortlist_after"], where=f"{where}: 'shortlist_after'"),
            where=where,
        )


def make_rewrites(
    postings: Sequence[Posting],
    samples: Sequence[tuple[str, float, float]],
    *,
    policy: str,
    rewards: Mapping[str, Reward],
    fluency: Fluency | None = None,
) -> list[Rewrite]:
    """Reward and check what a policy wrote: one sample (text, advantage, log-probability) a posting.

    Args:
        postings: the originals; one may come several times.
        samples: one a posting.
        policy: who wrote them.
        rewards: what scores them, by the role of the matcher.
        fluency: a check beside the guardrails; None leaves it out.
    """
    if not postings:
        return []
    prompts = [build_prompt(posting) for posting in postings]
    originals = [normalize_spaces(posting.description) for posting in postings]
    texts = [normalize_spaces(text) for text, _, _ in samples]
    scores = {
        role: (reward.score(prompts, originals), reward.score(prompts, texts)) for role, reward in rewards.items()
    }
    fluent = fluency.compare(prompts, originals, texts).tolist() if fluency else [math.nan] * len(texts)
    rewrites = []
    for i, (posting, (_, advantage, log_probability)) in enumerate(zip(postings, samples, strict=True)):
        failures = check_rewrite(posting, texts[i], prompts[i])
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


def _show_shortlist(shortlist: Shortlist) -> dict[str, Any]:
    attributes = {name: list(values) for name, values in shortlist.attributes.items()}
    return {"ids": list(shortlist.ids), "attributes": attributes}


def _parse_rewards(row: Mapping[str, Any], *, where: str) -> dict[str, BeforeAfter]:
    rewards = {}
    for role, prefix in _PREFIXES.items():
        keys = (f"{prefix}reward_original", f"{prefix}reward")
        if not any(key in row for key in keys):
            continue
        _require_keys(row, keys, where=where)
        for key in keys:
            is_valid = _is_number(row[key]) and abs(row[key]) <= sys.float_info.max
            _require(is_valid, f"'{key}'", "a finite number", row[key], where=where)
        rewards[role] = BeforeAfter(*(float(row[key]) for key in keys))
    return rewards


def _parse_shortlist(value: Any, *, where: str) -> Shortlist:
    _require(isinstance(value, dict), "the shortlist", "an object", value, where=where)
    _require_keys(value, ("ids", "attributes"), where=where)
    ids, attributes = value["ids"], value["attributes"]
    _require(_is_list_of_text(ids), "'ids'", "a list of texts", ids, where=where)
    _require(isinstance(attributes, dict), "'attributes'", "an object", attributes, where=where)
    for name, values in attributes.items():
        _require(_is_list_of_text(values), f"attribute '{name}'", "a list of texts", values, where=where)
        if len(values) != len(ids):
            raise UserError(f"{where}: {len(ids)} ids but {len(values)} values of '{name}'. Give one a candidate.")
    return Shortlist(tuple(ids), {name: tuple(values) for name, values in attributes.items()})


def _require_keys(row: Mapping[str, Any], names: Sequence[str], *, where: str) -> None:
    missing = [name for name in names if name not in row]
    if missing:
        raise UserError(f"{where}: missing {', '.join(map(repr, missing))}; the keys are {sorted(row)}. Add them.")


def _require(is_valid: bool, what: str, expected: str, value: Any, *, where: str) -> None:
    if not is_valid:
        raise UserError(f"{where}: {what} must be {expected}, got {json.dumps(value)[:60]}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_list_of_text(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
