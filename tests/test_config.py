"""Configuration: flags, sections, named objects, paths and files."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from absl import flags
from ml_collections import ConfigDict, config_flags

from ilqljax.config import (
    BuildContext,
    build,
    from_section,
    load_config_file,
    load_tasks,
    parse_arg,
    register,
    registry,
    resolve_path,
)
from ilqljax.config.files import (
    config_to_json,
    diff_overrides,
    find_root,
    load_config_json,
    read_overrides,
    save_config_json,
    split_arg,
)
from ilqljax.config.sections import NO_OPTION
from ilqljax.errors import UserError, check_range, find_close

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
def empty(monkeypatch):
    """An empty registry for one test; installed tasks are imported before, and not into it."""
    load_tasks()
    monkeypatch.setattr(registry, "_BUILDERS", {})


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
    with pytest.raises(
        UserError, match=r"config\.train\.step is not an option of Example.*'steps'.*Known: buckets, inner"
    ):
        from_section(Example, {"step": 1}, path="config.train")


# --- build


def test_named_object_is_built_from_its_section(empty):
    register("model", "example")(Example)
    section = ConfigDict({"name": "example", "steps": 2, "lr": 1})
    assert build("model", section, context=BuildContext()) == Example(2, 1.0)


def test_unknown_name_lists_the_known(empty):
    register("model", "gpt2")(lambda: 0)
    with pytest.raises(
        UserError, match=r"config\.model\.name='gtp2' is not a known model. Did you mean 'gpt2'\? Known: gpt2"
    ):
        build("model", {"name": "gtp2"}, context=BuildContext(), path="config.model")


def test_section_without_name_lists_the_known(empty):
    register("model", "gpt2")(lambda: 0)
    with pytest.raises(UserError, match=r"config has no name.*Known: gpt2"):
        build("model", {}, context=BuildContext())


def test_misspelt_key_of_an_object_is_refused_before_anything_is_built(empty):
    built = []
    register("reward", "r")(lambda: built.append(1))

    @register("environment", "hiring")
    def make_environment(reward, top_k: int = 50):
        return reward, top_k

    section = {"name": "hiring", "reward": {"name": "r"}, "topk": 10}
    with pytest.raises(UserError, match=r"config\.topk is not an option of environment 'hiring'.*'top_k'"):
        build("environment", section, context=BuildContext())
    assert built == []


def test_nested_section_with_a_name_is_built_first(empty):
    register("matcher", "example")(Example)

    @register("reward", "diversity")
    def make_reward(matcher: Example, eval_matcher: Example, options: dict):
        return matcher, eval_matcher, options

    matcher = {"name": "example", "steps": 1}
    section = {"name": "diversity", "matcher": matcher, "eval_matcher": matcher, "options": {"k": 1}}
    assert build("reward", section, context=BuildContext()) == (Example(1), Example(1), {"k": 1})


def test_error_in_a_nested_section_names_its_place(empty):
    register("matcher", "example")(Example)
    register("reward", "diversity")(lambda matcher: matcher)
    section = {"name": "diversity", "matcher": {"name": "example", "steps": "1"}}
    with pytest.raises(UserError, match=r"config\.reward\.matcher\.steps='1'"):
        build("reward", section, context=BuildContext(), path="config.reward")


class Words(list):
    pass


def test_what_a_builder_needs_is_the_object_of_the_section_of_its_name_built_once(empty):
    register("words", "w")(lambda n=1: Words(range(n)))

    @register("dataset", "d")
    def make_dataset(words: Words, size: int = 0):
        return words, size

    sections = {
        "words": {"name": "w", "n": 2},
        "dataset": {"name": "d"},
        "validation_dataset": {"name": "d", "size": 3},
    }
    context = BuildContext(sections=sections)
    (words, _), (others, size) = context.build("dataset"), context.build("validation_dataset")
    assert words is others is context.build("words") and len(words) == 2 and size == 3
    assert BuildContext(sections=sections).build("words") is not words
    with pytest.raises(UserError, match=r"config lacks words, which dataset 'd' needs"):
        build("dataset", {"name": "d"}, context=BuildContext())
    with pytest.raises(UserError, match=r"no section 'word'.*Did you mean 'words'"):
        context.build("word")


def test_options_of_a_dataclass_are_options_of_the_builder_that_takes_them(empty):
    @register("model", "m", options=(Example, Inner))
    def make_model(path: str = "", **options):
        return path, registry.split_options(options, Example, Inner)

    section = {"name": "m", "steps": 2, "width": 5, "path": "x"}
    assert build("model", section, context=BuildContext()) == ("x", [{"steps": 2}, {"width": 5}])
    with pytest.raises(UserError, match=r"config\.steps='2'"):
        build("model", section | {"steps": "2"}, context=BuildContext())
    completed = registry.complete_section("model", {"name": "m", "steps": 2})
    assert completed["lr"] == 0.1 and completed["width"] == 1 and completed["inner"] == {"width": 1}
    assert "limit" not in completed  # None stands for what a config cannot give


def test_a_field_that_is_not_an_option_cannot_be_set(empty):
    @dataclass(frozen=True)
    class Sizes:
        width: int = 1
        rows: int = field(default=0, metadata=NO_OPTION)

    register("model", "m", options=Sizes)(lambda **options: options)
    assert build("model", {"name": "m", "width": 2}, context=BuildContext()) == {"width": 2}
    with pytest.raises(UserError, match=r"config\.rows is not an option of model 'm'"):
        build("model", {"name": "m", "rows": 2}, context=BuildContext())


def test_a_task_of_a_file_is_imported_once_by_its_path(empty, tmp_path):
    file = tmp_path / "dataclasses.py"  # a module of this name is imported already
    file.write_text("from ilqljax.config import register\nregister('words', 'mine')(lambda: [])\n")
    load_tasks([str(file)])
    load_tasks([str(file)])
    assert build("words", {"name": "mine"}, context=BuildContext()) == []
    with pytest.raises(UserError, match="no such Python file"):
        load_tasks([str(tmp_path / "other.py")])
    with pytest.raises(UserError, match=r"'not_a\.module', and there is no such module"):
        load_tasks(["not_a.module"])


def test_installed_tasks_are_found_by_their_entry_points():
    load_tasks()
    assert {"hiring", "wordle"} <= set(registry._BUILDERS["evaluator"])


def test_builder_may_ask_for_the_context(empty):
    register("model", "m")(lambda width, context: width * context.values["scale"])
    assert build("model", {"name": "m", "width": 2}, context=BuildContext({"scale": 5})) == 10


def test_context_is_not_a_key_of_a_section(empty):
    register("model", "m")(lambda context: 0)
    with pytest.raises(UserError, match=r"config\.context is not an option"):
        build("model", {"name": "m", "context": 1}, context=BuildContext())


def test_registering_another_builder_under_a_name_is_refused(empty):
    register("model", "m")(Example)
    with pytest.raises(ValueError, match="registered twice"):
        register("model", "m")(Inner)


# --- paths


def test_relative_path_is_taken_from_the_current_directory_if_it_is_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").touch()
    assert resolve_path("here", root=Path("/root")) == tmp_path / "here"
    assert resolve_path("elsewhere", root=Path("/root")) == Path("/root/elsewhere")


def test_what_is_made_and_what_is_looked_for_have_one_place(tmp_path, monkeypatch):
    """The table of `resolve_path`."""
    here, root = tmp_path / "here", tmp_path / "root"
    for folder in (here, root):
        (folder / "runs/old").mkdir(parents=True)
    monkeypatch.chdir(here)
    assert resolve_path("runs/old", root=root) == here / "runs/old"
    (here / "runs/old").rmdir()
    assert resolve_path("runs/old", root=root) == root / "runs/old"
    assert resolve_path("runs/new", root=root) == resolve_path("runs", root=root) / "new" == here / "runs/new"
    (here / "runs").rmdir()
    assert resolve_path("runs/new", root=root) == resolve_path("runs", root=root) / "new" == root / "runs/new"


def test_absolute_and_home_paths_are_kept(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    assert resolve_path("/a/b") == Path("/a/b")
    assert resolve_path("~/b") == Path("/home/someone/b")


def test_repository_root_holds_this_test():
    assert find_root() == Path(__file__).resolve().parents[1]


def test_a_project_that_ilqljax_is_installed_in_is_not_its_repository(tmp_path, monkeypatch):
    (tmp_path / "configs").mkdir()
    (tmp_path / "pyproject.toml").touch()
    installed = tmp_path / ".venv/lib/python3.11/site-packages/ilqljax/config/files.py"
    monkeypatch.setattr("ilqljax.config.files.__file__", str(installed))
    assert find_root() is None


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


def test_configs_that_come_with_ilqljax_are_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("hackernews:bc", "configs/hackernews.py:bc"):
        assert load_config_file(name).task == "hackernews"
    with pytest.raises(UserError, match=r"Did you mean 'workable'\? Known: hackernews, wordle, workable\."):
        load_config_file("workabel")
    with pytest.raises(UserError, match="not there"):
        load_config_file("_algorithms")


def test_a_folder_called_configs_of_the_users_hides_nothing_and_may_build_on_ours(tmp_path, monkeypatch):
    folder = tmp_path / "run.1" / "configs"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "_sizes.py").write_text("WIDTH = 48\n")
    (folder / "mine.py").write_text(
        "from ilqljax.config import load_config_file\nfrom ._sizes import WIDTH\n"
        "def get_config(arg=''):\n"
        "    config = load_config_file(f'workable:{arg}')\n    config.model.n_embd = WIDTH\n    return config\n"
    )
    monkeypatch.chdir(folder.parent)
    assert load_config_file("configs/mine.py:bc").model.n_embd == 48
    assert load_config_file("configs/workable.py:bc").algorithm == "bc"


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
    with pytest.raises(UserError, match="not a Python file"):
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
    with pytest.raises(UserError, match=r"config\.json: is not a config \(.*n_ca\.didates"):
        load_config_json(tmp_path / "config.json")


def test_overrides_are_listed_by_dotted_key():
    default = ConfigDict({"lr": 0.1, "loss": {"beta": 1.0, "cql": 0.25}, "name": "a"})
    actual = default.copy_and_resolve_references()
    actual.lr, actual.loss.beta = 0.2, 2.0
    assert diff_overrides(default, actual) == {"lr": 0.2, "loss.beta": 2.0}


@pytest.mark.parametrize("value", ["0.1", None, True])
def test_what_is_no_number_is_in_no_range(value):
    @dataclass
    class Options:
        lr: object = value

    with pytest.raises(UserError, match=rf"lr={value!r} is not a number. Give one in \[0, 1\]"):
        check_range(Options(), "[0, 1]", "lr")


def test_the_nearest_name_is_found_whatever_its_case():
    assert find_close("SEX", ["race", "sex"]) == " Did you mean 'sex'?"
    assert find_close(3, ["race", "sex"]) == ""


def test_what_is_no_section_is_refused_by_its_path():
    with pytest.raises(UserError, match=r"config\.train=3 is of type int\. Give options of Inner by name"):
        from_section(Inner, 3, path="config.train")


def test_whole_numbers_may_be_written_with_an_exponent():
    config = ConfigDict({"train": {"steps": 5, "lr": 0.1, "name": "a"}, "on": True})
    given = ["--config.train.steps=1e3", "--config.train.steps=1.5E+1", "--config.train.steps=1.5e0", "--other=1e3"]
    assert read_overrides(config, given) == ["--config.train.steps=1000", "--config.train.steps=15", *given[2:]]
    same = ["--config.train.lr=1e3", "--config.train.name=1e3", "--config.on=1e3", "--config.train.steps", "1e3"]
    assert read_overrides(config, same) == same


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.py,b.py", ("a.py", "b.py")),
        ("a.py", ("a.py",)),
        (r"C:\a.py,mine/b c.py", (r"C:\a.py", "mine/b c.py")),
        ("('a.py','b.py')", ("a.py", "b.py")),
        ("1,2", ("1", "2")),
        ("", ()),
        ("None", ()),
    ],
)
def test_a_list_with_commas_is_a_tuple_of_texts(text, expected):
    assert override({"imports": ("x",)}, f"imports={text}").imports == expected


@pytest.mark.parametrize(
    ("text", "expected"), [("64,128", (64, 128)), ("64,", (64,)), ("", ()), ("a,b", ("a", "b")), ("64,b", ("64", "b"))]
)
def test_numbers_of_a_list_stay_numbers(text, expected):
    assert override({"buckets": ()}, f"buckets={text}").buckets == expected


def test_none_is_the_empty_text_and_no_number():
    assert override({"run_dir": "runs/a"}, "run_dir=None").run_dir == ""
    for values in ({"seed": 1}, {"lr": 0.1}, {"on": True}):
        (key, value), *_ = values.items()
        with pytest.raises(UserError, match=rf"--config.{key}=None: the option is {value} and cannot be None"):
            override(values, f"{key}=None")


@pytest.mark.parametrize("text", [r"C:\runs\a", "/a:b/c", "D:/a b"])
def test_a_path_with_a_colon_is_read_as_it_is(text):
    assert override({"resume": ""}, f"resume={text}").resume == text


def override(values: dict, *given: str) -> ConfigDict:
    """Return a config with the overrides of a command line, as the train program reads them."""
    config = ConfigDict(values)
    words = ["program", *read_overrides(config, [f"--config.{each}" for each in given])]
    held = flags.FlagValues()
    config_flags.DEFINE_config_dict("config", config, flag_values=held, sys_argv=words)
    held(words)
    return held.config


@pytest.mark.parametrize(
    ("text", "name", "arg"),
    [
        (r"C:\mine\task.py:bc", r"C:\mine\task.py", "bc"),
        (r"C:\mine\task.py", r"C:\mine\task.py", ""),
        ("D:/mine/task.py:", "D:/mine/task.py", ""),
        ("workable:bc,tiny", "workable", "bc,tiny"),
        ("c:bc", "c", "bc"),
        ("task.py:a:b", "task.py", "a:b"),
    ],
)
def test_the_drive_of_a_path_is_not_a_configs_argument(text, name, arg):
    split, colon, rest = split_arg(text)
    assert (split, rest) == (name, arg)
    assert bool(colon) == (text != name)


def test_a_colon_in_the_name_of_a_config_file_is_not_its_argument(tmp_path):
    path = tmp_path / "a:b" / "task.py"
    path.parent.mkdir()
    path.write_text("def get_config(arg='none'):\n    return arg\n")
    assert load_config_file(f"{path}:bc") == "bc"
    assert load_config_file(str(path)) == "none"
