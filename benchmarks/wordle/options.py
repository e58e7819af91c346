"""Check the options of the experiments before hours of work."""

from collections.abc import Sequence
from typing import Any

from ilqljax.errors import UserError


def check_positive(config: Any, *, whole: Sequence[str], positive: Sequence[str]) -> None:
    """Refuse what would fail only after hours.

    Raises:
        UserError: a `whole` option is below 1 or a `positive` one not above 0; names the option.
    """
    for name in whole:
        if getattr(config, name) < 1:
            raise UserError(f"--{name} {getattr(config, name)}: give 1 or more")
    for name in positive:
        if not getattr(config, name) > 0:
            raise UserError(f"--{name} {getattr(config, name)}: give more than 0")


def check_seeds(seeds: Sequence[int]) -> None:
    """Refuse seeds that would count twice or seed nothing.

    Raises:
        UserError: there is none, one is negative, or one comes twice.
    """
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds {list(seeds)}: give at least one, each once, none below 0")
