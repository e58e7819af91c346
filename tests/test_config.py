"""Configuration: flags, sections, named objects, paths and files."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from ml_collections import ConfigDict

from ilqljax import config as config_module
from ilqljax.config import (
    BuildContext,
    build,
    config_to_json,
    diff_overrides,
    find_root,
    from_section,
    load_config_file,
    load_config_json,
    parse_arg,
    register,
    resolve_path,
    save_config_json,
)
from ilqljax.errors import UserError

CHOICES = {"algorithm": ("bc+ilql", "bc", "ilql"), "size": ("tiny", "gpt2")}


@dataclass(frozen=True)
class Inner:
    width: int = 1


@dataclass(frozen=True)
class Example:
    steps: int
    lr: float = 0.1
    schedule: Literal["constant", "cosine"] = "constant"
    buckets: tuple[int, ...] = (1, 2)
    pair: tuple[str, float] = ("a", 1.0)
    use_wandb: bool = False
    limit: int | None = None
    inner: Inner = field(default_factory=Inner)


@pytest.fixture
def registry(monkeypatch):
    """An empty registry for one test."""
    monkeypatch.setattr(config_module, "_BUILDERS", {})


# --- parse_arg


@pytest.mark.parametrize(
    ("arg", "algorithm", "size"),
    [
        ("", "bc+ilql", "tiny"),
        ("bc", "bc", "tiny"),
        ("gpt2,ilql", "ilql", "gpt2"),
        (" ilql , tiny ", "ilql", "tiny"),
        ("bc,bc", "bc", "tiny"),
    ],
)
def test_arg_picks_one_flag_per_choice(arg, algorithm, size):
    picked = parse_arg(arg, **CHOICES)
    assert (picked.algorithm, picked.size) == (algorithm, size)


def test_unknown_flag_lists_the_known_ones():
    with pytest.raises(UserError, match=r"'gpt3'.*algorithm: bc\+ilql, bc, ilql; size: tiny, gpt2"):
        parse_arg("bc,gpt3", **CHOICES)


def test_two_flags_of_one_choice_are_refused():
    with pytest.raises(UserError, match="two values of algorithm: 'bc' and 'ilql'"):
        parse_arg("bc,ilql", **CHOICES)


# --- from_section


def test_section_becomes_a_frozen_dataclass():
    section = ConfigDict({"steps": 3, "lr": 1, "buckets": [4, 5], "inner": {"width": 7}, "limit": 2})
    expected = Example(steps=3, lr=1.0, buckets=(4, 5), inner=Inner(7), limit=2)
    actual = from_section(Example, section)
    assert actual == expected
    assert isinstance(actual.lr, float)


def test_field_reference_gives_its_value():
    section = ConfigDict({"steps": 3})
    section.limit = section.get_oneway_ref("steps")
    assert from_section(Example, section).limit == 3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 1.0}, r"config\.steps=1\.0 is of type float, not int"),
        ({"steps": "3"}, r"config\.steps='3' is of type str, not int"),
        ({"steps": True}, r"config\.steps=True is of type bool, not int"),
        ({"steps": None}, r"config\.steps is None"),
        ({"steps": 1, "lr": "1e-4"}, r"config\.lr='1e-4' is of type str, not float"),
        ({"steps": 1, "lr": False}, r"config\.lr=False is of type bool, not float"),
        ({"steps": 1, "use_wandb": 1}, r"config\.use_wandb=1 is of type int, not bool"),
        ({"steps": 1, "buckets": 4}, r"config\.buckets=4 is of type int, not tuple"),
        ({"steps": 1, "buckets": [4, 0.5]}, r"config\.buckets\[1\]=0\.5 is of type float, not int"),
        ({"steps": 1, "pair": ["a"]}, r"config\.pair=\['a'\] has 1 items\. Give 2"),
        ({"steps": 1, "schedule": "exp"}, r"config\.schedule='exp' is unknown\. Known values: 'constant', 'cosine'"),
        ({"steps": 1, "limit": "x"}, r"config\.limit='x' is of type str, not int \| None"),
        ({"steps": 1, "inner": {"width": 0.5}}, r"config\.inner\.width=0\.5"),
        ({"steps": 1, "inner": 3}, r"config\.inner=3 is of type int, not Inner"),
        ({}, r"config lacks steps"),
    ],
)
def test_wrong_value_is_refused_naming_key_and_type(values, message):
    with pytest.raises(UserError, match=message):
        from_section(Example, values)


def test_misspelt_key_names_the_closest_and_the_known():
    with pytest.raises(UserError, match=r"config\.train\.step is no option of Example.*'steps'.*Known: buckets, inner"):
        from_section(Example, {"step": 1}, path="config.train")


# --- build


def test_named_object_is_built_from_its_section(registry):
    register("model", "example")(Example)
    section = ConfigDict({"name": "example", "steps": 2, "lr": 1})
    assert build("model", section, context=BuildContext()) == Example(2, 1.0)


def test_unknown_name_lists_the_known(registry):
    register("model", "gpt2")(lambda: 0)
    with pytest.raises(
        UserError, match=r"config\.model\.name='gtp2' is no known model. Did you mean 'gpt2'\? Known: gpt2"
    ):
        build("model", {"name": "gtp2"}, context=BuildContext(), path="config.model")


def test_section_without_name_lists_the_known(registry):
    register("model", "gpt2")(lambda: 0)
    with pytest.raises(UserError, match=r"config has no name.*Known: gpt2"):
        build("model", {}, context=BuildContext())


def test_misspelt_key_of_an_object_is_refused_before_anything_is_built(registry):
    built = []
    register("reward", "r")(lambda: built.append(1))

    @register("environment", "hiring")
    def make_environment(reward, top_k: int = 50):
        return reward, top_k

    section = {"name": "hiring", "reward": {"name": "r"}, "topk": 10}
    with pytest.raises(UserError, match=r"config\.topk is no option of environment 'hiring'.*'top_k'"):
        build("environment", section, context=BuildContext())
    assert built == []


def test_nested_section_with_a_name_is_built_first(registry):
    register("matcher", "example")(Example)

    @register("reward", "diversity")
    def make_reward(matcher: Example, eval_matcher: Example, options: dict):
        return matcher, eval_matcher, options

    matcher = {"name": "example", "steps": 1}
    section = {"name": "diversity", "matcher": matcher, "eval_matcher": matcher, "options": {"k": 1}}
    assert build("reward", section, context=BuildContext()) == (Example(1), Example(1), {"k": 1})


def test_error_in_a_nested_section_names_its_place(registry):
    register("matcher", "example")(Example)
    register("reward", "diversity")(lambda matcher: matcher)
    section = {"name": "diversity", "matcher": {"name": "example", "steps": "1"}}
    with pytest.raises(UserError, match=r"config\.reward\.matcher\.steps='1'"):
        build("reward", section, context=BuildContext(), path="config.reward")


def test_objects_of_one_cache_id_are_one_object_per_context(registry):
    register("model", "m")(lambda width=1: [width])
    section, context = {"name": "m", "cache_id": "shared", "width": 2}, BuildContext()
    first = build("model", section, context=context)
    assert build("model", ConfigDict(section), context=context) is first
    assert build("model", section, context=BuildContext()) is not first


def test_objects_without_cache_id_are_built_each_time(registry):
    register("model", "m")(lambda: [])
    context = BuildContext()
    section = {"name": "m", "cache_id": ""}
    assert build("model", section, context=context) is not build("model", section, context=context)


def test_cache_id_of_different_contents_is_refused_naming_them(registry):
    register("model", "m")(lambda width=1, depth=1: [width])
    context = BuildContext()
    build("model", {"name": "m", "cache_id": "a", "width": 2}, context=context)
    with pytest.raises(UserError, match=r"cache_id='a'.*differs in depth, width\."):
        build("model", {"name": "m", "cache_id": "a", "width": 3, "depth": 1}, context=context)


def test_builder_may_ask_for_the_context(registry):
    register("model", "m")(lambda width, context: width * context.values["scale"])
    assert build("model", {"name": "m", "width": 2}, context=BuildContext({"scale": 5})) == 10


def test_context_is_no_key_of_a_section(registry):
    register("model", "m")(lambda context: 0)
    with pytest.raises(UserError, match=r"config\.context is no option"):
        build("model", {"name": "m", "context": 1}, context=BuildContext())


def test_registering_another_builder_under_a_name_is_refused(registry):
    register("model", "m")(Example)
    with pytest.raises(ValueError, match="registered twice"):
        register("model", "m")(Inner)


# --- paths


def test_relative_path_is_taken_from_the_current_directory_if_it_is_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").touch()
    assert resolve_path("here", root=Path("/root")) == tmp_path / "here"
    assert resolve_path("elsewhere", root=Path("/root")) == Path("/root/elsewhere")


def test_absolute_and_home_paths_are_kept(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    assert resolve_path("/a/b") == Path("/a/b")
    assert resolve_path("~/b") == Path("/home/someone/b")


def test_repository_root_holds_this_test():
    assert find_root() == Path(__file__).resolve().parents[1]


def test_empty_path_is_refused():
    with pytest.raises(UserError, match="path is empty"):
        resolve_path("")


# --- files


def test_config_file_is_loaded_with_its_arg(tmp_path):
    path = tmp_path / "task.py"
    path.write_text(
        "from ml_collections import ConfigDict\ndef get_config(arg='none'):\n    return ConfigDict({'arg': arg})\n"
    )
    assert load_config_file(f"{path}:bc,tiny").arg == "bc,tiny"
    assert load_config_file(str(path)).arg == "none"


def test_missing_config_file_lists_its_neighbours(tmp_path):
    (tmp_path / "task.py").touch()
    with pytest.raises(UserError, match=r"tsak.py is not there.*: task.py"):
        load_config_file(f"{tmp_path / 'tsak.py'}:bc")


def test_config_file_without_get_config_is_refused(tmp_path):
    (tmp_path / "task.py").write_text("x = 1\n")
    with pytest.raises(UserError, match="no get_config"):
        load_config_file(str(tmp_path / "task.py"))


def test_config_file_that_is_not_python_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="no Python file"):
        load_config_file(str(tmp_path / "config.json"))


def test_saved_config_reads_back(tmp_path):
    config = ConfigDict({"lr": 1e-4, "names": ("a", "b"), "loss": {"clip": float("inf"), "on": True}})
    save_config_json(config, tmp_path / "config.json")
    assert load_config_json(tmp_path / "config.json").to_dict() == {
        "lr": 1e-4,
        "names": ["a", "b"],
        "loss": {"clip": float("inf"), "on": True},
    }
    assert sorted(os.listdir(tmp_path)) == ["config.json", "config.json.sha256"]


def test_config_json_is_stable_text():
    assert json.loads(config_to_json({"b": 1, "a": {"c": 2}})) == {"b": 1, "a": {"c": 2}}


def test_broken_config_json_names_the_line(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{\n"a": \n}')
    with pytest.raises(UserError, match=r"config.json:3: not JSON"):
        load_config_json(path)


def test_a_changed_config_json_is_refused_and_one_without_a_checksum_is_read(tmp_path):
    path = tmp_path / "config.json"
    save_config_json({"lr": 0.002}, path)
    path.write_text(path.read_text().replace("2", "6"))
    with pytest.raises(UserError, match=r"config\.json: is damaged or was changed.*on purpose, delete"):
        load_config_json(path)
    (tmp_path / "config.json.sha256").unlink()
    assert load_config_json(path).lr == 0.006


def test_a_key_with_a_dot_is_refused_by_file(tmp_path):
    (tmp_path / "config.json").write_text('{"data": {"n_ca.didates": 1}}')
    with pytest.raises(UserError, match=r"config\.json: is no config \(.*n_ca\.didates"):
        load_config_json(tmp_path / "config.json")


def test_overrides_are_listed_by_dotted_key():
    default = ConfigDict({"lr": 0.1, "loss": {"beta": 1.0, "cql": 0.25}, "name": "a"})
    actual = default.copy_and_resolve_references()
    actual.lr, actual.loss.beta = 0.2, 2.0
    assert diff_overrides(default, actual) == {"lr": 0.2, "loss.beta": 2.0}
