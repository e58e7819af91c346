"""User-supplied matchers: a Python function by name, what of an answer is refused, and stored vectors."""

import sys

import numpy as np
import pytest

from ilqljax.errors import UserError
from ilqljax.hiring.matching.encoders import load_or_make_vectors
from ilqljax.hiring.matching.matcher import Matcher, hash_texts
from ilqljax.hiring.matching.user_supplied import CallableMatcher, check_answers, hash_source, load_callable

IDS = ("c0", "c1", "c2")
ROW_OF = {one: row for row, one in enumerate(IDS)}


def check(ids, scores, *, n_texts=1, k=2):
    return check_answers(ids, scores, n_texts=n_texts, k=k, row_of=ROW_OF, where="the engine")


def test_answer_becomes_rows_and_scores():
    matches = check([["c2", "c0"], ["c1", "c2"]], [[0.5, 0.25], [3, 2]], n_texts=2)
    assert matches.indices.tolist() == [[2, 0], [1, 2]]
    assert matches.scores.tolist() == [[0.5, 0.25], [3.0, 2.0]] and matches.scores.dtype == np.float32


def test_equal_scores_of_an_answer_go_by_the_lower_row():
    assert check([["c2", "c1", "c0"]], [[1.0, 0.5, 0.5]], k=3).indices.tolist() == [[2, 0, 1]]


@pytest.mark.parametrize("scores", [[1700000001.0, 1700000000.0], [2**60 + 1, 2**60]])
def test_scores_that_only_float32_or_float64_makes_equal_keep_their_order(scores):
    matches = check([["c2", "c0"]], [scores])
    assert matches.indices.tolist() == [[2, 0]]
    assert matches.scores[0, 0] == matches.scores[0, 1]


@pytest.mark.parametrize(
    ("ids", "scores", "message"),
    [
        ([["c0", "c1"]] * 2, [[1.0, 0.0]] * 2, "got 2 for ids, expected a list of 1, one list a text"),
        ([], [], "got 0 for ids"),
        ("c0", [[1.0, 0.0]], "got str for ids"),
        ([["c0", "c1"]], {"0": 1.0}, "got dict for scores"),
        ([["c0"]], [[1.0]], r"text 0: got 1 for ids, expected a list of 2, one a candidate"),
        ([["c0", "c1", "c2"]], [[1.0, 0.5, 0.0]], "got 3 for ids"),
        ([["c0", "c1"]], [[1.0]], "got 1 for scores"),
        ([None], [[1.0, 0.5]], "got NoneType for ids"),
        ([["c0", "c9"]], [[1.0, 0.5]], "'c9' is not a candidate's id"),
        ([["c0", 1]], [[1.0, 0.5]], "1 is not a candidate's id"),
        ([["c0", ["c1"]]], [[1.0, 0.5]], r"\['c1'\] is not a candidate's id"),
        ([["c1", "c1"]], [[1.0, 0.5]], "'c1' is named twice"),
        ([["c0", "c1"]], [[1.0, float("nan")]], "the score nan is not a finite number"),
        ([["c0", "c1"]], [[float("inf"), 1.0]], "the score inf"),
        ([["c0", "c1"]], [[10**400, 1.0]], "is not a finite number"),
        ([["c0", "c1"]], [[1e39, 1.0]], "is not a finite number"),
        ([["c0", "c1"]], [[1.0, "0.5"]], "the score '0.5'"),
        ([["c0", "c1"]], [[True, 0.5]], "the score True"),
        ([["c0", "c1"]], [[0.5, 1.0]], "increase from 0.5 to 1.0 at place 1"),
    ],
)
def test_wrong_answer_is_refused(ids, scores, message):
    with pytest.raises(UserError, match=f"the engine.*{message}"):
        check(ids, scores)


def rank_by_length(texts, k):
    """Rank the ids in an order that depends on the text's length."""
    order = [np.roll(IDS, len(text))[:k] for text in texts]
    return order, np.tile(np.arange(k, 0, -1.0), (len(texts), 1))


def test_callable_is_asked_and_follows_the_protocol():
    matcher = CallableMatcher(rank_by_length, IDS, name="mine")
    assert isinstance(matcher, Matcher) and matcher.n_candidates == 3
    assert matcher.top_k(["", "x"], 2).indices.tolist() == [[0, 1], [2, 0]]
    assert matcher.top_k([], 2).indices.shape == (0, 2)
    with pytest.raises(UserError, match="k=4"):
        matcher.top_k(["x"], 4)
    with pytest.raises(UserError, match="list of texts"):
        matcher.top_k("x", 1)


def test_callable_that_returns_no_pair_is_refused():
    with pytest.raises(UserError, match="mine returned NoneType, not a pair"):
        CallableMatcher(lambda texts, k: None, IDS, name="mine").top_k(["x"], 1)


def test_candidates_must_have_ids_of_their_own():
    with pytest.raises(UserError, match="not unique"):
        CallableMatcher(rank_by_length, ["c0", "c0"], name="mine")
    with pytest.raises(UserError, match="empty"):
        CallableMatcher(rank_by_length, [], name="mine")


def test_fingerprint_follows_the_function_and_the_candidates():
    prints = {
        CallableMatcher(rank_by_length, ids, name=name, fingerprint=fingerprint).fingerprint
        for ids in (IDS, IDS[::-1])
        for name in ("a", "b")
        for fingerprint in ("1", "2")
    }
    assert len(prints) == 8


@pytest.fixture
def write_module(tmp_path, monkeypatch):
    """Write a module that can be imported, new each time."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    written = set()

    def write(name, text):
        written.add(name)
        (tmp_path / f"{name}.py").write_text(text)
        sys.modules.pop(name, None)

    yield write
    for name in written:
        sys.modules.pop(name, None)


def test_function_is_loaded_by_name_and_hashed_with_its_file(write_module):
    write_module("my_engine", "def rank(texts, k):\n    return [], []\n")
    before = hash_source("my_engine:rank")
    assert load_callable("my_engine:rank")([], 1) == ([], []) and before
    write_module("my_engine", "def rank(texts, k):\n    return [], [1]\n")
    assert hash_source("my_engine:rank") != before


@pytest.mark.parametrize("here", [(), ("",), ("somewhere", "HERE")])
def test_module_of_the_current_folder_is_found_from_a_script_elsewhere(write_module, tmp_path, monkeypatch, here):
    write_module("my_engine", "def rank(texts, k): ...\n")
    monkeypatch.chdir(tmp_path)
    installed = [folder for folder in sys.path if folder not in ("", str(tmp_path))]
    monkeypatch.setattr(sys, "path", [*installed, *(one.replace("HERE", str(tmp_path)) for one in here)])
    for _ in range(2):
        load_callable("my_engine:rank")
    assert len(sys.path) == len(installed) + max(1, len(here))  # appended where it was not there, once


DECORATORS = "import functools\ndef keep(f):\n    return functools.wraps(f)(lambda *args: f(*args))\n"
ENGINES = """
import functools
from my_decorators import keep
def plain(texts, k): ...
class Engine:
    def __call__(self, texts, k): ...
    @keep
    def rank(self, texts, k): ...
    def __getattr__(self, name): return Engine()
decorated, instance, bound, cached = keep(plain), Engine(), Engine().rank, functools.lru_cache(plain)
partial, nested = functools.partial(plain), functools.partial(keep(functools.partial(Engine().rank)), [])
"""
FORMS = ("plain", "decorated", "instance", "bound", "cached", "partial", "nested", "Engine")


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_function_is_hashed_where_it_is_defined_and_where_it_is_named(write_module, form):
    write_module("my_decorators", DECORATORS)
    write_module("my_engines", ENGINES)
    write_module("my_names", f"from my_engines import {form}\n")
    prints = [hash_source(f"my_names:{form}")]
    write_module("my_engines", ENGINES + "# changed\n")
    prints.append(hash_source(f"my_names:{form}"))
    write_module("my_names", f"from my_engines import {form}  # changed\n")
    prints.append(hash_source(f"my_names:{form}"))
    assert len(set(prints)) == 3


ENGINE = "from my_base import Base\nclass Engine(Base):\n    @classmethod\n    def make(cls): ...\n"
BASE = """
class Base:
    def search(self, texts, k): ...
    def __call__(self, texts, k): ...
    @classmethod
    def find(cls, texts, k): ...
"""


@pytest.mark.parametrize("made", ["Engine().search", "Engine.find", "Engine()", "Engine"])
@pytest.mark.parametrize("changed", ["my_engine", "my_base"])
def test_class_of_a_method_or_object_and_its_bases_are_hashed(write_module, made, changed):
    files = {"my_base": BASE, "my_engine": ENGINE, "my_names": f"from my_engine import Engine\nask = {made}\n"}
    for name, text in files.items():
        write_module(name, text)
    before = hash_source("my_names:ask")
    for name, text in files.items():  # all are imported again
        write_module(name, text + "# changed\n" * (name == changed))
    assert hash_source("my_names:ask") != before


def test_function_that_is_built_in_has_no_source():
    assert hash_source("sys:intern") == ""


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("json.dumps", "does not name a function. Write package.module:function"),
        ("json:", "does not name a function"),
        (":dumps", "does not name a function"),
        ("no_such_module_at_all:f", "no module 'no_such_module_at_all'"),
        ("json:dumpz", r"json has no function 'dumpz'. It has: .*dumps"),
        ("json:__doc__", "has no function"),
    ],
)
def test_name_of_no_function_is_refused(path, message):
    with pytest.raises(UserError, match=message):
        load_callable(path)


def test_vectors_are_made_once_and_again_when_their_source_changes(tmp_path):
    path, made = tmp_path / "vectors.safetensors", []

    def make():
        made.append(1)
        return np.full((2, 3), len(made), np.float64)

    def load(source, n=2):
        return load_or_make_vectors(path, make, source=source, n_vectors=n)[0, 0]

    assert [load("a"), load("a"), load("b"), load("b"), load("a")] == [1, 1, 2, 2, 3]
    assert load("a", n=3) == 4  # not as many as there are candidates: cannot be theirs
    assert load_or_make_vectors(path, make, source="a", n_vectors=2).dtype == np.float32
    assert [file.name for file in tmp_path.iterdir()] == ["vectors.safetensors"]


def test_damaged_vectors_say_what_to_do(tmp_path):
    path = tmp_path / "vectors.safetensors"
    load_or_make_vectors(path, lambda: np.ones((40, 3)), source="a", n_vectors=40)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match=r"vectors\.safetensors: is damaged.*Delete it"):
        load_or_make_vectors(path, lambda: np.ones((40, 3)), source="a", n_vectors=40)


def test_vectors_that_cannot_be_written_say_so(tmp_path):
    with pytest.raises(UserError, match="cannot be written"):
        load_or_make_vectors(tmp_path / "no" / "v.safetensors", lambda: np.ones((1, 1)), source="a", n_vectors=1)


def test_texts_do_not_run_into_each_other_in_a_hash():
    assert len({hash_texts(t) for t in (["ab", ""], ["a", "b"], ["ab"], ["", "ab"], ["\ud800"])}) == 5
