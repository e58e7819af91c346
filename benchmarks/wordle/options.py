"""Command-line options of the experiments: made from a config's dataclass, and checked before hours of work."""

import argparse
import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from ilqljax.errors import UserError

_ATTRIBUTE = re.compile(r"^        (\w+): (.+?)\.?$", re.MULTILINE)


def add_options(parser: argparse.ArgumentParser, config: type) -> None:
    """Add an option for each field of a dataclass: its default is the field's, its help what the docstring says."""
    help_texts = dict(_ATTRIBUTE.findall(config.__doc__))
    for field in dataclasses.fields(config):
        is_flag = isinstance(field.default, bool)
        kind = {"action": "store_true"} if is_flag else {"type": type(field.default), "default": field.default}
        parser.add_argument(f"--{field.name}", help=help_texts[field.name], **kind)


def read_options(args: argparse.Namespace, config: type) -> Any:
    """Return the dataclass with the values of its options."""
    return config(**{field.name: getattr(args, field.name) for field in dataclasses.fields(config)})


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
