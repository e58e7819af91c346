"""Small cells: hidden everywhere, with the next smallest where one alone could be found by subtraction."""

import pytest

from ilqljax.hiring.audit.rates import Mark
from ilqljax.hiring.audit.suppression import find_hidden, hide_cells


def make_table(counts: dict[str, tuple[int, int]], *, mark: str = Mark.PASSED) -> dict:
    rows = [
        {"category": name, "n_people": n, "n_people_selected": s, "compared_ratio": s / n, "mark": mark}
        for name, (n, s) in counts.items()
        if name
    ]
    n, s = counts.get("", (0, 0))
    return {"rows": rows, "unknown": {"n_people": n, "n_people_selected": s}, "reference": rows[0]["category"]}


def hide(counts, *, min_count, hidden_parts=()):
    pool = {name: n for name, (n, _) in counts.items()} | ({"": 0} if "" not in counts else {})
    parts = {name: name.split(" / ") if hidden_parts else [name] for name in counts if name}
    return find_hidden([make_table(counts)], pool, min_count=min_count, parts=parts, hidden_parts=hidden_parts)


def test_nothing_is_hidden_unless_asked():
    assert hide({"a": (1, 1), "b": (2, 1)}, min_count=0) == set()


def test_two_small_categories_hide_each_other():
    assert hide({"a": (100, 50), "b": (3, 2), "c": (4, 2), "d": (90, 30)}, min_count=5) == {"b", "c"}


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
    assert section["changes"]["selection"] == [{"category": "a", "reference": "(hidden)"}]
    assert table["smallest_ratio"] != table["smallest_ratio"]  # it was that of c: undefined now
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
