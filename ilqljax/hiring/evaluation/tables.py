"""Lay out an evaluation: the final table of a run, the scripts' tables, and rows as CSV or JSON."""

import csv
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ilqljax.data.files import save_text
from ilqljax.errors import UserError
from ilqljax.hiring.evaluation.summary import Row


def format_table(rows: Sequence[dict], *, floor: float, data_mean: float, attribute: str) -> str:
    """Lay the rows out as a plain-text table that says what its numbers mean."""
    header = ("policy", "score", "gain over echo [95 %]", "guarded gain [95 %]", "pass", "copies", "words")
    body = [
        (
            *_show_scores(row, prefix=""),
            f"{100 * row['guardrail_pass_rate']:.0f} %",
            f"{100 * row['copy_rate']:.0f} %",
            f"{row['words_rewrite']:.1f}",
        )
        for row in rows
    ]
    lines = align([header, *body], rule=True)
    held_out = rows[0].get("held_out_matcher", "")
    if held_out:
        lines += ["", f"The same rewrites under the held-out matcher {held_out}, which training never asked:", ""]
        lines += align([header[:4], *(_show_scores(row, prefix="held_out_") for row in rows)], rule=True)
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
    labels = ("original", "rewrite")
    cells = {"": row["policy"], "postings": str(row["n_postings"])}
    for label in labels:
        cells[f"reward, {label}"] = f"{_number(row[f'reward_{label}'])} +- {_number(row[f'reward_{label}_error'])}"
    for name in ("difference", "guarded_difference"):
        cells[f"{name.replace('_', ' ')} [95 %]"] = _number_with_interval(row, name, digits=2)
    for name, title in (("copy_rate", "copies"), ("guardrail_pass_rate", "pass guardrails")):
        cells[title] = f"{100 * row[name]:.1f} %"
    for label in labels:
        cells[f"words, {label}"] = f"{row[f'words_{label}']:.1f}"
    for key, value in row.items():
        if match := re.fullmatch("entropy_(.*)_(original|rewrite)", key):
            cells[f"entropy of {match[1]}, {match[2]} (bits)"] = _number(value, digits=3)
    return cells


def format_impact_ratios(rows: Sequence[Row]) -> str:
    """Format impact-ratio rows as plain text, one table per policy and attribute; shuffled = under permuted labels."""
    header = ["category", "phase", "people", "n", "selected", "rate [95 %]", "ratio [95 %]", "shuffled [95 %]"]
    header += ["p shuffled", "mark"]
    tables: dict[tuple[str, str], list[list[str]]] = {}
    for row in rows:
        cells = [str(row[name]) for name in ("category", "phase", "n_people", "n_assessed", "n_selected")]
        intervals = ("selection_rate", "impact_ratio", "null_ratio")
        cells += [_number_with_interval(row, name, digits=3) for name in intervals]
        cells += [_number(row["p_shuffled"], digits=3), row["mark"]]
        tables.setdefault((row["policy"], row["attribute"]), [header]).append(cells)
    note = (
        "Shuffled: the same ratio when labels are permuted among the candidates on the shortlists; p: how often they "
        "give a rate as far from the overall one. Ratio intervals are over postings and candidates; rate intervals "
        "treat members as independent."
    )
    blocks = ["\n".join([f"{policy}: {name}", *align(lines)]) for (policy, name), lines in tables.items()]
    return "\n\n".join([*blocks, note])


def _number(value: float, *, digits: int = 2) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def _number_with_interval(row: Row, name: str, *, digits: int) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    interval = "" if math.isnan(low) else f" [{low:.{digits}f}, {high:.{digits}f}]"
    return _number(row[name], digits=digits) + interval


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
