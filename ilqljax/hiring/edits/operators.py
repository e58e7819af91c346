"""Rewrite a posting in several named ways, to give offline data something to contrast.

Each operator makes one kind of edit, is a pure function of the posting and a random generator, and leaves company,
place, links and the numbers that are facts alone. The operators work by word lists and sentence boundaries: on the
built-in sample they are exact, on real postings they are cautious (a word that describes a product or belongs to an
address is left as it is). Every result is normalised to single spaces.
"""

import re
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from itertools import count, pairwise
from zlib import crc32

import numpy as np

from ilqljax.errors import check_known
from ilqljax.hiring.edits.coded_words import BUILT_IN, CODES, WordTable
from ilqljax.hiring.market.sample import EXCLUSIONARY_SENTENCES
from ilqljax.hiring.postings.posting import Posting, normalize_spaces
from ilqljax.hiring.word_files import load_words

Operator = Callable[[Posting, np.random.Generator, WordTable], str]

_WORDS = load_words("edits/phrases.ini")
INCLUSIVE_STATEMENTS = _WORDS["written"]["statements"]
# What the optional operators may write that an original may lack.
OPERATOR_WORDS = frozenset(_WORDS["written"]["words"])
# A sentence ends at a line break, or after . ! ? (and a closing quote or bracket) before a space and a capital, digit
# or opening mark. Dots inside addresses and numbers are not followed by a space; the listed abbreviations are.
_SENTENCE_END = re.compile(
    "".join(rf"(?<!\b{word}\.)" for word in _WORDS["abbreviations"]["words"])
    + r"(?<=[.!?…])[\"')\]]*\s+(?=[\"'(\[]?[A-Z0-9*#•-])|\n+"
)
_DEMANDS, _PRESSURES = ("|".join(_WORDS["pressure"][name]) for name in ("demands", "of what"))
_SPAN = r"(?:(?! and )[^.;:]){0,40}?"
_PRESSURE_SENTENCE = re.compile(
    rf"^\W*(?:(?:you|candidates?|applicants?)\b{_SPAN}\b)?(?:{_DEMANDS})\b{_SPAN}\b(?:{_PRESSURES})\b[^.;:]{{0,50}}[.!]?$"
    r"|^\W*no job[- ]hoppers?\b[^.;:]{0,30}[.!]?$",
    re.I,
)
_NO_SPACE = re.compile(r"\S")
_TAIL_LENGTH = 40
_BOILERPLATE = re.compile(rf"\b(?:{'|'.join(_WORDS['boilerplate']['phrases'])})\b", re.I)


def split_sentences(text: str) -> list[str]:
    """Split a text at sentence ends and line breaks; links, decimals and common abbreviations stay whole.

    "See http://a.io/x.html today. Ask J. Doe, e.g. by mail." gives two sentences.
    """
    return [normalize_spaces(text[slice(*span)]) for span in find_sentences(text)]


def find_sentences(text: str) -> list[tuple[int, int]]:
    """Return where the sentences of `split_sentences` begin and end."""
    # Closing quotes matched by the boundary belong to the sentence before it.
    ends = [0, *(match.end() for match in _SENTENCE_END.finditer(text)), len(text)]
    parts = [(start, text[start:end]) for start, end in pairwise(ends)]
    starts = [(start + len(part) - len(part.lstrip()), part.strip()) for start, part in parts]
    return [(start, start + len(part)) for start, part in starts if part]


def match_case(word: str, model: str) -> str:
    """Give a word the capitals of another: all, the first, or none."""
    if model.isupper() and len(model) > 1:
        return word.upper()
    return word[:1].upper() + word[1:] if model[:1].isupper() else word


def fix_articles(text: str, before: str, after: str) -> str:
    """Change a trailing "a" or "an" of `text`, which stood before the word `before`, to suit the word `after`."""
    if (before[:1].lower() in "aeiou") == (after[:1].lower() in "aeiou"):
        return text
    article = re.search(r"(?<![\w'’.-])(an?)(\s+)$", text, re.I)
    if article is None:
        return text
    correct = "an" if after[:1].lower() in "aeiou" else "a"
    return text[: article.start()] + match_case(correct, article[1]) + article[2]


def substitute(text: str, pattern: re.Pattern[str], make_new: Callable[[re.Match[str]], str]) -> str:
    """Replace every match by `make_new(match)` in the match's case, and set right the article before it.

    "a rockstar engineer" without "rockstar" becomes "an engineer"; "an ambitious team" made practical, "a practical
    team".
    """
    pieces, tail, end = [], "", 0  # an article is looked for in the tail alone
    for match in pattern.finditer(text):
        new = match_case(make_new(match), match[0])
        tail += text[end : match.start()]
        pieces.append(tail[:-_TAIL_LENGTH])
        after = new.lstrip() or _find_following(text, match)
        tail = fix_articles(tail[-_TAIL_LENGTH:], match[0], after) + new
        end = match.end()
    return normalize_spaces("".join([*pieces, tail, text[end:]]))


def _find_following(text: str, match: re.Match[str]) -> str:
    """Return the first character after a match that is no white space, or ""."""
    following = _NO_SPACE.search(text, match.end())
    return following[0] if following else ""


def replace_coded_words(text: str, choose: Callable[[int], str], words: WordTable = BUILT_IN) -> str:
    """Give the n-th coded word found (n from 0) its counterpart of the code `choose(n)`, case and articles kept right.

    A capitalised word before another one is taken for a name ("Collaborative Fund") and left alone.
    """
    counter = count()

    def make_new(match: re.Match[str]) -> str:
        word, following = match[0], _find_following(text, match)
        if word[0].isupper() and not word.isupper() and following.isupper():
            return word
        return words.to_code[choose(next(counter))].get(word.lower(), word.lower())

    return substitute(text, words.pattern, make_new)


@cache
def load_phrases(operator: str) -> list[tuple[re.Pattern[str], str]]:
    """Return what an operator replaces (`phrases.ini`): each pattern and its replacement."""
    words = {name: f"(?:{'|'.join(found)})" for name, found in _WORDS["words"].items()}
    phrases = [phrase.partition("->") for found in _WORDS[operator].values() for phrase in found]
    spelt = [(re.sub("|".join(words), lambda name: words[name[0]], pattern), new) for pattern, _, new in phrases]
    return [(re.compile(pattern.strip(), re.I), new.strip()) for pattern, new in spelt]


def replace_phrases(text: str, operator: str) -> str:
    """Replace an operator's phrases, one after the other."""
    for pattern, replacement in load_phrases(operator):
        text = substitute(text, pattern, lambda match, new=replacement: match.expand(new))
    return text


def make_phrase_operator(name: str) -> Operator:
    """Make the operator that only replaces its phrases."""
    return lambda posting, rng, words=BUILT_IN: replace_phrases(normalize_spaces(posting.description), name)


def make_code_operator(code: str) -> Operator:
    """Make the operator that gives every coded word its counterpart of one code."""
    return lambda posting, rng, words=BUILT_IN: replace_coded_words(posting.description, lambda _: code, words)


def keep_original(posting: Posting, rng: np.random.Generator, words: WordTable = BUILT_IN) -> str:
    """Return the posting's own text with its spaces normalised."""
    return normalize_spaces(posting.description)


def balance(posting: Posting, rng: np.random.Generator, words: WordTable = BUILT_IN) -> str:
    """Alternate masculine-coded and feminine-coded words; which comes first is drawn."""
    first, order = int(rng.integers(2)), ("masculine", "feminine")
    return replace_coded_words(posting.description, lambda n: order[(n + first) % 2], words)


def mix(posting: Posting, rng: np.random.Generator, words: WordTable = BUILT_IN) -> str:
    """Give each coded word a counterpart whose code is drawn."""
    return replace_coded_words(posting.description, lambda n: CODES[int(rng.integers(len(CODES)))], words)


def soften(posting: Posting, rng: np.random.Generator, words: WordTable = BUILT_IN) -> str:
    """Delete exclusionary sentences and soften exclusionary phrases, such as years of experience or "ninja"."""
    sentences = [s for s in split_sentences(posting.description) if s not in EXCLUSIONARY_SENTENCES]
    return replace_phrases(" ".join(sentences), "soften")


def reorder(posting: Posting, rng: np.random.Generator, words: WordTable = BUILT_IN) -> str:
    """Shuffle the sentences after the first, which names who hires."""
    first, *rest = split_sentences(posting.description)
    return " ".join([first, *(rest[i] for i in rng.permutation(len(rest)))])


def include(posting: Posting, rng: np.random.Generator, words: WordTable = BUILT_IN) -> str:
    """Append an inclusive statement that asserts no new fact about the job."""
    return f"{keep_original(posting, rng)} {INCLUSIVE_STATEMENTS[int(rng.integers(len(INCLUSIVE_STATEMENTS)))]}"


@lru_cache(maxsize=4096)
def drop_demands(text: str) -> str:
    """Leave out all demands that `soften` and `drop_barriers` may delete."""
    sentences = [
        s for s in split_sentences(text) if s not in EXCLUSIONARY_SENTENCES and not _PRESSURE_SENTENCE.search(s)
    ]
    for name in ("soften", "drop_barriers"):
        sentences = [replace_phrases(sentence, name) for sentence in sentences]
    return "\n".join(sentences)


def drop_barriers(posting: Posting, rng: np.random.Generator, words: WordTable = BUILT_IN) -> str:
    """Delete sentences that only demand to bear pressure, and phrases about elite schools, pace and youth."""
    first, *rest = split_sentences(posting.description)
    text = " ".join([first, *(sentence for sentence in rest if not _PRESSURE_SENTENCE.search(sentence))])
    return replace_phrases(text, "drop_barriers")


def move_boilerplate(posting: Posting, rng: np.random.Generator, words: WordTable = BUILT_IN) -> str:
    """Move sentences about the company and its benefits behind those about the work; the first stays."""
    first, *rest = split_sentences(posting.description)
    return " ".join([first, *sorted(rest, key=lambda sentence: _BOILERPLATE.search(sentence) is not None)])


OPERATORS: dict[str, Operator] = {
    "original": keep_original,
    "neutralize": make_code_operator("neutral"),
    "masculinize": make_code_operator("masculine"),
    "feminize": make_code_operator("feminine"),
    "balance": balance,
    "soften": soften,
    "reorder": reorder,
    "include": include,
}
# Asked for by name only: the sample has none of their phrases, and the data of published numbers must not change.
OPTIONAL_OPERATORS: dict[str, Operator] = {
    **{name: make_phrase_operator(name) for name in ("ease_demands", "plain_seniority", "plain_location")},
    "mix": mix,
    "drop_barriers": drop_barriers,
    "move_boilerplate": move_boilerplate,
}
ALL_OPERATORS = OPERATORS | OPTIONAL_OPERATORS


def rewrite_posting(
    posting: Posting, *, operators: Sequence[str] = tuple(OPERATORS), seed: int = 0, words: WordTable = BUILT_IN
) -> list[tuple[str, str]]:
    """Return `(operator, text)` for every named operator, the original first, without texts that repeat an earlier one.

    Each operator draws from its own stream, which depends on the seed, the posting's id and the operator's name, so
    adding an operator or a posting changes no other rewrite.
    """
    require_operators(operators)
    rewrites, seen = [], set()
    for name in dict.fromkeys(["original", *operators]):
        rng = np.random.default_rng([seed, crc32(f"{posting.id}\0{name}".encode())])
        text = ALL_OPERATORS[name](posting, rng, words)
        if text and text not in seen:
            seen.add(text)
            rewrites.append((name, text))
    return rewrites


def require_operators(names: Sequence[str]) -> None:
    """Raise a `UserError` that lists the known operators if a name is unknown."""
    for name in names:
        check_known(ALL_OPERATORS, operators=name)
