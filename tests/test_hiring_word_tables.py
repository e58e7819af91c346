"""Operators that exchange the words of a user's own table."""

from dataclasses import replace

import pytest

from ilqljax.errors import UserError
from ilqljax.hiring.data.prepare import DataConfig, prepare_data
from ilqljax.hiring.edits.coded_words import load_word_table
from ilqljax.hiring.edits.operators import rewrite_posting
from ilqljax.hiring.postings.posting import Posting
from ilqljax.hiring.reward.scores import RewardConfig

TABLE = "# mine\n[words]\nrockstar = skilled, dedicated\nFast = quick, swift\n"


def write_table(tmp_path, text=TABLE):
    path = tmp_path / "words.ini"
    path.write_text(text, encoding="utf-8")
    return path


def test_words_of_a_users_table_take_the_place_of_the_built_in_ones(tmp_path):
    words = load_word_table(write_table(tmp_path))
    posting = Posting("a", "Nurse", "A FAST rockstar, an assertive one, and a quick fast-track.")
    made = dict(rewrite_posting(posting, operators=("neutralize", "feminize", "masculinize"), words=words))
    assert made["neutralize"] == "A QUICK skilled, an assertive one, and a quick fast-track."
    assert made["feminize"] == "A SWIFT dedicated, an assertive one, and a swift fast-track."
    assert made["masculinize"] == "A FAST rockstar, an assertive one, and a fast fast-track."


def test_mix_draws_each_word_for_itself(tmp_path):
    words = load_word_table(write_table(tmp_path))
    posting = Posting("a", "Nurse", "fast rockstar " * 40)
    found = dict(rewrite_posting(posting, operators=("mix",), words=words))["mix"].split()
    assert set(found) == {"fast", "quick", "swift", "rockstar", "skilled", "dedicated"}
    again = dict(rewrite_posting(posting, operators=("mix",), words=words, seed=1))["mix"].split()
    assert again != found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fast = quick, swift", "is not a table of words"),
        ("[word]\nfast = quick, swift\n", r"sections \['word'\]"),
        ("[words]\n", "a row is needed"),
        ("[words]\nfast = quick\n", "not a row of three words"),
        ("[words]\nfast = quick, sw/ft\n", "not a row of three words"),
        ("[words]\nfast = quick, swift\nswift = rapid, brisk\n", "'swift' stands in the table twice"),
        ("[words]\nfast = fast, swift\n", "'fast' stands in the table twice"),
    ],
)
def test_a_table_of_another_form_is_refused(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        load_word_table(write_table(tmp_path, text))


def test_a_folder_prepared_with_a_table_is_told_from_one_without(tmp_path):
    plain = DataConfig(n_postings=12, n_candidates=60, reward=RewardConfig(k=10))
    with pytest.raises(UserError, match=r"none\.ini: is not a table"):
        prepare_data(replace(plain, words_path=str(tmp_path / "none.ini")), out_dir=tmp_path / "data")
    path = write_table(tmp_path, "[words]\nassertive = calm, gentle\n")
    with_table = replace(plain, words_path=str(path))
    operators = [
        {row.operator for row in prepare_data(config, out_dir=tmp_path / "data").rewrites}
        for config in (plain, with_table)
    ]
    assert "neutralize" in operators[0]
    summaries = {prepare_data(with_table, out_dir=tmp_path / "data").summary["fingerprint"]}
    write_table(tmp_path, "[words]\nassertive = plain, gentle\n")
    summaries.add(prepare_data(with_table, out_dir=tmp_path / "data").summary["fingerprint"])
    assert len(summaries) == 2
