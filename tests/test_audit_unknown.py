"""What counts as unknown, one spelling a category, and the bounds of a ratio whoever the unknown are."""

import itertools
import json
import logging

import numpy as np
import pytest
from ready_tables import SEX, audit, write_table

from ilqljax.cli import run_command
from ilqljax.data.json_lines import save_json_lines
from ilqljax.errors import UserError
from ilqljax.hiring.audit.bounds import bound_ratios
from ilqljax.hiring.audit.categories import UNKNOWN_WORDS, unify_candidates, unify_values
from ilqljax.hiring.audit.crossed import pair_rows, pair_selection, tally_pairs
from ilqljax.hiring.audit.frame import audit_frame
from ilqljax.hiring.audit.market import AuditConfig
from ilqljax.hiring.audit.ready_table import audit_ready_table, load_ready_table
from ilqljax.hiring.postings.posting import Candidate

WORDS = ["Prefer not to say", "N/A", "Unknown", "Not specified", "NA", "-", "none", "null", "?", " I decline to answer"]
WORDS += ["Missing/Unknown", "NaN", "I don’t wish to answer", "PREFER  NOT TO DISCLOSE", "Not Applicable", "–"]


@pytest.mark.parametrize("word", WORDS)
def test_word_for_unknown_is_no_category(word):
    values, taken = unify_values(["f", word, ""])
    assert values == ["f", "", ""] and taken == {" ".join(word.split()): 1}


@pytest.mark.parametrize("word", ["Nonbinary", "Other", "Two or more", "No", "Nordic", "X", "0"])
def test_word_that_merely_resembles_one_stays_a_category(word):
    assert unify_values([word]) == ([word], {})


def test_case_and_spaces_make_no_category_and_the_most_frequent_spelling_is_shown():
    given = ["female", "Female", " Female", "FEMALE", "Two  or more", "two or more", "Two or\u00a0more"]
    assert unify_values(given)[0] == ["Female"] * 4 + ["Two or more"] * 3
    assert unify_values(["FEMALE", "female"])[0] == unify_values(["female", "FEMALE"])[0]


def test_own_list_replaces_the_words_and_an_empty_cell_stays_unknown():
    values, taken = unify_values(["N/A", "Keine Angabe", " ", "f"], ["keine angabe"])
    assert values == ["N/A", "", "", "f"] and taken == {"Keine Angabe": 1}


def test_candidates_keep_everything_but_the_named_attributes():
    people = [Candidate("1", "text", {"sex": "f", "job": "nurse"}), Candidate("2", "t", {"sex": "N/A", "job": "Nurse"})]
    unified, taken = unify_candidates([*people, Candidate("3", "t", {"sex": "F"})], names=["sex"])
    assert [c.attributes.get("sex") for c in unified] == ["f", "", "f"]
    assert [c.attributes.get("job") for c in unified] == ["nurse", "Nurse", None]
    assert unified[0].text == "text" and taken == {"sex": {"N/A": 1}}


def run(folder, *arguments):
    run_command(["audit", *map(str, arguments), "--out", str(folder / "out")])
    page = (folder / "out" / "report.html").read_text(encoding="utf-8")
    return json.loads((folder / "out" / "audit.json").read_text()), page


def test_table_says_which_values_were_taken_as_unknown(tmp_path, caplog):
    extra = ["u1,N/A,1", "u2,n/a,0", "u3,Prefer not to say,0", "u4,MALE,0"]
    path = write_table(tmp_path / "t.csv", SEX, kind="selected", extra=extra)
    with caplog.at_level(logging.WARNING):
        result, page = run(tmp_path, "--scores", path)
    assert result["taken_as_unknown"] == {"sex": ["N/A", "Prefer not to say", "n/a"]}
    assert result["attributes"][0]["pool"] == {"Female": 76, "Male": 93} and result["attributes"][0]["n_unknown"] == 3
    (message,) = caplog.messages
    assert "'sex' these were taken as unknown: 'N/A' (1 row), 'Prefer not to say' (1 row), 'n/a' (1 row)" in message
    assert "Prefer not to say" in page and "Whoever the unknown are" in page


def test_unknown_may_be_named_in_a_list_and_repeatedly(tmp_path):
    extra = ["u1,N/A,1", "u2,keine,0", "u3,divers,0"]
    path = write_table(tmp_path / "t.csv", SEX, kind="selected", extra=extra)
    result, _ = run(tmp_path, "--scores", path, "--unknown", "KEINE, weiß nicht", "--unknown", "divers")
    assert set(result["attributes"][0]["pool"]) == {"Female", "Male", "N/A"}
    assert load_ready_table(path, unknown=[""]).table.attribute("sex").categories == (
        "Female", "Male", "N/A", "divers", "keine"
    )  # fmt: skip


def test_people_of_a_market_are_read_alike(tmp_path, caplog):
    rows = [{"id": str(i), "text": "nurse", "attributes": {"sex": ["f", "M", "F ", "N/A"][i % 4]}} for i in range(40)]
    save_json_lines(tmp_path / "c.jsonl", [*rows, {"id": "m", "text": "nurse", "attributes": {"sex": "M"}}])
    save_json_lines(tmp_path / "j.jsonl", [{"id": "1", "title": "Nurse", "description": "A nurse."}])
    paths = ["--jobs", tmp_path / "j.jsonl", "--candidates", tmp_path / "c.jsonl", "--top", 20, "--selected", 5]
    result, _ = run(tmp_path, *paths)
    assert sorted(result["attributes"][0]["pool"].values()) == [11, 20] and result["attributes"][0]["n_unknown"] == 10
    assert "c.jsonl: of 'sex' these were taken as unknown: 'N/A' (10 rows)" in caplog.messages[0]


def test_frames_take_the_same_words_and_one_person_may_be_spelt_in_two_ways():
    frame = {"sex": ["F", "f ", "F", "m", "n/a"], "picked": [1, 0, 1, 0, 1], "who": [1, 1, 2, 3, 4], "job": "ababa"}
    frame["job"] = list(frame["job"])
    options = {"attributes": ["sex"], "selected": "picked", "person": "who", "posting": "job"}
    found = audit_frame(frame, **options).audit
    assert found["attributes"][0]["pool"] == {"F": 2, "m": 1} and found["taken_as_unknown"] == {"sex": ["n/a"]}
    assert audit_frame(frame, **options, unknown="M").audit["attributes"][0]["pool"] == {"F": 2, "n/a": 1}
    with pytest.raises(UserError, match=r"unknown\[0\]=3 is of type int"):
        audit_frame(frame, **options, unknown=[3])


def test_two_tables_may_spell_a_category_differently(tmp_path):
    for name, word in (("a.csv", "Female"), ("b.csv", "female ")):
        (tmp_path / name).write_text(f"id,sex,selected\n1,{word},1\n2,Male,0\n3,N/A,0\n")
    before, after = (load_ready_table(tmp_path / name) for name in ("a.csv", "b.csv"))
    sections = audit_ready_table(before, AuditConfig(("sex",)), after=after)["attributes"]
    assert sections[0]["pool"] == {"Female": 1, "Male": 1}


# --- Bounds -----------------------------------------------------------------------------------------------------------


def bound(pairs, codes, *, n_categories, reference):
    tally = tally_pairs(pairs, codes, n_categories=n_categories)
    return np.array(bound_ratios(tally, np.ones(n_categories, bool), reference)).T


def enumerate_bounds(assessed, selected, codes, c, reference, *, n_categories):
    """Try every category of every unknown person; return the extremes of the ratio of c to the reference."""
    unknown, ratios = np.flatnonzero(codes < 0), []
    for given in itertools.product(range(n_categories), repeat=len(unknown)):
        own = codes.copy()
        own[unknown] = given
        rate = [selected[own == k].sum() / assessed[own == k].sum() for k in (c, reference)]
        ratios.append(rate[0] / rate[1])
    return min(ratios), max(ratios)


def test_bounds_of_the_docstring():
    codes = np.repeat([0, 1, -1], [20, 40, 10])
    chosen = np.concatenate([np.arange(n) < s for n, s in ((20, 10), (40, 30), (10, 4))])
    (low, high), of_reference = bound(pair_rows(chosen), codes, n_categories=2, reference=1)
    assert (low, high) == pytest.approx(((10 / 26) / (34 / 44), (14 / 24) / (30 / 46)))
    assert np.isnan(of_reference).all()


@pytest.mark.parametrize("seed", range(6))
def test_bounds_are_those_of_every_allocation(seed):
    """Three categories, so that some of the unknown may be of neither; also where the category's rate is the higher."""
    rng = np.random.default_rng(seed)
    codes, chosen = np.append(rng.integers(0, 3, 18), np.full(6, -1)), rng.random(24) < 0.5
    codes[:3], chosen[:3] = [0, 1, 2], True
    found = bound(pair_rows(chosen), codes, n_categories=3, reference=2)
    for c in (0, 1):
        expected = enumerate_bounds(np.ones(24), chosen, codes, c, 2, n_categories=3)
        assert tuple(found[c]) == pytest.approx(expected, rel=1e-12)


def test_bounds_over_people_who_come_back_contain_every_allocation():
    """Each person falls whole; the bounds are at most a little too wide."""
    rng = np.random.default_rng(0)
    codes = np.append(np.arange(12) % 2, np.full(5, -1))
    shortlists = np.stack([rng.choice(17, 10, replace=False) for _ in range(8)])
    pairs = pair_selection(shortlists, n_candidates=17, n_selected=4)
    tally = tally_pairs(pairs, codes, n_categories=2)
    counts = tally.candidate_assessed, tally.candidate_selected
    (low, high), _ = bound(pairs, codes, n_categories=2, reference=1)
    expected = enumerate_bounds(*counts, codes, 0, 1, n_categories=2)
    assert low <= expected[0] + 1e-12 and high >= expected[1] - 1e-12
    assert (low, high) == pytest.approx(expected, rel=0.1)


def test_without_unknown_people_bounds_are_the_ratio_and_the_page_has_none(tmp_path):
    path = write_table(tmp_path / "t.csv", SEX, kind="selected")
    result, page = run(tmp_path, "--scores", path)
    female, male = result["attributes"][0]["rates"]["before"]["selection"]["rows"]
    assert female["bound_low"] == female["bound_high"] == female["impact_ratio"] and male["bound_low"] is None
    assert '<th scope="col" class="number">Whoever the unknown are' not in page


def test_bounds_are_hidden_with_a_small_unknown_count(tmp_path):
    path = write_table(tmp_path / "t.csv", [*SEX, ("x", 50, 20)], kind="selected", extra=["u,,1", "v,,0"])
    table = audit(path, min_count=5)["attributes"][0]["rates"]["before"]["selection"]
    assert table["unknown"] == {} and np.isnan([row["bound_low"] for row in table["rows"]]).all()


def test_every_word_is_written_as_it_is_compared():
    assert all(word == " ".join(word.casefold().split()) for word in UNKNOWN_WORDS)
