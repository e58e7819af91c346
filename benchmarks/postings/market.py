"""The markets: real posts against people whose words are planted, or against people as they are."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ilqljax.data.files import make_folder
from ilqljax.errors import UserError
from ilqljax.hiring.edits.coded_words import CODES, WordTable, load_word_table, make_pattern
from ilqljax.hiring.guardrails.lexicon import find_technologies
from ilqljax.hiring.postings.posting import Candidate, Posting, load_candidates, save_candidates, save_postings
from ilqljax.hiring.postings.sources import load_market

WORDS = Path(__file__).with_name("words.ini")
CODE_OF_GENDER = {"man": "masculine", "woman": "feminine"}
N_WORDS, MOST_SKILLS = 3, 4  # of a planted person
JOBS, PEOPLE, FRESH = "jobs.jsonl", "candidates.jsonl", "fresh.jsonl"


def halve_table(words: WordTable) -> WordTable:
    """Return a table that knows every second row of another: a word list as one would have it, not the plant's own."""
    known = sorted(set(words.to_code["neutral"].values()))[::2]
    to_code = {
        code: {w: other for w, other in found.items() if words.to_code["neutral"].get(w, w) in known}
        for code, found in words.to_code.items()
    }
    return WordTable(make_pattern(sorted({w for found in to_code.values() for w in found})), to_code)


class MarketConfig(NamedTuple):
    """Say which market: the posts' file, the people's ("" plants them), and how strong the plant is."""

    posts: str
    people: str = ""
    plant: float = 0.8
    n_postings: int = 480
    max_characters: int = 500  # about 120 tokens
    n_people: int = 2000
    seed: int = 0


def write_market(config: MarketConfig, folder: Path) -> None:
    """Write posts, the people who are trained with, and as many fresh ones, unless they are there."""
    names = (JOBS, PEOPLE, FRESH)
    if all((folder / name).is_file() for name in names):
        return
    postings = load_market(source="hackernews", path=config.posts).postings
    short = [p for p in postings if len(p.description) <= config.max_characters]
    rng = np.random.default_rng([config.seed, 0])
    if config.people:
        found = load_candidates(config.people)
        order = rng.permutation(len(found))
        people, fresh = ([found[i] for i in np.sort(half)] for half in np.array_split(order, 2))
    else:
        words = load_word_table(WORDS)
        people, fresh = (make_people(postings, config, words, stream=stream) for stream in (1, 2))
        short = [p for p in short if words.pattern.search(p.description)]
    if not short:
        raise UserError(
            f"{config.posts}: no post of at most {config.max_characters} characters can be used. Give others."
        )
    chosen = np.sort(rng.permutation(len(short))[: config.n_postings])
    make_folder(folder)
    save_postings(folder / JOBS, [short[i] for i in chosen])
    save_candidates(folder / PEOPLE, people)
    save_candidates(folder / FRESH, fresh)


def make_people(postings: Sequence[Posting], config: MarketConfig, words: WordTable, *, stream: int) -> list[Candidate]:
    """Draw people with skills of a real post who describe themselves in three words.

    With probability `plant` these are words of their gender's code, else of a code drawn evenly.
    """
    rng = np.random.default_rng([config.seed, stream])
    skills = [found for p in postings if len(found := list(find_technologies(p.description))) > 1]
    of_code = {code: sorted(set(words.to_code[code].values())) for code in CODES}
    people = []
    for i in range(config.n_people):
        known = skills[rng.integers(len(skills))]
        known = [known[j] for j in rng.permutation(len(known))[:MOST_SKILLS]]
        gender = list(CODE_OF_GENDER)[rng.integers(2)]
        own, any_code = rng.random() < config.plant, CODES[rng.integers(len(CODES))]
        code = CODE_OF_GENDER[gender] if own else any_code
        first, second, third = rng.choice(of_code[code], N_WORDS, replace=False)
        text = f"A {first}, {second} and {third} developer. I know {', '.join(known[:-1])} and {known[-1]}."
        people.append(Candidate(f"person-{stream}-{i:05d}", text, {"gender": gender}))
    return people
