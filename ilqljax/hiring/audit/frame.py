"""Audit a data frame from Python: a row a decision, with columns of attributes and of a score or a selection."""

import contextlib
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from ilqljax.errors import UserError, check_type, check_whole, find_close
from ilqljax.hiring.attributes import AttributeTable, Column, Numbering
from ilqljax.hiring.audit.categories import UNKNOWN_WORDS, list_values, unify_column, warn_of_unknown
from ilqljax.hiring.audit.columns import Bins, check_edges
from ilqljax.hiring.audit.crossed import NO_WEIGHTS, find_influence, pair_rows, rate_interval, tally_pairs
from ilqljax.hiring.audit.filing import describe_making
from ilqljax.hiring.audit.market import BEFORE, AuditConfig, audit_attributes
from ilqljax.hiring.audit.rates import JUDGED, LEAVE_OUT_BELOW, MIN_PEOPLE, Mark, Row
from ilqljax.hiring.audit.ready_table import bin_table
from ilqljax.hiring.audit.strata import add_within, make_strata
from ilqljax.hiring.audit.ties import describe_medians
from ilqljax.hiring.statistics import weighted_median

MISSING = ("None", "nan", "NaT", "<NA>")  # how the values that stand for none are written


@dataclass(frozen=True, eq=False, repr=False)
class FrameAudit:
    """What an audit found, in the manner of fairlearn's `MetricFrame`.

    Attributes:
        overall: n_assessed, n_selected, and the rate with its 95 % interval, unknown categories included.
        by_group: a row an attribute and category: counts, rate, impact ratio, 95 % intervals, tests, and a mark.
        audit: every number, as `ilqljax.hiring.audit.market.audit_market` returns them.
    """

    overall: Row
    by_group: list[Row]
    audit: dict[str, Any]

    def __repr__(self) -> str:
        n, of, rate = (self.overall[name] for name in ("n_selected", "n_assessed", "rate"))
        lines, differences = [f"FrameAudit: {n:,} of {of:,} selected ({rate:.1%})"], self.difference()
        for name, ratio in self.ratio().items():
            found = f"lowest ratio {ratio:.2f}, difference {differences[name]:.2f}"
            few = f"no two categories of {MIN_PEOPLE} people each"
            lines.append(f"  {name}: {few if np.isnan(ratio) else found}")
        return "\n".join(lines)

    def ratio(self) -> dict[str, float]:
        """Return each attribute's lowest impact ratio, of categories of 30 people or more; NaN with fewer than two.

        That is a category's rate divided by the highest (New York City's Local Law 144, 6 RCNY 5-300).
        """
        return {name: table["smallest_ratio"] for name, table in _list_tables(self.audit)}

    def difference(self) -> dict[str, float]:
        """Return each attribute's reference rate minus its lowest, of the same categories; NaN where `ratio` is."""
        found = {}
        for name, table in _list_tables(self.audit):
            rate_of = {row["mark"]: row["rate"] for row in table["rows"]}
            low = min((row["rate"] for row in table["rows"] if row["mark"] in JUDGED), default=np.nan)
            known = Mark.REFERENCE in rate_of and np.isfinite(table["smallest_ratio"])  # or one of the two is hidden
            found[name] = rate_of[Mark.REFERENCE] - low if known else np.nan
        return found

    def to_html(self) -> str:
        """Return the page that `ilqljax audit` writes, which loads nothing, with today's date and the version."""
        from ilqljax.hiring.audit.page import format_page  # matplotlib takes a second

        facts = [("Decisions", f"{self.overall['n_assessed']:,}"), ("People", f"{self.audit['n_candidates']:,}")]
        facts += describe_medians(self.audit)
        return format_page(self.audit, facts=facts, filing=describe_making())

    def plot(self, attribute: str = "") -> Any:
        """Return a matplotlib figure of an attribute's impact ratios with intervals, of the first one if none is named.

        "sex x race" names a pair.

        Raises:
            UserError: no category of it is shown, or the audit has none of that name.
        """
        from ilqljax.hiring.audit.page import plot_ratios  # matplotlib takes a second

        attribute = attribute or next((row["attribute"] for row in self.by_group), "")
        rows = [row for row in self.by_group if row["attribute"] == attribute]
        if not rows:
            have = sorted({row["attribute"] for row in self.by_group})
            raise UserError(f"{attribute!r} has no row. {have} have.{find_close(attribute, have)}")
        return plot_ratios({BEFORE: rows}).figure


def audit_frame(
    frame: Any,
    *,
    attributes: Sequence[str],
    score: str = "",
    selected: str = "",
    posting: str = "",
    person: str = "",
    weight: str = "",
    bins: Bins = MappingProxyType({}),
    within: Sequence[str] = (),
    unknown: Sequence[str] = UNKNOWN_WORDS,
    reference: Mapping[str, str] = MappingProxyType({}),
    leave_out_below: float = LEAVE_OUT_BELOW,
    min_count: int = 0,
    seed: int = 0,
) -> FrameAudit:
    """Audit who is selected, or scores above the median of all, by declared attributes and every pair of them.

    Args:
        frame: a pandas DataFrame, a mapping of columns, or a list of mappings.
        attributes: columns of categories; None, NaN and "" are unknown.
        unknown: values that are unknown too; those of the default that occur are named in a warning.
        score: a column of finite numbers; or
        selected: one of 0 and 1, or of False and True.
        posting: which posting a row was decided for; intervals then count postings too.
        person: whom it is about, in one row a posting, or in any number of rows without postings; intervals count
            people. Without this column every row is somebody else.
        weight: a column of finite numbers above 0, by which rows count; not with postings or strata.
        bins: of columns of numbers, the edges of bins, or a number of quantiles.
        within: columns, such as a job, whose combinations are strata to compare categories within.
        reference: the category that an attribute's others are compared with; the highest rate where none is named.
        leave_out_below: categories with a smaller share of the known rows enter no ratio; 0 leaves none out.
        min_count: hide categories of fewer people; 0 hides none.
        seed: of the bootstrap and the shuffles.

    Raises:
        UserError: the frame or an argument is of another type, a column is missing, of another length or named twice, a
            value is none of these, or a person is twice in a posting or changes category.
    """
    check_whole(min_count=min_count, seed=seed)
    advice = "Give the name of a column."
    check_type(str, advice, score=score, selected=selected, posting=posting, person=person, weight=weight)
    listed = list(attributes) if isinstance(attributes, Iterable) and not isinstance(attributes, str) else []
    if not listed:
        raise UserError(f"attributes={attributes!r}: give a list of columns, such as ['sex'].")
    check_type(str, advice, **{f"attributes[{i}]": name for i, name in enumerate(listed)})
    if bool(score) == bool(selected):
        raise UserError(f"{score=}, {selected=}: give one of the two, the name of a column.")
    levels = [within] if isinstance(within, str) else list(within)
    check_type(str, advice, **{f"within[{i}]": name for i, name in enumerate(levels)})
    if weight and (posting or levels):
        raise UserError(
            f"{weight=} goes neither with a posting nor with strata: their intervals and tests are of whole numbers of "
            "people, and would be too narrow for sums of weights. Drop one of the two."
        )
    named = [name for name in (*listed, score, selected, posting, person, weight) if name]
    columns = read_columns(frame, [*named, *(name for name in levels if name not in (posting, person))])
    if score:
        values = _read_outcome(columns, score, is_known=np.isfinite, wanted="a finite number")
    else:
        wanted = "0 or 1; write 1 for yes and 0 for no"
        values = _read_outcome(columns, selected, is_known=lambda x: np.isin(x, (0, 1)), wanted=wanted)
    weights = NO_WEIGHTS
    if weight:
        wanted = "a finite number above 0"
        weights = _read_outcome(columns, weight, is_known=lambda x: np.isfinite(x) & (x > 0), wanted=wanted)
    for name in filter(None, (posting, person)):
        _check_keys(columns, name)
    postings, n_rows = columns.get(posting, []), len(values)
    numbering = Numbering()
    people = numbering.number(columns.get(person, range(n_rows)))
    words = [unknown] if isinstance(unknown, str) else list(unknown)
    check_type(str, "Give a list of texts.", **{f"unknown[{i}]": word for i, word in enumerate(words)})
    unified = {name: unify_column(_read_categories(columns[name]), words) for name in listed}
    taken = {name: found for name, (_, found) in unified.items() if found}
    warn_of_unknown(taken, where="the frame")
    for name, how in bins.items():
        if not isinstance(how, int):
            check_edges(name, how)
    binned = bin_table({name: of for name, (of, _) in unified.items()}, bins)
    _, firsts = np.unique(people, return_index=True)
    changed = [np.flatnonzero(of.codes != of.codes[firsts[people]])[:1] for of in binned.values()]
    if rows := np.concatenate(changed).tolist():
        row = min(rows)
        own, was = ({name: of.words[of.codes[i]] for name, of in binned.items()} for i in (row, firsts[people[row]]))
        who = columns[person][row]
        raise UserError(f"row {row}: {who!r} is {own}, and was {was}. A person has one category of each.")
    median = weighted_median(values, weights) if score else 0.5
    is_single = not posting and len(firsts) == n_rows
    pairs = pair_rows(values > median, () if is_single else people, postings, weights)
    if posting and pairs.assessed.max() > 1:
        twice = list(numbering)[pairs.assessed.argmax() % len(firsts)]
        raise UserError(f"{twice!r} is twice in one posting. Keep one row.")
    own_columns = {name: Column(of.words, of.codes[firsts]) for name, of in binned.items()}
    table = AttributeTable.from_columns(list(map(str, numbering)), own_columns)
    options = {"reference": dict(reference), "leave_out_below": leave_out_below, "min_count": min_count}
    config = AuditConfig(tuple(listed), **options, seed=seed)
    measures, medians = {"scoring" if score else "selection": pairs}, {BEFORE: median} if score else {}
    n_at_median = {BEFORE: int((values == median).sum())} if score else {}
    found = {"medians": medians, "n_at_median": n_at_median, "taken_as_unknown": list_values(taken)}
    audit = audit_attributes(table, config, {BEFORE: measures}) | found
    if levels:
        of_row = {name: _read_categories(columns[name]) for name in levels}
        strata = make_strata(of_row, people)
        add_within(audit, table, strata, {BEFORE: values > median}, min_count=min_count, seed=seed)
    audit |= {
        "n_postings": pairs.selected.shape[0] if posting else 0,
        "n_assessments": len(values),
        "is_weighted": bool(weight),
    }
    by_group = [{"attribute": name, **row} for name, rates in _list_tables(audit) for row in rates["rows"]]
    everyone = tally_pairs(pairs, np.zeros(len(firsts), np.int64), n_categories=1)
    whole = find_influence(everyone, np.ones(1, bool))
    overall = {"n_assessed": whole.assessed, "n_selected": whole.selected, **rate_interval(whole).spread("rate")}
    return FrameAudit(overall, by_group, audit)


def _list_tables(audit: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(section["name"], *section["rates"][BEFORE].values()) for section in audit["attributes"]]


def read_columns(frame: Any, wanted: Sequence[str]) -> dict[str, list]:
    """Return the columns of what `audit_frame` takes; a `UserError` where it is something else, or lacks one."""
    if twice := [name for name in wanted if wanted.count(name) > 1]:
        raise UserError(f"Column {twice[0]!r} is named twice. Name each once, for one thing.")
    if not isinstance(frame, Mapping) and hasattr(frame, "to_dict") and hasattr(frame, "columns"):
        if doubled := [name for name in wanted if list(frame.columns).count(name) > 1]:
            raise UserError(f"The frame has more than one column {doubled[0]!r}. Rename or drop the others.")
        if hasattr(frame, "iloc"):  # of pandas, whose `to_dict` looks at every value, of every column
            frame = {name: frame[name].tolist() if name in wanted else () for name in frame.columns}
        else:
            frame = frame.to_dict("list")
    if not isinstance(frame, Mapping):
        advice = "Give a DataFrame, a mapping of columns, or a list of mappings."
        check_type(Iterable, advice, frame=frame)
        rows = list(frame)
        if not all(isinstance(row, Mapping) for row in rows):
            raise UserError(f"{type(frame).__name__} is no frame. {advice}")
        frame = {name: [row.get(name) for row in rows] for name in dict.fromkeys(name for row in rows for name in row)}
    if lacking := [name for name in wanted if name not in frame]:
        have = ", ".join(map(repr, frame)) or "none"
        raise UserError(f"The frame has no column {lacking[0]!r}.{find_close(lacking[0], frame)} It has {have}.")
    for name in wanted:
        if isinstance(frame[name], str) or not isinstance(frame[name], Iterable):
            raise UserError(f"Column {name!r} is {frame[name]!r}. Give a list of values, one a row.")
    columns = {name: list(frame[name]) for name in wanted}
    if len(sizes := {len(column) for column in columns.values()}) > 1 or sizes == {0}:
        raise UserError(f"The columns have {sorted(sizes)} rows. Give as many of each, and at least one.")
    return columns


def _read_outcome(columns: Mapping[str, list], name: str, *, is_known: Callable, wanted: str) -> np.ndarray:
    values = _read_numbers(columns[name])
    known = is_known(values)
    if not known.all():
        row = known.argmin()
        raise UserError(f"row {row}: {name}={columns[name][row]!r} is not {wanted}. Replace it, or drop the row.")
    return values


def _read_numbers(values: list) -> np.ndarray:
    """Return a column's numbers, NaN for what is none."""
    if {type(value) for value in values} <= {bool, int, float}:  # of Python, which NumPy reads at once
        with contextlib.suppress(OverflowError):
            return np.array(values, float)
    return np.array([_read_number(value) for value in values])


def _read_number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return np.nan


def _check_keys(columns: Mapping[str, list], name: str) -> None:
    for row, key in enumerate(columns[name]):
        if not (type(key) is str and key) and (not isinstance(key, Hashable) or _read_category(key) == ""):
            raise UserError(f"row {row}: {name}={key!r} names nothing. Give a text or a number, or drop the row.")


def _read_categories(values: list) -> Column:
    return Column.from_values([value if type(value) is str else _read_category(value) for value in values])


def _read_category(value: Any) -> str:
    return "" if not isinstance(value, str) and str(value) in MISSING else str(value)
