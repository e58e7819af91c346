"""Read Workable's data: the raw JSONL, or the original project's prepared Hugging Face datasets.

Raw (`dataset.v1.location.jsonl`): one job a line with three lists of candidates. The same applicant appears under
many jobs and is kept once, by `applicant_id`, with the first profile and the country that any record declares; who
declares two has none, with a warning. HTML is turned into text. A candidate's only declared attribute is `location`,
their country code.

Prepared: a folder with `job_descriptions_w_q_prompt_eng` and `candidates_w_main_location` (datasets saved to disk) and
`train_idxs.json`, `test_idxs.json`, `eval_idxs.json` (lists of row numbers of the jobs).
"""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from ilqljax.data.files import read_json
from ilqljax.data.json_lines import read_field, read_json_lines
from ilqljax.errors import UserError
from ilqljax.hiring.postings.html import strip_html
from ilqljax.hiring.postings.posting import (
    Candidate,
    Posting,
    SeenIds,
    VectorWidths,
    load_saved_dataset,
    normalize_spaces,
    read_vector,
    require_rows,
    require_text,
)

logger = logging.getLogger(__name__)

RAW_KEYS = frozenset({"job", "candidates"})
CANDIDATE_LISTS = ("candidates", "candidates_same_function", "candidates_different_function")
JOBS_FOLDER = "job_descriptions_w_q_prompt_eng"
CANDIDATES_FOLDER = "candidates_w_main_location"
SPLIT_FILES = {"train": "train_idxs.json", "test": "test_idxs.json", "eval": "eval_idxs.json"}


class PreparedWorkable(NamedTuple):
    """Hold prepared data: postings, candidates, and the ids of each split that came with an index file."""

    postings: list[Posting]
    candidates: list[Candidate]
    splits: dict[str, list[str]]


def describe_candidate(experiences: list, educations: list, *, where: str) -> str:
    """Return a profile text made of the experiences ("Nurse at X") and educations ("Biology at Y"), or ""."""
    sentences = []
    for rows, subject, place in ((experiences, "title", "company"), (educations, "field_of_study", "school_name")):
        for row in rows:
            if not isinstance(row, Mapping):
                raise UserError(f"{where}: experiences and educations must list objects, got {row!r:.60}.")
            parts = [normalize_spaces(read_field(row, n, kind=str, where=where, default="")) for n in (subject, place)]
            sentence = " at ".join(part for part in parts if part)
            if sentence:
                sentences.append(f"{sentence}.")
    return " ".join(dict.fromkeys(sentences))


def load_raw_workable(path: str | Path) -> tuple[list[Posting], list[Candidate]]:
    """Load the raw file: one posting a line, and every applicant once, in order of first appearance.

    A candidate without any experience or education has no text to match and is left out.

    Raises:
        UserError: missing file, malformed line, missing or wrong field, empty description, duplicate id, no job or no
            candidate.
    """
    seen, postings, candidates = SeenIds(), [], {}
    countries: dict[str, set[str]] = {}
    for number, row in read_json_lines(path):
        where = f"{path}:{number}"
        postings.append(_read_raw_job(read_field(row, "job", kind=dict, where=where), seen=seen, where=f"{where}: job"))
        for list_name in CANDIDATE_LISTS:
            required = {} if list_name == "candidates" else {"default": []}
            for applicant in read_field(row, list_name, kind=list, where=where, **required):
                if not isinstance(applicant, Mapping):
                    raise UserError(f"{where}: '{list_name}' must list objects, got {applicant!r:.60}.")
                candidate = _read_raw_candidate(applicant, where=f"{where}: {list_name}")
                if candidate.text:
                    candidates.setdefault(candidate.id, candidate)
                if country := candidate.attributes["location"]:
                    countries.setdefault(candidate.id, set()).add(country)
    torn = [name for name in candidates if len(countries.get(name, ())) > 1]
    if torn:
        declared = ", ".join(sorted(countries[torn[0]]))
        logger.warning(
            "%s: %d applicants declare several countries and count as unknown, first %r: %s",
            path,
            len(torn),
            torn[0],
            declared,
        )
    require_rows(postings, name="job", path=path)
    one = {name: next(iter(found)) for name, found in countries.items() if len(found) == 1}
    people = [replace(c, attributes={"location": one.get(c.id, "")}) for c in candidates.values()]
    return postings, require_rows(people, name="candidate with an experience or education", path=path)


def _read_raw_job(job: Mapping[str, Any], *, seen: SeenIds, where: str) -> Posting:
    text = {
        name: read_field(job, name, kind=str, where=where, default="")
        for name in ("account_name", "account_id", "requirement_summary", "function")
    }
    country = _read_country(job, "job_country_code", where=where)
    description = strip_html(read_field(job, "description", kind=str, where=where))
    remote = job.get("remote")
    if remote not in (None, True, False, 0, 1):
        raise UserError(f"{where}: the field 'remote' must be true or false, got {remote!r:.60}.")
    return Posting(
        id=seen.add(read_field(job, "id", kind=str, where=where), where=where),
        title=normalize_spaces(read_field(job, "title", kind=str, where=where)),
        description=require_text(description, name="description", where=where),
        company=normalize_spaces(text["account_name"]) or text["account_id"],
        location=country,
        country_code=country,
        requirements=normalize_spaces(strip_html(text["requirement_summary"])),
        remote=bool(remote),
        group=normalize_spaces(text["function"]),
    )


def _read_raw_candidate(row: Mapping[str, Any], *, where: str) -> Candidate:
    applicant_id = read_field(row, "applicant_id", kind=str, where=where)
    where = f"{where}: applicant '{applicant_id}'"
    text = describe_candidate(
        read_field(row, "experiences", kind=list, where=where, default=[]),
        read_field(row, "educations", kind=list, where=where, default=[]),
        where=where,
    )
    return Candidate(applicant_id, text, {"location": _read_country(row, "country_code", where=where)})


def _read_country(row: Mapping[str, Any], name: str, *, where: str) -> str:
    return read_field(row, name, kind=str, where=where, default="").strip().upper()


def load_prepared_workable(folder: str | Path) -> PreparedWorkable:
    """Load the prepared folder (module docstring); index files that are not there give no split.

    Raises:
        UserError: `datasets` is not installed, a folder or column is missing, or an index file does not fit.
    """
    folder = Path(folder)
    jobs, people = load_saved_dataset(folder / JOBS_FOLDER), load_saved_dataset(folder / CANDIDATES_FOLDER)
    postings = []
    for number, row in enumerate(jobs):
        where = f"{folder / JOBS_FOLDER}: row {number}"
        description = strip_html(read_field(row, "description", kind=str, where=where))
        country = _read_country(row, "job_country_code", where=where)
        postings.append(
            Posting(
                id=str(number),
                title=read_field(row, "title", kind=str, where=where, default=""),
                description=require_text(description, name="description", where=where),
                company=read_field(row, "account_name", kind=str, where=where, default=""),
                location=country,
                country_code=country,
            )
        )
    candidates, widths = [], VectorWidths()
    for number, row in enumerate(people):
        where = f"{folder / CANDIDATES_FOLDER}: row {number}"
        text = read_field(row, "profile_description", kind=str, where=where)
        place = read_field(row, "Main_location", kind=str, where=where, default="").strip()
        text = require_text(text, name="profile_description", where=where)
        vector = widths.check(read_vector(row, "embedding", where=where), where=where)
        candidates.append(Candidate(str(number), text, {"location": place}, vector))
    require_rows(postings, name="posting", path=folder / JOBS_FOLDER)
    require_rows(candidates, name="candidate", path=folder / CANDIDATES_FOLDER)
    return PreparedWorkable(postings, candidates, _load_split_indices(folder, n_postings=len(postings)))


def _load_split_indices(folder: Path, *, n_postings: int) -> dict[str, list[str]]:
    splits = {}
    for name, file in SPLIT_FILES.items():
        path = folder / file
        if not path.is_file():
            continue
        rows = read_json(path, kind=list, advice="It must be a JSON list of row numbers.")
        if not all(type(r) is int and 0 <= r < n_postings for r in rows):
            raise UserError(f"{path}: must be a JSON list of row numbers from 0 to {n_postings - 1}.")
        splits[name] = [str(row) for row in dict.fromkeys(rows)]
    return splits
