"""Results that grow as an experiment runs: one JSON file that a second start reads, so that nothing is run twice."""

import argparse
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ilqljax.errors import UserError
from ilqljax.files import read_json, save_text


class Results:
    """Hold an experiment's settings and its cells, each written as soon as it is known."""

    def __init__(self, path: Path, settings: dict[str, Any]):
        """Open or start a results file.

        Raises:
            UserError: the file is of an experiment with other settings, or is no results file.
        """
        self.path, self.settings = path, json.loads(json.dumps(settings))
        self.cells: dict[str, Any] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file():
            return
        saved = read_json(path, advice="Choose another --out.")
        if not isinstance(saved.get("cells"), dict):
            raise UserError(f"{path} is no results file: it has no cells. Choose another --out.")
        other = saved.get("settings")
        if other != self.settings:
            other = other if isinstance(other, dict) else {}
            names = [k for k in {**other, **self.settings} if other.get(k) != self.settings.get(k)]
            given = "; ".join(f"{k} {other.get(k)!r} there, {self.settings.get(k)!r} here" for k in names)
            raise UserError(
                f"{path} holds results of other settings ({given}). Choose another --out, or repeat the same command."
            )
        self.cells = saved["cells"]

    def compute(self, name: str, function: Callable[[], Any]) -> Any:
        """Return a cell; run `function`, whose result must be JSON, only if the file does not hold it yet."""
        if name not in self.cells:
            self.put(name, function())
        return self.cells[name]

    def put(self, name: str, value: Any) -> None:
        """Set a cell, which must be JSON, and write the file."""
        self.cells[name] = json.loads(json.dumps(value))
        self.save()

    def save(self) -> None:
        """Write the file, whole or not at all."""
        save_text(self.path, json.dumps({"settings": self.settings, "cells": self.cells}, indent=1) + "\n")


def add_options(parser: argparse.ArgumentParser, config: type, help_texts: Mapping[str, str]) -> None:
    """Add an option for each field of a dataclass that has a help text; its default is the field's."""
    fields = {field.name: field for field in dataclasses.fields(config)}
    for name, text in help_texts.items():
        default = fields[name].default
        kind = {"action": "store_true"} if isinstance(default, bool) else {"type": type(default), "default": default}
        parser.add_argument(f"--{name}", help=text, **kind)


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
