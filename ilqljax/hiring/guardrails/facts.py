"""Check that a rewrite keeps the facts of the original, and invents none.

Facts are names, numbers, pay, links, technologies, places and requirements; no other name or topic may appear either.
"""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from itertools import chain, islice, pairwise
from typing import Any

from ilqljax.hiring.edits.coded_words import CODED_VOCABULARY
from ilqljax.hiring.edits.operators import INCLUSIVE_STATEMENTS, OPERATOR_WORDS
from ilqljax.hiring.guardrails.clauses import DIGITS, VOCABULARY, get_meaning, list_meanings
from ilqljax.hiring.guardrails.findings import (
    LINK,
    NUMBER,
    Check,
    Failure,
    Span,
    blank_links,
    list_sentences,
    list_words,
    mentions,
    report,
)
from ilqljax.hiring.guardrails.lexicon import find_places, find_technologies
from ilqljax.hiring.postings.posting import Posting
from ilqljax.hiring.word_files import load_words

# Numbers of years are a barrier, not a fact of the job; `operators.soften` removes them.
YEARS = re.compile(r"(?<![\d.,])\d[\d.,]*+\s*+(?:(?:-|–|to)\s*+\d++\s*+)?\+?\s*+(?:years?|yrs?)\b", re.IGNORECASE)
_WORDS = load_words("guardrails/words.ini")
_KNOWN = _WORDS["known"]
_NUMBER_WORD = re.compile(rf"\b(?:{'|'.join(_KNOWN['numbers'])})\b", re.IGNORECASE)
_CURRENCY_OF = {spelling: name for name, spellings in _WORDS["currencies"].items() for spelling in spellings}
_SPELLINGS = rf"(?:{'|'.join(sorted(map(re.escape, _CURRENCY_OF), key=len, reverse=True))})(?![^\W\d_])"
_CURRENCY_OF["r"] = "zar"  # right before digits only: elsewhere R is a language
_CURRENCY = rf"(?<![^\W\d_])(?:{_SPELLINGS}|r(?=\d))"
_PERIODS = {form: _WORDS[f"periods {form}"] for form in ("in full", "as adverbs", "in short")}
_PERIOD_OF = {word: name for periods in _PERIODS.values() for name, words in periods.items() for word in words}
_PERIOD_OF["annual"] = "year"
_IN_FULL, _ADVERBS = ("|".join(chain(*_PERIODS[form].values())) for form in ("in full", "as adverbs"))
_SHORT_PERIOD = r"p\.?\s?[hdwma]\b|pcm\b"
_PERIOD = (
    rf"\s*(?:(?:per\s+|an?\s+|/\s*|p\.\s?)(?P<period>{_IN_FULL})\b|(?P<adverb>{_ADVERBS})\b"
    rf"|(?P<short>{_SHORT_PERIOD}))"
)
_SCALES = {"thousand": "k", "mm": "m", "million": "m", "bn": "b", "billion": "b", "lac": "lakh", "cr": "crore"}
_SCALE = r"(?:k|mm?|bn?|thousand|million|billion|lakhs?|lacs?|crores?|cr)"
# Digits are taken whole, once: a long run of them before a letter must not be tried at every length and start.
_AMOUNT = (
    rf"(?<!\d)(?<!\d[.,])\d++(?:[.,]\d++)*+(?:\s?{_SCALE}(?=\W|_|$|{_SPELLINGS}|{_SHORT_PERIOD})"
    rf"|(?![^\W_])|(?={_SPELLINGS}|{_SHORT_PERIOD}))"
)
_AT_MOST = r"up to|at most|maximum|max\.?|less than|under|below"
_AT_LEAST = r"from|at least|minimum|min\.?|more than|over|above|starting at|upwards? of"
_PAY = re.compile(
    rf"(?:\b(?:(?P<at_most>{_AT_MOST})|(?P<at_least>{_AT_LEAST}))\s)?"
    rf"(?:(?P<before>{_CURRENCY})\s?|(?<!\w))(?P<low>{_AMOUNT})"
    rf"(?:\s*(?:-|–|—|to)\s*(?:{_CURRENCY})?\s?(?P<high>{_AMOUNT}))?"
    rf"(?P<plus>\s?\+)?\s?(?P<after>{_SPELLINGS})?(?:{_PERIOD})?",
    re.IGNORECASE,
)

MIN_PAY_DIGITS = 3  # of pay without a currency, but by the hour: "38 a week" are hours
_PERIOD_WINDOW = 30
_PERIOD_BEFORE = re.compile(rf"\b({_ADVERBS}|annual)\b(?:\s+(?!bonus)[a-z]+){{1,3}}\s*:?\s*$", re.IGNORECASE)
MAX_REQUIREMENT_WORDS, MAX_REQUIREMENTS = 6, 200
MIN_INVENTED_WORDS, MAX_INVENTED_SHARE, MIN_SENTENCE_WORDS = 2, 0.15, 4
_STEM_LENGTH = 5

_STATEMENT_WORDS = frozenset(word for text in INCLUSIVE_STATEMENTS for word in list_words(text))
KNOWN_WORDS = frozenset(_KNOWN["common"]) | _STATEMENT_WORDS | CODED_VOCABULARY | OPERATOR_WORDS
_PLAIN_NAMES = frozenset(_KNOWN["plain names"])
_NAME = re.compile(r"(?<![\w@/.'’-])[A-Z][\w'’&+#-]*")
_SENTENCE_START = re.compile(r"(?:^|\n|[.!?][\"'”’)]*\s)\s*[\"'“‘(]?$")
_MARKS_LENGTH = 20
# A header's first field is a name, not the start of a sentence: "Initech | Berlin", "Initech, Berlin".
_HEAD_START = re.compile(r"(?:^|\n)\s*$")
_HEAD_END = re.compile(r"(?:\s+[A-Z][\w'’&+#.-]*){0,8}\s*(?:[|(:–—]|-\s|,\s*[A-Z])")
_VERB = r"\s+(?:is|are|has|was|needs?|seeks?|wants?|offers?|hires?|looks?|pays?)\b"
_COMPANY_VERB = re.compile(_VERB)
_COMPANY = re.compile(rf"(?:^|(?<=[.!?]\s))([A-Z][\w'’&-]*(?:\s+[A-Z][\w'’&-]*)+){_VERB}")

Pay = tuple[str, str, str, str]


def make_fact_check(name: str, field: str) -> Check:
    """Make the check that a field, or its part before a comma, that the original mentions is in the rewrite too.

    A name within a link ("oak.example") is not a mention, unless the original has it nowhere else.
    """

    def check(posting: Posting, text: str, prompt: str) -> list[Failure]:
        value = getattr(posting, field)
        for fact in dict.fromkeys((value, value.split(",")[0])):
            if not fact.strip() or not mentions(posting.description, fact):
                continue
            if mentions(blank_links(posting.description), fact):
                text = blank_links(text)
            return [] if mentions(text, fact) else [Failure(name, f"The {field} '{fact}' is missing.")]
        return []

    return check


def check_numbers(posting: Posting, text: str, prompt: str) -> list[Failure]:
    """Check that numbers are kept, years of experience apart, and that none has appeared, in digits or in words."""
    gone = sorted({*NUMBER.findall(YEARS.sub(" ", posting.description))} - _list_numbers(text))
    # A number that only the prompt's other fields hold is not invented.
    known = _list_numbers(f"{posting.description} \n {prompt}")
    found = [match for pattern in (NUMBER, _NUMBER_WORD) for match in pattern.finditer(text)]
    added = [(match[0], match.span()) for match in found if match[0].lower() not in known]
    missing, new = "The number {} of the original is missing.", "The number {} is not in the original."
    return report("numbers_kept", gone, missing, added, new)


@lru_cache(maxsize=4096)
def _list_numbers(text: str) -> frozenset[str]:
    """Return a text's numbers, each in digits and as a word where there is one; "twice" is two."""
    words = {word.lower() for word in _NUMBER_WORD.findall(text)}
    found = {*NUMBER.findall(text), *words}
    found |= {"two", "twice"} if {"two", "2", "twice"} & found else set()
    return frozenset(found | {DIGITS[n] for n in found if n in DIGITS} | {w for w, n in DIGITS.items() if n in found})


@lru_cache(maxsize=4096)
def find_pay(text: str) -> dict[Pay, Span]:
    """Find amounts of money: (currency, amount with its scale, period, bound), and where each first stands.

    | text                | found                                                                    |
    |---------------------|--------------------------------------------------------------------------|
    | "$100-120k a year"  | ("$", "100k", "year", ""), ("$", "120k", "year", "")                     |
    | "60.000 EUR"        | ("€", "60.000", "", "")                                                  |
    | "4,500 a month"     | ("", "4,500", "month", "")                                               |
    | "up to £500pd"      | ("£", "500", "day", "at most ")                                          |
    | "12 people, 5pm"    | nothing: neither currency nor a period in full nor a scale of pay        |
    """
    found: dict[Pay, Span] = {}
    for match in _PAY.finditer(blank_links(text)):
        currency = _CURRENCY_OF.get((match["before"] or match["after"] or "").lower(), "")
        spelt = match["period"] or match["adverb"] or match["short"] or ""
        period = _PERIOD_OF.get(re.sub(r"[\s.]", "", spelt).lower(), "")
        low, high = _split_amount(match["low"]), _split_amount(match["high"] or "")
        scale = high[1] or low[1]
        bound = "at most " if match["at_most"] else "at least " if match["at_least"] or match["plus"] else ""
        if high[0] and not match["plus"]:  # "from $100k to $150k" is a range without a further bound
            bound = ""
        is_hours = not (currency or scale) and period != "hour" and len(low[0]) < MIN_PAY_DIGITS
        if not period and currency:  # "a monthly salary of 5,200 EUR"
            before = _PERIOD_BEFORE.search(text[max(0, match.start() - _PERIOD_WINDOW) : match.start()])
            period = _PERIOD_OF[before[1].lower()] if before else ""
        if currency or (spelt and not match["short"] and not is_hours) or scale in ("k", "lakh", "crore"):
            for number, own in (low, high):
                if number:
                    found.setdefault((currency, number + (own or scale), period, bound), match.span())
    return found


def _split_amount(text: str) -> tuple[str, str]:
    """Split "120 K" into ("120", "k")."""
    number = NUMBER.match(text)
    if number is None:
        return "", ""
    scale = text[number.end() :].strip().lower().removesuffix("s")
    return number[0], _SCALES.get(scale, scale)


def _show_pay(pay: Pay) -> str:
    currency, amount, period, bound = pay
    return f"{bound}{currency}{amount}" + (f" a {period}" if period else "")


def find_links(text: str) -> dict[str, Span]:
    """Find links and e-mail addresses in lower case, without closing punctuation, and where each stands."""
    return {match[0].rstrip(".,;:!?").lower(): match.span() for match in LINK.finditer(text)}


def _make_kept_check(
    name: str,
    what: str,
    find: Callable[[str], Mapping[Any, Span]],
    *,
    show: Callable[[Any], str] = str,
    missing: str = "is missing",
    may_be_respelt: bool = False,
) -> Check:
    """Make the check that what `find` finds in the original is in the rewrite, and nothing that the prompt lacks, too.

    A name may be there in other capitals ("BERLIN"); in small letters "US" is another word.
    """

    def check(posting: Posting, text: str, prompt: str) -> list[Failure]:
        original, found = find(posting.description), find(text)
        gone = [fact for fact in original if fact not in found]
        if may_be_respelt:
            spelt = {fact: blank_links(posting.description)[slice(*original[fact])] for fact in gone}
            gone = [fact for fact, s in spelt.items() if s.isupper() or not mentions(blank_links(text), s)]
        added = [fact for fact in found if fact not in original]
        known = find(prompt) if added else {}
        added = [(show(fact), found[fact]) for fact in added if fact not in known]
        return report(name, map(show, gone), f"{what} {missing}.", added, f"{what} is not in the original.")

    return check


check_pay = _make_kept_check("pay_kept", "The amount {}", find_pay, show=_show_pay, missing="is missing or has changed")
check_links = _make_kept_check("links_kept", "{}", find_links)
check_technologies = _make_kept_check(
    "technologies_kept", "The technology '{}'", lambda t: find_technologies(blank_links(t)), may_be_respelt=True
)
check_places = _make_kept_check(
    "places_kept", "The place '{}'", lambda t: find_places(blank_links(t)), may_be_respelt=True
)


def check_requirements(posting: Posting, text: str, prompt: str) -> list[Failure]:
    """Check that each short requirement that the original's text mentions is mentioned still; years may go."""
    items = [item.strip(" .-*") for item in re.split(r"[,;\n•]|\band\b", posting.requirements)]
    return [
        Failure("requirements_kept", f"The requirement '{item}' is missing.")
        for item in islice(dict.fromkeys(items), MAX_REQUIREMENTS)
        if 0 < len(item.split()) <= MAX_REQUIREMENT_WORDS and not YEARS.search(item)
        if mentions(posting.description, item) and not mentions(text, item)
    ]


def check_names(posting: Posting, text: str, prompt: str) -> list[Failure]:
    """Check that no capitalised word has appeared that neither the original nor the prompt has in any case.

    The first word of a sentence has its capital anyway; it is judged only where it does what a company does ("Initech
    is hiring") or is the first field of a header ("Initech | Berlin"). So are known words that make a new name ("Green
    Valley" and "Blue Oak" become "Blue Valley is hiring"). A word that says the same as one of the original's ("Strong
    team", "Solid team") is no name.
    """
    original, blank = list_words(blank_links(posting.description)), blank_links(text)
    known_pairs = {*pairwise(original), *pairwise(list_words(prompt))}
    failures = [
        Failure("name_invented", f"The name '{match[1]}' is not in the original.", match.span(1))
        for match in _COMPANY.finditer(blank)
        if KNOWN_WORDS.isdisjoint(words := list_words(match[1])) and not known_pairs.issuperset(pairwise(words))
        if not (words[0] in VOCABULARY and {*original}.issuperset(words[1:]))
    ]
    if failures:
        return failures
    # Blanking a link may cut a word that runs into it.
    known = _PLAIN_NAMES.union(KNOWN_WORDS, list_words(posting.description), original, list_words(prompt))
    for match in _NAME.finditer(blank):
        words = list_words(match[0])
        if known.issuperset(words) or known.issuperset(re.sub("['’]?s$", "", word) for word in words):
            continue
        if list_meanings(posting.description).issuperset(map(get_meaning, words)):
            continue
        if find_technologies(match[0]) or find_places(match[0]):  # judged by their own checks
            continue
        before = text, max(0, match.start() - _MARKS_LENGTH), match.start()
        is_header = _HEAD_START.search(*before) and _HEAD_END.match(blank, match.end())
        is_name = is_header or (_COMPANY_VERB.match(blank, match.end()) and words[0] not in VOCABULARY)
        if _SENTENCE_START.search(*before) and not is_name:
            continue
        failures.append(Failure("name_invented", f"The name '{match[0]}' is not in the original.", match.span()))
    return failures


def check_sentences(posting: Posting, text: str, prompt: str) -> list[Failure]:
    """Check that no sentence is about something else: that few of its words are ones which the original lacks.

    A word that begins like one of the original's ("manages", "managing") or says the same ("clever", for "smart") is
    not new.
    """
    stems = {word[:_STEM_LENGTH] for word in (*list_words(posting.description), *list_words(prompt))}
    failures = []
    for sentence, span in list_sentences(text):
        words = list_words(blank_links(sentence))
        new = [word for word in words if not (word in KNOWN_WORDS or word[:_STEM_LENGTH] in stems)]
        if new:
            new = [word for word in new if get_meaning(word) not in list_meanings(posting.description)]
        least = max(MIN_INVENTED_WORDS - 1, MAX_INVENTED_SHARE * len(words))
        if len(words) >= MIN_SENTENCE_WORDS and len(new) > least:
            reason = f"{len(new)} of {len(words)} words of a sentence are not in the original, first '{new[0]}'."
            failures.append(Failure("sentence_invented", reason, span))
    return failures
