"""Read and write the task's own two files: `jobs.jsonl` and `candidates.jsonl` (each may be gzipped).

A job line holds `id`, `title`, `description` and optionally `company`, `location`, `country_code`, `requirements`,
`remote`, `group`. A candidate line holds `id`, `text` and `attributes`, a mapping from an attribute's name to its
declared value ("" means unknown), and optionally `embedding`, the text's vector as a list of numbers, as long on every
line that has one. Attributes are declared by the data's owner; nothing here guesses them. Other formats: `workable`,
`hackernews`.
"""

from array import array
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ilqljax.data.json_lines import LARGEST_FLOAT32, read_field, read_json_lines, save_json_lines
from ilqljax.errors import UserError


@dataclass(frozen=True)
class Posting:
    """Hold one job posting; fields that are not known are empty.

    Attributes:
        id: unique within its file.
        title: job title.
        description: the posting's text, which the task rewrites.
        company: who hires; splits keep a company's postings together.
        location: place as the posting's owner writes it.
        country_code: two letters, upper case.
        requirements: what an applicant needs, as text.
        remote: whether the work may be done remotely.
        group: job family, for targets per group.
    """

    id: str
    title: str
    description: str
    company: str = ""
    location: str = ""
    country_code: str = ""
    requirements: str = ""
    remote: bool = False
    group: str = ""


@dataclass(frozen=True)
class Candidate:
    """Hold one candidate.

    Attributes:
        id: unique within its file.
        text: the profile that is matched.
        attributes: declared values by name; "" is unknown.
        embedding: the text's vector in float32, from an encoder of the owner's; empty where there is none.
    """

    id: str
    text: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    embedding: array = field(default_factory=lambda: array("f"), repr=False)


def normalize_spaces(text: str) -> str:
    """Replace every run of white space by one space and strip both ends."""
    return " ".join(text.split())


def read_vector(row: Mapping[str, Any], name: str, *, where: str) -> array:
    """Return `row[name]`, a list of numbers, in float32; an empty array if it is absent or null.

    Raises:
        UserError: it is empty or not a list, or an item is not a number, not finite, or too large for float32.
    """
    if row.get(name) is None:
        return array("f")
    values = read_field(row, name, kind=list, where=where)
    wrong = next((v for v in values if type(v) not in (int, float) or not abs(v) <= LARGEST_FLOAT32), None)
    if wrong is not None or not values:
        found = f"holds {wrong!r:.60}" if values else "is empty"
        raise UserError(f"{where}: the field '{name}' {found}. It must be a list of finite numbers, or be left out.")
    return array("f", values)


class VectorWidths:
    """Remember how long a file's vectors are and where the first one was, to refuse another length."""

    def __init__(self):
        self._width, self._place = 0, ""

    def check(self, vector: array, *, where: str) -> array:
        """Return the vector; raise a `UserError` naming both places if it is of another length than the first one."""
        if vector and not self._width:
            self._width, self._place = len(vector), where
        if vector and len(vector) != self._width:
            raise UserError(
                f"{where}: the embedding has {len(vector)} numbers, and the one at {self._place} has {self._width}. "
                "All must come from one encoder."
            )
        return vector


def require_text(text: str, *, name: str, where: str) -> str:
    """Return the text unchanged, or raise a `UserError` if it is empty or white space."""
    if not text.strip():
        raise UserError(f"{where}: the field '{name}' is empty. Fill it in or delete the line.")
    return text


class SeenIds:
    """Remember the ids of a file and where each was first seen, to refuse a second one."""

    def __init__(self):
        self._places: dict[str, str] = {}

    def add(self, row_id: str, *, where: str) -> str:
        """Record an id; raise a `UserError` naming both places if it is a duplicate."""
        if row_id in self._places:
            raise UserError(
                f"{where}: the id '{row_id}' was already used at {self._places[row_id]}. Ids must be unique: "
                "rename or delete one of the two lines."
            )
        self._places[row_id] = where
        return row_id


def parse_posting(row: Mapping[str, Any], *, where: str) -> Posting:
    """Read a posting from an object of `jobs.jsonl`.

    Raises:
        UserError: a missing or wrong field, or an empty id or description; `where` says where it stands.
    """
    values = {
        name: read_field(row, name, kind=str, where=where, default="")
        for name in ("company", "location", "country_code", "requirements", "group")
    }
    return Posting(
        id=require_text(read_field(row, "id", kind=str, where=where), name="id", where=where),
        title=read_field(row, "title", kind=str, where=where),
        description=require_text(
            read_field(row, "description", kind=str, where=where), name="description", where=where
        ),
        remote=read_field(row, "remote", kind=bool, where=where, default=False),
        **values,
    )


def load_postings(path: str | Path) -> list[Posting]:
    """Load `jobs.jsonl`.

    Raises:
        UserError: missing file, malformed line, missing or wrong field, empty description, duplicate id, or no line.
    """
    seen, postings = SeenIds(), []
    for number, row in read_json_lines(path):
        where = f"{path}:{number}"
        posting = parse_posting(row, where=where)
        seen.add(posting.id, where=where)
        postings.append(posting)
    return require_rows(postings, name="posting", path=path)


def load_candidates(path: str | Path) -> list[Candidate]:
    """Load `candidates.jsonl`.

    Raises:
        UserError: missing file, malformed line, missing or wrong field, empty text, duplicate id, embeddings of unequal
            length, or no candidate.
    """
    seen, widths, candidates = SeenIds(), VectorWidths(), []
    for number, row in read_json_lines(path):
        where = f"{path}:{number}"
        candidate_id = require_text(read_field(row, "id", kind=str, where=where), name="id", where=where)
        attributes = read_field(row, "attributes", kind=dict, where=where, default={})
        candidates.append(
            Candidate(
                id=seen.add(candidate_id, where=where),
                text=require_text(read_field(row, "text", kind=str, where=where), name="text", where=where),
                attributes={
                    name: read_field(attributes, name, kind=str, where=f"{where}: attributes", default="")
                    for name in attributes
                },
                embedding=widths.check(read_vector(row, "embedding", where=where), where=where),
            )
        )
    return require_rows(candidates, name="candidate", path=path)


def load_saved_dataset(folder: Path) -> Any:
    """Load a Hugging Face dataset that was saved to disk.

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
        return datasets.load_from_disk(str(folder))
    except (FileNotFoundError, ValueError) as error:
        raise UserError(f"{folder}: is not a dataset written by Dataset.save_to_disk ({error}).") from error


def require_rows(rows: list, *, name: str, path: str | Path) -> list:
    """Return the rows, or raise a `UserError` if the file held none."""
    if not rows:
        raise UserError(f"{path}: holds no {name}. Give a file with at least one {name}.")
    return rows


def save_postings(path: str | Path, postings: Iterable[Posting]) -> None:
    """Write `jobs.jsonl`, whole or not at all."""
    save_json_lines(path, map(asdict, postings))


def save_candidates(path: str | Path, candidates: Iterable[Candidate]) -> None:
    """Write `candidates.jsonl`, whole or not at all."""
    save_json_lines(path, map(_describe_candidate, candidates))


def _describe_candidate(candidate: Candidate) -> dict[str, Any]:
    row = {"id": candidate.id, "text": candidate.text, "attributes": dict(candidate.attributes)}
    if candidate.embedding:
        row["embedding"] = [float(f"{value:.9g}") for value in candidate.embedding]  # nine digits tell float32 apart
    return row
