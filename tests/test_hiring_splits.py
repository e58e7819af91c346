"""Splits: nothing shared between them, decided by the seed alone, and guarded by a manifest."""

import dataclasses
import hashlib
import json

import pytest

from ilqljax.errors import UserError
from ilqljax.hiring.data.splits import (
    check_leakage,
    find_ties,
    save_manifest,
    split_postings,
)
from ilqljax.hiring.market.sample import make_market
from ilqljax.hiring.postings.posting import Posting, save_postings

POSTINGS = make_market(n_postings=120, n_candidates=1)[0]


def test_splits_partition_the_postings_in_the_given_shares():
    splits = split_postings(POSTINGS, seed=0)
    assert sorted(i for ids in splits.values() for i in ids) == sorted(p.id for p in POSTINGS)
    assert [len(splits[name]) for name in ("train", "eval", "test")] == pytest.approx([84, 12, 24], abs=3)


def test_no_company_is_in_two_splits():
    splits = split_postings(POSTINGS, seed=0)
    company = {p.id: p.company for p in POSTINGS}
    train, test = ({company[i] for i in splits[name]} for name in ("train", "test"))
    assert not train & test


def test_split_depends_on_the_seed_and_not_on_the_order():
    splits = split_postings(POSTINGS, seed=1)
    backwards = split_postings(POSTINGS[::-1], seed=1)
    assert {name: sorted(ids) for name, ids in splits.items()} == {n: sorted(ids) for n, ids in backwards.items()}
    assert splits != split_postings(POSTINGS, seed=2)


def test_equal_texts_stay_together_without_a_company():
    postings = [Posting(str(i), "", f"text {i % 10}") for i in range(40)]
    for seed in range(5):
        check_leakage(split_postings(postings, seed=seed), postings)


OWN = "We build a drone that maps the fields of small farms from above."  # 13 words
REPOST = f"Elm - Oslo.\n{OWN}\nWe look for one person who can write firmware in C and enjoys flying."
OTHER = "Ash | Oslo\nOur shop sells bread, and we need a baker who can start at four in the morning."


@pytest.mark.parametrize(
    ("text", "tied"),
    [
        ("Elm | Oslo | Remote\nWe build a drone that maps the fields of small farms, from above!", True),
        (f"{OWN} Ask us for more, we answer every letter that comes.", True),  # 13 of 24 words
        (f"{OWN} Ask us for more, we answer every single letter that comes within a week.", False),  # 13 of 28
        (
            "Elm - Oslo. We build boats, not drones, by the sea in the north of the land.",
            False,
        ),  # two words shared
    ],
)
def test_posting_is_tied_to_one_that_holds_half_of_its_words_in_long_sentences(text, tied):
    ties = list(find_ties([Posting("1", "", OTHER), Posting("2", "", REPOST), Posting("3", "", text)]))
    assert [(tie.kind, tie.first, tie.second) for tie in ties] == [("sentences", 1, 2)] * tied


def test_reposts_without_a_company_stay_together():
    postings = [Posting(str(i), "", f"Post {i}\n{OWN.replace('drone', f'drone{i % 10}')}") for i in range(40)]
    for seed in range(5):
        splits = split_postings(postings, seed=seed)
        check_leakage(splits, postings)
        assert {int(i) % 10 for i in splits["train"]}.isdisjoint(int(i) % 10 for i in splits["test"])


def test_boilerplate_of_many_postings_ties_none():
    postings = [Posting(str(i), "", f"Post {i}\n{OWN}") for i in range(51)]
    assert list(find_ties(postings)) == []
    assert len(list(find_ties(postings[:50]))) == 50 * 49 // 2


def test_samples_templates_tie_no_postings_of_two_companies():
    assert {tie.kind for tie in find_ties(make_market(n_candidates=1)[0])} == {"company"}


def test_company_names_are_compared_without_case_and_spaces():
    postings = [Posting("1", "", "a", "Blue Oak"), Posting("2", "", "b", "blue  oak"), Posting("3", "", "c")]
    splits = split_postings(postings, seed=0, fractions=(0.5, 0.0, 0.5))
    assert splits["eval"] == []
    assert ["1", "2"] in splits.values()


def test_every_wanted_split_gets_a_posting_even_of_few():
    for seed in range(10):
        splits = split_postings([Posting(str(i), "", f"text {i}") for i in range(3)], seed=seed)
        assert sorted(map(len, splits.values())) == [1, 1, 1]


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"train": ["1"], "test": ["1"]}, r"'1' of 'train' and '1' of 'test' have the same id"),
        ({"train": ["1"], "test": ["2"]}, r"have the same company 'oak'"),
        ({"train": ["2"], "test": ["3"]}, r"have the same text 'b'"),
        (
            {"train": ["4"], "test": ["5"]},
            r"'4' of 'train' and '5' of 'test' have the same sentences 'we build",
        ),
        ({"train": ["9"]}, r"lists the posting '9', which the data does not hold"),
    ],
)
def test_leakage_is_refused(splits, message):
    postings = [Posting("1", "", "a", "Oak"), Posting("2", "", "b", "oak"), Posting("3", "", "b ", "Elm")]
    postings += [Posting("4", "", REPOST), Posting("5", "", f"Elm is back. {OWN}")]
    with pytest.raises(UserError, match=message):
        check_leakage(splits, postings)


@pytest.mark.parametrize("fractions", [(0.5, 0.5, 0.5), (1.1, -0.1, 0.0), (0.5, 0.5)])
def test_fractions_that_are_no_partition_are_refused(fractions):
    with pytest.raises(UserError, match=r"three numbers"):
        split_postings(POSTINGS, seed=0, fractions=fractions)


def test_too_few_companies_are_refused():
    with pytest.raises(UserError, match=r"2 postings of 1 companies cannot be split 3 ways"):
        split_postings([Posting("1", "", "a", "Oak"), Posting("2", "", "b", "Oak")], seed=0)


def test_manifest_holds_the_splits_and_hashes_of_what_they_are_of(tmp_path):
    splits, jobs = split_postings(POSTINGS, seed=0), tmp_path / "jobs.jsonl"
    save_postings(jobs, POSTINGS)
    save_manifest(tmp_path / "splits.json", POSTINGS, splits, seed=0, files=[jobs])
    manifest = json.loads((tmp_path / "splits.json").read_text())
    assert (manifest["seed"], manifest["splits"]) == (0, splits)
    assert manifest["file_hashes"] == {"jobs.jsonl": hashlib.sha256(jobs.read_bytes()).hexdigest()}
    changed = [dataclasses.replace(POSTINGS[0], title="Other"), *POSTINGS[1:]]
    save_manifest(tmp_path / "other.json", changed, splits, seed=0)
    before, after = manifest["posting_hashes"], json.loads((tmp_path / "other.json").read_text())["posting_hashes"]
    assert {name for name, digest in after.items() if digest != before[name]} == {POSTINGS[0].id}
    assert len(before) == len(after) == len(POSTINGS)
