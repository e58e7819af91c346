"""Check that a rewrite keeps the facts of the original, and invents none: names, numbers, pay, links."""

import re
from functools import lru_cache

from ilqljax.hiring.guardrails.findings import LINK, NUMBER, Check, Failure, blank_links, mentions
from ilqljax.hiring.postings.posting import Posting
from ilqljax.hiring.word_files import load_words

# Numbers of years are a barrier, not a fact of the job; `operators.soften` removes them.
YEARS = re.compile(r"(?<![\d.,])\d[\d.,]*\s*(?:(?:-|–|to)\s*\d+\s*)?\+?\s*(?:years?|yrs?)\b", re.IGNORECASE)
_NUMBER_WORD = re.compile(
    r"\b(?:two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|fifteen|twenty|thirty|forty|fifty|sixty|seventy|"
    r"eighty|ninety|hundred|thousand|million|billion|half|double|twice)\b",
    re.IGNORECASE,
)

_CURRENCY_OF = {
    spelling: name
    for name, spellings in load_words("guardrails/words.ini")["currencies"].items()
    for spelling in spellings
}
_SPELLINGS = rf"(?:{'|'.join(sorted(map(re.escape, _CURRENCY_OF), key=len, reverse=True))})(?![^\W\d_])"
_CURRENCY_OF["r"] = "zar"  # right before digits only: elsewhere R is a language
_CURRENCY = rf"(?<![^\W\d_])(?:{_SPELLINGS}|r(?=\d))"
# A period after "per" or "a", as an adverb, and in short.
_PERIODS = {
    "hour": ("hour|hr|h", "hourly", "ph"),
    "day": ("day", "daily", "pd"),
    "week": ("week|wk", "weekly", "pw"),
    "month": ("month|mo", "monthly", "pm|pcm"),
    "year": ("year|yr|annum|y", "annually|yearly", "pa"),
}
_PERIOD_OF = {word: name for name, forms in _PERIODS.items() for form in forms for word in form.split("|")}
_SHORT_PERIOD = r"p\.?\s?[hdwma]\b|pcm\b"
_PERIOD = (
    rf"\s*(?:(?:per\s+|an?\s+|/\s*|p\.\s?)(?P<period>{'|'.join(words for words, _, _ in _PERIODS.values())})\b"
    rf"|(?P<adverb>{'|'.join(adverbs for _, adverbs, _ in _PERIODS.values())})\b|(?P<short>{_SHORT_PERIOD}))"
)
_SCALES = {"thousand": "k", "mm": "m", "million": "m", "bn": "b", "billion": "b", "lac": "lakh", "cr": "crore"}
_SCALE = r"(?:k|mm?|bn?|thousand|million|billion|lakhs?|lacs?|crores?|cr)"
# Digits are taken whole, once: a long run of them before a letter must not be tried at every length and start.
_AMOUNT = (
    rf"(?<!\d)\d++(?:[.,]\d++)*+(?:\s?{_SCALE}(?=\W|_|$|{_SPELLINGS}|{_SHORT_PERIOD})"
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

Pay = tuple[str, str, str, str]


def make_fact_check(name: str, field: str) -> Check:
    """Make the check that a field of the posting that its text mentions is mentioned by the rewrite too.

    A name within a link ("oak.example") is not a mention, unless the original has it nowhere else.
    """

    def check(posting: Posting, text: str, prompt: str) -> list[Failure]:
        del prompt
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
    # A number that only the prompt's other fields hold is not invented.
    original = set(NUMBER.findall(posting.description))
    required = set(NUMBER.findall(YEARS.sub(" ", posting.description)))
    found = set(NUMBER.findall(text))
    failures = [
        Failure("numbers_kept", f"The number {number} of the original is missing.")
        for number in sorted(required - found)
    ]
    known = original | set(NUMBER.findall(prompt))
    known |= {word.lower() for word in _NUMBER_WORD.findall(f"{posting.description} {prompt}")}
    for pattern in (NUMBER, _NUMBER_WORD):
        for match in pattern.finditer(text):
            if match[0].lower() not in known:
                failures.append(Failure("numbers_kept", f"The number {match[0]} is not in the original.", match.span()))
    return failures


@lru_cache(maxsize=4096)
def find_pay(text: str) -> dict[Pay, tuple[int, int]]:
    """Find amounts of money: (currency, amount with its scale, period, bound), and where each first stands.

    | text                | found                                                                    |
    |---------------------|--------------------------------------------------------------------------|
    | "$100-120k a year"  | ("$", "100k", "year", ""), ("$", "120k", "year", "")                     |
    | "60.000 EUR"        | ("€", "60.000", "", "")                                                  |
    | "4,500 a month"     | ("", "4,500", "month", "")                                               |
    | "up to £500pd"      | ("£", "500", "day", "at most ")                                          |
    | "12 people, 5pm"    | nothing: neither currency nor a period in full nor a scale of pay        |
    """
    found: dict[Pay, tuple[int, int]] = {}
    for match in _PAY.finditer(blank_links(text)):
        currency = _CURRENCY_OF.get((match["before"] or match["after"] or "").lower(), "")
        spelt = match["period"] or match["adverb"] or match["short"] or ""
        period = _PERIOD_OF.get(re.sub(r"[\s.]", "", spelt).lower(), "")
        low, high = _split_amount(match["low"]), _split_amount(match["high"] or "")
        scale = high[1] or low[1]
        bound = "at most " if match["at_most"] else "at least " if match["at_least"] or match["plus"] else ""
        if high[0] and not match["plus"]:  # "from $100k to $150k" is a range without a further bound
            bound = ""
        if currency or match["period"] or match["adverb"] or scale in ("k", "lakh", "crore"):
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


def check_pay(posting: Posting, text: str, prompt: str) -> list[Failure]:
    """Check that every amount of money keeps its currency, scale, period and bound, and that none has appeared."""
    original, found = find_pay(posting.description), find_pay(text)
    known = original.keys() | find_pay(prompt).keys()
    missing = [pay for pay in original if pay not in found]
    failures = [Failure("pay_kept", f"The amount {_show_pay(pay)} is missing or has changed.") for pay in missing]
    return failures + [
        Failure("pay_kept", f"The amount {_show_pay(pay)} is not in the original.", span)
        for pay, span in found.items()
        if pay not in known
    ]


def _show_pay(pay: Pay) -> str:
    currency, amount, period, bound = pay
    return f"{bound}{currency}{amount}" + (f" a {period}" if period else "")


def find_links(text: str) -> dict[str, tuple[int, int]]:
    """Find links and e-mail addresses in lower case, without closing punctuation, and where each stands."""
    return {match[0].rstrip(".,;:!?").lower(): match.span() for match in LINK.finditer(text)}


def check_links(posting: Posting, text: str, prompt: str) -> list[Failure]:
    """Check that links and addresses are kept, and that none has appeared."""
    original, found = find_links(posting.description), find_links(text)
    missing = [Failure("links_kept", f"{link} is missing.") for link in original if link not in found]
    new = [link for link in found if link not in original]
    known = find_links(prompt) if new else {}
    return missing + [
        Failure("links_kept", f"{link} is not in the original.", found[link]) for link in new if link not in known
    ]
