"""Check a published audit: derive its rates and ratios again from its counts, and explain what does not agree.

The table has a row a category: columns of categories (`race_ethnicity`, `sex`, ...), and of these numbers as many as
were published: applicants, selected (or above the median), rate, impact ratio. Rows that share the audit, attribute and
role columns are one table, whose ratios are over its highest rate. What is found of each number:

| verdict            | the published number is                                                                     |
|--------------------|---------------------------------------------------------------------------------------------|
| agrees             | the derived one, rounded to its digits                                                      |
| rounding           | the derived one cut off, or a ratio of rates as they were rounded                           |
| another comparator | over the rate of another row, or of all together, that explains two of the table's ratios   |
|                    | or more, and half of them unless its own is 1 or it is the highest of all, left out or not  |
| merged roles       | derived from the audit's tables of other roles, added up or with their highest rate         |
| unexplained        | none of these                                                                               |
| not derivable      | without the counts or rates that it would follow from                                       |

A category that has no ratio is taken as left out, as the law allows below 2 %, and is no reference; another comparator
may be such a row. Counts that are not whole were made from rates, and check no rate. Where all counts of a table are
the product of applicants and the published rate, rates are taken as rounded, and any ratio of rates that round to these
is "rounding".
"""

import csv
import io
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from ilqljax.data.pages import defuse_cell
from ilqljax.errors import UserError
from ilqljax.hiring.audit.categories import UNKNOWN_WORDS, fold_spelling
from ilqljax.hiring.audit.table_files import read_rows
from ilqljax.hiring.audit.tables import show_name

FEW = 10  # a cell of fewer may tell who they are, and its rate says little
TINY = 1e-9
MADE = 1e-3  # how far a count may be from the product that it was made by
_UNKNOWN = {"", *map(fold_spelling, UNKNOWN_WORDS)}
# Column names by what is left of them in lower case without signs.
NAMES = {
    "applicants": ("numberofapplications", "numberofapplicants", "ofapplicants", "applicants", "applications", "n"),
    "selected": ("nselectedornabovemedian", "selected", "numberselected", "nselected", "abovemedian", "shortlisted"),
    "rate": ("result", "rate", "selectionrate", "scoringrate", "shortlistingrate"),
    "ratio": ("impactratio", "ratio"),
}
AUDIT_KEYS = ("auditid", "audit")
ATTRIBUTE_KEYS = ("protectedchargroup", "attribute", "characteristic")
ROLE_KEYS = ("position", "role", "job", "level", "selectionorscoringrate", "phase", "requisition", "rateof")
CATEGORY_KEYS = ("raceethnicity", "race", "ethnicity", "sex", "gender", "category", "group", "agegroup", "disability")


class Verdict(StrEnum):
    """Say how a published number stands to the derived one."""

    AGREES = "agrees"
    ROUNDING = "rounding"
    COMPARATOR = "another comparator"
    MERGED = "merged roles"
    UNEXPLAINED = "unexplained"
    UNCHECKED = "not derivable"


@dataclass
class Published:
    """Hold a row of a published audit, and what was found of it."""

    where: str
    audit: str
    attribute: str
    role: str
    category: str
    is_unknown: bool
    applicants: float  # NaN where it was not published, as in all of these
    selected: float
    rate: float
    ratio: float
    rate_verdict: str = ""
    ratio_verdict: str = ""
    derived_ratio: float = math.nan
    explanation: str = ""
    flags: list[str] = field(default_factory=list)

    @property
    def exact_rate(self) -> float:
        """Return the rate of the counts; NaN without whole counts."""
        is_whole = all(float(n).is_integer() for n in (self.applicants, self.selected))
        return self.selected / self.applicants if is_whole and self.applicants > 0 else math.nan

    @property
    def is_made(self) -> bool:
        """Return whether the selected are the product of the applicants and the published rate."""
        return abs(self.selected - self.applicants * self.rate) < MADE

    @property
    def rates(self) -> list[float]:
        """Return what its rate could have been taken for: that of the counts, and as it was published."""
        return [rate for rate in (self.exact_rate, self.rate) if math.isfinite(rate)]


@dataclass
class Table:
    """Hold the rows of one table, and the digits that its numbers have."""

    rows: list[Published]
    rate_digits: int
    ratio_digits: int
    reference: str = ""
    missing_share: float = math.nan
    flags: list[str] = field(default_factory=list)

    @property
    def is_made(self) -> bool:
        """Return whether all of its counts were made from rates."""
        return all(row.is_made for row in self.rows if math.isfinite(row.selected) and math.isfinite(row.rate))


def load_published(path: str | Path) -> list[Table]:
    """Load a published audit, or several; a file without counts, rates or categories raises a `UserError`."""
    lines = read_rows(path)
    where, header = next(lines, (f"{path}:1", []))
    place = {re.sub(r"[^a-z]", "", name.lower()): i for i, name in reversed(list(enumerate(header)))}
    numbers = {ours: next((place[name] for name in names if name in place), -1) for ours, names in NAMES.items()}
    categories = [place[name] for name in CATEGORY_KEYS if name in place]
    if not categories:  # as in our own tables: what stands before the first number
        first = min((at for at in numbers.values() if at >= 0), default=0)
        categories = list(range(first))
    if not categories or max(numbers["ratio"], numbers["rate"]) < 0:
        raise UserError(
            f"{where}: no published audit; the columns are {', '.join(map(show_name, header)) or 'none'}. It needs "
            "categories (such as sex), and of applicants, selected, rate and impact ratio those that were published."
        )
    keys = [[place[name] for name in names if name in place] for names in (AUDIT_KEYS, ATTRIBUTE_KEYS, ROLE_KEYS)]
    found: dict[tuple[str, ...], list[tuple[Published, list[str]]]] = defaultdict(list)
    for where, cells in lines:
        if len(cells) != len(header):
            raise UserError(f"{where}: {len(cells)} cells, but the header has {len(header)}. Quote cells with commas.")
        names = [cells[i] for i in categories]
        folded = [fold_spelling(name) for name in names]
        if all(name in ("total", "all", "hidden") for name in folded):
            continue
        of = tuple(" / ".join(cells[i] for i in places) for places in keys)
        texts = [cells[at] if at >= 0 else "" for at in numbers.values()]
        shown = [name for name, key in zip(names, folded, strict=True) if key not in ("total", "all")]
        is_unknown = any(
            re.match("missing|unknown", key) or key in _UNKNOWN for key in folded if key not in ("", "total")
        )
        row = Published(where, *of, " / ".join(shown), is_unknown, *(read_number(text, where=where) for text in texts))
        found[of].append((row, texts))
    return [
        Table([row for row, _ in rows], *(max(count_digits(texts[i]) for _, texts in rows) for i in (2, 3)))
        for rows in found.values()
    ]


def read_number(text: str, *, where: str) -> float:
    """Read a number, a percentage as a share; NaN where none was published."""
    if fold_spelling(text) in _UNKNOWN:
        return math.nan
    digits = text.strip().removesuffix("%").strip()
    digits = digits.replace(",", "") if re.fullmatch(r"\d{1,3}(,\d{3})+(\.\d+)?", digits) else digits
    try:
        value = float(digits)
    except ValueError as error:
        raise UserError(f"{where}: '{show_name(text)}' is not a number. Write digits, or NA for none.") from error
    return value / 100 if text.strip().endswith("%") else value


def count_digits(text: str) -> int:
    """Return how many decimals a number has, as a share: 54.3% has 3, and 0.8740000000000001 has 3 too."""
    digits = text.strip().removesuffix("%").strip()
    if not re.fullmatch(r"\d*\.\d+", digits):
        return 2 if text.strip().endswith("%") else 0
    decimals = digits.split(".")[1]
    if len(decimals) > 8:
        decimals = f"{float(digits):.8f}".split(".")[1].rstrip("0")
    return len(decimals) + (2 if text.strip().endswith("%") else 0)


# --- Checks -----------------------------------------------------------------------------------------------------------


def rounds_to(value: float, published: float, digits: int) -> bool:
    """Return whether a number rounds to the published one."""
    return abs(value - published) <= 0.5 * 10.0**-digits + TINY


def is_cut_to(value: float, published: float, digits: int) -> bool:
    """Return whether the published number is another one with its last digits cut off."""
    return -TINY <= value - published < 10.0**-digits - TINY


def check_tables(tables: Sequence[Table]) -> None:
    """Find a verdict for every published rate and ratio, and flags for rows and tables, in place."""
    of_audit: dict[tuple[str, str], list[Table]] = defaultdict(list)
    for table in tables:
        of_audit[table.rows[0].audit, table.rows[0].attribute].append(table)
    for table in tables:
        others = [other for other in of_audit[table.rows[0].audit, table.rows[0].attribute] if other is not table]
        for row in table.rows:
            row.rate_verdict = _check_rate(row, table, others)
            row.flags = _flag_row(row)
        _check_ratios(table, others)
        _flag_table(table)


def _check_rate(row: Published, table: Table, others: Sequence[Table]) -> str:
    if not math.isfinite(row.rate) or row.is_unknown:
        return ""
    if not math.isfinite(row.exact_rate):
        return Verdict.UNCHECKED
    if rounds_to(row.exact_rate, row.rate, table.rate_digits):
        return Verdict.AGREES
    if is_cut_to(row.exact_rate, row.rate, table.rate_digits):
        return Verdict.ROUNDING
    pooled = _pool(row.category, [table, *others])
    return Verdict.MERGED if others and rounds_to(pooled, row.rate, table.rate_digits) else Verdict.UNEXPLAINED


def _pool(category: str, tables: Iterable[Table]) -> float:
    """Return a category's rate of counts that are added up over tables; NaN without whole counts."""
    rows = [row for table in tables for row in table.rows if row.category == category]
    rows = [row for row in rows if math.isfinite(row.exact_rate)]
    applicants = sum(row.applicants for row in rows)
    return sum(row.selected for row in rows) / applicants if applicants else math.nan


def _check_ratios(table: Table, others: Sequence[Table]) -> None:
    known = [row for row in table.rows if not row.is_unknown and row.rates]
    rated = [row for row in table.rows if math.isfinite(row.ratio) and not row.is_unknown]
    candidates = [row for row in known if math.isfinite(row.ratio)]
    reference = max(candidates, key=lambda row: row.rates[0], default=None)
    if reference is None:
        for row in rated:
            row.ratio_verdict = Verdict.UNCHECKED
        return
    table.reference = reference.category
    comparators = _list_comparators(table, known, reference)
    roles = _list_roles(table, others, [row.category for row in rated])
    for row in rated:
        if not row.rates:
            row.ratio_verdict = Verdict.UNCHECKED
            continue
        row.derived_ratio = row.rates[0] / reference.rates[0] if reference.rates[0] else math.nan
        row.ratio_verdict = _compare(row, reference.rates, table)
        if row.ratio_verdict:
            continue
        explained = next((name for name, rates in comparators if _compare(row, rates, table)), "")
        row.ratio_verdict = Verdict.COMPARATOR if explained else Verdict.UNEXPLAINED
        if not explained:
            explained = next(
                (name for name, ratio in roles if rounds_to(ratio(row), row.ratio, table.ratio_digits)), ""
            )
            row.ratio_verdict = Verdict.MERGED if explained else Verdict.UNEXPLAINED
        row.explanation = explained


def _compare(row: Published, rates: Sequence[float], table: Table) -> str:
    """Return whether the row's ratio is over a rate, exactly or but for rounding; "" if not."""
    exact, *rounded = [(own, other) for own in row.rates for other in rates if other > 0] or [(math.nan, math.nan)]
    if rounds_to(exact[0] / exact[1], row.ratio, table.ratio_digits):
        return Verdict.AGREES
    if any(rounds_to(own / other, row.ratio, table.ratio_digits) for own, other in rounded):
        return Verdict.ROUNDING
    if any(is_cut_to(own / other, row.ratio, table.ratio_digits) for own, other in (exact, *rounded)):
        return Verdict.ROUNDING
    half = 0.5 * 10.0**-table.rate_digits  # where the rates are known as rounded only
    is_rounded = (table.is_made or not math.isfinite(row.exact_rate)) and math.isfinite(row.rate) and exact[1] > half
    low, high = (exact[0] - half) / (exact[1] + half), (exact[0] + half) / max(exact[1] - half, TINY)
    unit = 0.5 * 10.0**-table.ratio_digits + TINY
    return Verdict.ROUNDING if is_rounded and low - unit <= row.ratio <= high + unit else ""


def _list_comparators(table: Table, known: Sequence[Published], reference: Published) -> list[tuple[str, list[float]]]:
    """Return other rates that explain ratios which the highest one does not, those that explain the most first."""
    rated = [row for row in known if math.isfinite(row.ratio)]
    options = [(row.category, row.rates, row.ratio) for row in known if row is not reference]
    counted = [row for row in known if math.isfinite(row.exact_rate)]
    if applicants := sum(row.applicants for row in counted):
        options.append(("all together", [sum(row.selected for row in counted) / applicants], math.nan))
    highest = max((row.rates for row in known), key=lambda of: of[0])
    found = []
    for name, rates, ratio in options:
        n = sum(bool(_compare(row, rates, table)) for row in rated)  # two digits let many a rate explain a row or two
        if n > 1 and (2 * n >= len(rated) or ratio == 1 or rates == highest):
            found.append((n, name, rates))
    return [(name, rates) for _, name, rates in sorted(found, key=lambda one: -one[0])]


def _list_roles(table: Table, others: Sequence[Table], categories: Sequence[str]) -> list:
    """Return ratios that merge the audit's tables of other roles, each a name and a function of the row."""
    if not others:
        return []
    tables = [table, *others]
    rates = [row.rates[0] for one in tables for row in one.rows if row.rates and math.isfinite(row.ratio)]
    pooled = {name: _pool(name, tables) for name in categories}
    most = max((rate for rate in pooled.values() if math.isfinite(rate)), default=math.nan)
    return [
        ("counts of all roles added up", lambda row: pooled[row.category] / most if most else math.nan),
        ("the highest rate of all roles", lambda row: row.rates[0] / max(rates) if max(rates) else math.nan),
    ]


def _flag_row(row: Published) -> list[str]:
    cells = {"applicants": row.applicants, "selected": row.selected}
    flags = [f"{name} under {FEW}" for name, n in cells.items() if 0 < n < FEW and not row.is_unknown]
    flags += ["ratio above 1"] if row.ratio > 1 + TINY else []
    flags += ["more selected than applied"] if row.selected > row.applicants else []
    is_made = any(math.isfinite(n) and not n.is_integer() for n in cells.values())
    return flags + (["a count is not whole: made from a rate"] if is_made else [])


def _flag_table(table: Table) -> None:
    known = sum(row.applicants for row in table.rows if not row.is_unknown and math.isfinite(row.applicants))
    missing = [row.applicants for row in table.rows if row.is_unknown and math.isfinite(row.applicants)]
    if not missing:
        table.flags.append("does not say how many are of unknown category")
    elif known + sum(missing):
        table.missing_share = sum(missing) / (known + sum(missing))
    ratios = [row.ratio for row in table.rows if math.isfinite(row.ratio)]
    if not ratios:
        table.flags.append("no impact ratio")
    elif not any(ratio == 1 for ratio in ratios):
        table.flags.append("no comparator: no ratio is 1")


# --- Results ----------------------------------------------------------------------------------------------------------


def summarize(tables: Sequence[Table]) -> list[tuple[str, str]]:
    """Return the summary: what was found of rates, ratios, cells and tables, as names and values."""
    rows = [row for table in tables for row in table.rows]
    lines = [("Audits, tables, rows", f"{len({row.audit for row in rows}):,}, {len(tables):,}, {len(rows):,}")]
    for name in ("rate", "ratio"):
        verdicts = Counter(getattr(row, f"{name}_verdict") for row in rows)
        shown = [f"{verdicts[one]:,} {one}" for one in Verdict if verdicts[one]]
        lines.append((f"Published {name}s", "; ".join(shown) or "none"))
    few = [sum(f"{name} under {FEW}" in row.flags for row in rows) for name in ("applicants", "selected")]
    lines.append((f"Cells under {FEW}", f"{few[0]:,} of applicants, {few[1]:,} of selected"))
    counts = Counter(flag for table in tables for flag in table.flags)
    counts += Counter(flag for row in rows for flag in row.flags if f"under {FEW}" not in flag)
    lines += [(flag.capitalize(), f"{n:,}") for flag, n in sorted(counts.items())]
    shares = [table.missing_share for table in tables if math.isfinite(table.missing_share)]
    large = sum(share > 0.5 for share in shares)
    lines.append(("Of unknown category", f"said in {len(shares):,} tables; more than half of the people in {large:,}"))
    return lines


def format_rows(tables: Sequence[Table]) -> str:
    """Return a row of CSV for every row of the tables, with its verdicts."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    header = ["audit", "attribute", "role", "category", "applicants", "selected", "rate", "rate check", "ratio"]
    writer.writerow([*header, "derived ratio", "ratio check", "over", "explained by", "flags"])
    for table in tables:
        for row in table.rows:
            names = [defuse_cell(text) for text in (row.audit, row.attribute, row.role, row.category)]
            counts = [_show(n, ".12g") for n in (row.applicants, row.selected, row.rate)]
            found = [_show(row.ratio, ".8g"), _show(row.derived_ratio, ".4f"), row.ratio_verdict]
            over = [defuse_cell(text) for text in (table.reference, row.explanation)]
            writer.writerow([*names, *counts, row.rate_verdict, *found, *over, "; ".join([*row.flags, *table.flags])])
    return buffer.getvalue()


def _show(value: float, how: str) -> str:
    return format(value, how) if math.isfinite(value) else ""
