"""The program `ilqljax`: its commands' help, its mistakes, old spellings, and options made of dataclasses."""

import argparse
import importlib
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, fields
from itertools import pairwise

import pytest

from ilqljax import cli
from ilqljax.cli import add_options, list_commands, list_given, main, make_parser, read_options, run_command
from ilqljax.config.files import diff_overrides
from ilqljax.decoding.options import DecodeConfig
from ilqljax.errors import UserError
from ilqljax.hiring.data.prepare import DataConfig
from ilqljax.hiring.reward.scores import RewardConfig

NAMES = ["train", "evaluate", "inspect", "export", "import", "completion", "rewrite", "audit", "play"]
NAMES += ["data prepare", "data propose", "data sample", "data headroom", "report policies", "report impact"]


def parse(name, *words):
    return make_parser(name, importlib.import_module(list_commands()[name])).parse_args(list(words))


def show_help(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        run_command([*words, "--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_the_commands_of_the_library_and_of_both_tasks_are_listed_with_what_they_do(capsys):
    assert set(list_commands()) == set(NAMES)
    run_command([])
    listed = dict(re.findall(r"^  (\S+(?: \S+)?)  +(\S.*)$", capsys.readouterr().out, re.MULTILINE))
    assert set(listed) == set(NAMES)
    assert listed["play"] == "Play Wordle in the terminal."
    assert all(len(name) + len(line) < 110 for name, line in listed.items())


def test_the_commands_of_a_group_are_listed_alone(capsys):
    run_command(["data", "--help"])
    shown = capsys.readouterr().out
    assert "usage: ilqljax data COMMAND" in shown and "data sample" in shown and "audit" not in shown


@pytest.mark.parametrize("name", NAMES)
def test_help_names_every_option_with_its_default_and_ends_with_an_example(capsys, name):
    shown = show_help(capsys, *name.split())
    command = importlib.import_module(list_commands()[name])
    assert command.__doc__.splitlines()[0] in shown
    assert f"ilqljax {name} " in shown.rpartition("examples:")[2]
    flat = " ".join(shown.split())
    parser = make_parser(name, command)
    for action in (a for a in parser._actions if a.help != argparse.SUPPRESS):
        assert action.help and (action.option_strings or [action.dest])[0] in flat
        if action.default not in (None, "", False, argparse.SUPPRESS):
            assert f"(default: {action.default})".replace(" ", "") in flat.replace(" ", "")
    assert "(default: )" not in flat and "==SUPPRESS==" not in flat


def test_help_of_all_commands_together_imports_nothing_slow():
    program = f"""
import sys
from ilqljax.cli import main
for name in {[[], *(name.split() for name in NAMES)]}:
    try:
        main([*name, "--help"])
    except SystemExit as ended:
        assert ended.code == 0, name
    slow = {{"jax", "httpx", "matplotlib", "pandas", "scipy.optimize", "scipy.stats", "sklearn", "statsmodels"}}
    assert not slow & sys.modules.keys(), (name, slow & sys.modules.keys())
    if not name:
        assert not sys.modules.keys() & {{"numpy", "scipy"}}
"""
    subprocess.run([sys.executable, "-c", program], stdout=subprocess.DEVNULL, check=True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["serv"], "'serv'. Commands: train, evaluate"),
        (["audti"], "'audti'. Did you mean 'audit'? Commands: train, evaluate"),
        (
            ["data", "prep"],
            "'data prep'. Did you mean 'data prepare'? Commands: data headroom, data prepare, data propose",
        ),
    ],
)
def test_an_unknown_command_is_one_line_with_the_list(capsys, words, said):
    with pytest.raises(SystemExit) as ended:
        main(words)
    error = capsys.readouterr().err
    assert ended.value.code == 2 and error.count("\n") == 1
    assert error.startswith(f"error: Unknown command {said}")


def test_the_version_is_that_of_the_package(capsys):
    main(["--version"])
    assert re.fullmatch(r"ilqljax \d+\.\d+\S*\n", capsys.readouterr().out)


def test_a_group_without_a_command_lists_its_commands(capsys):
    run_command(["report"])
    assert "report impact" in capsys.readouterr().out


def test_an_installation_without_the_tasks_commands_says_what_to_do(monkeypatch):
    monkeypatch.setattr(cli, "list_commands", lambda: dict(cli.LIBRARY))
    with pytest.raises(UserError, match=r"Unknown command 'audit'.*pip install -e \."):
        run_command(["audit", "--sample"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data", "sample", "--run", "x"], "the following arguments are required: --out"),
        (["export", "--out", "x"], "one of the arguments --run is required"),
        (["play", "--sead", "1"], "unrecognized arguments: --sead"),
        (["play", "--seed", "one"], "argument --seed: invalid int value: 'one'"),
        (["data", "prepare", "--out", "x", "--fractions", "0.5,half"], "invalid comma-separated list value"),
    ],
)
def test_a_wrong_option_is_one_line_that_names_the_help(capsys, words, message):
    with pytest.raises(SystemExit) as ended:
        main(words)
    error = capsys.readouterr().err
    assert ended.value.code == 2 and error.count("\n") == 1
    assert message in error and "--help" in error


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("evaluate", "--run r --save_path o", "--run r --out o"),
        ("export", "--run r --save o", "--run r --out o"),
        ("export", "--load r --save o --policy bc", "--run r --out o --policy bc"),
        ("import", "--load m.pkl --save o", "--weights m.pkl --out o"),
        ("data prepare", "--out_dir o --top 7", "--out o --top 7"),
        ("report policies", "--eval_file e.jsonl --save_path o.csv", "--run e.jsonl --out o.csv"),
        ("report impact", "--eval_file e.jsonl --save_path o.csv", "--run e.jsonl --out o.csv"),
        ("rewrite", "--checkpoint r --job j", "--run r --job j"),
    ],
)
def test_old_spellings_mean_the_same_and_are_not_shown(capsys, name, old, new):
    assert parse(name, *old.split()) == parse(name, *new.split())
    shown = show_help(capsys, *name.split())
    assert not any(word in shown for word in old.split() if word.startswith("--") and word not in new.split())


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here to read the script")
def test_a_shell_completes_commands_their_options_configs_and_files(capsys, tmp_path):
    run_command(["completion", "bash"])
    script = tmp_path / "ilqljax"
    script.write_text(capsys.readouterr().out)

    def complete(*words):
        line = f"source {script}; COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; _shtab_ilqljax"
        done = subprocess.run(["bash", "-c", line + "; echo ${COMPREPLY[@]}"], capture_output=True, text=True)
        return done.stdout.split()

    assert {"train", "data", "audit"} <= set(complete("ilqljax", "''"))
    assert complete("ilqljax", "data", "''") == ["headroom", "prepare", "propose", "sample"]
    assert "--run" in complete("ilqljax", "rewrite", "--")
    assert not [word for word in complete("ilqljax", "train", "--") if "KEY" in word]
    assert complete("ilqljax", "train", "--config", "wor")[:2] == ["wordle", "workable"]
    for words in (["train", "--config"], ["audit", "--scores"]):
        assert complete("ilqljax", *words, str(script)[:-1]) == [str(script)]


def test_the_scripts_of_other_shells_name_the_configs_or_complete_files(capsys):
    run_command(["completion", "zsh"])
    zsh = capsys.readouterr().out
    assert "'configs:config:(hackernews wordle workable)'" in zsh
    assert re.search(r'"--config\[[^]]*\]:FILE:_ilqljax_config"', zsh)
    run_command(["completion", "tcsh"])
    assert "'n/--config/f/'" in capsys.readouterr().out


def test_help_with_a_config_lists_every_option_with_its_value(capsys):
    from ilqljax.training.run_config import load_run_config

    shown = show_help(capsys, "train", "--config", "wordle:bc")
    values = diff_overrides({}, load_run_config("wordle:bc"))
    assert [f"--config.{key}={value!r}" for key, value in values.items() if f"--config.{key}=" not in shown] == []
    assert "  --config.train.lr=0.003\n      peak learning rate\n" in shown


@pytest.mark.parametrize(
    "name", ["workable", "workable:gpt2,dpo", "workable:callable,minilm", "hackernews", "wordle:psi"]
)
def test_help_with_a_config_says_what_every_option_is(capsys, name):
    shown = show_help(capsys, "train", "--config", name).partition("and their values:\n")[2].splitlines()
    assert [a for a, b in pairwise([*shown, ""]) if a.startswith("  --config") and not b.startswith(" " * 6)] == []


@pytest.mark.parametrize("module", ["ilqljax", "ilqljax.cli"])
def test_the_package_and_its_cli_are_the_program_too(module):
    run = [sys.executable, "-W", "error", "-m", module]
    assert subprocess.run([*run, "--version"], capture_output=True, text=True).stdout.startswith("ilqljax ")
    wrong = subprocess.run([*run, "trian"], capture_output=True, text=True)
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1) and "Did you mean 'train'" in wrong.stderr


def test_train_is_absls_program_and_gets_its_words_as_they_are(monkeypatch):
    from ilqljax import train

    seen = []
    monkeypatch.setattr(train, "main", seen.append)
    monkeypatch.setattr(train, "restart_with_huge_pages", lambda: None)
    words = ["--config", "configs/workable.py:bc", "--config.train.lr=1e-3", "--nodistributed"]
    run_command(["train", *words])
    assert seen == [words]


def test_a_report_finds_the_evaluation_of_a_runs_folder(tmp_path):
    (tmp_path / "evaluation.jsonl").write_text("{broken")
    for run in (tmp_path, tmp_path / "evaluation.jsonl"):
        with pytest.raises(UserError, match=r"evaluation\.jsonl:1: not JSON"):
            run_command(["report", "policies", "--run", str(run)])


# Options of dataclasses.


@dataclass(frozen=True)
class Inner:
    """Nothing."""


@dataclass(frozen=True)
class Settings:
    """Say how.

    Attributes:
        n: how many, which is
            100 % told on two lines.
        quick: do it quickly.
        names: of the parts.
        sizes: of the parts; as
            numbers: whole ones.
        safe: do it safely.
        inner: more.

    More: text.
    """

    n: int = 3
    quick: bool = False
    names: tuple[str, ...] = ("a", "b")
    sizes: tuple[float, float] = (1.0, 2.5)
    safe: bool = True
    inner: Inner = Inner()


def test_options_have_the_types_defaults_and_words_of_the_dataclass(capsys):
    parser = cli.Parser(formatter_class=cli.HelpFormatter)
    add_options(parser, Settings, renamed={"n": "count"}, known={"names": ["a", "b", "c"]})
    shown = " ".join(parser.format_help().split())
    assert "--count COUNT how many, which is 100 % told on two lines (default: 3)" in shown
    assert "--names NAMES of the parts. Known: a, b, c (default: a,b)" in shown
    assert "--no-safe do it safely (default: True)" in shown
    assert "of the parts; as numbers: whole ones (default: 1.0,2.5)" in shown
    assert "--inner" not in shown

    def read(*words):
        return read_options(parser.parse_args(words), Settings, renamed={"n": "count"})

    assert read() == Settings()
    words = ("--count", "4", "--quick", "--no-safe", "--names", "c, a", "--sizes", "1,2")
    assert read(*words) == Settings(4, True, ("c", "a"), (1.0, 2.0), False)


def test_options_without_a_default_of_their_own_are_listed_only_where_they_were_given():
    parser = cli.Parser(formatter_class=cli.HelpFormatter)
    add_options(parser, DecodeConfig, ("beta", "top_p"), unset="the run's own")
    assert "(default: the run's own)" in " ".join(parser.format_help().split())
    assert list_given(parser.parse_args([]), DecodeConfig) == {}
    assert list_given(parser.parse_args(["--beta", "0"]), DecodeConfig) == {"beta": 0.0}


def test_prepare_offers_every_setting_of_the_data_and_of_the_reward():
    offered = vars(parse("data prepare", "--out", "o"))
    wanted = {field.name for config in (DataConfig, RewardConfig) for field in fields(config)} - {"reward", "k"}
    assert offered.keys() == wanted | {"top", "out"}
