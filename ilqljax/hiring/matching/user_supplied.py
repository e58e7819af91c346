"""Ask a user-supplied matcher: any Python function, and the checks that every answer of a user's own must pass.

An answer names candidates by their ids. For each text it must hold exactly k different known ids, best first, with
finite scores that do not increase. Of equal scores the lower row goes first; which candidate takes a shared k-th place
is the matcher's choice.
"""

import functools
import importlib
import inspect
import os
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ilqljax.config import register
from ilqljax.data.files import hash_file
from ilqljax.errors import UserError
from ilqljax.hiring.matching.matcher import CheckedMatcher, Matcher, Matches, hash_texts
from ilqljax.hiring.postings.posting import Candidate

LARGEST_SCORE = float(np.finfo(np.float32).max)  # scores are kept in float32

AskFunction = Callable[[list[str], int], tuple[Sequence[Sequence[str]], Sequence[Sequence[float]]]]


@register("matcher", "callable")
@dataclass(frozen=True)
class CallableSource:
    """Rank by a Python function `(texts, k) -> (ids, scores)`.

    Attributes:
        function: "package.module:function".
        version: of what the function depends on besides the files that define it (a model, a database); change it when
            that changes, so that cached rewards are not used.
    """

    function: str
    version: str = ""

    def __post_init__(self) -> None:
        load_callable(self.function)

    @property
    def name(self) -> str:
        """The function's name."""
        return self.function

    @property
    def fingerprint(self) -> str:
        """Of the function's name, the files that define it (`hash_source`) and the version."""
        return f"callable {self.function} {hash_source(self.function)} {self.version}"

    def make(self, candidates: Sequence[Candidate], *, folder: Path) -> Matcher:
        """Hand the function the candidates' ids to answer with."""
        ids = [candidate.id for candidate in candidates]
        return CallableMatcher(load_callable(self.function), ids, name=self.function, fingerprint=self.fingerprint)


class CallableMatcher(CheckedMatcher):
    """Rank candidates by a Python function `(texts, k) -> (ids, scores)`."""

    def __init__(self, function: AskFunction, candidate_ids: Sequence[str], *, name: str, fingerprint: str = ""):
        """Hold the function, its name for messages, and a fingerprint of it and what it depends on."""
        self._function, self._name = function, name
        self._row_of = number_ids(candidate_ids)
        self.n_candidates = len(self._row_of)
        self.fingerprint = f"callable-{hash_texts([f'{name} {fingerprint}', *candidate_ids])[:32]}"

    def _rank(self, texts: Sequence[str], k: int) -> Matches:
        answer = self._function(list(texts), k)
        if not isinstance(answer, tuple | list) or len(answer) != 2:
            raise UserError(
                f"{self._name} returned {type(answer).__name__}, not a pair (ids, scores). Return for each text k ids "
                "and k scores."
            )
        ids, scores = map(_to_lists, answer)
        return check_answers(ids, scores, n_texts=len(texts), k=k, row_of=self._row_of, where=self._name)


def load_callable(path: str) -> AskFunction:
    """Import the function that "package.module:function" names; the module may lie in the current folder."""
    module_name, colon, name = path.partition(":")
    if not colon or not module_name or not name.isidentifier():
        raise UserError(f"{path!r} does not name a function. Write package.module:function.")
    if not {"", os.getcwd()} & set(sys.path):
        sys.path.append(os.getcwd())  # "python scripts/..." looks in scripts/ only, "python -m" here
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise UserError(
            f"{path!r}: no module {error.name!r}. Install it, or start the program in the folder that holds it."
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        known = sorted(n for n, value in vars(module).items() if callable(value) and not n.startswith("_"))
        raise UserError(f"{path!r}: {module_name} has no function {name!r}. It has: {', '.join(known) or 'none'}.")
    return function


def hash_source(path: str) -> str:
    """Hash the files behind "package.module:function": the module's, and those that define what it names.

    That is the function below its decorators (with these, where they use functools.wraps), below a
    `functools.partial` or a bound method, the class that a method is bound to, or that of a callable object, and the
    bases of each class. What is built in has no file.
    """
    part, parts = load_callable(path), [sys.modules[path.partition(":")[0]]]
    while part is not None:
        while isinstance(part, functools.partial | types.MethodType):
            if isinstance(part, functools.partial):
                part = part.func
            else:
                parts += _list_classes(part.__self__)
                part = part.__func__
        parts += [part] if inspect.isfunction(part) else _list_classes(part)
        part = inspect.getattr_static(part, "__wrapped__", None)  # not from a __getattr__ that has every name
    return " ".join(map(hash_file, dict.fromkeys(filter(None, map(_find_file, parts)))))


def _list_classes(part: object) -> tuple[type, ...]:
    """List a class, or that of an object, and its bases."""
    return inspect.getmro(part if inspect.isclass(part) else type(part))


def _find_file(part: types.ModuleType | types.FunctionType | type) -> str:
    try:
        file = inspect.getfile(part)
    except (TypeError, OSError):  # built in, or made by hand
        return ""
    return file if os.path.isfile(file) else ""


def number_ids(candidate_ids: Sequence[str]) -> dict[str, int]:
    """Return each id's row number; raise a `UserError` if there is none or one occurs twice."""
    row_of = {candidate_id: row for row, candidate_id in enumerate(candidate_ids)}
    if not row_of:
        raise UserError("The list of candidates is empty. A matcher needs at least one candidate.")
    if len(row_of) < len(candidate_ids):
        raise UserError("The candidates' ids are not unique. A matcher that answers with ids needs unique ones.")
    return row_of


def check_answers(ids: Any, scores: Any, *, n_texts: int, k: int, row_of: Mapping[str, int], where: str) -> Matches:
    """Turn the lists of ids and scores that a matcher gave for each text into matches, strictly (module docstring).

    `row_of` has the row number of each known id; `where` says who answered.

    Raises:
        UserError: anything is missing, superfluous, of a wrong type, unknown, repeated, not finite or out of order.
    """
    _check_lengths(ids, scores, n_texts, what="one list a text", where=where)
    indices, values = np.empty((n_texts, k), np.int64), np.empty((n_texts, k), np.float32)
    for i in range(n_texts):
        indices[i], values[i] = _check_answer(ids[i], scores[i], k=k, row_of=row_of, where=f"{where}, text {i}")
    return Matches(indices, values)


def _check_lengths(ids: Any, scores: Any, n: int, *, what: str, where: str) -> None:
    for name, value in (("ids", ids), ("scores", scores)):
        if not isinstance(value, list) or len(value) != n:
            found = len(value) if isinstance(value, list) else type(value).__name__
            raise UserError(f"{where}: got {found} for {name}, expected a list of {n}, {what}.")


def _check_answer(
    ids: Any, scores: Any, *, k: int, row_of: Mapping[str, int], where: str
) -> tuple[list[int], list[float]]:
    _check_lengths(ids, scores, k, what="one a candidate (k)", where=where)
    for one in ids:
        if not isinstance(one, str) or one not in row_of:
            raise UserError(
                f"{where}: {one!r:.60} is not a candidate's id. Answer with the ids of the candidates file, as text."
            )
    if len(set(ids)) < k:
        repeated = next(one for one in ids if ids.count(one) > 1)
        raise UserError(f"{where}: the candidate {repeated!r} is named twice. Name each candidate once.")
    for score in scores:
        if isinstance(score, bool) or not isinstance(score, int | float) or not abs(score) <= LARGEST_SCORE:
            raise UserError(f"{where}: the score {score!r:.60} is not a finite number. Every score must be one.")
    for i, (score, following) in enumerate(pairwise(scores), 1):
        if following > score:
            raise UserError(
                f"{where}: the scores increase from {score} to {following} at place {i}. Sort them, best first."
            )
    # Lower rows first among equal scores, of the numbers as given: float32 makes some equal that are not.
    best = sorted(zip(map(row_of.__getitem__, ids), scores, strict=True), key=lambda pair: (-pair[1], pair[0]))
    return [row for row, _ in best], [score for _, score in best]


def _to_lists(part: Any) -> Any:
    """Turn arrays into plain lists, also inside a list; other things are left for the check to refuse."""
    if isinstance(part, np.ndarray):
        return part.tolist()
    if isinstance(part, tuple | list):
        return [_to_lists(inner) for inner in part]
    return part.item() if isinstance(part, np.generic) else part
