"""All comparisons of a case, in the order in which one thing depends on another, and a line for each."""

import itertools
from collections.abc import Iterator

from benchmarks.parity.beams import compare_beams
from benchmarks.parity.cases import Case
from benchmarks.parity.comparison import Comparison
from benchmarks.parity.outputs import compare_data, compare_outputs, compare_scores, compute_outputs
from benchmarks.parity.training import compare_training

# Groups of arrays that are inputs, or compared as whole trees.
TREES = ("init/", "grad/", "after3/")


def compare_case(case: Case) -> Iterator[Comparison]:
    """Compare everything that a case's file and its part of `cases.json` hold; what cannot be compared says why."""
    for note in case.notes:
        yield Comparison(case.name, "settings", None, note=note)
    seen = set()
    outputs = compute_outputs(case)
    parts = (
        compare_data(case),
        compare_outputs(case, outputs),
        compare_training(case, optimizer=case.find("optimizer")),
        compare_scores(case, outputs),
        compare_beams(case),
    )
    for row in itertools.chain(*parts):
        seen.add(row.quantity)
        yield row
    for key in sorted(case.arrays):
        if key not in seen and not key.startswith(TREES):
            yield Comparison(case.name, key, None, note="nothing here is known by this name")


def format_comparison(row: Comparison) -> str:
    """Write one comparison as a line of fixed columns."""
    note = f"  ({row.note})" if row.note else ""
    if row.error is None:
        return f"{'----':4} {row.case:30} {row.quantity:34} not compared{note}"
    verdict = "ok" if row.ok else "FAIL"
    return f"{verdict:4} {row.case:30} {row.quantity:34} {row.error:.1e} <= {row.tolerance:.0e}{note}"
