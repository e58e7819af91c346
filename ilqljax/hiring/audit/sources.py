"""Read what an audit of the hiring task needs: postings, candidates, rewrites and a matcher."""

import ast
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import ilqljax.hiring.matching.http  # noqa: F401  (registers the matchers)
from ilqljax.config import BuildContext, build
from ilqljax.data.files import check_checksum
from ilqljax.data.json_lines import read_field, read_json_lines
from ilqljax.errors import UserError
from ilqljax.hiring.data.prepare import choose_some
from ilqljax.hiring.evaluation.record import Rewrite
from ilqljax.hiring.guardrails import check_rewrite
from ilqljax.hiring.matching.matcher import Matcher
from ilqljax.hiring.postings.posting import Candidate, Posting, normalize_spaces
from ilqljax.hiring.postings.prompts import build_prompt
from ilqljax.hiring.postings.sources import load_market

SAMPLE = "sample"
DEFAULT_POLICY = "rewrite"
MATCHERS = ("tfidf", "encoder", "embeddings", "callable", "http")


def make_matcher(
    name: str, candidates: Sequence[Candidate], *, options: Mapping[str, Any] = MappingProxyType({})
) -> Matcher:
    """Return a matcher of the candidates, with options of its own, such as an encoder's `path`.

    A `UserError` is raised where the matcher or an option is unknown, or the matcher cannot rank these candidates.
    """
    if name not in MATCHERS:
        raise UserError(f"Unknown matcher '{name}'. Known: {', '.join(MATCHERS)}.")
    if name in ("encoder", "embeddings"):
        import ilqljax.hiring.matching.encoders  # noqa: F401  (registers them; it needs jax, which the others do not)
    source = build("matcher", {"name": name, **options}, context=BuildContext(), path="--matcher_options")
    with tempfile.TemporaryDirectory() as folder:
        return source.make(candidates, folder=Path(folder))


def parse_options(text: str) -> dict[str, Any]:
    """Read "path=DIR, max_length=128": numbers and True or False as such, everything else as text."""
    options: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = (word.strip() for word in part.partition("="))
        if not equals or not key:
            raise UserError(f"--matcher_options: {part!r} is not an assignment. Write key=value, separated by commas.")
        try:
            options[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            options[key] = value
    return options


def load_postings_and_candidates(
    jobs: str, candidates: str, *, max_postings: int = 0, seed: int = 0, plant: float = 0.8
) -> tuple[list[Posting], list[Candidate]]:
    """Load postings and candidates.

    Args:
        jobs: a file or folder of any format of `sources`, or "sample".
        candidates: candidates.jsonl, or "sample"; "" for the ones that come with the jobs.
        max_postings: take a random part of the postings, in their order; 0 takes all.
        seed: of the sample and of that part.
        plant: of the sample.

    Raises:
        UserError: a missing file, a malformed line, or a bad number.
    """
    path, people = ("" if name == SAMPLE else name for name in (jobs, candidates))
    market = load_market(path=path, candidates_path=people, seed=seed, plant=plant)
    if candidates == SAMPLE and jobs != SAMPLE:
        market = market._replace(candidates=load_market(seed=seed, plant=plant).candidates)
    return choose_some(market.postings, max_postings, seed=seed), market.candidates


def load_rewrites(path: str | Path, *, known: Sequence[Posting], policy: str = "") -> dict[str, Rewrite]:
    """Load rewrites by posting id: a JSONL file of {"id", "text"}, or a run's `evaluation.jsonl`.

    In an evaluation file ("posting_id", "rewrite", "policy", "guardrail_failures") one policy is audited. Guardrails
    are checked here where the file does not say what failed.

    Raises:
        UserError: a malformed line, a posting that is not known or occurs twice, several policies and none named, or a
            run's file that was changed since it was written.
    """
    check_checksum(path)
    posting_of = {posting.id: posting for posting in known}
    by_policy: dict[str, dict[str, Rewrite]] = {}
    for number, row in read_json_lines(path):
        where = f"{path}:{number}"
        name = read_field(row, "policy", kind=str, where=where, default=DEFAULT_POLICY)
        posting_id = read_field(row, "posting_id" if "posting_id" in row else "id", kind=str, where=where)
        rewrites = by_policy.setdefault(name, {})
        if posting_id not in posting_of:
            raise UserError(f"{where}: there is no posting '{posting_id}' in the jobs. Remove the line or add the job.")
        if posting_id in rewrites:
            raise UserError(
                f"{where}: the posting '{posting_id}' was already rewritten at {rewrites[posting_id].where}. Keep one."
            )
        text = read_field(row, "rewrite" if "rewrite" in row else "text", kind=str, where=where)
        rewrites[posting_id] = _read_rewrite(row, posting_of[posting_id], text, policy=name, where=where)
    if not by_policy:
        raise UserError(f"{path}: holds no rewrite. Give lines of {{'id': ..., 'text': ...}}.")
    names = ", ".join(map(repr, by_policy))
    if policy and policy not in by_policy:
        raise UserError(f"{path}: has no policy '{policy}'. It has: {names}.")
    if not policy and len(by_policy) > 1:
        raise UserError(f"{path}: holds rewrites of several policies. Name one with --policy: {names}.")
    return by_policy[policy or next(iter(by_policy))]


def _read_rewrite(row: Mapping, posting: Posting, text: str, *, policy: str, where: str) -> Rewrite:
    prompt, text = build_prompt(posting), normalize_spaces(text)
    if "guardrail_failures" in row:
        names = read_field(row, "guardrail_failures", kind=list, where=where)
        reasons = read_field(row, "guardrail_reasons", kind=list, where=where, default=[])
        if not all(isinstance(value, str) for value in (*names, *reasons)):
            raise UserError(f"{where}: 'guardrail_failures' and 'guardrail_reasons' must be lists of texts.")
    else:
        failures = check_rewrite(posting, text, prompt)
        names, reasons = sorted({failure.check for failure in failures}), [failure.reason for failure in failures]
    return Rewrite(
        policy=policy,
        posting_id=posting.id,
        company=posting.company,
        prompt=prompt,
        original=normalize_spaces(posting.description),
        text=text,
        failed_checks=tuple(names),
        reasons=tuple(reasons),
        where=where,
    )
