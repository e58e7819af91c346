"""Workable's raw lines, and the prepared folder without its optional package."""

import json
import sys
from types import SimpleNamespace

import pytest

from ilqljax.errors import UserError
from ilqljax.hiring.postings.workable import load_prepared_workable, load_raw_workable

NURSE = {
    "applicant_id": 1,
    "country_code": "GB",
    "experiences": [{"title": "Nurse", "company": "Blue Oak", "current": True}],
    "educations": [{"field_of_study": "Biology", "school_name": None}],
}
JOB = {
    "id": "j1",
    "account_id": "acc",
    "account_name": "Blue Oak",
    "title": "Ward Nurse",
    "description": "<p>Lead &amp; care.</p><script>bad()</script><ul><li>Plan</li></ul>",
    "requirement_summary": None,
    "remote": False,
    "function": "Health",
    "job_country_code": "GB",
}
LINE = {"job": JOB, "candidates": [NURSE], "candidates_same_function": [NURSE], "candidates_different_function": []}


def write(tmp_path, *rows):
    path = tmp_path / "raw.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_country_codes_are_written_alike(tmp_path):
    job = JOB | {"job_country_code": " gb "}
    (posting,), (candidate,) = load_raw_workable(
        write(tmp_path, {"job": job, "candidates": [NURSE | {"country_code": "gb "}]})
    )
    assert (posting.location, posting.country_code, candidate.attributes["location"]) == ("GB", "GB", "GB")


def test_job_with_a_blank_country_has_none(tmp_path):
    (posting,), _ = load_raw_workable(write(tmp_path, LINE | {"job": JOB | {"job_country_code": "  "}}))
    assert (posting.location, posting.country_code) == ("", "")


@pytest.mark.parametrize("first", [NURSE | {"country_code": None}, {"applicant_id": 1, "country_code": "gb"}])
def test_country_of_an_applicant_is_taken_from_any_record(tmp_path, first):
    second = LINE | {"job": JOB | {"id": "j2"}}
    _, candidates = load_raw_workable(write(tmp_path, {"job": JOB, "candidates": [first]}, second))
    assert [c.attributes for c in candidates] == [{"location": "GB"}]


def test_applicants_of_two_countries_have_none(tmp_path, caplog):
    people = [NURSE | {"applicant_id": number, "country_code": "GR"} for number in (1, 2)]
    moved = [person | {"country_code": "FR"} for person in people]
    rows = [LINE, {"job": JOB | {"id": "j2"}, "candidates": people}, {"job": JOB | {"id": "j3"}, "candidates": moved}]
    with caplog.at_level("WARNING"):
        _, people = load_raw_workable(write(tmp_path, *rows))
    assert {person.id: person.attributes["location"] for person in people} == {"1": "", "2": ""}
    assert "2 applicants declare several countries and count as unknown, first '1': FR, GB, GR" in caplog.text


def test_raw_job_fields_are_read(tmp_path):
    (posting,), _ = load_raw_workable(write(tmp_path, LINE))
    assert posting.description == "Lead & care.\nPlan"
    assert (posting.company, posting.country_code, posting.group, posting.requirements) == (
        "Blue Oak",
        "GB",
        "Health",
        "",
    )


def test_applicant_in_many_lists_is_one_candidate_with_a_profile(tmp_path):
    _, candidates = load_raw_workable(write(tmp_path, LINE, LINE | {"job": JOB | {"id": "j2"}}))
    (candidate,) = candidates
    assert (candidate.id, candidate.text, candidate.attributes) == (
        "1",
        "Nurse at Blue Oak. Biology.",
        {"location": "GB"},
    )


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"job": JOB}, r"raw\.jsonl:1: the field 'candidates' is missing"),
        (LINE | {"job": JOB | {"description": "<p> </p>"}}, r"raw\.jsonl:1: job: the field 'description' is empty"),
        (LINE | {"job": JOB | {"remote": "no"}}, r"raw\.jsonl:1: job: the field 'remote' must be true or false"),
        (LINE | {"candidates": [3]}, r"raw\.jsonl:1: 'candidates' must list objects"),
        (LINE | {"candidates": [{"country": "x"}]}, r"raw\.jsonl:1: candidates: the field 'applicant_id' is missing"),
        ({"job": JOB, "candidates": []}, r"raw\.jsonl: holds no candidate with an experience or education"),
    ],
)
def test_bad_raw_line_is_refused(tmp_path, row, message):
    with pytest.raises(UserError, match=message):
        load_raw_workable(write(tmp_path, row))


def make_prepared_folder(tmp_path, monkeypatch, *, country="GB"):
    """Stand in for the package `datasets`, which the core does not install."""
    tables = {
        "job_descriptions_w_q_prompt_eng": [
            {"description": "Care.", "prompt": "p", "q_value": -3.0, "job_country_code": country},
            {"description": "Cook.", "prompt": "p", "q_value": -3.0, "job_country_code": None},
        ],
        "candidates_w_main_location": [
            {"profile_description": "Nurse.", "Location": "GB", "Main_location": f"{country} "}
        ],
    }
    for name in tables:
        (tmp_path / name).mkdir()
    fake = SimpleNamespace(load_from_disk=lambda folder: tables[folder.rsplit("/", 1)[1]])
    monkeypatch.setitem(sys.modules, "datasets", fake)
    return tmp_path


def test_prepared_folder_is_read_with_its_index_files(tmp_path, monkeypatch):
    folder = make_prepared_folder(tmp_path, monkeypatch)
    (folder / "train_idxs.json").write_text("[1]")
    (folder / "test_idxs.json").write_text("[0]")
    prepared = load_prepared_workable(folder)
    assert [p.description for p in prepared.postings] == ["Care.", "Cook."]
    assert prepared.candidates[0].attributes == {"location": "GB"}
    assert prepared.splits == {"train": ["1"], "test": ["0"]}


def test_prepared_countries_are_written_alike(tmp_path, monkeypatch):
    prepared = load_prepared_workable(make_prepared_folder(tmp_path, monkeypatch, country=" gb"))
    assert [p.country_code for p in prepared.postings] == ["GB", ""]
    assert prepared.candidates[0].attributes == {"location": "gb"}  # a code or a name, as its owner writes it


def test_row_number_outside_the_dataset_is_refused(tmp_path, monkeypatch):
    folder = make_prepared_folder(tmp_path, monkeypatch)
    (folder / "eval_idxs.json").write_text("[2]")
    with pytest.raises(UserError, match=r"eval_idxs\.json: must be a JSON list of row numbers from 0 to 1"):
        load_prepared_workable(folder)


def test_missing_datasets_package_names_the_extra(tmp_path, monkeypatch):
    (tmp_path / "job_descriptions_w_q_prompt_eng").mkdir()
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"pip install 'ilqljax\[hf\]'"):
        load_prepared_workable(tmp_path)
