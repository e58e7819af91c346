"""Paraphrase postings by an instruct model that was never trained on one: whole, and one sentence at a time.

A small model that is asked for a whole posting loses facts; asked for a sentence, it cannot lose those of the others.
What passes of several sentences is put together in one more text, which is checked like any other. Sources:

| source     | the text                                                                                   |
|------------|--------------------------------------------------------------------------------------------|
| `posting`  | is all the model's                                                                         |
| `sentence` | is the original but for one sentence                                                       |
| `combined` | has, of each sentence, the paraphrase with the best reward that passed, where there is one |
"""

import itertools
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ilqljax.errors import UserError, check_known, check_range
from ilqljax.hiring.edits.operators import find_sentences
from ilqljax.hiring.evaluation.record import Rewrite
from ilqljax.hiring.postings.posting import Posting, normalize_spaces
from ilqljax.hiring.proposals import Counts, Sample, sift_samples
from ilqljax.hiring.reward.reward import DiversityReward

LEVELS = ("posting", "sentence")
COMBINED = "combined"
POSTINGS_AT_ONCE = 8  # a budget is looked at between so many
_PREFACE = re.compile(r"[^\n]{0,120}:\s*\n+")
_QUOTES = {'"': '"', "“": "”", "'": "'", "«": "»"}
Span = tuple[int, int]


@dataclass(frozen=True)
class ParaphraseConfig:
    """How a model paraphrases.

    Attributes:
        instruction: the system's message of the model's chat template; the user's is the posting or the sentence.
        levels: what is paraphrased: whole postings, single sentences.
        temperatures: samples are drawn at each of them; 0 gives one and the same text.
        top_p: nucleus filter (Holtzman et al. 2020, arXiv 1904.09751); 1 keeps all.
        n: samples of each posting, and of each of its sentences, at each temperature.
        max_new_tokens: longest paraphrase of a posting in tokens; what is cut off there is dropped.
        max_sentence_tokens: longest paraphrase of a sentence in tokens.
        min_words: sentences with fewer words stay as they are.
        budget: no further postings are begun once so many tokens are written; 0 is no limit.
        seed: of the samples.

    Raises:
        UserError: an unknown level, no level or temperature, or a number out of its range.
    """

    # Of the kind that SmolLM2 was tuned on (smol-rewrite, arXiv 2502.02737).
    instruction: str = (
        "You're an AI assistant for text re-writing. Rewrite the input text, a part of a job posting, to make it more "
        "friendly and approachable. Keep every fact, name and number, and add nothing."
    )
    levels: tuple[str, ...] = LEVELS
    temperatures: tuple[float, ...] = (0.3, 0.7, 1.0)
    top_p: float = 0.95
    n: int = 2
    max_new_tokens: int = 256
    max_sentence_tokens: int = 64
    min_words: int = 5
    budget: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for level in self.levels:
            check_known(LEVELS, levels=level)
        for name, example in (("levels", ",".join(LEVELS)), ("temperatures", "0.3,0.7")):
            if not getattr(self, name):
                raise UserError(f"{name} is empty. Give at least one, such as {name}={example}.")
        for temperature in self.temperatures:
            if not 0.0 <= temperature < float("inf"):
                raise UserError(f"temperatures={self.temperatures}: {temperature} is none. Give numbers from 0 on.")
        check_range(self, "(0, 1]", "top_p")
        check_range(self, "[1, inf)", "n", "max_new_tokens", "max_sentence_tokens", "min_words")
        check_range(self, "[0, inf)", "budget", "seed")


class Answer(Protocol):
    """What a model wrote; `ilqljax.decoding.policy.Generation` is one."""

    text: str
    finished: bool


class Writer(Protocol):
    """Write paraphrases; `writer.ModelWriter` does so with a language model."""

    def has_room(self, text: str, level: str) -> bool:
        """Return whether the model can read the text and answer at its level's length."""
        ...

    def write(self, texts: Sequence[str], level: str, temperature: float) -> list[list[Answer]]:
        """Return `n` answers to each text."""
        ...

    def count_tokens(self, answer: Answer) -> int:
        """Return how many tokens an answer has."""
        ...


@dataclass(frozen=True)
class Paraphrases:
    """Hold what was kept of the postings, and what became of everything written."""

    rewrites: tuple[Rewrite, ...]
    counts: Counts
    n_postings: int  # that were asked for before the budget was spent
    n_tokens: int  # written
    n_without_room: int  # postings and sentences too long for the model, which were not asked for


def paraphrase_postings(
    postings: Sequence[Posting],
    writer: Writer,
    reward: DiversityReward,
    config: ParaphraseConfig,
    *,
    known: Mapping[str, Collection[str]],
    guardrails: str = "edits",
) -> Paraphrases:
    """Paraphrase postings, and keep what is new beside the `known` texts (by posting id) and fails no guardrail."""
    kept: list[Rewrite] = []
    counts, n_done, n_tokens, n_without_room = Counts(), 0, 0, 0
    for start in range(0, len(postings), POSTINGS_AT_ONCE):
        if config.budget and n_tokens >= config.budget:
            break
        chunk = postings[start : start + POSTINGS_AT_ONCE]
        asked = [(row, *place) for row, posting in enumerate(chunk) for place in list_places(posting, config)]
        readable = [place for place in asked if writer.has_room(cut(chunk, place), place[1])]
        n_without_room += len(asked) - len(readable)
        written: list[list[tuple[Span, str, Answer]]] = [[] for _ in chunk]
        for level, temperature in itertools.product(config.levels, config.temperatures):
            places = [place for place in readable if place[1] == level]
            answers = writer.write([cut(chunk, place) for place in places], level, temperature) if places else []
            for (row, _, span), found in zip(places, answers, strict=True):
                written[row] += [(span, level, answer) for answer in found]
                n_tokens += sum(map(writer.count_tokens, found))
        for posting, answers in zip(chunk, written, strict=True):
            old = known.get(posting.id, ())
            rewrites, found = sift_answers(posting, answers, reward, known=old, guardrails=guardrails)
            kept += rewrites
            counts += found
        n_done += len(chunk)
    return Paraphrases(tuple(kept), counts, n_done, n_tokens, n_without_room)


def list_places(posting: Posting, config: ParaphraseConfig) -> list[tuple[str, Span]]:
    """Return what is to be paraphrased: levels, and where in the posting's text, white space folded, each stands."""
    text = normalize_spaces(posting.description)
    places = [("posting", (0, len(text)))] if "posting" in config.levels else []
    if "sentence" in config.levels:
        spans = [span for span in find_sentences(text) if len(text[slice(*span)].split()) >= config.min_words]
        places += [("sentence", span) for span in spans]
    return places


def cut(postings: Sequence[Posting], place: tuple[int, str, Span]) -> str:
    """Return the text at a place of one of several postings."""
    row, _, span = place
    return normalize_spaces(postings[row].description)[slice(*span)]


def sift_answers(
    posting: Posting,
    answers: Sequence[tuple[Span, str, Answer]],
    reward: DiversityReward,
    *,
    known: Collection[str],
    guardrails: str,
) -> tuple[list[Rewrite], Counts]:
    """Put answers to parts of a posting in their places, sift the texts, and put together what passed of sentences."""
    original = normalize_spaces(posting.description)
    samples, part_of = [], {}
    for span, level, answer in answers:
        part = clean_answer(answer.text, original[slice(*span)])
        text = replace_spans(original, {span: part}) if part else ""
        samples.append(Sample(text, level, answer.finished))
        if level == "sentence":
            part_of.setdefault(normalize_spaces(text), (span, part))
    kept, counts = sift_samples(posting, samples, reward, known=known, guardrails=guardrails)
    best: dict[Span, str] = {}
    for rewrite in sorted((r for r in kept if r.policy == "sentence"), key=lambda r: -r.reward):
        span, part = part_of[rewrite.text]
        best.setdefault(span, part)
    if len(best) > 1:
        combined = [Sample(replace_spans(original, best), COMBINED)]
        known = {*known, *(rewrite.text for rewrite in kept)}
        further, found = sift_samples(posting, combined, reward, known=known, guardrails=guardrails)
        kept += further
        counts += found
    return kept, counts


def replace_spans(text: str, parts: Mapping[Span, str]) -> str:
    """Replace parts of a text, by where they stand."""
    for (start, end), part in sorted(parts.items(), reverse=True):
        text = f"{text[:start]}{part}{text[end:]}"
    return text


def clean_answer(answer: str, asked: str) -> str:
    """Return an answer without what models put around one: a first line such as "Here it is:", and quotation marks.

    Either stays where what was asked about has it too. White space is folded.
    """
    answer = answer.strip()
    preface = _PREFACE.match(answer)
    if preface and preface[0].strip() not in asked:
        answer = answer[preface.end() :]
    answer = normalize_spaces(answer)
    if len(answer) > 1 and _QUOTES.get(answer[0]) == answer[-1] and asked[:1] != answer[0]:
        answer = answer[1:-1].strip()
    return answer
