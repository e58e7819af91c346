"""The experiment on real posts: its markets, and how rewrites are judged under several views."""

from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.postings.judge import Judged, count_changed, draw_rewrites, format_judged, judge_texts
from benchmarks.postings.market import (
    FRESH,
    JOBS,
    PEOPLE,
    WORDS,
    MarketConfig,
    halve_table,
    make_people,
    write_market,
)
from ilqljax.data.json_lines import save_json_lines
from ilqljax.errors import UserError
from ilqljax.hiring.edits.coded_words import load_word_table
from ilqljax.hiring.edits.operators import rewrite_posting
from ilqljax.hiring.postings.posting import Posting, load_candidates, load_postings, save_candidates

TABLE = load_word_table(WORDS)
POSTINGS = [Posting(str(i), "", f"Oak {i} needs a great developer who knows Python and SQL.") for i in range(6)]


@pytest.mark.parametrize(("plant", "own"), [(1.0, 1.0), (0.0, 1 / 3), (0.7, 0.7 + 0.3 / 3)])
def test_planted_people_use_words_of_their_gender_as_often_as_the_plant_says(plant, own):
    people = make_people(POSTINGS, MarketConfig("", plant=plant, n_people=3000), TABLE, stream=1)
    code_of = {word: code for code, words in TABLE.to_code.items() for word in words.values()}
    used = [{code_of[word] for word in TABLE.pattern.findall(person.text)} for person in people]
    assert all(len(codes) == 1 for codes in used)
    wanted = {"man": {"masculine"}, "woman": {"feminine"}}
    share = np.mean([codes == wanted[p.attributes["gender"]] for p, codes in zip(people, used, strict=True)])
    assert share == pytest.approx(own, abs=0.03)
    assert people != make_people(POSTINGS, MarketConfig("", plant=plant, n_people=3000), TABLE, stream=2)


def test_half_a_table_exchanges_every_second_row(tmp_path):
    path = tmp_path / "words.ini"
    path.write_text("[words]\nhuge = large, vast\nfast = quick, speedy\ncool = neat, charming\n")
    half = halve_table(load_word_table(path))
    text = "A huge, charming and fast team."
    posting = Posting("p", "", text)
    written = {c: rewrite_posting(posting, operators=(c,), words=half)[-1][1] for c in ("neutralize", "masculinize")}
    assert written == {"neutralize": "A large, charming and quick team.", "masculinize": text}


def make_posts(tmp_path):
    texts = ["Oak | Berlin\nWe need great people who know Python and SQL.", "Elm | Paris\nNurses, and Java and Go."]
    rows = [
        {"id": str(i), "month": "2015-01", "text": t, "locations": [], "remote": False} for i, t in enumerate(texts)
    ]
    path = tmp_path / "posts.jsonl"
    save_json_lines(path, rows)
    return path


def test_a_planted_market_has_posts_with_a_word_of_the_table_and_fresh_people(tmp_path):
    config = MarketConfig(str(make_posts(tmp_path)), n_people=40)
    write_market(config, tmp_path / "market")
    assert [p.id for p in load_postings(tmp_path / "market" / JOBS)] == ["0"]
    people, fresh = (load_candidates(tmp_path / "market" / name) for name in (PEOPLE, FRESH))
    assert len(people) == len(fresh) == 40
    assert not {p.text for p in people} & {p.text for p in fresh}
    with pytest.raises(UserError, match="at most 3 characters"):
        write_market(config._replace(max_characters=3), tmp_path / "none")


def test_real_people_are_halved(tmp_path):
    people = make_people(POSTINGS, MarketConfig("", n_people=9), TABLE, stream=1)
    save_candidates(tmp_path / "people.jsonl", people)
    write_market(MarketConfig(str(make_posts(tmp_path)), str(tmp_path / "people.jsonl")), tmp_path / "market")
    halves = [load_candidates(tmp_path / "market" / name) for name in (PEOPLE, FRESH)]
    assert [len(half) for half in halves] == [5, 4]
    assert {p.id for half in halves for p in half} == {p.id for p in people}
    assert len(load_postings(tmp_path / "market" / JOBS)) == 2


def test_a_rewrite_that_fails_a_guardrail_gains_nothing_under_any_view():
    texts = {
        "echo": [p.description for p in POSTINGS],
        "bc": [p.description.replace("great", "good") for p in POSTINGS],
        "ilql": ["Bread is baked." for _ in POSTINGS],
    }
    score = SimpleNamespace(score=lambda prompts, written: np.array([float(len(set(text))) for text in written]))
    worse = SimpleNamespace(score=lambda prompts, written: -np.array([float(len(text)) for text in written]))
    judged = judge_texts(POSTINGS, texts, {"own": score, "fresh": worse})
    assert all(judged.failures[2]) and not any(judged.failures[0])
    assert (judged.gains("fresh", "ilql") == 0.0).all()  # shorter, but damaged
    np.testing.assert_array_equal(judged.gains("fresh", "bc"), np.ones(6))  # one letter less
    table = format_judged(judged, own="own", floors={"own": 0.0, "fresh": 1.0})
    assert "ilql over bc" in table and "chance 1.00" in table
    row = next(line for line in table.splitlines() if line.startswith("bc"))
    assert row.split("  ")[-1].strip() == "1.0"
    drawn = draw_rewrites(judged, policy="bc", view="fresh", n=2, seed=0).split("\n\n")
    assert len(drawn) == 2 and all("a [-great-]{+good+} developer" in text and "(+1.0)" in text for text in drawn)
    assert "fails " in draw_rewrites(judged, policy="ilql", view="own", n=1)


@pytest.mark.parametrize(("after", "n"), [("a b c", 0), ("c b a", 0), ("a b", 1), ("a x c d", 2)])
def test_changed_words_are_counted(after, n):
    assert count_changed("a b c", after) == n


def test_gains_are_over_the_originals():
    judged = Judged(("echo", "bc"), [["a"], ["b"]], [[[]], [[]]], {"own": np.array([[-5.0], [-2.0]])})
    assert judged.gains("own", "bc") == [3.0]
