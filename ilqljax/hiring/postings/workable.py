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
from typing import Any

from ilqljax.data.files import read_json
from ilqljax.data.json_lines import read_field, read_fields, read_json_lines, read_objects
from ilqljax.errors import UserError
from ilqljax.hiring.postings.html import strip_html
from ilqljax.hiring.postings.posting import (
    Candidate,
    Market,
    Posting,
    VectorReader,
    list_dataset,
    normalize_spaces,
    read_rows,
    require_rows,
    require_text,
)

logger = logging.getLogger(__name__)

RAW_KEYS = frozenset({"job", "candidates"})
CANDIDATE_LISTS = ("candidates", "candidates_same_function", "candidates_different_function")
JOBS_FOLDER = "job_descriptions_w_q_prompt_eng"
CANDIDATES_FOLDER = "candidates_w_main_location"
PROFILE = {"experiences": ("title", "company"), "educations": ("field_of_study", "school_name")}
SPLIT_FILES = {"train": "train_idxs.json", "test": "test_idxs.json", "eval": "eval_idxs.json"}


def load_raw_workable(path: str | Path) -> tuple[list[Posting], list[Candidate]]:
    """Load the raw file: one posting a line, and every applicant once, in order of first appearance.

    A candidate without any experience or education has no text to match and is left out; a `UserError` if none is left.
    """
    candidates: dict[str, Candidate] = {}
    countries: dict[str, set[str]] = {}

    def read(row: Mapping[str, Any], *, where: str) -> Posting:
        for list_name in CANDIDATE_LISTS:
            required = {} if list_name == "candidates" else {"default": []}
            for applicant in read_objects(row, list_name, where=where, **required):
                candidate = _read_candidate(applicant, where=f"{where}: {list_name}")
                if candidate.text:
                    candidates.setdefault(candidate.id, candidate)
                if country := candidate.attributes["location"]:
                    countries.setdefault(candidate.id, set()).add(country)
        return _read_job(read_field(row, "job", kind=dict, where=where), where=f"{where}: job")

    postings = read_rows(read_json_lines(path), read, name="job", path=path)
    torn = [name for name in candidates if len(countries.get(name, ())) > 1]
    if torn:
        message = "%s: %d applicants declare several countries and count as unknown, first %r: %s"
        logger.warning(message, path, len(torn), torn[0], ", ".join(sorted(countries[torn[0]])))
    one = {name: next(iter(found)) for name, found in countries.items() if len(found) == 1}
    people = [replace(c, attributes={"location": one.get(c.id, "")}) for c in candidates.values()]
    return postings, require_rows(people, name="candidate with an experience or education", path=path)


def _read_job(job: Mapping[str, Any], *, where: str) -> Posting:
    optional = dict.fromkeys(("account_name", "account_id", "requirement_summary", "function", "job_country_code"), "")
    values = read_fields(job, {"description": str, "id": str, "title": str, **optional}, where=where)
    values["description"] = strip_html(values["description"])
    require_text(values, "description", where=where)
    if job.get("remote") not in (None, True, False, 0, 1):
        raise UserError(f"{where}: the field 'remote' must be true or false, got {job['remote']!r:.60}.")
    country = values["job_country_code"].strip().upper()
    return Posting(
        id=values["id"],
        title=normalize_spaces(values["title"]),
        description=values["description"],
        company=normalize_spaces(values["account_name"]) or values["account_id"],
        location=country,
        country_code=country,
        requirements=normalize_spaces(strip_html(values["requirement_summary"])),
        remote=bool(job.get("remote")),
        group=normalize_spaces(values["function"]),
    )


def _read_candidate(row: Mapping[str, Any], *, where: str) -> Candidate:
    """Read an applicant, whose text is their experiences ("Nurse at X") and educations ("Biology at Y")."""
    values = read_fields(row, {"applicant_id": str, "country_code": ""}, where=where)
    where = f"{where}: applicant '{values['applicant_id']}'"
    sentences = []
    for name, columns in PROFILE.items():
        for entry in read_objects(row, name, where=where, default=[]):
            parts = map(normalize_spaces, read_fields(entry, dict.fromkeys(columns, ""), where=where).values())
            sentences.append(" at ".join(part for part in parts if part))
    text = " ".join(f"{sentence}." for sentence in dict.fromkeys(sentences) if sentence)
    return Candidate(values["applicant_id"], text, {"location": values["country_code"].strip().upper()})


def load_prepared_workable(folder: str | Path) -> Market:
    """Load the prepared folder (module docstring); index files that are not there give no split.

    Raises:
        UserError: `datasets` is not installed, a folder or column is missing, or an index file does not fit.
    """
    folder, vectors = Path(folder), VectorReader()
    jobs, people = folder / JOBS_FOLDER, folder / CANDIDATES_FOLDER

    def read_job(row: Mapping[str, Any], *, where: str) -> Posting:
        schema = {"description": str, "id": str, "title": "", "account_name": "", "job_country_code": ""}
        values = read_fields(row, schema, where=where)
        values["description"] = strip_html(values["description"])
        require_text(values, "description", where=where)
        place = values["job_country_code"].strip().upper()
        return Posting(values["id"], values["title"], values["description"], values["account_name"], place, place)

    def read_candidate(row: Mapping[str, Any], *, where: str) -> Candidate:
        values = read_fields(row, {"id": str, "profile_description": str, "Main_location": ""}, where=where)
        require_text(values, "profile_description", where=where)
        place, vector = values["Main_location"].strip(), vectors.read(row, where=where)
        return Candidate(values["id"], values["profile_description"], {"location": place}, vector)

    rows = list_dataset(jobs), list_dataset(people)
    postings = read_rows(rows[0], read_job, name="posting", path=jobs)
    candidates = read_rows(rows[1], read_candidate, name="candidate", path=people)
    splits = {}
    for name, file in SPLIT_FILES.items():
        if (folder / file).is_file():
            numbers = read_json(folder / file, kind=list, advice="It must be a JSON list of row numbers.")
            if not all(type(n) is int and 0 <= n < len(postings) for n in numbers):
                raise UserError(f"{folder / file}: must be a JSON list of row numbers from 0 to {len(postings) - 1}.")
            splits[name] = [str(number) for number in dict.fromkeys(numbers)]
    return Market(postings, candidates, splits)
