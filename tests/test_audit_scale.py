"""Large tables: few words are kept, people with equal counts are dealt labels together, and nothing else changes."""

import itertools
import tracemalloc

import numpy as np
import pytest

from ilqljax.errors import UserError
from ilqljax.hiring.attributes import AttributeTable, Column, cross_codes
from ilqljax.hiring.audit import decisions, ready_table, shuffles
from ilqljax.hiring.audit.categories import unify_column, unify_values
from ilqljax.hiring.audit.crossed import pair_rows, tally_pairs
from ilqljax.hiring.audit.frame import audit_frame
from ilqljax.hiring.audit.ready_table import load_ready_table
from ilqljax.hiring.audit.shuffles import deal_labels, draw_totals
from ilqljax.hiring.audit.strata import _find_blocks
from ilqljax.hiring.postings.posting import Candidate


def test_columns_are_those_of_candidates():
    values = ["b", "", "a", "b", "a b"]
    table = AttributeTable.from_columns("vwxyz", {"sex": Column.from_values(values)})
    same = AttributeTable.from_candidates(Candidate(i, "", {"sex": v}) for i, v in zip("vwxyz", values, strict=True))
    assert table.ids == same.ids and table.attribute("sex").categories == ("a", "a b", "b")
    assert table.attribute("sex").codes.tolist() == same.attribute("sex").codes.tolist() == [2, -1, 0, 2, 1]


def test_spelling_of_a_column_is_that_of_its_values():
    values = ["Female", "female ", "FEMALE", "FEMALE", "n/a", "", "x"]
    column, taken = unify_column(Column.from_values(values))
    assert (column.list_values(), taken) == unify_values(values)
    assert sorted(column.words) == ["", "FEMALE", "x"]


def test_combinations_are_sorted_and_unknown_with_any_part_unknown():
    rows, codes = cross_codes([np.array([2, 0, 2, -1, 0]), np.array([1, 5, 0, 1, 5])])
    assert rows.tolist() == [[0, 5], [2, 0], [2, 1]] and codes.tolist() == [2, 0, 1, -1, 0]


@pytest.mark.parametrize("block_rows", [1, 3, 100])
def test_blocks_of_rows_are_one_table_and_an_error_names_its_line(tmp_path, monkeypatch, block_rows):
    monkeypatch.setattr(decisions, "BLOCK_ROWS", block_rows)
    rows = [("a", "f", "1.5"), ("b", "m", "2"), ("a", "f", "0"), ("c", "", "7"), ("d", "f", "3")]
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["id,sex,score", "", *map(",".join, rows)]) + "\n")
    ready = load_ready_table(path, attributes=["sex"])
    assert ready.values.tolist() == [1.5, 2, 0, 7, 3] and ready.people.tolist() == [0, 1, 0, 2, 3]
    assert ready.table.ids == ("a", "b", "c", "d") and ready.table.attribute("sex").codes.tolist() == [0, 1, -1, 0]
    path.write_text(path.read_text() + "e,f,x\ng,f\n")
    with pytest.raises(UserError, match=r"t\.csv:8: score='x' is not a|t\.csv:9: 2 cells"):
        load_ready_table(path, attributes=["sex"])
    path.write_text("sex,applicants,selected\nf,3,1\nm,0,0\nm,2,2\n")
    assert load_ready_table(path).values.tolist() == [1, 0, 0, 1, 1]
    path.write_text("sex,applicants,selected\nf,1999999,1\nm,2,2\n")
    with pytest.raises(UserError, match=r"t\.csv:3: selected=2 of applicants=2; at most all, and 2,000,000"):
        load_ready_table(path)


def test_labels_are_dealt_with_the_law_of_every_permutation():
    labels, groups = [0, 0, 1, 1, 2], np.array([0, 0, 1, 1, 1])
    seen = {np.bincount(np.array(order)[groups == 0], minlength=3)[0] for order in itertools.permutations(labels)}
    exact = [sum(np.array(order)[groups == 0] == 0) for order in itertools.permutations(labels)]
    first, second = deal_labels(np.random.default_rng(0), np.bincount(labels), np.bincount(groups), n_shuffles=4000)
    assert set(first[:, 0].tolist()) == seen and first[:, 0].mean() == pytest.approx(np.mean(exact), abs=0.03)
    assert first[:, 0].std() == pytest.approx(np.std(exact), abs=0.03)
    assert ((first + second) == np.bincount(labels)).all()


@pytest.mark.parametrize("weighted", [False, True])
def test_totals_of_groups_have_the_law_of_permuted_people(monkeypatch, weighted):
    rng = np.random.default_rng(0)
    people, selected = rng.integers(0, 40, 160), rng.random(160) < 0.4
    codes = rng.integers(-1, 2, len(np.unique(people)))
    pairs = pair_rows(selected, people, weights=rng.integers(1, 3, 160) / 2 if weighted else np.empty(0))
    tally, drawn = tally_pairs(pairs, codes, n_categories=2), []
    for draw_cost in (0, 10**9):
        monkeypatch.setattr(shuffles, "DRAW_COST", draw_cost)
        drawn.append(np.hstack(draw_totals(tally, seed=1, n_shuffles=3000)))
    assert not np.array_equal(*drawn)
    error = 5 * drawn[1].std(axis=0) / np.sqrt(3000)
    assert (abs(drawn[0].mean(axis=0) - drawn[1].mean(axis=0)) < 1.5 * error).all()
    np.testing.assert_allclose(drawn[0].std(axis=0), drawn[1].std(axis=0), rtol=0.1)
    np.testing.assert_allclose(np.cov(drawn[0].T), np.cov(drawn[1].T), atol=0.12 * drawn[1].var(axis=0).max())


def test_table_of_many_rows_keeps_few_bytes_a_row(tmp_path, monkeypatch):
    """A row of this table was over 700 bytes: texts, a place, a candidate."""
    path, n = tmp_path / "t.csv", 8000
    path.write_text("sex,race,job,score\n" + "".join(f"{'fm'[i % 2]},r{i % 5},j{i % 9},0.{i}\n" for i in range(n)))
    monkeypatch.setattr(decisions, "BLOCK_ROWS", 500)
    monkeypatch.setattr(ready_table, "SAMPLE_ROWS", 500)
    tracemalloc.start()
    load_ready_table(path, attributes=["sex", "race"], within=["job"])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak / n < 400


@pytest.mark.parametrize("rows", ["", "F,0,0\n"])
def test_counts_of_nobody_are_refused_in_one_line(tmp_path, rows):
    path = tmp_path / "counts.csv"
    path.write_text("sex,applicants,selected\n" + rows)
    with pytest.raises(UserError, match="holds 0 candidates"):
        load_ready_table(path, attributes=["sex"])


def test_people_of_the_same_strata_share_a_number():
    place, person = np.array([2, 0, 1, 0, 2, 2, 0, 1, 0]), np.array([0, 0, 1, 2, 2, 3, 3, 3, 4])
    blocks = _find_blocks(place, person, n_people=5)
    strata = [tuple(sorted(place[person == one].tolist())) for one in range(5)]
    same = [[one == other for other in strata] for one in strata]
    assert (blocks[:, None] == blocks[None]).tolist() == same and blocks.tolist() == [0, 1, 0, 2, 3]


def test_a_frame_of_many_people_makes_no_object_for_each(monkeypatch):
    """Every row was a dictionary, and every person a candidate."""
    monkeypatch.setattr("ilqljax.hiring.audit.frame.audit_attributes", lambda *_: {"attributes": []})
    n = 20_000
    texts = {"who": [f"c{i // 2}" for i in range(n)], "sex": [["f", "m", ""][i // 2 % 3] for i in range(n)]}
    texts |= {"job": [f"j{i % 2}" for i in range(n)], "p": [i % 2 for i in range(n)]}
    tracemalloc.start()
    audit_frame(texts, attributes=["sex"], selected="p", person="who", posting="job")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak / n < 250
