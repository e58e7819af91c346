"""Hacker News posts: what is guessed from the first line, and what is not."""

import json

import pytest

from ilqljax.data.json_lines import read_json_lines
from ilqljax.errors import UserError
from ilqljax.hiring.postings.hackernews import decode_text, guess_company, guess_title, load_hackernews
from ilqljax.hiring.postings.sources import detect_source


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


API_TEXT = (
    'Zentix &amp; Co | Oslo | <a href="https:&#x2F;&#x2F;zentix.example&#x2F;jobs?a=1&amp;copy=2" rel="nofollow">'
    "https:&#x2F;&#x2F;zentix.example&#x2F;jo...</a><p>We&#x27;re <i>really</i> &lt;3 C++ &amp; pay &#x20AC;60k.<p>"
    "<pre><code>  say(&quot;&amp;lt;p&gt;&quot;)\n</code></pre>Ask."
)
PLAIN_TEXT = (
    'Zentix & Co | Oslo | https://zentix.example/jobs?a=1&copy=2\nWe\'re really <3 C++ & pay €60k.\nsay("&lt;p>")\nAsk.'
)


def test_post_in_the_apis_form_is_decoded_once_and_links_are_whole(tmp_path):
    (posting,) = load_hackernews(write(tmp_path, make_post(1, text=API_TEXT)))
    assert posting.description == PLAIN_TEXT
    assert posting.company == "Zentix & Co"


def test_items_of_the_api_are_read_and_what_is_no_post_is_counted(tmp_path, caplog):
    item = {"by": "a", "id": 5, "kids": [6], "parent": 1, "time": 3, "type": "comment"}
    rows = [None, item | {"text": API_TEXT}, {"deleted": True, "id": 7, "time": 3, "type": "comment"}]
    rows += [item | {"id": 8, "type": "story", "text": "Who is hiring?"}, item | {"id": 9, "dead": True, "text": "x"}]
    path = write(tmp_path, *rows)
    (posting,) = load_hackernews(path)
    assert posting.id == "5" and posting.location == ""
    assert posting.description == load_hackernews(write(tmp_path, make_post(1, text=API_TEXT)))[0].description
    assert "4 items that are null, deleted or no post are left out" in caplog.text
    assert detect_source(write(tmp_path, *rows)) == "hackernews"


def test_prepared_columns_in_the_apis_form_are_decoded(tmp_path):
    row = {"cleaned_text": API_TEXT, "q_val": -1.0, "company": "Zentix &amp; Co"}
    (posting,) = load_hackernews(write(tmp_path, row))
    assert (posting.description, posting.company) == (PLAIN_TEXT, "Zentix & Co")


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ('See <a href="http:&#x2F;&#x2F;a.example">our jobs</a>', "See our jobs (http://a.example)"),
        ("R&#38;D&#x2f;QA", "R&D/QA"),
        ("<p>A post.</p>", "A post."),
        ("Oslo &amp; on\nsite List<T> P&L; &section;", "Oslo & on\nsite List<T> P&L; &section;"),
        (f"A&amp;B &#{'9' * 5000};", "A&B \ufffd"),
    ],
)
def test_encoded_text_is_decoded(text, plain):
    assert decode_text(text) == plain


@pytest.mark.parametrize(
    "text",
    [
        "P&L; R&D and http://a.example/?a=1&copy=2&section;=3",
        "List<T>, <my username>, a < b > c and <br>",
        'As typed: <a href="http://a.example/?b&c">Apply</a>',
    ],
)
def test_text_that_is_not_encoded_stays_as_it_is(text):
    assert decode_text(text) == text


@pytest.mark.parametrize("text", ["", " ", "\u200b", "...", "<p>&nbsp;<p>"])
def test_posts_without_a_word_are_dropped_and_counted(tmp_path, text, caplog):
    rows = [make_post(0), make_post(1, text=text), make_post(2)]
    assert [p.id for p in load_hackernews(write(tmp_path, *rows))] == ["0", "2"]
    assert "hn.jsonl: 1 posts without a word are left out" in caplog.text
    rows = [{"text": row["text"], "q_value": 0.0} for row in rows]
    assert [p.id for p in load_hackernews(write(tmp_path, *rows))] == ["0", "2"]


def test_file_of_wordless_posts_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"hn\.jsonl: holds no post with a word"):
        load_hackernews(write(tmp_path, make_post(0, text="")))


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
    rows = [row for _, row in read_json_lines(shared_dir / "data" / "hn_who_is_hiring.jsonl.gz")]
    assert [row["id"] for row in rows if decode_text(row["text"]) != row["text"]] == []  # they came decoded
    assert sum(bool(p.company) for p in postings) > 4000
    assert sum(bool(p.location) for p in postings) == 5145
