"""The one exception type that means: the user can fix this; and the refusals that most options need."""

import difflib
import reprlib
import signal
from collections.abc import Collection, Iterable
from numbers import Integral, Real
from typing import Any


class UserError(ValueError):
    """Report a mistake in input, configuration or files that the user can put right.

    The message says what was given, what was expected and what to change. Command-line programs print it as one line
    and exit with status 2; a library caller catches it like any `ValueError`.
    """


class Interrupted(KeyboardInterrupt):
    """Report that a signal asked the program to end.

    Attributes:
        number: of the signal.
        status: that the program ends with, 128 + the number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number, self.status = int(number), 128 + number


def find_close(name: object, known: Iterable[object]) -> str:
    """Word the closest of the known names, whatever their case; "" where none is close."""
    folded = {str(one).casefold(): one for one in known}
    close = difflib.get_close_matches(str(name).casefold(), folded, n=1)
    return f" Did you mean {folded[close[0]]!r}?" if close else ""


def check_type(kind: Any, advice: str, **given: object) -> None:
    """Refuse an argument, given by its name, that is not of a type, or of one of several."""
    for name, value in given.items():
        if not isinstance(value, kind):
            shown = " ".join(reprlib.repr(value).split())
            raise UserError(f"{name}={shown} is of type {type(value).__name__}. {advice}")


def check_whole(**given: object) -> None:
    """Refuse an argument, given by its name, that is not a whole number from 0 on."""
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, Integral) or value < 0:
            raise UserError(f"{name}={reprlib.repr(value)} is not a whole number from 0 on. Give one.")


def check_known(known: Collection[str], **given: str) -> None:
    """Refuse an option, given by its name, whose value is not a known one."""
    for name, value in given.items():
        if value not in known:
            listed = ", ".join(one or "''" for one in known)
            raise UserError(f"{name}={value!r} is unknown. Known: {listed}.")


def check_divisible(options: object, name: str, by: str) -> None:
    """Refuse options, attributes by name, of which one does not divide the other."""
    value, divisor = getattr(options, name), getattr(options, by)
    if value % divisor:
        raise UserError(f"{name}={value} is not divisible by {by}={divisor}. Change one of the two.")


def check_range(options: object, bounds: str, *names: str) -> None:
    """Refuse options, attributes by name, outside an interval such as "[0, 1)"; NaN is in none, inf in "[0, inf]"."""
    low, high = map(float, bounds[1:-1].split(","))
    for name in names:
        value = getattr(options, name)
        if isinstance(value, bool) or not isinstance(value, Real):
            raise UserError(f"{name}={value!r} is not a number. Give one in {bounds}.")
        number = float(value)
        above = number >= low if bounds[0] == "[" else number > low
        below = number <= high if bounds[-1] == "]" else number < high
        if not (above and below):
            raise UserError(f"{name}={value} is out of range. Give a number in {bounds}.")
