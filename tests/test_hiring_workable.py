"""Workable's raw lines, and the prepared folder without its optional package."""

import json
import sys
from types import SimpleNamespace

import pytest

from ilqljax.errors import UserError
from ilqljax.tasks.hiring.workable import load_prepared_workable, load_raw_workable, strip_html

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


def test_html_becomes_lines_of_text_without_scripts():
    assert (
        strip_html("<p>Lead &amp;\n care.</p><style>p{}</style><ul><li>Pl<b>an</b></li></ul>") == "Lead & care.\nPlan"
    )


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


def make_prepared_folder(tmp_path, monkeypatch):
    """Stand in for the package `datasets`, which the core does not install."""
    tables = {
        "job_descriptions_w_q_prompt_eng": [
            {"description": "Care.", "prompt": "p", "q_value": -3.0, "job_country_code": "GB"},
            {"description": "Cook.", "prompt": "p", "q_value": -3.0, "job_country_code": None},
        ],
        "candidates_w_main_location": [{"profile_description": "Nurse.", "Location": "GB", "Main_location": "GB"}],
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
