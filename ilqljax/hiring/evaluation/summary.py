"""Summarise an evaluation, one row a policy, and lay it out: as text, and rows as CSV or JSON.

A row holds rewards before and after, gains, copies, guardrails and entropies.
"""

import csv
import io
import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy  # its parts are loaded when they are used

from ilqljax.data.files import check_writable, save_text
from ilqljax.data.pages import defuse_cell
from ilqljax.errors import UserError
from ilqljax.hiring.evaluation.record import HELD_OUT, TRAINING, Rewrite, guard_gains
from ilqljax.hiring.statistics import bootstrap_mean

Row = dict[str, Any]
Policies = Mapping[str, Sequence[Rewrite]]
PHASES = ("before", "after")
LABELS = {"before": "original", "after": "rewrite"}
CLONE, COPIES = "bc", "echo"


def find_attributes(policies: Policies, names: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the attributes to report: the named ones, or all of the first record, in order.

    A record that lacks one of them raises a `UserError`.
    """
    rewrites = [rewrite for rows in policies.values() for rewrite in rows]
    names = tuple(dict.fromkeys(names)) or tuple(sorted(rewrites[0].before.attributes))
    for rewrite, phase, name in itertools.product(rewrites, PHASES, names):
        if name not in (attributes := getattr(rewrite, phase).attributes):
            known = ", ".join(sorted(attributes)) or "none"
            raise UserError(f"{rewrite.where}: no attribute '{name}' in a shortlist; known there: {known}.")
    return names


def distill_evaluations(policies: Policies, *, seed: int = 0) -> list[Row]:
    """Summarise each policy in one row: rewards, entropies, copies, lengths, guardrails and paired differences.

    A *guarded* difference counts a rewrite that fails a guardrail as min(difference, 0): never an improvement.
    Errors are standard errors, intervals 95 % bootstrap intervals over postings. Entropies are of the attribute's
    distribution pooled over shortlists, in bits, unknown left out; NaN where nobody is known.
    """
    rows, attributes = [], find_attributes(policies)
    for policy, rewrites in policies.items():
        means = {
            "copy_rate": [r.text.split() == r.original.split() for r in rewrites],
            "guardrail_pass_rate": [not r.failed_checks for r in rewrites],
            "words_original": [len(r.original.split()) for r in rewrites],
            "words_rewrite": [len(r.text.split()) for r in rewrites],
        }
        row: Row = {"policy": policy, "n_postings": len(rewrites)}
        row |= _summarize_rewards(rewrites, role=TRAINING, seed=seed)
        row |= {name: float(np.mean(values)) for name, values in means.items()}
        for name, (phase, label) in itertools.product(attributes, LABELS.items()):
            row[f"entropy_{name}_{label}"] = _measure_entropy(rewrites, phase, name)
        rows.append(row)
    return rows


def summarize_evaluations(policies: Policies, *, held_out_matcher: str = "", seed: int = 0) -> list[Row]:
    """Summarise each policy, with gains over the clone where there is one, under both matchers where there are two.

    Each policy's rewrites are in one order of the postings.
    """
    rows = distill_evaluations(policies, seed=seed)
    for row in rows:
        row |= _compare_with_clone(policies, row["policy"], role=TRAINING, seed=seed)
        if held_out_matcher:
            theirs = _summarize_rewards(policies[row["policy"]], role=HELD_OUT, seed=seed)
            theirs |= _compare_with_clone(policies, row["policy"], role=HELD_OUT, seed=seed)
            row |= {f"held_out_{key}": value for key, value in (theirs | {"matcher": held_out_matcher}).items()}
    return rows


def _summarize_rewards(rewrites: Sequence[Rewrite], *, role: str, seed: int) -> Row:
    before, after = np.array([r.rewards[role] for r in rewrites]).T
    row: Row = {}
    for label, values in zip(LABELS.values(), (before, after), strict=True):
        row[f"reward_{label}"] = float(values.mean())
        row[f"reward_{label}_error"] = float(scipy.stats.sem(values)) if len(values) > 1 else math.nan
    guarded = guard_gains(after - before, np.array([bool(r.failed_checks) for r in rewrites]))
    row |= bootstrap_mean(after - before, seed=seed).spread("difference")
    return row | bootstrap_mean(guarded, seed=seed).spread("guarded_difference")


def _compare_with_clone(policies: Policies, policy: str, *, role: str, seed: int) -> Row:
    """Return a policy's mean gain over the clone, paired by posting; nothing for the clone itself and for copies."""
    if CLONE not in policies or policy.startswith((CLONE, COPIES)):
        return {}
    pairs = zip(policies[policy], policies[CLONE], strict=True)
    gains = np.array([ours.rewards[role].after - theirs.rewards[role].after for ours, theirs in pairs])
    return bootstrap_mean(gains, seed=seed).spread("over_bc")


def _measure_entropy(rewrites: Sequence[Rewrite], phase: str, name: str) -> float:
    known = Counter(value.strip() for r in rewrites for value in getattr(r, phase).attributes[name])
    known.pop("", None)
    return float(scipy.stats.entropy(list(known.values()), base=2)) if known else math.nan


# --- Layout -----------------------------------------------------------------------------------------------------------


def format_table(rows: Sequence[dict], *, floor: float, data_mean: float, attribute: str) -> str:
    """Lay the rows out as a plain-text table that says what its numbers mean."""
    table = [("policy", "score", "gain over echo [95 %]", "guarded gain [95 %]", "pass", "copies", "words")]
    for row in rows:
        shares = (f"{100 * row[name]:.0f} %" for name in ("guardrail_pass_rate", "copy_rate"))
        table.append((*_show_scores(row, prefix=""), *shares, f"{row['words_rewrite']:.1f}"))
    lines = align(table, rule=True)
    held_out = rows[0].get("held_out_matcher", "")
    if held_out:
        lines += ["", f"The same rewrites under the held-out matcher {held_out}, which training never asked:", ""]
        lines += align([table[0][:4], *(_show_scores(row, prefix="held_out_") for row in rows)], rule=True)
        lines.append("")
    for row in rows:
        if "over_bc" in row:
            also = f"; held out: {show_interval(row, 'held_out_over_bc')}" if held_out else ""
            lines.append(f"{row['policy']} over bc, paired by posting: {show_interval(row, 'over_bc')}{also}")
    lines += [
        f"score: -100 x distance of the shortlist's {attribute} distribution from the target, over "
        f"{rows[0]['n_postings']} postings never trained on; random shortlists score {floor:.2f}, "
        f"the offline data's rewrites of these postings {data_mean:.2f}.",
        "guarded: a rewrite that fails a guardrail never counts as an improvement. pass: share that fails none.",
    ]
    return "\n".join(lines)


def _show_scores(row: Mapping[str, Any], *, prefix: str) -> tuple[str, ...]:
    """Write a policy's name, score and gains under one matcher."""
    return (
        row["policy"],
        f"{row[f'{prefix}reward_rewrite']:.2f} +- {row[f'{prefix}reward_rewrite_error']:.2f}",
        show_interval(row, f"{prefix}difference"),
        show_interval(row, f"{prefix}guarded_difference"),
    )


def align(rows: Sequence[Sequence[str]], *, rule: bool = False) -> list[str]:
    """Lay rows of cells out in columns, with a rule below the first if asked."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(n) for cell, n in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]] if rule else lines


def show_interval(row: Mapping[str, Any], name: str) -> str:
    """Write an estimate with its interval."""
    return f"{row[name]:+.2f} [{row[name + '_low']:+.2f}, {row[name + '_high']:+.2f}]"


def format_distilled(rows: Sequence[Row]) -> str:
    """Format distilled rows as a plain-text table with one column a policy."""
    columns = [_describe_policy(row) for row in rows]
    return "\n".join(align([[title, *(column[title] for column in columns)] for title in columns[0]]))


def _describe_policy(row: Row) -> dict[str, str]:
    cells = {"": row["policy"], "postings": str(row["n_postings"])}
    for label in LABELS.values():
        cells[f"reward, {label}"] = f"{_show(row, f'reward_{label}')} +- {_show(row, f'reward_{label}_error')}"
    for name in ("difference", "guarded_difference"):
        cells[f"{name.replace('_', ' ')} [95 %]"] = _show(row, name, digits=2)
    for name, title in (("copy_rate", "copies"), ("guardrail_pass_rate", "pass guardrails")):
        cells[title] = f"{100 * row[name]:.1f} %"
    for label in LABELS.values():
        cells[f"words, {label}"] = f"{row[f'words_{label}']:.1f}"
    for key in row:
        if match := re.fullmatch("entropy_(.*)_(original|rewrite)", key):
            cells[f"entropy of {match[1]}, {match[2]} (bits)"] = _show(row, key, digits=3)
    return cells


def format_impact_ratios(rows: Sequence[Row]) -> str:
    """Format impact-ratio rows as plain text, one table per policy and attribute; shuffled = under permuted labels."""
    header = ["category", "phase", "people", "n", "selected", "rate [95 %]", "ratio [95 %]", "shuffled [95 %]"]
    header += ["p shuffled", "mark"]
    tables: dict[tuple[str, str], list[list[str]]] = {}
    for row in rows:
        cells = [str(row[name]) for name in ("category", "phase", "n_people", "n_assessed", "n_selected")]
        cells += [_show(row, name, digits=3) for name in ("selection_rate", "impact_ratio", "null_ratio", "p_shuffled")]
        cells.append(row["mark"])
        tables.setdefault((row["policy"], row["attribute"]), [header]).append(cells)
    note = (
        "Shuffled: the same ratio when labels are permuted among the candidates on the shortlists; p: how often they "
        "give a rate as far from the overall one. Ratio intervals are over postings and candidates; rate intervals "
        "treat members as independent."
    )
    blocks = ["\n".join([f"{policy}: {name}", *align(lines)]) for (policy, name), lines in tables.items()]
    return "\n\n".join([*blocks, note])


def _show(row: Row, name: str, *, digits: int = 2) -> str:
    """Write a number of a row, with its interval where the row has one."""
    low, high = (row.get(f"{name}_{end}", math.nan) for end in ("low", "high"))
    interval = "" if math.isnan(low) else f" [{low:.{digits}f}, {high:.{digits}f}]"
    return ("-" if math.isnan(row[name]) else f"{row[name]:.{digits}f}") + interval


def check_save_path(path: str | Path) -> None:
    """Raise a `UserError` unless rows can be saved there, in a file whose name ends in .csv or .json."""
    if Path(path).suffix not in (".csv", ".json"):
        raise UserError(f"{path}: the suffix must be .csv or .json, which chooses the format. Rename the file.")
    check_writable(path)


def save_rows(path: str | Path, rows: Sequence[Row]) -> None:
    """Write rows as CSV or JSON by the suffix, whole or not at all; NaN becomes an empty cell or null.

    Another suffix, or a file that cannot be written, raises a `UserError`.
    """
    check_save_path(path)
    rows = [{key: None if isinstance(v, float) and math.isnan(v) else v for key, v in row.items()} for row in rows]
    if Path(path).suffix == ".json":
        text = json.dumps(rows, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    else:
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: defuse_cell(value) for key, value in row.items()} for row in rows)
        text = buffer.getvalue()
    save_text(path, text)
