"""Equal scores: drawn by seed and ids, whatever the order of the files, counted, and shown."""

import json

import numpy as np
import pytest

from ilqljax.cli import run_command
from ilqljax.data.json_lines import save_json_lines
from ilqljax.hiring.audit.ties import describe_ties, match_shortlists
from ilqljax.hiring.matching.matcher import NOBODY, TfidfMatcher, check_k, select_top_k

# Scores of 8 candidates for three postings: the third place is shared by c, d, e and f; nobody differs; no tie at all.
TABLE = {"shared": [9, 8, 5, 5, 5, 5, 1, 0], "flat": [2] * 8, "clear": [8, 7, 6, 5, 4, 3, 2, 1]}
IDS = list("abcdefgh")


class TableMatcher:
    """Rank by `TABLE`, and remember how many candidates were asked for."""

    def __init__(self, order):
        self.order, self.n_candidates, self.asked = list(order), len(IDS), []

    def top_k(self, texts, k):
        check_k(k, n_candidates=self.n_candidates)
        self.asked.append(k)
        return select_top_k(np.array([[TABLE[text][c] for c in self.order] for text in texts], float), k)


def shortlist(order=range(8), *, seed=0, k=3, names=tuple(TABLE), texts=tuple(TABLE)):
    """Return the ids on each posting's shortlist, where the file has the candidates in an order, and the counts."""
    order = list(order)
    ids = [IDS[c] for c in order]
    options = {"n_selected": 1, "postings": names, "ids": ids, "seed": seed}
    (indices, scores), counts = match_shortlists(TableMatcher(order), list(texts), k, **options)
    assert (np.diff(scores) <= 0).all()
    return [[ids[row] for row in own] for own in indices], counts


def test_shortlists_do_not_depend_on_the_order_of_the_file():
    first, _ = shortlist()
    for seed in range(20):
        assert shortlist(np.random.default_rng(seed).permutation(8))[0] == first


def test_whoever_scores_higher_stays_above_and_the_shared_places_are_drawn_evenly():
    drawn = [shortlist(seed=seed)[0] for seed in range(400)]
    assert all(shared[:2] == ["a", "b"] and clear == ["a", "b", "c"] for shared, _, clear in drawn)
    third = [sum(shared[2] == who for shared, _, _ in drawn) for who in "cdef"]
    assert sum(third) == 400 and min(third) > 65  # 100 +- 9
    members = [sum(who in flat for _, flat, _ in drawn) for who in IDS]
    assert sum(members) == 1200 and min(members) > 110  # 150 +- 10


def test_postings_draw_apart_and_an_unchanged_text_keeps_its_list():
    lists, _ = shortlist(names=[f"job-{i}" for i in range(30)], texts=["flat"] * 30)
    assert len(set(map(tuple, lists))) > 20
    assert shortlist(names=[f"job-{i}" for i in range(30)], texts=["flat"] * 30)[0] == lists


def test_lists_that_ties_decide_are_counted():
    lists, counts = shortlist(names=("1", "2", "3", "4"), texts=("shared", "flat", "clear", "flat"))
    assert counts == {"shortlist": 3, "selected": 2, "all": 2, "empty": 0} and len(lists) == 4


def test_empty_posting_reaches_nobody_and_is_counted():
    options = {"n_selected": 1, "postings": ["1"], "ids": IDS, "seed": 0}
    (indices, _), counts = match_shortlists(TableMatcher(range(8)), [" "], 3, **options)
    assert (indices == NOBODY).all() and counts == {"shortlist": 0, "selected": 0, "all": 0, "empty": 1}


def test_shortlist_of_everybody_is_shared_with_nobody():
    lists, counts = shortlist(k=8)
    assert counts == {"shortlist": 0, "selected": 1, "all": 1, "empty": 0}
    assert all(sorted(own) == IDS for own in lists) and lists[1] != IDS


def test_matcher_is_asked_for_more_only_where_the_last_place_is_shared():
    matcher, options = TableMatcher(range(8)), {"n_selected": 1, "postings": ["1"], "ids": IDS, "seed": 0}
    match_shortlists(matcher, ["clear"], 3, **options)
    assert matcher.asked == [4]
    match_shortlists(matcher, ["flat"], 3, **options)
    assert matcher.asked == [4, 4, 8]


def test_posting_without_a_word_that_anybody_has_is_drawn_from_all():
    ids = [f"c{i}" for i in range(60)]
    options = {"n_selected": 2, "postings": ["x"], "ids": ids, "seed": 0}
    (indices, scores), counts = match_shortlists(TfidfMatcher(["nurse"] * 60), ["Schweißer"], 5, **options)
    assert (scores == 0).all() and counts["all"] == 1 and indices.max() > 10


def test_words_say_what_was_counted():
    text = describe_ties({"shortlist": 3, "selected": 2, "all": 1, "empty": 1}, 1200, seed=7)
    assert "is shared in 3 of 1,200 postings, the last selected in 2; 1 rank nobody" in text
    assert "1 are empty" in text and "(seed 7)" in text
    assert "rank nobody" not in describe_ties(dict.fromkeys(["shortlist", "selected", "all", "empty"], 0), 1, seed=0)


@pytest.mark.slow
def test_sorting_the_candidates_by_sex_makes_no_effect(tmp_path):
    """All 120 have one text: in the order of the file the first 20 would be shortlisted, all of one sex."""
    rows = [{"id": str(i), "text": "nurse", "attributes": {"sex": "fm"[i % 2]}} for i in range(120)]
    save_json_lines(tmp_path / "j.jsonl", [{"id": str(i), "title": "t", "description": "A nurse."} for i in range(6)])
    tables = []
    for name, people in (("mixed", rows), ("sorted", sorted(rows, key=lambda row: row["attributes"]["sex"]))):
        save_json_lines(tmp_path / f"{name}.jsonl", people)
        arguments = ["--jobs", tmp_path / "j.jsonl", "--candidates", tmp_path / f"{name}.jsonl", "--top", 20]
        run_command(["audit", *map(str, arguments), "--selected", "5", "--out", str(tmp_path / name)])
        result = json.loads((tmp_path / name / "audit.json").read_text())
        assert result["ties"] == {"before": {"shortlist": 6, "selected": 6, "all": 6, "empty": 0}}
        rates = result["attributes"][0]["rates"]["before"]["shortlisting"]["rows"]
        tables.append([(row["category"], row["n_selected"]) for row in rates])
    assert tables[0] == tables[1] and min(n for _, n in tables[0]) > 30
    page = (tmp_path / "sorted" / "report.html").read_text(encoding="utf-8")
    assert "is shared in 6 of 6 postings" in page and "6 rank nobody" in page


@pytest.mark.parametrize("seed", [0, 1])
def test_equal_scores_have_the_order_of_their_seed(seed):
    assert (shortlist(seed=seed)[0] == shortlist()[0]) == (seed == 0)
