"""Tell attributes from identifiers and measurements in a table whose attributes nobody named.

A column of names, e-mail addresses, row numbers or free text is no attribute: audited, it would put personal data on a
page that is filed or published. Such columns are left out unless they are named, and only their headers are ever said.
"""

import logging
import re
from collections.abc import Mapping, Sequence

from ilqljax.errors import UserError

logger = logging.getLogger(__name__)

MOST_CATEGORIES = 50  # of a column that the user did not name as an attribute
MOST_NUMBERS = 20  # different ones, which could be codes; more are a measurement
FEW = 10  # so many different values are never "nearly all different"
MOST_ATTRIBUTES = 6  # that are audited unasked, with every pair of them
SAMPLE_ROWS = 10_000  # of a table that are looked at to choose
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.I | re.A)
_PERSONAL = re.compile(
    r"(^|[^a-z])(e-?mails?|(first|last|full|sur|given|family|middle|maiden)?[\s_-]*names?|surname|phones?|telephone|"
    r"mobile|ssn|passport|(street|home|postal|ip|mail)?[\s_-]*address|street|dob|date[\s_-]*of[\s_-]*birth|"
    r"birth[\s_-]*(date|day)|linkedin|resume|url|ids?|uuid|guid|index|row|row[\s_-]*(number|no)|unnamed.*)($|[^a-z])"
)
_LIKELY = re.compile(
    r"sex|gender|pronoun|race|ethnic|(^|[^a-z])ages?($|[^a-z])|disab|veteran|orientation|relig|nationality|origin|"
    r"citizen|caste|marital|pregnan|native|minority|hispanic|latin|geschlecht|region"
)


def find_reason(name: str, values: Sequence[str]) -> str:
    """Return why a column is no attribute to audit unasked, or "".

    The values are of a person each; empty ones are unknown.
    """
    known = [value for value in values if value]
    n = len(set(known))
    if _PERSONAL.search(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()) or not name:
        return "its name is that of personal data or a number of rows"
    if known and sum("@" in value for value in known) * 2 > len(known):
        return "e-mail addresses"
    if n > FEW and 2 * n > len(known):
        return "nearly all values differ"
    if is_measured(known):
        return f"numbers; to audit them, name it and give --bins {name}=0,40,200"
    return f"more than {MOST_CATEGORIES} different values" if n > MOST_CATEGORIES else ""


def is_measured(values: Sequence[str]) -> bool:
    """Return whether values are numbers, and so many different ones that each would be a group."""
    different = {value for value in values if value}
    return len(different) > MOST_NUMBERS and all(NUMBER.fullmatch(value) for value in different)


def choose_attributes(columns: Mapping[str, Sequence[str]], *, where: object) -> list[str]:
    """Return which columns are attributes; the others are named in a warning.

    Where that are many, a `UserError` asks which ones are meant. Values of columns are never shown.
    """
    reasons = {name: find_reason(name, values) for name, values in columns.items()}
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
