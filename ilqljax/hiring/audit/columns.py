"""Tell attributes from identifiers and measurements in a table whose attributes nobody named.

A column of names, e-mail addresses, row numbers or free text is no attribute: audited, it would put personal data on a
page that is filed or published. Such columns are left out unless they are named, and only their headers are ever said.
"""

import itertools
import logging
import math
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from ilqljax.errors import UserError
from ilqljax.hiring.audit.categories import UNKNOWN_WORDS, fold_spelling

logger = logging.getLogger(__name__)

MOST_CATEGORIES = 50  # of a column that the user did not name as an attribute
MOST_NUMBERS = 20  # different ones, which could be codes; more are a measurement
FEW = 10  # so many different values are never "nearly all different"
MOST_ATTRIBUTES = 6  # that are audited unasked, with every pair of them
SAMPLE_ROWS = 10_000  # of a table that are looked at to choose
NUMBER = re.compile(r"[+-]?(\d++(\.\d*+)?|\.\d++)(e[+-]?\d+)?", re.I | re.A)
_UNKNOWN = {fold_spelling(word) for word in UNKNOWN_WORDS}
QUANTILES = "quantiles:"
Bins = Mapping[str, tuple[float, ...] | int]  # by column: the edges, or a number of quantiles
_PERSONAL = re.compile(
    r"(^|[^a-z])(e-?mails?|(first|last|full|sur|given|family|middle|maiden)?[\s_-]*names?|surname|phones?|telephone|"
    r"mobile|ssn|passport|(street|home|postal|ip|mail)?[\s_-]*address|street|dob|date[\s_-]*of[\s_-]*birth|"
    r"birth[\s_-]*(date|day)|post(al)?[\s_-]*codes?|zip([\s_-]*codes?)?|linkedin|resume|url|ids?|uuid|guid|index|row|"
    r"row[\s_-]*(number|no)|unnamed.*|"
    r"(vor|nach|zu|familien)?namen?|geburts(datum|tag)|adresse|stra(ß|ss)e|plz|(pré|pre)?noms?|nombres?|apellidos?|"
    r"cognome|imi[eę]|nazwisko|имя|фамилия|姓名|名前|氏名|이름|성명|الاسم)($|[^a-z])"
)
_DATE = re.compile(r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}([ T].*)?|\d{1,2}[-/.]\d{1,2}[-/.](\d{4}|\d{2})", re.A)
_LIKELY = re.compile(
    r"sex|gender|pronoun|race|ethnic|(^|[^a-z])ages?($|[^a-z])|disab|veteran|orientation|relig|nationality|origin|"
    r"citizen|caste|marital|pregnan|native|minority|hispanic|latin|geschlecht|region"
)


def find_reason(name: str, values: Sequence[str]) -> str:
    """Return why a column is no attribute to audit unasked, or "".

    The values are of a person each; empty ones are unknown.
    """
    spelling = {value: fold_spelling(value) for value in set(values)}
    known = [value for value in values if value and spelling[value] not in _UNKNOWN]
    n = len(set(known))
    if _PERSONAL.search(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()) or not name:
        return "its name is that of personal data or a number of rows"
    if known and sum("@" in value for value in known) * 2 > len(known):
        return "e-mail addresses"
    if known and all(map(_DATE.fullmatch, set(known))):
        return "dates"
    if n > FEW and 2 * n > len(known):
        return "nearly all values differ"
    if is_measured(known):
        return f"numbers; to audit them, name it and give --bins {name}=0,40,200"
    return f"more than {MOST_CATEGORIES} different values" if n > MOST_CATEGORIES else ""


def is_measured(values: Sequence[str]) -> bool:
    """Return whether values are numbers, and so many different ones that each would be a group."""
    different = {value for value in values if value}
    return len(different) > MOST_NUMBERS and all(NUMBER.fullmatch(value) for value in different)


def choose_attributes(
    columns: Mapping[str, Sequence[str]], *, where: object, bins: Bins = MappingProxyType({})
) -> list[str]:
    """Return which columns are attributes, and those with bins; the others are named in a warning.

    Where that are many, a `UserError` asks which ones are meant. Values of columns are never shown.
    """
    reasons = {name: "" if name in bins else find_reason(name, values) for name, values in columns.items()}
    chosen = [name for name, reason in reasons.items() if not reason]
    left_out = "; ".join(f"'{name}' ({reason})" for name, reason in reasons.items() if reason)
    if len(chosen) > MOST_ATTRIBUTES:
        likely = [name for name in chosen if _LIKELY.search(name.lower())]
        others = [name for name in chosen if name not in likely]
        known = f"Likely: {', '.join(likely)}. " if likely else ""
        raise UserError(
            f"{where}: which columns are attributes? {len(chosen)} could be, and every pair would be audited. {known}"
            f"{'Others' if likely else 'They are'}: {', '.join(others) or 'none'}. Name those that matter: "
            f"--attributes {','.join((likely or others)[:3])}"
        )
    if columns and not chosen:
        raise UserError(f"{where}: no column of an attribute; left out are {left_out}. Name some with --attributes.")
    if left_out:
        logger.warning("%s: not audited, for nobody named them: %s.", where, left_out)
    return chosen


# --- Bins -------------------------------------------------------------------------------------------------------------


def parse_bins(texts: Sequence[str]) -> dict[str, tuple[float, ...] | int]:
    """Read "age=0,40,200" (edges) and "age=quantiles:4", one a column."""
    bins: dict[str, tuple[float, ...] | int] = {}
    for text in texts:
        name, _, how = (part.strip() for part in text.partition("="))
        if not name or name in bins:
            raise UserError(f"--bins {text}: write COLUMN=0,40,200 or COLUMN={QUANTILES}4, once for each column.")
        bins[name] = _read_bins(name, how)
    return bins


def _read_bins(name: str, how: str) -> tuple[float, ...] | int:
    advice = f"Give edges in rising order, such as {name}=0,40,200, or {name}={QUANTILES}4."
    if how.startswith(QUANTILES):
        n = how.removeprefix(QUANTILES)
        if not (n.isascii() and n.isdigit() and 2 <= int(n) <= MOST_NUMBERS):
            raise UserError(f"--bins {name}={how}: not a number of quantiles from 2 to {MOST_NUMBERS}. {advice}")
        return int(n)
    try:
        edges = tuple(float(edge) for edge in how.split(","))
    except ValueError as error:
        raise UserError(f"--bins {name}={how}: not numbers. {advice}") from error
    check_edges(name, edges)
    return edges


def check_edges(name: str, edges: Sequence[float]) -> None:
    """Refuse edges of bins that do not rise; minus and plus infinity may be the outer ones."""
    rises = all(low < high for low, high in itertools.pairwise(edges))
    if len(edges) < 3 or not rises:
        shown = ", ".join(f"{edge:g}" for edge in edges)
        raise UserError(f"bins of '{name}': {shown}. Give three edges or more, in rising order, such as 0, 40, 200.")


def bin_values(name: str, values: Sequence[str], bins: tuple[float, ...] | int) -> list[str]:
    """Return the bin of each value, and "" for "", which is unknown.

    A bin holds its lower edge, the last one its upper edge too. Worked, with the edges 0, 40, 65: 39.9 is "0 to under
    40", 40 is "40 to 65", and so is 65. A value that is no number or in no bin raises a `UserError`.
    """
    known = np.array([_read_number(name, value) for value in values if value])
    if isinstance(bins, int):
        edges = np.unique(np.quantile(known, np.linspace(0, 1, bins + 1))) if known.size else np.empty(0)
        if len(edges) < 3:
            raise UserError(
                f"'{name}' has no {bins} quantiles that differ. Give edges, such as --bins {name}=0,40,200."
            )
    else:
        edges = np.array(bins)
    outside = known[(known < edges[0]) | (known > edges[-1])]
    if outside.size:
        raise UserError(
            f"{name}={outside[0]:g} is in no bin; they go from {edges[0]:g} to {edges[-1]:g}. Widen them, as with "
            "inf for the last edge, or correct the value."
        )
    names = [_name_bin(low, high, is_last=high == edges[-1]) for low, high in itertools.pairwise(edges.tolist())]
    places = iter(np.minimum(np.searchsorted(edges, known, side="right"), len(edges) - 1) - 1)
    return [names[next(places)] if value else "" for value in values]


def _name_bin(low: float, high: float, *, is_last: bool) -> str:
    if math.isinf(high):
        return f"{low:g} or more"
    text = f"{high:g}" if is_last else f"under {high:g}"
    return text if math.isinf(low) else f"{low:g} to {text}"


def _read_number(name: str, value: str) -> float:
    if not NUMBER.fullmatch(value):
        raise UserError(f"{name}='{value}' is not a number, and cannot be put in a bin. Correct it, or see --unknown.")
    return float(value)


def bin_columns(columns: Mapping[str, Sequence[str]], bins: Bins) -> dict[str, Sequence[str]]:
    """Return columns with those of `bins` put in bins.

    Bins of another column, and a column of many different numbers without bins, of which each would be a group, raise a
    `UserError`.
    """
    if lacking := [name for name in bins if name not in columns]:
        raise UserError(f"--bins {lacking[0]}: it is not among the attributes: {', '.join(columns)}. Name it there.")
    binned = {name: bin_values(name, of, bins[name]) if name in bins else of for name, of in columns.items()}
    if many := [name for name, of in binned.items() if name not in bins and is_measured(of)]:
        n = len({value for value in binned[many[0]] if value})
        raise UserError(
            f"'{many[0]}' holds {n:,} different numbers, and each would be a group. Put them in bins: "
            f"--bins {many[0]}=0,40,200 gives the edges, --bins {many[0]}={QUANTILES}4 quarters."
        )
    return binned
