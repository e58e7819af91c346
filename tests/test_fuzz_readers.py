"""Whatever is in a file from outside, reading it ends in what it says or in a `UserError`.

Each reader gets a sound file with bytes removed and put in, and where it is JSON, also with values, names and fields of
any kind in place of its own. The slow form tries many more of them: `pytest -m slow tests/test_fuzz_readers.py`.
"""

import copy
import functools
import gzip
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict
from safetensors.numpy import save

from ilqljax.config.files import config_to_json, load_config_json, read_overrides
from ilqljax.data.files import read_arrays
from ilqljax.data.tokenizer import FILE_NAME, load_tokenizer, train_bpe
from ilqljax.errors import UserError
from ilqljax.hiring.audit.ready_table import load_ready_table
from ilqljax.hiring.evaluation.record import load_evaluations
from ilqljax.hiring.matching.http import HttpMatcher, HttpSource
from ilqljax.hiring.postings.hackernews import load_hackernews
from ilqljax.hiring.postings.posting import load_candidates, load_postings
from ilqljax.hiring.postings.sources import detect_source
from ilqljax.hiring.postings.workable import load_raw_workable
from ilqljax.hiring.reward.cache import RewardCache
from ilqljax.training.checkpoint import CheckpointStore
from ilqljax.training.metrics import JsonlWriter
from ilqljax.training.report import read_curves
from ilqljax.training.run_config import load_run_config
from ilqljax.training.runs import open_run_config

QUICK, DEEP = 25, 1500
PIECES = [
    *(b'"', b"\0", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"\n", b"\r", b"\r\n", b"{", b"[", b"[" * 5000),
    *(b"}", b",", b";", b"sep=;\n"),
    *(b"null", b"NaN", b"-Infinity", b"1e999", b"-1", b"1.5", b"9" * 5000, b"true", b"[]", b"{}", b'"id"', b'\\ud800'),
    *(b"PK\x03\x04", b"PAR1", b"\x1f\x8b", b"\x85", b"\xc2\x85", b"\xe2\x80\xa8", b"a" * 3000, b"\\", b"'", b"=1+1"),
]  # fmt: skip
EDIT = st.tuples(st.integers(0, 3000), st.integers(0, 9), st.one_of(st.sampled_from(PIECES), st.binary(max_size=3)))
ODD = st.sampled_from(
    [
        *("", " ", "\0", "\ud800", "id", "a" * 3000, "../x", "1_0", "\u0663", "\x1b[2J"),
        10**400,
        -1,
        0,
        1.5,
        1e300,
        1e-320,
    ]
)
VALUE = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), ODD),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.text(max_size=5) | st.sampled_from(["id", "a.b", "name"]), inner, max_size=3),
    ),
    max_leaves=4,
)  # fmt: skip
CHANGE = st.tuples(st.integers(0, 500), st.sampled_from(["set", "remove", "rename", "repeat"]), VALUE)


def _damage(sound: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    for at, n_removed, inserted in edits:
        at %= len(sound) + 1
        sound = sound[:at] + inserted + sound[at + n_removed :]
    return sound


def _list_places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every container of a JSON value with a key or index that it has."""
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from _list_places(value[key])


def _change(value: Any, changes: list[tuple[int, str, Any]]) -> Any:
    value = copy.deepcopy(value)
    for number, kind, new in changes:
        if not (places := list(_list_places(value))):
            break
        inside, key = places[number % len(places)]
        if kind == "set":
            inside[key] = new
        elif kind == "remove":
            del inside[key]
        elif kind == "rename" and isinstance(inside, dict):
            inside[str(new)[:40]] = inside.pop(key)
        elif kind == "repeat" and isinstance(inside, list):
            inside.append(copy.deepcopy(inside[key]))
    return value


@dataclass(frozen=True)
class Reader:
    """One reader of files: the name of its file, what is sound there, and what reads it.

    Attributes:
        rows: of JSON, one a line where `lines`; () for a file of another kind, whose bytes are `content`.
    """

    file: str
    read: Callable[[Path], object]
    rows: tuple[Any, ...] = ()
    content: bytes = b""
    lines: bool = True

    def write(self, rows: tuple[Any, ...]) -> bytes:
        return "\n".join(map(json.dumps, rows)).encode() + b"\n" * self.lines


def _make_workbook() -> bytes:
    openpyxl = pytest.importorskip("openpyxl")
    book, stream = openpyxl.Workbook(), io.BytesIO()
    for row in (["id", "sex", "score"], ["1", "f", 0.5], ["2", "m", 0.1]):
        book.active.append(row)
    book.save(stream)
    return stream.getvalue()


def _read_metrics(path: Path) -> None:
    JsonlWriter(path, resume_step=2).close()


@functools.cache
def _make_matcher() -> HttpMatcher:
    return HttpMatcher(HttpSource(url="http://127.0.0.1:1/match"), ["c1", "c2", "c3"])


def _read_answer(path: Path) -> object:
    return _make_matcher()._read(path.read_bytes(), n_texts=1, k=2)


JOB = {
    "id": "1",
    "title": "Nurse",
    "description": "We hire a nurse.",
    "company": "Oak",
    "remote": True,
    "group": "care",
}
PERSON = {"id": "c1", "text": "I am a nurse.", "attributes": {"gender": "female"}, "embedding": [0.5, -1.0, 2]}
APPLICANT = {
    "applicant_id": 7,
    "country_code": "DE",
    "experiences": [{"title": "Nurse", "company": "Oak"}],
    "educations": [{"field_of_study": "Care", "school_name": "Bonn"}],
}
RAW = {
    "job": {
        "id": 1,
        "title": "Nurse",
        "description": "<p>We hire.</p>",
        "remote": False,
        "requirement_summary": "<b>care",
    },
    "candidates": [APPLICANT],
    "candidates_same_function": [APPLICANT | {"applicant_id": 8}],
    "candidates_different_function": [],
}
POST = {
    "id": 1,
    "text": "Oak | Bonn &amp; home<p>We hire.",
    "locations": [{"location": "Bonn", "country": "DE"}],
    "remote": False,
}
ITEM = {"by": "x", "id": 3, "kids": [4], "parent": 2, "text": "Oak | Bonn<p>We hire.", "time": 1, "type": "comment"}
SHORTLIST = {"ids": ["a", "b"], "attributes": {"gender": ["f", ""]}}
JUDGED = {
    "policy": "ilql", "posting_id": "1", "company": "Oak", "prompt": "", "original": "We hire.", "rewrite": "Hire.",
    "reward_original": -3.0, "reward": -2.0, "log_probability": -1.0, "advantage": 0.5, "fluency": None,
    "guardrail_failures": [], "guardrail_reasons": [], "shortlist_before": SHORTLIST, "shortlist_after": SHORTLIST,
}  # fmt: skip
ANSWER = {"matches": [{"ids": ["c1", "c3"], "scores": [0.5, 0.25]}]}
RECORD = {"step": 1, "train/loss": 2.5, "eval/loss": None}
TABLE = b"id,sex,race,score\n1,f,asian,0.5\n2,m,,1\n3,f,black,.25\n"
COUNTS = b"sex;applicants;selected\nf;10;3\nm;20;9\n"
READERS = {
    "jobs": Reader("jobs.jsonl", load_postings, (JOB, JOB | {"id": "2"})),
    "jobs, gzipped": Reader("jobs.jsonl.gz", load_postings, content=gzip.compress(json.dumps(JOB).encode(), mtime=0)),
    "candidates": Reader("candidates.jsonl", load_candidates, (PERSON, PERSON | {"id": "c2"})),
    "Workable": Reader("raw.jsonl", load_raw_workable, (RAW, RAW | {"job": RAW["job"] | {"id": 2}})),
    "posts": Reader("posts.jsonl", load_hackernews, (POST, POST | {"id": 2})),
    "items": Reader("items.jsonl", load_hackernews, (ITEM, None, ITEM | {"id": 5})),
    "any source": Reader("any.jsonl", detect_source, (JOB, RAW)),
    "table": Reader("table.csv", load_ready_table, content=TABLE),
    "table in UTF-16": Reader("table.csv", load_ready_table, content=TABLE.decode().encode("utf-16")),
    "counts": Reader("counts.csv", load_ready_table, content=COUNTS),
    "metrics": Reader("metrics.jsonl", _read_metrics, (RECORD, RECORD | {"step": 2}, RECORD | {"step": 3})),
    "curves": Reader("metrics.jsonl", read_curves, (RECORD, RECORD | {"step": 2})),
    "judgement": Reader("evaluation.jsonl", load_evaluations, (JUDGED, JUDGED | {"posting_id": "2"})),
    "answer": Reader("answer.json", _read_answer, (ANSWER,), lines=False),
}


def _try(read: Callable[[Path], object], path: Path) -> str:
    """Read a file; return "" or what a `UserError` says."""
    try:
        read(path)
    except UserError as error:
        return str(error)
    return ""


def _fuzz(reader: Reader, folder: Path, *, n: int) -> None:
    """Read what is sound, and `n` damaged or changed files."""
    path = folder / reader.file
    path.parent.mkdir(parents=True, exist_ok=True)
    sound = reader.content or reader.write(reader.rows)

    def read(content: bytes) -> None:
        path.write_bytes(content)
        _try(reader.read, path)

    options = settings(
        max_examples=n, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    path.write_bytes(sound)
    assert _try(reader.read, path) == ""
    options(given(st.lists(EDIT, min_size=1, max_size=4))(lambda edits: read(_damage(sound, edits))))()
    if reader.rows:
        change = given(st.lists(CHANGE, min_size=1, max_size=3))
        options(change(lambda changes: read(reader.write(tuple(_change(list(reader.rows), changes))))))()


@pytest.mark.parametrize("name", READERS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_any_file_is_read_or_refused(name, tmp_path):
    _fuzz(READERS[name], tmp_path, n=QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_many_files_are_read_or_refused(name, tmp_path):
    _fuzz(READERS[name], tmp_path, n=DEEP)


def _read_directory(path: Path) -> list[int]:
    return load_tokenizer(path.parent).encode("We hire a nurse.")


def _make_others() -> dict[str, Reader]:
    """Make what needs some work: configs, a workbook, tokenizers, vectors, a cache."""
    config = json.loads(config_to_json(load_run_config("configs/workable.py")))
    bpe = train_bpe(["We hire a nurse. We care."], vocab_size=270)
    definition = json.loads(bpe._backend.to_str())
    vectors = save({"vectors": np.arange(6, dtype=np.float32).reshape(2, 3)}, {"source": "x"})
    return {
        "config": Reader("config.json", load_config_json, (config,), lines=False),
        "run": Reader("config.json", lambda path: open_run_config(path.parent), (config,), lines=False),
        "saved tokenizer": Reader(FILE_NAME, load_tokenizer, (bpe.to_json(),), lines=False),
        "published tokenizer": Reader("tokenizer.json", _read_directory, (definition,), lines=False),
        "workbook": Reader("table.xlsx", load_ready_table, content=_make_workbook()),
        "vectors": Reader("v.safetensors", lambda path: read_arrays(path, advice="Copy it again."), content=vectors),
    }


OTHERS = ("config", "run", "saved tokenizer", "published tokenizer", "workbook", "vectors")


@pytest.fixture(scope="module")
def others() -> dict[str, Reader]:
    return _make_others()


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_any_other_file_is_read_or_refused(name, others, tmp_path):
    _fuzz(others[name], tmp_path, n=QUICK // 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_many_other_files_are_read_or_refused(name, others, tmp_path):
    _fuzz(others[name], tmp_path, n=DEEP // 3)


@pytest.mark.parametrize("n", [QUICK, pytest.param(DEEP, marks=pytest.mark.slow)])
def test_any_override_is_read_or_refused(n):
    config = ConfigDict({"a": 1, "b": {"c": 1.5}})
    text = st.text(max_size=8) | st.sampled_from(["1e400", "1e5000", "9" * 5000, "1e3", "1.5e0"])

    @settings(max_examples=n, deadline=None, database=None, derandomize=True)
    @given(st.sampled_from(["--config.a=", "--config.b.c=", "--config.b=", "--config.a.b=", "--config.", "--"]), text)
    def read(flag: str, value: str) -> None:
        _try(lambda _: read_overrides(config, [flag + value]), Path())

    read()


@pytest.mark.parametrize("n", [QUICK // 2, pytest.param(DEEP // 5, marks=pytest.mark.slow)])
def test_a_damaged_reward_cache_has_no_other_reward(n, tmp_path):
    rewards = {bytes([i]) * 32: i / 4 for i in range(40)}
    RewardCache(tmp_path / "sound.sqlite").save(rewards)
    sound = (tmp_path / "sound.sqlite").read_bytes()
    edit = st.tuples(st.integers(0, len(sound)), st.integers(0, 99), st.sampled_from(PIECES) | st.binary(max_size=9))

    @settings(max_examples=n, deadline=None, database=None, derandomize=True)
    @given(st.lists(edit, min_size=1, max_size=4))
    def read(edits: list[tuple[int, int, bytes]]) -> None:
        for file in tmp_path.glob("damaged*"):
            file.unlink()
        (tmp_path / "damaged.sqlite").write_bytes(_damage(sound, edits))

        def check(path: Path) -> None:
            assert RewardCache(path).load_all().items() <= rewards.items()

        _try(check, tmp_path / "damaged.sqlite")

    read()


@pytest.mark.parametrize("n", [4, pytest.param(DEEP // 10, marks=pytest.mark.slow)])
def test_any_metadata_of_a_checkpoint_is_read_or_refused(n, tmp_path):
    state = {"w": jnp.arange(3.0)}
    with CheckpointStore(tmp_path, metric_name="loss") as store:
        store.save(1, state, {"loader": [1, 2]}, metric=0.5)
    path = tmp_path / "1" / "extra" / "metadata"
    sound = json.loads(path.read_text())

    def read(content: bytes) -> None:
        path.write_bytes(content)
        for look in (lambda s: s.restore(state), lambda s: s.restore(state, step="best"), lambda s: s.check_metrics()):
            _try(lambda _, look=look: look(CheckpointStore(tmp_path, metric_name="loss")), path)

    options = settings(max_examples=n, deadline=None, database=None, derandomize=True)
    options(given(st.lists(CHANGE, min_size=1, max_size=3))(lambda c: read(json.dumps(_change(sound, c)).encode())))()
    options(given(st.lists(EDIT, min_size=1, max_size=3))(lambda e: read(_damage(json.dumps(sound).encode(), e))))()


@pytest.mark.parametrize("part", ["checksums", "mode", "values"])
def test_metadata_without_a_part_is_damage(part, tmp_path):
    state = {"w": jnp.arange(3.0)}
    with CheckpointStore(tmp_path, metric_name="loss") as store:
        store.save(1, state, {"loader": 1}, metric=0.5)
    path = tmp_path / "1" / "extra" / "metadata"
    content = json.loads(path.read_text())
    if part == "checksums":
        content["checksums"] = []
    else:
        del content["checksums"]  # as of a checkpoint of before there were any
        content["values" if part == "values" else "metric"] = {"name": "loss", "value": 1} if part == "mode" else 3
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="is damaged"):
        CheckpointStore(tmp_path).restore(state)


def test_a_null_in_a_vector_is_refused_with_its_line(tmp_path):
    (tmp_path / "c.jsonl").write_text(json.dumps(PERSON | {"embedding": [None, 1.0]}))
    with pytest.raises(UserError, match=r"c.jsonl:1: the field 'embedding' holds None"):
        load_candidates(tmp_path / "c.jsonl")
