"""Small cells: hidden everywhere, with the next smallest where one alone could be found by subtraction."""

import numpy as np
import pytest

from ilqljax.hiring.audit.frame import audit_frame
from ilqljax.hiring.audit.rates import Mark
from ilqljax.hiring.audit.suppression import HIDDEN, find_determined, find_hidden, hide_cells
from ilqljax.hiring.statistics import Estimate, divide


def make_table(counts: dict[str, tuple[int, int]], *, mark: str = Mark.PASSED) -> dict:
    rows = [
        {"category": name, "n_people": n, "n_people_selected": s, "compared_ratio": s / n, "mark": mark}
        for name, (n, s) in counts.items()
        if name
    ]
    n, s = counts.get("", (0, 0))
    reference = rows[0]["category"]
    return {
        "compared_with": reference,
        "reference": reference,
        "rows": rows,
        "unknown": {"n_people": n, "n_people_selected": s},
    }


def hide(counts, *, min_count, hidden_parts=()):
    pool = {name: n for name, (n, _) in counts.items()} | ({"": 0} if "" not in counts else {})
    parts = {name: name.split(" / ") if hidden_parts else [name] for name in counts if name}
    return find_hidden([make_table(counts)], pool, min_count=min_count, parts=parts, hidden_parts=hidden_parts)


def test_nothing_is_hidden_unless_asked():
    assert hide({"a": (1, 1), "b": (2, 1)}, min_count=0) == set()


def test_two_small_categories_hide_each_other():
    assert hide({"a": (100, 50), "b": (3, 3), "c": (4, 2), "d": (90, 30)}, min_count=5) == {"b", "c"}


def test_small_cells_that_are_small_together_take_a_larger_one_with_them():
    """The 4 selected of b and c follow from the totals."""
    assert hide({"a": (100, 50), "b": (3, 2), "c": (4, 2), "d": (90, 30)}, min_count=5) == {"b", "c", "d"}


def test_a_cell_that_links_two_groups_of_hidden_ones_is_determined_by_their_sums():
    """A square of a, b by 1, 2 and one of c, d by 3, 4, and b3 between them: b1 + b2 + b3 less the columns' sums."""
    pairs = ["a1", "a2", "b1", "b2", "c3", "c4", "d3", "d4", "b3"]
    lines = [frozenset(name for name in pairs if letter in name) for letter in "abcd1234"]
    assert find_determined(set(pairs), lines) == {"b3"}
    assert find_determined(set(pairs[:4]), lines) == set() and find_determined(set(), lines) == set()


def test_one_small_category_takes_the_next_smallest_with_it():
    """Otherwise b = total - the others."""
    assert hide({"a": (100, 50), "b": (3, 2), "c": (20, 10)}, min_count=5) == {"b", "c"}


def test_few_selected_people_are_a_small_cell_too_and_none_is_not():
    assert hide({"a": (100, 50), "b": (90, 2), "c": (80, 40)}, min_count=5) == {"b", "c"}
    assert hide({"a": (100, 50), "b": (90, 0), "c": (80, 40)}, min_count=5) == set()


def test_a_small_unknown_count_is_a_cell():
    assert hide({"a": (100, 50), "b": (90, 40), "": (3, 1)}, min_count=5) == {"", "b"}


def test_no_line_of_an_intersection_has_a_single_hidden_cell():
    """f / n is small; f / s goes with it for line f, m / n for line n, and then m / s, the last of its lines."""
    counts = {"f / n": (3, 1), "f / s": (50, 20), "m / n": (60, 20), "m / s": (70, 20), "m / w": (80, 20)}
    counts["f / w"] = (90, 30)
    hidden = hide(counts, min_count=5, hidden_parts=(set(), set()))
    assert {"f / n", "f / s", "m / n"} <= hidden
    for part in range(2):
        for value in "fmnsw":
            line = [name for name in counts if len(name.split(" / ")) == 2 and name.split(" / ")[part] == value]
            assert sum(name in hidden for name in line) != 1


def test_category_hidden_in_its_own_attribute_is_hidden_in_the_intersection():
    counts = {f"{s} / {r}": (50, 20) for s in "fm" for r in "nsw"}
    assert hide(counts, min_count=5, hidden_parts=(set(), {"n", "w"})) == {"f / n", "f / w", "m / n", "m / w"}


def test_hidden_cells_are_gone_from_every_part_of_the_section():
    table = make_table({"a": (100, 50), "b": (3, 2), "c": (20, 5)}) | {"smallest_ratio": 0.5, "p_smallest": 0.1}
    table["rows"].append({"category": "d", "compared_ratio": 0.0, "mark": Mark.INSUFFICIENT})  # sets no smallest ratio
    section = {
        "rates": {"before": {"selection": table}},
        "changes": {"selection": [{"category": "b", "reference": "a"}, {"category": "a", "reference": "b"}]},
        "composition": [{"category": name} for name in "abc"],
        "ranking": [{"category": name} for name in "abc"],
        "pool": {"a": 100, "b": 3, "c": 20, "d": 9},
        "parts": {name: [name] for name in "abcd"},
        "n_unknown": 0,
    }
    hide_cells(section, {"b", "c"})
    assert [row["category"] for row in table["rows"]] == [*section["pool"]] == [*section["parts"]] == ["a", "d"]
    assert section["composition"] == section["ranking"] == [{"category": "a"}]
    assert section["changes"]["selection"] == []  # it was a ratio to b
    assert section["scores"] == section["lists"] == {}  # which are of every category
    assert section["n_hidden"] == 2


def test_slashes_in_a_category_hide_no_line_of_an_intersection():
    """The lines are those of the parts "p / q" and "r", whatever the joined names look like."""
    counts = {"p / q / f": (3, 1), "p / q / m": (50, 20), "r / f": (60, 20), "r / m": (70, 20)}
    parts = {"p / q / f": ["p / q", "f"], "p / q / m": ["p / q", "m"], "r / f": ["r", "f"], "r / m": ["r", "m"]}
    pool = {name: n for name, (n, _) in counts.items()} | {"": 0}
    for given in ((set(), set()), ({"p / q"}, set())):
        assert find_hidden([make_table(counts)], pool, min_count=5, parts=parts, hidden_parts=given) == set(counts)


@pytest.mark.parametrize("names", [("a", "b"), ("a / x", "b / y")])
def test_category_names_with_slashes_do_not_break_one_attribute(names):
    counts = {names[0]: (100, 50), names[1]: (3, 2), "c": (50, 20)}
    assert hide(counts, min_count=5) == {names[1], "c"}


# --- Attacks ----------------------------------------------------------------------------------------------------------


def draw_cells(rng, shape):
    """Return the people and the selected of each cell, many of them small."""
    people = np.where(rng.random(shape) < 0.4, rng.integers(0, 8, shape), rng.integers(8, 60, shape))
    return people, rng.binomial(people, rng.uniform(0.05, 0.95))


def list_lines(names, hidden_parts):
    """Return what has a published sum: everything, and each value of each part of a pair."""
    lines = [list(names)]
    for place in range(len(hidden_parts)):
        values = {name.split(" / ")[place] for name in names if name}
        lines += [[name for name in names if name and name.split(" / ")[place] == value] for value in values]
    return lines


@pytest.mark.parametrize("shape", [(4,), (7,), (2, 4), (4, 5)])
def test_no_hidden_cell_follows_from_sums(shape):
    """What each sum leaves, less the shown, is of two cells or more and not of few people; nor do all solve one."""
    rng = np.random.default_rng(0)
    for _ in range(60):
        people, selected = draw_cells(rng, shape)
        names = [" / ".join(map(str, place)) for place in np.ndindex(shape)]
        counts = {name: (int(n), int(s)) for name, n, s in zip(names, people.flat, selected.flat, strict=True) if n}
        counts[""] = (int(rng.integers(0, 20)), 0)
        parts = ((set(),) * 2) if len(shape) == 2 else ()
        hidden = hide(counts, min_count=5, hidden_parts=parts)
        lines = list_lines(counts, parts)
        for line in lines:
            left = [counts[name] for name in line if name in hidden]
            others = [name for name in line if name not in hidden and any(counts[name])]
            if left and others:
                sums = np.sum(left, axis=0)
                assert len(left) > 1 and not ((sums > 0) & (sums < 5)).any()
        cells = sorted(hidden)
        matrix = np.array([[name in line for name in cells] for line in lines], float)
        rank = np.linalg.matrix_rank(matrix) if cells else 0
        for i, name in enumerate(cells):
            shown = [
                other for line in lines if name in line for other in line if other not in hidden and any(counts[other])
            ]
            assert not shown or np.linalg.matrix_rank(np.vstack([matrix, np.eye(len(cells))[i]])) > rank


def estimate_quickly(a, n, b, m):
    """Return a ratio with ends that are not of use, without looking for them."""
    ratio = float(divide(divide(a, n), divide(b, m)))
    return Estimate(ratio, ratio, ratio)


def test_no_hidden_cell_follows_from_the_ratios_of_an_audit(monkeypatch):
    """A rate over everyone else's gives the selected of all; an impact ratio would give the reference's rate."""
    monkeypatch.setattr("ilqljax.hiring.audit.crossed.ratio_interval", estimate_quickly)
    for module in ("crossed", "rates"):
        monkeypatch.setattr(f"ilqljax.hiring.audit.{module}.ratio_test", lambda *_: (0.5, ""))
    rng, n_hidden_references = np.random.default_rng(1), 0
    for _ in range(10):
        people, selected = draw_cells(rng, 5)
        codes, picked = (
            np.repeat(np.arange(5), people),
            np.concatenate([np.arange(n) < s for n, s in zip(people, selected, strict=True)]),
        )
        frame = {"g": [f"c{code}" for code in codes], "p": picked.astype(int)}
        (section,) = audit_frame(frame, attributes=["g"], selected="p", min_count=6, leave_out_below=0.0).audit[
            "attributes"
        ]
        table = section["rates"]["before"]["selection"]
        shown = {row["category"]: row for row in table["rows"]}
        hidden = [c for c in range(5) if people[c] and f"c{c}" not in shown]
        n_hidden_references += table["reference"] == HIDDEN
        if table["reference"] == HIDDEN:
            assert all(np.isnan(row["impact_ratio"]) and np.isnan(row["ratio_low"]) for row in shown.values())
        for row in shown.values() if hidden else ():
            others = [other for other in shown.values() if other is not row]
            n_left = len(codes) - sum(other["n_assessed"] for other in shown.values())
            rest = row["rate"] / row["versus_rest"] * (len(codes) - row["n_assessed"])
            n_selected_left = rest - sum(other["n_selected"] for other in others)
            assert len(hidden) > 1 and n_left >= 6
            assert np.isnan(rest) or round(n_selected_left) == 0 or n_selected_left > 5.9
    assert n_hidden_references > 1
