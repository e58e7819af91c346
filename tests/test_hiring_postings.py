"""The task's own files, and what each mistake in them says."""

import gzip
import json

import numpy as np
import pytest

from ilqljax.errors import UserError
from ilqljax.hiring.postings.posting import (
    Candidate,
    Posting,
    load_candidates,
    load_postings,
    save_candidates,
    save_postings,
)

JOB = {"id": "a", "title": "Nurse", "description": "Care for patients."}
PERSON = {"id": "c", "text": "I am a nurse.", "attributes": {"gender": "female"}}


def write_lines(path, *rows):
    path.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8"
    )
    return path


def test_saved_postings_load_equal(tmp_path):
    postings = [Posting("1", "T", "Text – ü", "C", "Leeds", "GB", "R", True, "g"), Posting("2", "T", "Other")]
    save_postings(tmp_path / "jobs.jsonl", postings)
    assert load_postings(tmp_path / "jobs.jsonl") == postings


def test_saved_candidates_load_equal(tmp_path):
    candidates = [Candidate("1", "text", {"gender": "female", "region": ""})]
    save_candidates(tmp_path / "c.jsonl", candidates)
    assert load_candidates(tmp_path / "c.jsonl") == candidates


def test_gzipped_file_blank_lines_and_number_ids_are_accepted(tmp_path):
    path = tmp_path / "jobs.jsonl.gz"
    path.write_bytes(gzip.compress(("\n" + json.dumps(JOB | {"id": 7}) + "\n\n").encode()))
    assert [p.id for p in load_postings(path)] == ["7"]


def test_null_optional_fields_are_empty(tmp_path):
    (posting,) = load_postings(write_lines(tmp_path / "j.jsonl", JOB | {"company": None, "remote": None}))
    assert (posting.company, posting.remote) == ("", False)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([JOB, '{"id": "b", '], r"j\.jsonl:2: not JSON at column"),
        ([JOB, "[1]"], r"j\.jsonl:2: expected a JSON object"),
        (
            [{"id": "a", "description": "x"}],
            r"j\.jsonl:1: the field 'title' is missing; this line has \['description', 'id'\]",
        ),
        ([JOB | {"description": ["x"]}], r"j\.jsonl:1: the field 'description' must be text"),
        ([JOB | {"remote": "yes"}], r"j\.jsonl:1: the field 'remote' must be true or false"),
        ([JOB, JOB | {"id": "b", "description": " \n"}], r"j\.jsonl:2: the field 'description' is empty"),
        ([JOB | {"id": ""}], r"j\.jsonl:1: the field 'id' is empty"),
        ([JOB, "", JOB], r"j\.jsonl:3: the id 'a' was already used at .*j\.jsonl:1"),
        (["[" * 100_000], r"j\.jsonl:1: not JSON that we can read \(.*recursion"),
        (['{"id": ' + "1" * 5000 + "}"], r"j\.jsonl:1: not JSON that we can read \(.*digits"),
        ([], r"j\.jsonl: holds no posting"),
    ],
)
def test_bad_posting_line_is_refused(tmp_path, lines, message):
    with pytest.raises(UserError, match=message):
        load_postings(write_lines(tmp_path / "j.jsonl", *lines))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], r"c\.jsonl: holds no candidate"),
        ([PERSON | {"text": ""}], r"c\.jsonl:1: the field 'text' is empty"),
        ([PERSON, PERSON], r"c\.jsonl:2: the id 'c' was already used"),
        ([PERSON | {"attributes": ["female"]}], r"c\.jsonl:1: the field 'attributes' must be an object"),
        ([PERSON | {"attributes": {"gender": 0.5}}], r"c\.jsonl:1: attributes: the field 'gender' must be text"),
    ],
)
def test_bad_candidate_line_is_refused(tmp_path, lines, message):
    with pytest.raises(UserError, match=message):
        load_candidates(write_lines(tmp_path / "c.jsonl", *lines))


def test_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.jsonl: no such file\. Give a"):
        load_postings(tmp_path / "nowhere.jsonl")


def test_bytes_that_are_not_utf8_name_line_and_remedy(tmp_path):
    path = tmp_path / "j.jsonl"
    path.write_bytes(json.dumps(JOB).encode() + b'\n{"id": "b", "title": "\xe9"}\n')
    with pytest.raises(UserError, match=r"j\.jsonl:2: byte 22 is not UTF-8.*iconv"):
        load_postings(path)


def test_cut_gzip_file_is_refused(tmp_path):
    path = tmp_path / "j.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(JOB).encode() * 100)[:-12])
    with pytest.raises(UserError, match=r"j\.jsonl\.gz:\d+: not a complete gzip file"):
        load_postings(path)


def test_gzip_file_with_a_flipped_bit_is_refused_or_read_as_it_was(tmp_path):
    path, rng = tmp_path / "j.jsonl.gz", np.random.default_rng(0)
    lines = "\n".join(json.dumps(JOB | {"id": str(i)}) for i in range(50)).encode()
    path.write_bytes(gzip.compress(lines, mtime=0))
    whole, written, refused = load_postings(path), path.read_bytes(), 0
    for at in rng.choice(len(written) * 8, size=100, replace=False):
        flipped = bytearray(written)
        flipped[at // 8] ^= 1 << at % 8
        path.write_bytes(flipped)
        try:
            assert load_postings(path) == whole
        except UserError:
            refused += 1
    assert refused > 50


def test_half_a_surrogate_pair_becomes_the_replacement_character_and_a_whole_one_its_character(tmp_path):
    text = r"a \ud800 b \ude00\ud83d c \ud83d\ude00 \u00e9"
    path = write_lines(tmp_path / "j.jsonl", json.dumps(JOB).replace(json.dumps(JOB["description"]), f'"{text}"'))
    (posting,) = load_postings(path)
    assert posting.description == "a \ufffd b \ufffd\ufffd c \U0001f600 \u00e9"
    save_postings(tmp_path / "again.jsonl", [posting])
    assert load_postings(tmp_path / "again.jsonl") == [posting]


def test_failed_save_leaves_no_file(tmp_path):
    with pytest.raises(UserError, match=r"cannot be written"):
        save_postings(tmp_path / "no_such_folder" / "jobs.jsonl", [Posting("1", "T", "D")])
    assert list(tmp_path.iterdir()) == []
