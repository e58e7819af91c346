"""Postings and candidates, the prompt of a posting, and the task's own files: `jobs.jsonl` and `candidates.jsonl`.

Each file may be gzipped. A job line holds the fields of `Posting`, of which `id`, `title` and `description` are
required, a candidate line those of `Candidate`, of which `id` and `text` are; an embedding is a list of numbers, as
long on every line that has one. Attributes are declared by the data's owner; nothing here guesses them. Other formats:
`workable`, `hackernews`.
"""

import dataclasses
from array import array
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ilqljax.data.json_lines import (
    LARGEST_FLOAT32,
    check_spelling,
    read_field,
    read_fields,
    read_json_lines,
    save_json_lines,
)
from ilqljax.errors import UserError


@dataclass(frozen=True)
class Posting:
    """Hold one job posting; fields that are not known are empty."""

    id: str  # unique within its file
    title: str
    description: str  # the posting's text, which the task rewrites
    company: str = ""  # who hires; splits keep a company's postings together
    location: str = ""  # as the posting's owner writes it
    country_code: str = ""  # two letters, upper case
    requirements: str = ""  # what an applicant needs, as text
    remote: bool = False  # whether the work may be done remotely
    group: str = ""  # job family, for targets per group


@dataclass(frozen=True)
class Candidate:
    """Hold one candidate."""

    id: str  # unique within its file
    text: str  # the profile that is matched
    attributes: Mapping[str, str] = field(default_factory=dict)  # declared values by name; "" is unknown
    # The text's vector in float32, from an encoder of the owner's; empty where there is none.
    embedding: array = field(default_factory=lambda: array("f"), repr=False)


class Market(NamedTuple):
    """Hold what a source gave: postings, candidates, the splits it came with (often none), and the files read."""

    postings: list[Posting]
    candidates: list[Candidate]
    splits: dict[str, list[str]]
    files: tuple[Path, ...] = ()


MAX_CHARACTERS = 100_000  # of a posting, all its fields together

Row = TypeVar("Row", Posting, Candidate)
_CANDIDATE = tuple(f.name for f in dataclasses.fields(Candidate))
_POSTING = {f.name: f.type if f.default is dataclasses.MISSING else f.default for f in dataclasses.fields(Posting)}


def normalize_spaces(text: str) -> str:
    """Replace every run of white space by one space and strip both ends."""
    return " ".join(text.split())


def require_text(row: Mapping[str, Any], *names: str, where: str) -> None:
    """Raise a `UserError` if one of the named texts is empty or white space."""
    for name in names:
        if not row[name].strip():
            raise UserError(f"{where}: the field '{name}' is empty. Fill it in or delete the line.")


# A prompt's overhead is about twenty words, so that most of a row's tokens are the posting itself.
INSTRUCTION = "Write a new posting using only this information."
_LABELS = {"Posting": "description"} | {n.capitalize(): n for n in ("title", "company", "location", "requirements")}


def build_prompt(posting: Posting) -> str:
    """Build what the policy reads before it writes a new posting: a short line a fact, without those that are empty.

    A posting "Blue Oak needs a warm nurse." with title "Ward Nurse" and nothing else gives

        Posting: Blue Oak needs a warm nurse.
        Title: Ward Nurse
        Remote: no
        Write a new posting using only this information.
    """
    fields = {label: normalize_spaces(getattr(posting, name)) for label, name in _LABELS.items()}
    fields["Remote"] = "yes" if posting.remote else "no"
    return "\n".join([*(f"{label}: {text}" for label, text in fields.items() if text), INSTRUCTION])


def parse_prompt(prompt: str) -> Posting:
    """Return the posting that a prompt of `build_prompt` states (else a `UserError`); what it lacks is empty."""
    lines = [line.partition(": ") for line in prompt.split("\n")[:-1]]
    values = {label: value for label, separator, value in lines if separator}
    if not values.get("Posting") or prompt.split("\n")[-1] != INSTRUCTION:
        raise UserError(f"{prompt[:60]!r} is not a posting's prompt. Make prompts with build_prompt.")
    known = {name: values.get(label, "") for label, name in _LABELS.items()}
    return Posting(id="", remote=values.get("Remote") == "yes", **known)


def check_size(posting: Posting, *, where: str) -> Posting:
    """Return a posting of at most `MAX_CHARACTERS`; a longer one, which is hardly a posting, is a `UserError`."""
    n = sum(len(value) for value in vars(posting).values() if isinstance(value, str))
    if n > MAX_CHARACTERS:
        raise UserError(
            f"{where}: the posting has {n:,} characters, more than {MAX_CHARACTERS:,}. Shorten or delete it."
        )
    return posting


class VectorReader:
    """Read a file's embeddings, and remember how long the first one was, and where, to refuse another length."""

    def __init__(self):
        self._width, self._place = 0, ""

    def read(self, row: Mapping[str, Any], *, where: str) -> array:
        """Return the embedding in float32, empty if it is absent or null; what float32 cannot hold is a `UserError`."""
        if row.get("embedding") is None:
            return array("f")
        values = read_field(row, "embedding", kind=list, where=where)
        wrong = [v for v in values if type(v) not in (int, float) or not abs(v) <= LARGEST_FLOAT32]
        if wrong or not values:
            found = f"holds {wrong[0]!r:.60}" if values else "is empty"
            raise UserError(
                f"{where}: the field 'embedding' {found}. It must be a list of finite numbers, or be left out."
            )
        if not self._width:
            self._width, self._place = len(values), where
        if len(values) != self._width:
            raise UserError(
                f"{where}: the embedding has {len(values)} numbers, and the one at {self._place} has {self._width}. "
                "All must come from one encoder."
            )
        return array("f", values)


def read_rows(
    rows: Iterable[tuple[str, Mapping[str, Any]]], read: Callable[..., Row], *, name: str, path: str | Path
) -> list[Row]:
    """Read postings or candidates; a `UserError` if there is none, two have the same id, or a posting is too long.

    `rows` has where each stands and what it holds; `read` makes a posting or candidate, which `name` calls, of them.
    """
    found, place_of = [], {}
    for where, row in rows:
        found.append(read(row, where=where))
        if isinstance(found[-1], Posting):
            check_size(found[-1], where=where)
        first = place_of.setdefault(found[-1].id, where)
        if len(place_of) < len(found):
            raise UserError(
                f"{where}: the id '{found[-1].id}' was already used at {first}. Ids must be unique: rename or delete "
                "one of the two lines."
            )
    return require_rows(found, name=name, path=path)


def require_rows(rows: list, *, name: str, path: str | Path) -> list:
    """Return the rows, or raise a `UserError` if the file held none."""
    if not rows:
        raise UserError(f"{path}: holds no {name}. Give a file with at least one {name}.")
    return rows


def list_dataset(folder: Path) -> Iterable[tuple[str, dict[str, Any]]]:
    """Yield where it stands and what it holds of each row of a saved Hugging Face dataset; a row's number is its id.

    Raises:
        UserError: the folder is missing or is not a dataset, or the package `datasets` is not installed.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder. Expected a Hugging Face dataset written by Dataset.save_to_disk.")
    try:
        import datasets  # optional and slow to import, so only when it is needed
    except ImportError as error:
        raise UserError(f"{folder}: reading it needs the package 'datasets'. Run: pip install 'ilqljax[hf]'") from error
    try:
        rows = datasets.load_from_disk(str(folder))
    except (FileNotFoundError, ValueError) as error:
        raise UserError(f"{folder}: is not a dataset written by Dataset.save_to_disk ({error}).") from error
    return ((f"{folder}: row {number}", {**row, "id": str(number)}) for number, row in enumerate(rows))


def parse_posting(row: Mapping[str, Any], *, where: str) -> Posting:
    """Read a posting from an object of `jobs.jsonl`; a missing, wrong, misspelt or empty field raises a `UserError`."""
    check_spelling(row, _POSTING, where=where)
    values = read_fields(row, _POSTING, where=where)
    require_text(values, "id", "description", where=where)
    return Posting(**values)


def load_postings(path: str | Path) -> list[Posting]:
    """Load `jobs.jsonl`; the errors are those of `parse_posting` and `read_rows`."""
    return read_rows(read_json_lines(path), parse_posting, name="posting", path=path)


def load_candidates(path: str | Path) -> list[Candidate]:
    """Load `candidates.jsonl`; a `UserError` as of `load_postings`, or for embeddings of unequal length."""
    vectors = VectorReader()

    def read(row: Mapping[str, Any], *, where: str) -> Candidate:
        check_spelling(row, _CANDIDATE, where=where)
        values = read_fields(row, {"id": str, "text": str, "attributes": {}}, where=where)
        require_text(values, "id", "text", where=where)
        declared = dict.fromkeys(values["attributes"], "")
        attributes = read_fields(values["attributes"], declared, where=f"{where}: attributes")
        return Candidate(values["id"], values["text"], attributes, vectors.read(row, where=where))

    return read_rows(read_json_lines(path), read, name="candidate", path=path)


def save_postings(path: str | Path, postings: Iterable[Posting]) -> None:
    """Write `jobs.jsonl`, whole or not at all."""
    save_json_lines(path, map(asdict, postings))


def save_candidates(path: str | Path, candidates: Iterable[Candidate]) -> None:
    """Write `candidates.jsonl`, whole or not at all."""
    rows = []
    for candidate in candidates:
        rows.append({"id": candidate.id, "text": candidate.text, "attributes": dict(candidate.attributes)})
        if candidate.embedding:  # nine digits tell float32 apart
            rows[-1]["embedding"] = [float(f"{value:.9g}") for value in candidate.embedding]
    save_json_lines(path, rows)
