"""Results that grow as an experiment runs: one JSON file that a second start reads, so that nothing is run twice."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ilqljax.data.files import read_json, save_text
from ilqljax.errors import UserError


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
