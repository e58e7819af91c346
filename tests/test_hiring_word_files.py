"""The word lists beside the code: what they are is said, and they are read and packaged."""

from pathlib import Path

from ilqljax.hiring.word_files import load_words

ROOM = Path(__file__).resolve().parents[1] / "ilqljax" / "hiring"
FILES = sorted(path.relative_to(ROOM) for path in ROOM.rglob("*.ini"))


def test_names_keep_their_capitals_and_phrases_may_wrap():
    technologies = load_words("guardrails/technologies.ini")
    assert {"ruby on rails", "c#", "c++"} <= set(technologies["names"]["any case"])
    assert load_words("market/words.ini")["cities"]["Leeds"] == ("GB",)


def test_every_word_list_says_what_it_is():
    assert len(FILES) >= 4
    for file in FILES:
        assert len(file.parts) == 2 and (ROOM / file).read_text(encoding="utf-8").startswith("# "), file
        for section, lists in load_words(file.as_posix()).items():
            assert all(word and word == word.strip(" ,") for words in lists.values() for word in words), (file, section)
