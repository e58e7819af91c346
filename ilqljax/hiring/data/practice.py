"""Unscored reading practice for a small model that starts from random parameters.

A pretrained GPT-2 can read and copy before it sees a posting; a tiny one from random parameters cannot, and with a few
hundred postings it learns them by heart instead. So behavioural cloning may also read postings that have no reward:
further draws of the sample's generator, or those of a file that were left out of the scored choice.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ilqljax.hiring.data.prepare import DataConfig, PreparedData
from ilqljax.hiring.data.splits import find_ties
from ilqljax.hiring.edits.operators import rewrite_posting, split_sentences
from ilqljax.hiring.environment import PostingObservation
from ilqljax.hiring.market.sample import make_market
from ilqljax.hiring.postings.posting import Posting, build_prompt, normalize_spaces
from ilqljax.hiring.postings.sources import load_market

# Far from any seed a user would choose, so that practice never redraws the sample itself.
PRACTICE_SEED = 715_517


def make_practice(data: PreparedData, config: DataConfig, *, n_postings: int) -> list[PostingObservation]:
    """Return rewrites of at most so many unscored postings as dialogues with reward 0, for behavioural cloning only."""
    if not n_postings:
        return []
    chosen = select_practice(data, _draw_postings(data, config, n_postings=n_postings))[:n_postings]
    words = config.load_words()
    return [
        PostingObservation(build_prompt(posting), text, 0.0, posting)
        for posting in chosen
        for _, text in rewrite_posting(posting, operators=config.operators, seed=config.seed, words=words)
    ]


def _draw_postings(data: PreparedData, config: DataConfig, *, n_postings: int) -> list[Posting]:
    """Draw candidates for practice: from the sample's generator, or all of the source in a seeded order."""
    if data.summary["source"] == "sample":
        postings, _ = make_market(seed=PRACTICE_SEED + config.seed, n_postings=n_postings, n_candidates=1)
        return [replace(p, id=f"practice-{p.id}") for p in postings]
    market = load_market(source=config.source, path=config.path, candidates_path=config.candidates_path)
    longest = max(len(p.description.split()) for p in data.postings)
    order = np.random.default_rng([PRACTICE_SEED, config.seed]).permutation(len(market.postings))
    return [_shorten(market.postings[i], max_words=longest) for i in order]


def _shorten(posting: Posting, *, max_words: int) -> Posting:
    """Keep a posting's first sentences, as many as fit into `max_words` (at least one); enough to practise on."""
    words: list[str] = []
    for sentence in split_sentences(normalize_spaces(posting.description)):
        if words and len(words) + len(sentence.split()) > max_words:
            break
        words += sentence.split()
    return replace(posting, description=" ".join(words[:max_words]))


def select_practice(data: PreparedData, postings: Sequence[Posting]) -> list[Posting]:
    """Keep the postings that no tie holds to a held-out one (`splits.find_ties`) and that the data does not have."""
    train = set(data.splits["train"])
    held_out = [p for p in data.postings if p.id not in train]
    ids = {p.id for p in data.postings}
    texts = {normalize_spaces(p.description) for p in data.postings}
    new = [p for p in postings if p.id not in ids and normalize_spaces(p.description) not in texts]
    ties = find_ties([*held_out, *new])
    tied = {tie.second - len(held_out) for tie in ties if tie.first < len(held_out)}
    return [p for row, p in enumerate(new) if row not in tied]
