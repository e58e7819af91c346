"""Check that a rewrite is readable, in the original's language, is not a copy, and shows nothing of the prompt's form.

`py3langid` (naive Bayes over byte n-grams) tells a language; a text with few letters, or one that it is not sure of, is
not judged. Its two limits were set on the 67,191 sentences of the 6,000 real posts, of which 6 pass for another
language, and on 128 plain sentences in eight languages, of which 121 are noticed.
"""

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache, lru_cache
from itertools import pairwise

from py3langid.langid import MODEL_FILE, LanguageIdentifier

from ilqljax.hiring.edits.coded_words import CODED_VOCABULARY
from ilqljax.hiring.edits.operators import INCLUSIVE_STATEMENTS, OPERATOR_WORDS
from ilqljax.hiring.guardrails.facts import KNOWN_WORDS
from ilqljax.hiring.guardrails.findings import (
    MAX_NAME_LENGTH,
    WORD,
    Failure,
    blank_links,
    list_sentences,
    list_words,
    mentions,
)
from ilqljax.hiring.postings.posting import INSTRUCTION, Posting, normalize_spaces
from ilqljax.hiring.word_files import load_words

SPECIAL_TOKENS = ("<|pad|>", "<s>", "</s>", "<a>", "</a>", "</eod>", "<|endoftext|>")
MIN_LENGTH_RATIO, MAX_LENGTH_RATIO = 0.4, 2.5
MAX_PHRASE_COUNT = 3
MAX_UNKNOWN_SHARE = 0.4
MIN_KNOWN_PAIR_SHARE = 0.2
MIN_SENTENCE_PAIRS = 8
MIN_LETTERS, MIN_PROBABILITY = 16, 0.9
# The model knows more, but every language that a posting is never in makes it less sure of the others.
LANGUAGES = {code: name for code, (name,) in load_words("guardrails/words.ini")["languages"].items()}
_CODED = "\0coded"
_REPEATED = re.compile(r"[\s,.!]*")
_WORDS = load_words("guardrails/words.ini")
_SOUNDS = {article: rf"(?:{patterns[0]})" for article, patterns in _WORDS["articles"].items()}
# Capitals and digits are spelt out in ways that cannot be known ("an SQL", "a SQL"); so are letters before a hyphen.
_WRONG_ARTICLE = re.compile(
    rf"(?<![\w'’.@/&-])(?:(?:a|A) (?!{_SOUNDS['a']})(?:[aeiou]|{_SOUNDS['an']})|(?:an|An) (?!{_SOUNDS['an']})"
    rf"(?:[b-df-hj-np-tv-z]|{_SOUNDS['a']}))[a-z]+(?:['’-][a-z]+)*"
)
_DOUBLED = re.compile(r"(?<![\w'’@/.-])([^\W\d_]+(?:['’-][^\W\d_]+)*)(,?\s{1,3}|,?\s(?:and|or)\s)\1(?![\w'’@/-])", re.I)
_DOUBLES = frozenset(_WORDS["doubles"]["words"])
_FIELD_LABEL = re.compile(r"(?:^|(?<=\s))(?:Posting|Requirements|Remote):\s")


def check_not_empty(posting: Posting, text: str, prompt: str) -> list[Failure]:
    """Check that there is a word."""
    return [] if WORD.search(text) else [Failure("not_empty", "The rewrite holds no word.", (0, len(text)))]


def check_template_leak(posting: Posting, text: str, prompt: str) -> list[Failure]:
    """Check that no special token, instruction, field label or passage across fields of the prompt has come along."""
    leaks = [(token, at, at + len(token)) for token in SPECIAL_TOKENS if (at := text.find(token)) >= 0]
    leaks = [leak for leak in leaks if leak[0] not in posting.description]
    # Four words of the instruction in a row give it away even when the sampler mangled the rest.
    start = " ".join(INSTRUCTION.split()[:4])
    for part in (start, " ".join(INSTRUCTION.split()[-4:])):
        match = re.search(r"\s+".join(map(re.escape, part.rstrip(".").split())), text, re.IGNORECASE)
        if match and not mentions(posting.description, part.rstrip(".")):
            leaks.append((part, *match.span()))
    description = posting.description.lower()
    for match in _FIELD_LABEL.finditer(text):
        if match[0].strip().lower() not in description:
            leaks.append((match[0].strip(), *match.span()))
    # Lines "Label: value" of the prompt, and passages from one such line into the next.
    lines = [line for line in prompt.split("\n")[1:-1] if ": " in line]
    passages = [line.split() if len(line) <= MAX_NAME_LENGTH else line[:MAX_NAME_LENGTH].split()[:-1] for line in lines]
    for line, following in pairwise(lines):
        # "... Ward Nurse / Company: Blue Oak ...": nobody writes the fields in this order by chance.
        words = [*line.split(": ", 1)[1].split()[-2:], *following.replace(":", " ").split()[:2]]
        passages += [words] if sum(map(len, words)) <= MAX_NAME_LENGTH else []
    original = normalize_spaces(posting.description)
    for words in passages:
        pattern = r"\W+".join(re.escape(word.strip(":,.")) for word in words)
        match = re.search(rf"(?<!\w){pattern}(?!\w)", text)
        if len(words) > 2 and match and not re.search(pattern, original):
            leaks.append((match[0], *match.span()))
    return [Failure("template_leak", f"'{part}' belongs to the prompt.", (start, end)) for part, start, end in leaks]


def check_copying(posting: Posting, text: str, prompt: str) -> list[Failure]:
    """Check that what differs from the original is more than case, punctuation and space.

    The original to the letter passes: a policy that changes nothing writes it, and it gains nothing. A matcher may
    score other marks otherwise, and such a gain must not count.
    """
    is_same = normalize_spaces(text) == normalize_spaces(posting.description)
    if is_same or list_words(text) != list_words(posting.description):
        return []
    return [Failure("copying", "Word for word the original; only marks differ.", (0, len(text)), "copy")]


def check_repetition(posting: Posting, text: str, prompt: str) -> list[Failure]:
    """Check that no word stands three times in a row, and no phrase of three words too often, unless it did before."""
    blank = blank_links(text).lower()
    matches = list(WORD.finditer(blank))
    spans = [(first.start(), last.end()) for first, last in zip(matches, matches[2:], strict=False)]
    phrases = _list_phrases([match[0] for match in matches])
    original = Counter(_list_phrases(list_words(blank_links(posting.description))))
    failures = []
    for phrase, span in zip(phrases, spans, strict=True):
        between = blank[slice(*span)].replace(phrase[0], "")  # "C#, C/C++" names three things
        if len(set(phrase)) == 1 and not original[phrase] and _REPEATED.fullmatch(between):
            failures.append(Failure("repetition", f"'{phrase[0]}' stands three times in a row.", span))
            break
    for phrase, n in Counter(phrases).items():
        if n > max(MAX_PHRASE_COUNT, original[phrase]):
            reason = f"'{' '.join(phrase)}' occurs {n} times."
            failures.append(Failure("repetition", reason, spans[phrases.index(phrase)]))
            break
    return failures


def _list_phrases(words: Sequence[str]) -> list[tuple[str, str, str]]:
    return list(zip(words, words[1:], words[2:], strict=False))


def check_articles(posting: Posting, text: str, prompt: str) -> list[Failure]:
    """Check that "a" and "an" suit the word after them, unless the original has the same two words.

    Only what is in English, and words in small letters, are judged.
    """
    original = normalize_spaces(posting.description).lower()
    failures = [
        Failure("articles_right", f"'{match[0]}' has the wrong article.", match.span())
        for match in _WRONG_ARTICLE.finditer(blank_links(text))
        if not mentions(original, match[0])
    ]
    return failures if failures and detect_language(text) in ("", "English") else []


def check_doubled_words(posting: Posting, text: str, prompt: str) -> list[Failure]:
    """Check that no word stands twice ("good good", "calm and calm"), unless it does in the original."""
    original = {_fold(match) for match in _DOUBLED.finditer(normalize_spaces(posting.description))}
    return [
        Failure("doubled_words", f"'{match[0]}' says one word twice.", match.span())
        for match in _DOUBLED.finditer(blank_links(text))
        if match[1].lower() not in _DOUBLES and _fold(match) not in original
        if match[2].isspace() or match[1].lower() in CODED_VOCABULARY | OPERATOR_WORDS
    ]


def _fold(match: re.Match[str]) -> str:
    return normalize_spaces(match[0].lower())


def check_length(posting: Posting, text: str, prompt: str) -> list[Failure]:
    """Check that the rewrite has 0.4 to 2.5 times the original's words."""
    n_original, n = len(normalize_spaces(posting.description).split()), len(text.split())
    ratio = n / max(1, n_original)
    if MIN_LENGTH_RATIO <= ratio <= MAX_LENGTH_RATIO:
        return []
    return [Failure("length", f"{n} words for {n_original} of the original ({ratio:.2f} times).", (0, len(text)))]


def check_coherence(posting: Posting, text: str, prompt: str) -> list[Failure]:
    """Check that at most 40 % of the words are unknown, and 20 % of the word pairs known, also in a longer sentence.

    A word is known if the original, the prompt, the operators (`edits.operators`) or a short list of common words has
    it; a pair of neighbouring words if the original has it, with all coded words counted as one. The pair rule refuses
    shuffled words; it also refuses a free paraphrase, which is the safe side to err on.
    """
    # A link's parts would count as known pairs wherever it stands; `links_kept` judges links.
    original, blank = list_words(blank_links(posting.description)), blank_links(text)
    matches = list(WORD.finditer(blank.lower()))
    known = KNOWN_WORDS.union(original, list_words(prompt))
    unknown = [match for match in matches if match[0] not in known and not match[0].isdigit()]
    if len(unknown) > MAX_UNKNOWN_SHARE * len(matches):
        reason = (
            f"{len(unknown)} of {len(matches)} words are neither in the original nor common, first '{unknown[0][0]}'."
        )
        return [Failure("incoherent", reason, unknown[0].span())]
    known_pairs = _STATEMENT_PAIRS.union(_pair_words(original))
    parts = [(blank, (0, len(text)), 1), *((*part, MIN_SENTENCE_PAIRS) for part in list_sentences(blank))]
    for part, span, least in parts:
        pairs = _pair_words(list_words(part))
        n_known = sum(pair in known_pairs for pair in pairs)
        if len(pairs) >= least and n_known < MIN_KNOWN_PAIR_SHARE * len(pairs):
            reason = f"Only {n_known} of {len(pairs)} neighbouring word pairs are the original's: shuffled or made up."
            return [Failure("incoherent", reason, span)]
    return []


def _pair_words(words: Sequence[str]) -> list[tuple[str, str]]:
    # Articles follow the coded word after them ("a warm", "an assertive"), so they are one word here as well.
    same = ["a" if word == "an" else _CODED if word in CODED_VOCABULARY else word for word in words]
    return list(pairwise(same))


# The statements that `include` appends are readable by construction.
_STATEMENT_PAIRS = frozenset(pair for text in INCLUSIVE_STATEMENTS for pair in _pair_words(list_words(text)))


@cache
def _load_identifier() -> LanguageIdentifier:
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(list(LANGUAGES))
    return identifier


@lru_cache(maxsize=16384)
def detect_language(text: str) -> str:
    """Return a language of `LANGUAGES`, or "" where the text is too short or too mixed to tell.

    "Wir suchen eine Pflegekraft für unser Team in Bonn." is German; "Python, Java, SQL" is nothing.
    """
    text = normalize_spaces(blank_links(text))
    if sum(map(str.isalpha, text)) < MIN_LETTERS:
        return ""
    code, probability = _load_identifier().classify(text)
    return LANGUAGES[code] if probability >= MIN_PROBABILITY else ""


@lru_cache(maxsize=4096)
def _list_languages(text: str) -> frozenset[str]:
    parts = [text, *(sentence for sentence, _ in list_sentences(text))]
    return frozenset(map(detect_language, parts)) - {""}


def check_language(posting: Posting, text: str, prompt: str) -> list[Failure]:
    """Check that neither the whole nor a sentence is in a language that the original has nowhere."""
    known = _list_languages(posting.description)
    if not known:
        return []
    parts = [("The rewrite", text, (0, len(text))), *(("A sentence", *part) for part in list_sentences(text))]
    for what, part, span in parts:
        language = detect_language(part)
        if language and language not in known:
            reason = f"{what} is in {language}, the original in {' and '.join(sorted(known))}."
            return [Failure("language_kept", reason, span)]
    return []
