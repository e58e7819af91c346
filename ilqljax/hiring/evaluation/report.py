"""Read an evaluation file and tabulate it: rewards before and after (distilled), and impact ratios.

An evaluation file is JSONL, one line per (policy, posting); several policies may share a file, and each posting occurs
once a policy:

    {"policy": "ilql", "posting_id": "p7", "company": "...", "prompt": "...", "original": "...", "rewrite": "...",
     "reward_original": -22.0, "reward": -8.0, "log_probability": -31.2, "guardrail_failures": ["company_kept"],
     "shortlist_before": {"ids": ["c3", ...], "attributes": {"gender": ["female", "", ...], "region": [...]}},
     "shortlist_after": {...}}

A shortlist lists candidates best first; each attribute has one value a candidate, "" where unknown. Both lists of an
empty rewrite's `shortlist_after` may be empty. `log_probability` may be null (a policy that copies has none). Rewards
are numbers, not NaN.
"""

import csv
import io
import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ilqljax.data.files import check_checksum, read_bounded_lines, replace_half_characters, save_text
from ilqljax.errors import UserError
from ilqljax.hiring.attributes import encode_values
from ilqljax.hiring.audit.impact_ratio import ImpactRatioTable, compute_impact_ratios, count_selection
from ilqljax.hiring.reward.diversity import count_categories, normalize_counts
from ilqljax.hiring.statistics import Estimate, bootstrap_mean, entropy, mean_and_standard_error

Row = dict[str, Any]
TEXT_FIELDS = ("policy", "posting_id", "company", "prompt", "original", "rewrite")
KEYS = (
    *TEXT_FIELDS,
    "reward_original",
    "reward",
    "log_probability",
    "guardrail_failures",
    "shortlist_before",
    "shortlist_after",
)
PHASES = ("before", "after")
UNKNOWN_ROW = "(unknown)"
SMALLEST_ROW = "(smallest ratio)"


@dataclass(frozen=True)
class Shortlist:
    """Hold a posting's candidates, best first, and their attribute values ("" is unknown)."""

    ids: tuple[str, ...]
    attributes: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Evaluation:
    """Hold one line of an evaluation file (module docstring), and where it stands."""

    where: str
    policy: str
    posting_id: str
    company: str
    prompt: str
    original: str
    rewrite: str
    reward_original: float
    reward: float
    guardrail_failures: tuple[str, ...]
    before: Shortlist
    after: Shortlist


def load_evaluations(path: str | Path) -> dict[str, list[Evaluation]]:
    """Load an evaluation file: each policy's lines, in the order of the file.

    Raises:
        UserError: the file is missing, empty or not the one its checksum is of, a line is malformed, lacks a key, or
        repeats a posting of its policy, or the policies were not judged on the same postings.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file. Give the JSONL file that scripts/eval_policy.py wrote.")
    check_checksum(path)
    policies: dict[str, list[Evaluation]] = {}
    places: dict[tuple[str, str], str] = {}
    with path.open("rb") as lines:
        for number, line in read_bounded_lines(lines, path):
            if not line.strip():
                continue
            evaluation = _parse_evaluation(line, where=f"{path}:{number}")
            key = (evaluation.policy, evaluation.posting_id)
            if key in places:
                raise UserError(
                    f"{evaluation.where}: policy '{key[0]}' already has posting '{key[1]}' at {places[key]}. "
                    "Each posting is evaluated once; delete one of the lines."
                )
            places[key] = evaluation.where
            policies.setdefault(evaluation.policy, []).append(evaluation)
    if not policies:
        raise UserError(f"{path}: holds no evaluation. Write it with scripts/eval_policy.py.")
    (first, whole), *others = ((name, {row.posting_id for row in rows}) for name, rows in policies.items())
    for name, judged in others:
        if judged != whole:
            raise UserError(
                f"{path}: policy '{name}' has {len(judged)} postings and '{first}' has {len(whole)}, which are not the "
                "same ones. Is the file complete? Write it again with scripts/eval_policy.py."
            )
    return policies


def _parse_evaluation(line: bytes, *, where: str) -> Evaluation:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: byte {error.start} is not UTF-8. Save the file as UTF-8.") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not JSON at column {error.colno} ({error.msg}). Is the file complete?") from error
    except (RecursionError, ValueError) as error:  # brackets or digits by the thousand
        raise UserError(f"{where}: not JSON that we can read ({error}). Is the file complete?") from error
    if b"\\ud" in line.lower():
        row = replace_half_characters(row)
    _require(isinstance(row, dict), "the line", "an object", row, where=where)
    _require_keys(row, KEYS, where=where)
    for name in TEXT_FIELDS:
        _require(isinstance(row[name], str), f"'{name}'", "text", row[name], where=where)
    for name in ("reward_original", "reward"):
        is_valid = _is_number(row[name]) and abs(row[name]) <= sys.float_info.max
        _require(is_valid, f"'{name}'", "a finite number", row[name], where=where)
    log_probability = row["log_probability"]
    is_valid = log_probability is None or _is_number(log_probability)
    _require(is_valid, "'log_probability'", "a number or null", log_probability, where=where)
    failures = row["guardrail_failures"]
    _require(_is_list_of_text(failures), "'guardrail_failures'", "a list of texts", failures, where=where)
    return Evaluation(
        where=where,
        **{name: row[name] for name in TEXT_FIELDS},
        reward_original=float(row["reward_original"]),
        reward=float(row["reward"]),
        guardrail_failures=tuple(failures),
        before=_parse_shortlist(row["shortlist_before"], where=f"{where}: 'shortlist_before'"),
        after=_parse_shortlist(row["shortlist_after"], where=f"{where}: 'shortlist_after'"),
    )


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


def find_attributes(policies: Mapping[str, Sequence[Evaluation]], names: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the attributes to report: the named ones, or all of the first line, in order; each line must have them.

    Raises:
        UserError: a line lacks one of them.
    """
    evaluations = [evaluation for rows in policies.values() for evaluation in rows]
    names = tuple(dict.fromkeys(names)) or tuple(sorted(evaluations[0].before.attributes))
    for evaluation in evaluations:
        for shortlist in (evaluation.before, evaluation.after):
            for name in names:
                if name not in shortlist.attributes:
                    known = ", ".join(sorted(shortlist.attributes)) or "none"
                    raise UserError(f"{evaluation.where}: no attribute '{name}' in a shortlist; known there: {known}.")
    return names


def encode_shortlists(
    policies: Mapping[str, Sequence[Evaluation]], name: str
) -> tuple[tuple[str, ...], dict[tuple[str, str], list[np.ndarray]]]:
    """Return an attribute's categories over the whole file, and the shortlists' codes by (policy, phase)."""
    keys, lists = [], []
    for policy, evaluations in policies.items():
        for phase in PHASES:
            for evaluation in evaluations:
                keys.append((policy, phase))
                lists.append(getattr(evaluation, phase).attributes[name])
    categories, codes = encode_values([value for values in lists for value in values])
    coded: dict[tuple[str, str], list[np.ndarray]] = {}
    for key, part in zip(keys, np.split(codes, np.cumsum([len(values) for values in lists])[:-1]), strict=True):
        coded.setdefault(key, []).append(part)
    return categories, coded


def distill_evaluations(policies: Mapping[str, Sequence[Evaluation]], *, seed: int = 0) -> list[Row]:
    """Summarise each policy in one row: rewards, entropies, copies, lengths, guardrails and paired differences.

    A *guarded* difference counts a rewrite that fails a guardrail as min(difference, 0): never an improvement.
    Intervals are 95 % bootstrap intervals over postings. Entropies are of the attribute's distribution pooled over
    shortlists, in bits, unknown left out.
    """
    rows = [_distill_policy(policy, evaluations, seed=seed) for policy, evaluations in policies.items()]
    for name in find_attributes(policies):
        categories, coded = encode_shortlists(policies, name)
        for row in rows:
            for phase, label in zip(PHASES, ("original", "rewrite"), strict=True):
                codes = np.concatenate(coded[row["policy"], phase])
                shares = normalize_counts(count_categories(codes, len(categories)).counts)
                row[f"entropy_{name}_{label}"] = float(entropy(shares)) if len(shares) else math.nan
    return rows


def _distill_policy(policy: str, evaluations: Sequence[Evaluation], *, seed: int) -> Row:
    rewards = {
        "original": np.array([e.reward_original for e in evaluations]),
        "rewrite": np.array([e.reward for e in evaluations]),
    }
    passed = np.array([not e.guardrail_failures for e in evaluations])
    difference = rewards["rewrite"] - rewards["original"]
    row: Row = {"policy": policy, "n_postings": len(evaluations)}
    for label, values in rewards.items():
        row[f"reward_{label}"], row[f"reward_{label}_error"] = mean_and_standard_error(values)
    for name, values in (
        ("difference", difference),
        ("guarded_difference", np.where(passed, difference, np.minimum(difference, 0.0))),
    ):
        row |= _spread(name, bootstrap_mean(values, seed=seed))
    row["copy_rate"] = float(np.mean([e.rewrite.split() == e.original.split() for e in evaluations]))
    row["guardrail_pass_rate"] = float(passed.mean())
    row["words_original"] = float(np.mean([len(e.original.split()) for e in evaluations]))
    row["words_rewrite"] = float(np.mean([len(e.rewrite.split()) for e in evaluations]))
    return row


def tabulate_impact_ratios(
    policies: Mapping[str, Sequence[Evaluation]],
    *,
    attributes: Sequence[str] = (),
    n_selected: int = 10,
    seed: int = 0,
) -> list[Row]:
    """Tabulate impact ratios, one row per policy, attribute, category and phase ("before", then "after", rewriting).

    A shortlist's members are assessed, its first `n_selected` selected; counts are pooled over postings. Each attribute
    closes with a row of unknown members (counts only) and one of the smallest ratio. `null_ratio` is the same number
    under shuffled labels.

    Raises:
        UserError: an unknown attribute, or `n_selected` does not suit a shortlist's length.
    """
    for evaluations in policies.values():
        for evaluation in evaluations:
            for shortlist in (evaluation.before, evaluation.after):
                if shortlist.ids and not 1 <= n_selected < len(shortlist.ids):
                    raise UserError(
                        f"{evaluation.where}: {n_selected} are to be selected of a shortlist of {len(shortlist.ids)}. "
                        f"Pass --selected with a number from 1 to {len(shortlist.ids) - 1}."
                    )
    names = find_attributes(policies, attributes)
    if not names:
        raise UserError("The evaluation file's shortlists hold no attribute. Declare attributes of the candidates.")
    rows_of: dict[str, list[Row]] = {policy: [] for policy in policies}
    for name in names:
        categories, coded = encode_shortlists(policies, name)
        for policy, rows in rows_of.items():
            tables = []
            for phase in PHASES:
                counts = count_selection(coded[policy, phase], n_selected=n_selected, n_categories=len(categories))
                table = compute_impact_ratios(counts, categories, seed=seed)
                front = {"policy": policy, "attribute": name, "phase": phase}
                tables.append([front | row for row in flatten_table(table)])
            rows.extend(row for pair in zip(*tables, strict=True) for row in pair)
    return [row for rows in rows_of.values() for row in rows]


def flatten_table(table: ImpactRatioTable) -> list[Row]:
    """Return a table as flat rows: its categories, then the unknown, then the smallest ratio."""
    nothing = Estimate(math.nan, math.nan, math.nan)

    def make_row(category, n_assessed, n_selected, rate, ratio, null, p_value=math.nan, test="", mark=""):
        row = {"category": category, "n_assessed": n_assessed, "n_selected": n_selected}
        row |= _spread("selection_rate", rate) | _spread("impact_ratio", ratio) | _spread("null_ratio", null)
        return row | {"p_value": p_value, "test": test, "mark": str(mark)}

    rows = [
        make_row(
            r.category,
            r.n_assessed,
            r.n_selected,
            r.selection_rate,
            r.impact_ratio,
            r.null_ratio,
            r.p_value,
            r.test,
            r.mark,
        )
        for r in table.rows
    ]
    smallest = Estimate(table.smallest_ratio, math.nan, math.nan)
    return [
        *rows,
        make_row(UNKNOWN_ROW, table.n_unknown_assessed, table.n_unknown_selected, nothing, nothing, nothing),
        make_row(SMALLEST_ROW, "", "", nothing, smallest, table.null_smallest_ratio),
    ]


def _spread(name: str, estimate: Estimate) -> Row:
    return {name: float(estimate.value), f"{name}_low": float(estimate.low), f"{name}_high": float(estimate.high)}


def format_distilled(rows: Sequence[Row]) -> str:
    """Format distilled rows as a plain-text table with one column a policy."""
    attributes = [match[1] for key in rows[0] if (match := re.fullmatch("entropy_(.*)_original", key))]
    lines = [["", *(row["policy"] for row in rows)], ["postings", *(str(row["n_postings"]) for row in rows)]]
    for label in ("original", "rewrite"):
        errors = [f"{_number(row[f'reward_{label}'])} +- {_number(row[f'reward_{label}_error'])}" for row in rows]
        lines.append([f"reward, {label}", *errors])
    for name, title in (("difference", "difference"), ("guarded_difference", "guarded difference")):
        lines.append([f"{title} [95 %]", *(_number_with_interval(row, name, digits=2) for row in rows)])
    for name, title in (("copy_rate", "copies"), ("guardrail_pass_rate", "pass guardrails")):
        lines.append([title, *(f"{100 * row[name]:.1f} %" for row in rows)])
    for label in ("original", "rewrite"):
        lines.append([f"words, {label}", *(f"{row[f'words_{label}']:.1f}" for row in rows)])
    for name in attributes:
        for label in ("original", "rewrite"):
            values = [_number(row[f"entropy_{name}_{label}"], digits=3) for row in rows]
            lines.append([f"entropy of {name}, {label} (bits)", *values])
    return _align(lines)


def format_impact_ratios(rows: Sequence[Row]) -> str:
    """Format impact-ratio rows as plain text, one table per policy and attribute; shuffled = under permuted labels."""
    tables: dict[tuple[str, str], list[list[str]]] = {}
    for row in rows:
        header = ["category", "phase", "n", "selected", "rate [95 %]", "ratio [95 %]", "shuffled [95 %]", "p", "mark"]
        cells = [row["category"], row["phase"], str(row["n_assessed"]), str(row["n_selected"])]
        cells += [
            _number_with_interval(row, name, digits=3) for name in ("selection_rate", "impact_ratio", "null_ratio")
        ]
        cells += [_number(row["p_value"], digits=3), row["mark"]]
        tables.setdefault((row["policy"], row["attribute"]), [header]).append(cells)
    note = (
        "Shuffled: the same ratio when labels are permuted within each shortlist. Ratio intervals resample postings; "
        "rate intervals and p-values treat members as independent."
    )
    return "\n\n".join([*(f"{policy}: {name}\n{_align(lines)}" for (policy, name), lines in tables.items()), note])


def _number(value: float, *, digits: int = 2) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def _number_with_interval(row: Row, name: str, *, digits: int) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    interval = "" if math.isnan(low) else f" [{low:.{digits}f}, {high:.{digits}f}]"
    return _number(row[name], digits=digits) + interval


def _align(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def check_save_path(path: str | Path) -> None:
    """Raise a `UserError` unless rows can be saved under this name: an existing folder, and `.csv` or `.json`."""
    path = Path(path)
    if path.suffix not in (".csv", ".json"):
        raise UserError(f"{path}: the suffix must be .csv or .json, which chooses the format. Rename the file.")
    if not path.parent.is_dir():
        raise UserError(f"{path}: there is no folder {path.parent}. Create it or choose another one.")


def save_rows(path: str | Path, rows: Sequence[Row]) -> None:
    """Write rows as CSV or JSON by the suffix, whole or not at all; NaN becomes an empty cell or null.

    Raises:
        UserError: another suffix, or the file cannot be written.
    """
    path = Path(path)
    check_save_path(path)
    rows = [{key: None if isinstance(v, float) and math.isnan(v) else v for key, v in row.items()} for row in rows]
    if path.suffix == ".json":
        text = json.dumps(rows, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    else:
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        text = buffer.getvalue()
    save_text(path, text)
