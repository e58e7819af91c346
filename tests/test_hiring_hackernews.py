"""Hacker News posts: what is guessed from the first line, and what is not."""

import json

import pytest

from ilqljax.errors import UserError
from ilqljax.tasks.hiring.hackernews import guess_company, guess_title, load_hackernews


@pytest.mark.parametrize(
    ("first_line", "company"),
    [
        ("Fernwerk | Oslo, Norway | Python", "Fernwerk"),
        ("Fern Werk Labs (http://fern.example) - Oslo", "Fern Werk Labs"),
        ("Fernwerk is hiring engineers in Oslo", "Fernwerk"),
        ("Fernwerk - Oslo - Rails", "Fernwerk"),
        ("fern.example | Oslo", "fern.example"),
        ("Oslo | Fernwerk | Rails", ""),  # the post's own place
        ("Springfield, IL | Fernwerk", ""),  # a place with its state
        ("Senior Python Engineers | Fernwerk", ""),
        ("REMOTE - Fernwerk", ""),
        ("We are looking for people", ""),
        ("A long line about an office by the sea (really) - Oslo", ""),
        ("Fernwerk", ""),  # nothing shows where the name ends
    ],
)
def test_company_is_guessed_only_from_a_clear_first_line(first_line, company):
    assert guess_company(f"{first_line}\nMore | text", places=["Oslo"]) == company


@pytest.mark.parametrize(
    ("first_line", "title"),
    [
        ("Fernwerk | Oslo | Senior Backend Engineer", "Senior Backend Engineer"),
        ("Fernwerk | Full-stack developers", "Full-stack developers"),
        ("Fernwerk | CTO | Oslo", "CTO"),
        ("Fernwerk | Oslo | many roles", ""),
    ],
)
def test_title_is_guessed_from_role_words(first_line, title):
    assert guess_title(f"{first_line}\nWe need a Data Scientist") == title


def make_post(number, text="Fernwerk | Oslo\nBuild   things.\n\nJoin us.", **fields):
    place = {"location": "Oslo", "address": "Oslo, Norway", "country": "NO", "lat": 1.0, "lon": 2.0}
    return {"id": str(number), "month": "2015-01", "text": text, "locations": [place], "remote": True} | fields


def write(tmp_path, *rows):
    path = tmp_path / "hn.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_location_comes_from_locations_and_lines_stay(tmp_path):
    (posting,) = load_hackernews(write(tmp_path, make_post(1)))
    assert (posting.location, posting.country_code, posting.remote) == ("Oslo", "NO", True)
    assert posting.description == "Fernwerk | Oslo\nBuild things.\nJoin us."


def test_company_that_is_a_place_of_other_posts_is_dropped(tmp_path):
    posts = [make_post(i, text=f"Oslo | Team {i}", locations=[]) for i in range(1)]
    posts += [make_post(10 + i, text=f"Fernwerk {i} | here") for i in range(3)]
    assert [p.company for p in load_hackernews(write(tmp_path, *posts))] == [
        "",
        "Fernwerk 0",
        "Fernwerk 1",
        "Fernwerk 2",
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (make_post(1, locations="Oslo"), r"hn\.jsonl:2: the field 'locations' must be a list"),
        (make_post(1, locations=["Oslo"]), r"hn\.jsonl:2: 'locations' must list objects"),
        (make_post(1, text=" "), r"hn\.jsonl:2: the field 'text' is empty"),
        (make_post(0), r"hn\.jsonl:2: the id '0' was already used"),
        ({"id": "1", "text": "x"}, r"hn\.jsonl:2: the field 'locations' is missing"),
    ],
)
def test_bad_post_is_refused(tmp_path, row, message):
    with pytest.raises(UserError, match=message):
        load_hackernews(write(tmp_path, make_post(0), row))


def test_prepared_columns_are_read(tmp_path):
    row = {"text": "Build.", "prompt": "p", "q_value": -1.0, "location": "Oslo", "company": "F", "title": "Dev"}
    (posting,) = load_hackernews(write(tmp_path, row | {"technologies": ["python", "go"]}))
    assert (posting.id, posting.company, posting.requirements) == ("0", "F", "python, go")


def test_newer_prepared_columns_are_read(tmp_path):
    (posting,) = load_hackernews(write(tmp_path, {"cleaned_text": "Build.", "q_val": -1.0}))
    assert posting.description == "Build."


def test_shared_posts_load_and_most_have_a_company(shared_dir):
    postings = load_hackernews(shared_dir / "data" / "hn_who_is_hiring.jsonl.gz")
    assert len(postings) == 6000
    assert sum(bool(p.company) for p in postings) > 4000
    assert sum(bool(p.location) for p in postings) == 5145
