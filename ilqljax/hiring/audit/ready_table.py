"""Audit a ready table: a row a decision about a candidate, with category columns and a score or a selection.

    id,sex,race,score
    c1,Female,Asian,0.71
    c2,Male,,0.33

Columns: the attributes, and either `score` (a number; the scoring rate is the share strictly above the median) or
`selected` (1 or 0, or words for them such as yes and no), by these names in any case or by those that are given. `id`
is optional; rows of one id are one person, whose categories must agree. With a `job` column, which is never guessed,
intervals count jobs as well as people. An empty category is unknown, and so are the words for it (`categories`). The
forms of the file: `table_files`. A table of counts has `applicants` and `selected` numbers in each row instead of one
candidate:

    sex,applicants,selected
    Female,120,31
    Male,140,52
"""

import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ilqljax.data.types import Array
from ilqljax.errors import UserError, find_close
from ilqljax.hiring.attributes import Attribute, AttributeTable, Column
from ilqljax.hiring.audit.categories import (
    UNKNOWN_WORDS,
    Taken,
    fold_spelling,
    list_values,
    unify_column,
    warn_of_unknown,
)
from ilqljax.hiring.audit.columns import MOST_CATEGORIES, SAMPLE_ROWS, Bins, bin_columns, choose_attributes
from ilqljax.hiring.audit.crossed import pair_rows
from ilqljax.hiring.audit.decisions import APPLICANTS, ID, JOB, SCORE, SELECTED, WEIGHT, read_decisions
from ilqljax.hiring.audit.market import AFTER, BEFORE, AuditConfig, audit_attributes
from ilqljax.hiring.audit.strata import Strata, add_within, make_strata
from ilqljax.hiring.audit.table_files import number_rows
from ilqljax.hiring.statistics import weighted_median

logger = logging.getLogger(__name__)

MIN_ROWS = 2


@dataclass(frozen=True, eq=False)
class ReadyTable:
    """Hold a ready table: the people's attributes, and a row a decision: whom it is about, and a score or a 0 or 1."""

    table: AttributeTable
    values: Float[Array, " R"]
    people: Int[Array, " R"]  # the row in `table` of each decision's person
    jobs: tuple[str, ...]  # of each decision; empty if no column says it
    weights: Float[Array, " R"] | Float[Array, "0"]  # of each decision; empty where all count alike
    kind: str  # `SCORE` or `SELECTED`
    has_ids: bool
    taken: Taken  # as unknown, by column
    unused: tuple[str, ...] = ()  # columns of the file
    strata: Strata | None = None  # of the decisions

    @property
    def has_repeats(self) -> bool:
        """Return whether a person has several rows."""
        return len(self.values) > len(self.table.ids)


def load_ready_table(
    path: str | Path,
    *,
    attributes: Sequence[str] = (),
    within: Sequence[str] = (),
    allow_negative: bool = False,
    unknown: Sequence[str] = UNKNOWN_WORDS,
    bins: Bins = MappingProxyType({}),
    names: Mapping[str, str] = MappingProxyType({}),
) -> ReadyTable:
    """Load a ready table; values that are taken as unknown are named in a warning.

    Args:
        path: the table's file, with a header.
        attributes: columns to read as attributes; if empty, all but id, score and selected, and what looks like
            personal data or measurements (`columns`).
        within: columns whose combinations are the strata.
        allow_negative: take scores below 0, which otherwise are refused: exports often write -1 for "no score".
        unknown: what stands for an unknown category, besides an empty one.
        names: what the columns `id`, `score` and `selected` are called in the file, where it is something else, and
            which columns are the `job` and the `weight`, if any.
        bins: of columns of numbers: the edges, or a number of quantiles.

    Raises:
        UserError: a file that is no table (`table_files`), a malformed line, a missing or unknown column, a score that
            is not a finite number or is negative, a selection that is neither yes nor no, more selected than applied,
            rows of one id that differ in a category or are of one job, numbers without bins, a weight that is not a
            number above 0, or fewer than two people.
    """
    path = Path(path)
    lines, name_place = number_rows(path)
    number, header = next(lines, (1, []))
    where = name_place(number)
    names = {ours: theirs for ours, theirs in names.items() if theirs}
    header = _rename(header, names, where=where)
    strata = [{theirs: ours for ours, theirs in names.items()}.get(name, name) for name in within]
    named = [ours for ours in (JOB, WEIGHT) if ours in names]
    columns, kind = _check_header(header, attributes, [*strata, *named], where=where)
    sample = list(itertools.islice(lines, SAMPLE_ROWS))
    if not attributes:
        columns = _choose_columns(header, columns, sample, bins=bins, where=path)
    read = read_decisions(
        itertools.chain(sample, lines),
        header,
        kept=dict.fromkeys([*columns, *strata, *(JOB for name in named if name == JOB)]),
        kind=kind,
        has_weights=WEIGHT in named,
        allow_negative=allow_negative,
        name_place=name_place,
    )

    def name_row(row: int) -> str:
        return name_place(int(read.places[row]))

    unified = {name: unify_column(read.cells[name], unknown) for name in columns}
    binned = bin_table({name: of for name, (of, _) in unified.items()}, bins)
    people = read.people.codes
    firsts = _find_firsts(people, binned, ids=read.people.words, name_row=name_row)
    if JOB in names:
        _check_jobs(read.people, read.cells[JOB], name_row=name_row)
    if len(firsts) < MIN_ROWS:
        raise UserError(f"{path}: holds {len(firsts)} candidates. Give at least {MIN_ROWS} rows below the header.")
    own = {name: Column(column.words, column.codes[firsts]) for name, column in binned.items()}
    table = AttributeTable.from_columns(read.people.words, own)
    many = [name for name in columns if len(table.attribute(name).categories) > MOST_CATEGORIES and not attributes]
    if many:  # names and free text: the report would publish them
        raise UserError(f"{path}: column '{many[0]}' has too many values for an attribute. Give --attributes A,B.")
    taken = {name: found for name, (_, found) in unified.items() if found}
    warn_of_unknown(taken, where=path)
    if len(firsts) < len(people):
        counts = f"{len(people):,} rows are of {len(firsts):,} people"
        logger.warning("%s: %s. Rows of one id are one person, whom the intervals count once.", path, counts)
    levels = {name: unify_column(read.cells[key], unknown)[0] for name, key in zip(within, strata, strict=True)}
    return ReadyTable(
        table=table,
        values=read.values,
        people=people,
        jobs=tuple(read.cells[JOB].list_values() if JOB in names else ()),
        weights=read.weights,
        kind=kind,
        has_ids=ID in header,
        taken=taken,
        unused=tuple(name for name in header if name not in (*columns, *strata, *named, ID, kind, APPLICANTS)),
        strata=make_strata(levels, people) if within else None,
    )


def bin_table(columns: Mapping[str, Column], bins: Bins) -> dict[str, Column]:
    """Put columns of numbers in bins; of the others only the different words are looked at."""
    values = {name: column.list_values() if name in bins else column.words for name, column in columns.items()}
    binned = bin_columns(values, bins)
    return {name: Column.from_values(binned[name]) if name in bins else column for name, column in columns.items()}


def _choose_columns(
    header: list[str], columns: list[str], sample: list[tuple[int, list[str]]], *, bins: Bins, where: Path
) -> list[str]:
    """Return the attributes of a table of which none was named, by the first row of each person in a sample."""
    cells = [row for _, row in sample if len(row) == len(header)]
    if ID in header:
        cells = list({row[header.index(ID)]: row for row in reversed(cells)}.values())
    values = {name: [row[header.index(name)] for row in cells] for name in columns}
    return choose_attributes(values, bins=bins, where=where)


def _find_firsts(
    people: Int[Array, " R"], columns: Mapping[str, Column], *, ids: Sequence[str], name_row: Callable[[int], str]
) -> Int[Array, " N"]:
    """Return the first row of each person, or refuse one whose categories change."""
    _, firsts = np.unique(people, return_index=True)
    for name, column in columns.items() if len(firsts) < len(people) else ():
        changed = np.flatnonzero(column.codes != column.codes[firsts[people]])
        if changed.size:
            row, first = changed[0], firsts[people[changed[0]]]
            own, before = (column.words[column.codes[of]] for of in (row, first))
            raise UserError(
                f"{name_row(row)}: the id '{ids[people[row]]}' is {name}='{own}', and was '{before}' at "
                f"{name_row(first)}. A person has one category of each: correct one, or name another id column."
            )
    return firsts


def _check_jobs(people: Column, jobs: Column, *, name_row: Callable[[int], str]) -> None:
    """Refuse a row without a job, and a person who is twice in one."""
    if "" in jobs.words:
        row = int((jobs.codes == jobs.words.index("")).argmax())
        raise UserError(f"{name_row(row)}: names no job. Give one, or delete the row.")
    _, firsts, pair = np.unique(people.codes * len(jobs.words) + jobs.codes, return_index=True, return_inverse=True)
    twice = np.flatnonzero(firsts[pair] != np.arange(len(pair)))
    if twice.size:
        row, first = twice[0], firsts[pair[twice[0]]]
        one, job = people.words[people.codes[row]], jobs.words[jobs.codes[row]]
        raise UserError(
            f"{name_row(row)}: the id '{one}' was already used at {name_row(first)} for the job '{job}'. Keep one row "
            "a candidate and job."
        )


def _rename(header: list[str], names: Mapping[str, str], *, where: str) -> list[str]:
    """Call the columns by our names: those that are given, and else those that differ in case alone."""
    given = {theirs: ours for ours, theirs in names.items()}
    if lacking := [theirs for theirs in given if theirs not in header]:
        hint = find_close(lacking[0], header)
        raise UserError(f"{where}: no column '{lacking[0]}'; the columns are {', '.join(header)}.{hint}")
    others = {ID, SCORE, SELECTED, APPLICANTS} - set(given.values()) - set(header)
    renamed = [given.get(name, name.lower() if name.lower() in others else name) for name in header]
    if len(set(renamed)) < len(renamed):
        twice = next(name for name in renamed if renamed.count(name) > 1)
        raise UserError(f"{where}: a column name, {twice}, occurs twice in {header}. Rename one of the two.")
    return renamed


def _check_header(
    header: list[str], attributes: Sequence[str], taken: Sequence[str], *, where: str
) -> tuple[list[str], str]:
    if not header:
        raise UserError(f"{where}: the file is empty. Give a header and one row a candidate.")
    kinds = [name for name in (SCORE, SELECTED) if name in header]
    if len(kinds) != 1:
        raise UserError(
            f"{where}: needs exactly one of the columns '{SCORE}' (numbers) and '{SELECTED}' (yes or no), got "
            f"{header}. Say which it is with --score_column or --selected_column, or drop one."
        )
    if APPLICANTS in header and kinds != [SELECTED]:
        raise UserError(f"{where}: a table of counts needs '{SELECTED}' beside '{APPLICANTS}', got {header}. Add it.")
    others = (ID, SCORE, SELECTED, APPLICANTS, *taken)
    columns = list(attributes) or [name for name in header if name not in others]
    have = f"the columns are {', '.join(header)}"
    if not columns:
        raise UserError(f"{where}: no column of an attribute; {have}. Name some with --attributes.")
    if lacking := [name for name in (*columns, *taken) if name not in header]:
        hint = find_close(lacking[0], header)
        option = "--attributes" if lacking[0] in columns else "--within"
        raise UserError(f"{where}: no column '{lacking[0]}'; {have}.{hint} Name some with {option}.")
    if both := [name for name in columns if name in taken]:
        raise UserError(f"{where}: '{both[0]}' is in --attributes and, for instance, in --within. It can be one.")
    if WEIGHT in taken and APPLICANTS in header:
        raise UserError(f"{where}: a table of counts takes no weights. Multiply the counts, or drop --weight_column.")
    return columns, kinds[0]


def match_tables(before: ReadyTable, after: ReadyTable) -> ReadyTable:
    """Return the second table with its rows in the order of the first.

    Different candidates, columns or categories, or a candidate who changes category, raise a `UserError`.
    """
    if not (before.has_ids and after.has_ids):
        raise UserError("Comparing two tables needs a column 'id' in both, which says who is who. Add it.")
    if before.kind != after.kind or before.table.names != after.table.names:
        raise UserError(
            f"The table before has the columns {', '.join((*before.table.names, before.kind))}, the one after "
            f"{', '.join((*after.table.names, after.kind))}. Give both the same columns."
        )
    keys = [_list_pairs(ready) for ready in (before, after)]
    missing = sorted(set(keys[0]) ^ set(keys[1]))
    if missing:
        one = f"The candidate '{missing[0][0]}'" + (f" for the job '{missing[0][1]}'" if missing[0][1] else "")
        raise UserError(f"{one} is in one of the two tables only. Give both the same ids.")
    row_of = {key: row for row, key in enumerate(keys[1])}
    order = np.array([row_of[key] for key in keys[0]])
    columns = ((before.table.columns[name], after.table.columns[name]) for name in before.table.names)
    moved = [_decode(old)[before.people] != _decode(new)[after.people[order]] for old, new in columns]
    changed = np.flatnonzero(np.any(moved, axis=0))
    if changed.size:
        raise UserError(
            f"The candidate '{keys[0][changed[0]][0]}' has other categories before than after. Categories are of the "
            "person: make them equal."
        )
    weights = after.weights[order] if len(after.weights) else after.weights
    return replace(before, values=after.values[order], weights=weights, taken=after.taken)


def _list_pairs(ready: ReadyTable) -> list[tuple[str, str]]:
    """Return each row's id and job, or refuse a table that has one of these twice."""
    if ready.has_repeats and not ready.jobs:
        raise UserError(
            "Comparing two tables needs one row a candidate, or --job_column, which says which of a candidate's rows "
            "belong together."
        )
    ids = (ready.table.ids[person] for person in ready.people)
    return list(zip(ids, ready.jobs or [""] * len(ready.people), strict=True))


def _decode(attribute: Attribute) -> np.ndarray:
    return np.array([*map(fold_spelling, attribute.categories), ""])[attribute.codes]  # code -1 is the last: unknown


def check_weights(is_weighted: bool, *, by_job: bool, by_stratum: bool) -> None:
    """Refuse weights together with jobs or strata, whose errors are those of counts."""
    if is_weighted and (by_job or by_stratum):
        option, what = ("--within", "strata") if by_stratum else ("--job_column", "jobs")
        raise UserError(
            f"--weight_column does not go with {option}: the intervals and tests over {what} are of whole numbers of "
            f"people, and would be too narrow for sums of weights. Drop one of the two; to keep the weights, audit the "
            f"rows of each of the {what} as a table of its own."
        )


def audit_ready_table(ready: ReadyTable, config: AuditConfig, *, after: ReadyTable | None = None) -> dict[str, Any]:
    """Return the audit of a ready table (`market.audit_attributes`).

    Every candidate is a cluster, so intervals hold for another sample of candidates; with jobs, of jobs too. With
    `after`, the same candidates scored another way are compared; tables that do not belong together raise a
    `UserError`.
    """
    phases = {BEFORE: ready} | ({AFTER: match_tables(ready, after)} if after else {})
    is_score = ready.kind == SCORE
    medians = {name: weighted_median(table.values, table.weights) for name, table in phases.items() if is_score}
    check_weights(bool(len(ready.weights)), by_job=bool(ready.jobs), by_stratum=bool(ready.strata))
    measure = "scoring" if is_score else "selection"
    people = ready.people if ready.has_repeats or ready.jobs else ()
    pairs = {
        name: {measure: pair_rows(table.values > medians.get(name, 0.5), people, ready.jobs, table.weights)}
        for name, table in phases.items()
    }
    n_at_median = {name: int((phases[name].values == median).sum()) for name, median in medians.items()}
    found = {"medians": medians, "n_at_median": n_at_median, "taken_as_unknown": list_values(ready.taken)}
    counts = {"n_postings": len(set(ready.jobs)), "n_assessments": len(ready.values)}
    counts["is_weighted"] = bool(len(ready.weights))
    audit = audit_attributes(ready.table, config, pairs) | found | counts
    if ready.strata:
        outcomes = {name: table.values > medians.get(name, 0.5) for name, table in phases.items()}
        options = {"min_count": config.min_count, "seed": config.seed}
        add_within(audit, ready.table, ready.strata, outcomes, **options)
    return audit
