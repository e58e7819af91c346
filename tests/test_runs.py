"""A run's folder: who may train in it, and who is kept out."""

import json
import os
import re
import subprocess
import sys

import pytest

from ilqljax.data import files
from ilqljax.errors import UserError
from ilqljax.training import runs
from ilqljax.training.run_config import load_run_config


@pytest.fixture
def config(tmp_path):
    config = load_run_config("configs/workable.py")
    config.run_dir = str(tmp_path / "run")
    return config


def read_seed(run_dir):
    return json.loads((run_dir / "config.json").read_text())["seed"]


def test_of_two_runs_that_chose_one_folder_the_second_is_refused_and_changes_nothing(config):
    other = config.copy_and_resolve_references()
    other.seed = 7
    first, second = runs.choose_run_dir(config), runs.choose_run_dir(other)  # while data and models are being built
    with runs.claim_run_dir(first, config, overrides={}) as run_dir:
        with (
            pytest.raises(UserError, match=rf"being trained by another process \({os.getpid()} on .*run_dir"),
            runs.claim_run_dir(second, other, overrides={"seed": 7}),
        ):
            pass
        assert read_seed(run_dir) == 0
    with pytest.raises(UserError, match="already holds a run"), runs.claim_run_dir(second, other, overrides={}):
        pass
    assert read_seed(run_dir) == 0
    assert json.loads((run_dir / "overrides.json").read_text()) == {}


def test_runs_of_one_second_get_folders_of_their_own(config, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "resolve_path", lambda path: tmp_path / path)
    monkeypatch.setattr(runs.time, "strftime", lambda _: "20260101-000000")
    config.run_dir = ""
    chosen = [runs.choose_run_dir(config) for _ in range(3)]
    found = []
    for folder in chosen:
        with runs.claim_run_dir(folder, config, overrides={}) as run_dir:
            found.append(run_dir.name)
    stem = "workable-20260101-000000"
    assert found == [stem, f"{stem}-2", f"{stem}-3"]


def test_the_command_that_started_a_run_stays_with_it(config):
    with runs.claim_run_dir(runs.choose_run_dir(config), config, overrides={}, command="ilqljax train x") as run_dir:
        assert (run_dir / "command.txt").read_text() == "ilqljax train x\n"
    config.resume = str(run_dir)
    with runs.claim_run_dir(run_dir, config, overrides={}, command="another"):
        assert (run_dir / "command.txt").read_text() == "ilqljax train x\n"


def start(config, **overrides):
    with runs.claim_run_dir(runs.choose_run_dir(config), config, overrides=overrides) as run_dir:
        return run_dir


def resume(config, *, beta):
    """Resume the run with another beta."""
    resumed = config.copy_and_resolve_references()
    resumed.resume, resumed.run_dir, resumed.decode.beta = config.run_dir, "", beta
    overrides = {"decode.beta": beta, "resume": config.run_dir}
    with runs.claim_run_dir(runs.choose_run_dir(resumed), resumed, overrides=overrides) as run_dir:
        runs.record_changes(run_dir, resumed, overrides=overrides)


def read_betas(run_dir):
    """What config.json, config-1.json, ... say of beta, and what overrides.json, ... do."""
    names = ["", *(f"-{n}" for n in range(1, 1 + len([*run_dir.glob("config-*.json")])))]
    read = lambda name: json.loads((run_dir / name).read_text())  # noqa: E731
    return [
        (read(f"config{name}.json")["decode"]["beta"], read(f"overrides{name}.json").get("decode.beta"))
        for name in names
    ]


def test_what_a_resumed_run_changed_is_recorded_and_what_it_had_is_kept(config):
    run_dir = start(config, run_dir=config.run_dir)
    began = (run_dir / "config.json").stat().st_mtime_ns
    for beta in (8.0, 16.0, 16.0, 4.0):  # 8 is what it had
        resume(config, beta=beta)
    assert read_betas(run_dir) == [(4.0, 4.0), (8.0, None), (16.0, 16.0)]
    _, now = runs.open_run_config(run_dir)
    assert (now.decode.beta, now.run_dir, now.resume) == (4.0, config.run_dir, "")
    assert (run_dir / "config.json.sha256").is_file()
    assert json.loads((run_dir / "overrides.json").read_text()) == {"run_dir": config.run_dir, "decode.beta": 4.0}
    assert runs.find_start(run_dir) == began


def test_a_kill_while_changes_are_recorded_leaves_the_old_config_or_the_new_one(config, monkeypatch):
    run_dir = start(config)
    expected = {8.0: [(8.0, None)], 4.0: [(4.0, 4.0), (8.0, None)]}

    def kill_at(n, replace=os.replace):
        moves = iter(range(n))

        def replace_or_die(*paths):
            if next(moves, None) is None:
                raise KeyboardInterrupt
            replace(*paths)

        return replace_or_die

    for n in range(5):  # overrides-1, config-1, overrides, config, its checksum
        for then in (8.0, 4.0):
            with monkeypatch.context() as patch:
                patch.setattr(files.os, "replace", kill_at(n))
                with pytest.raises(KeyboardInterrupt):
                    resume(config, beta=4.0)
            is_new = runs.open_run_config(run_dir)[1].decode.beta == 4.0
            assert is_new == (n == 4)
            if then == 4.0 or not is_new:
                resume(config, beta=then)
                assert read_betas(run_dir)[: len(expected[then])] == expected[then]
            for file in run_dir.glob("config*.json"):
                file.unlink()
            start(config)


def test_a_run_that_is_being_trained_is_not_resumed_but_read(config):
    resumed = config.copy_and_resolve_references()
    resumed.resume = config.run_dir
    with runs.claim_run_dir(runs.choose_run_dir(config), config, overrides={}) as run_dir:
        with pytest.raises(UserError, match="being trained by another process"):
            runs.choose_run_dir(resumed)
        assert runs.open_run_config(run_dir)[1].seed == 0
    with runs.claim_run_dir(runs.choose_run_dir(resumed), resumed, overrides={}) as again:
        assert again == run_dir


def test_a_killed_run_is_resumed(config):
    program = f"""
import os, signal
from ilqljax.training import runs
from ilqljax.training.run_config import load_run_config
config = load_run_config("configs/workable.py")
config.run_dir = {config.run_dir!r}
with runs.claim_run_dir(runs.choose_run_dir(config), config, overrides={{}}):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert killed.returncode == -9, killed.stderr
    config.resume = config.run_dir
    with runs.claim_run_dir(runs.choose_run_dir(config), config, overrides={}) as run_dir:
        assert re.fullmatch(rf"{os.getpid()} on .*\n", (run_dir / runs.LOCK).read_text())


def test_where_nothing_can_be_locked_a_run_goes_on_with_a_warning(config, monkeypatch, caplog):
    monkeypatch.setattr(files, "fcntl", None)
    with runs.claim_run_dir(runs.choose_run_dir(config), config, overrides={}):
        assert "cannot be locked" in caplog.text


def refuse(config, write=lambda run_dir: None):
    with (
        pytest.raises(UserError, match="no wandb"),
        runs.claim_run_dir(runs.choose_run_dir(config), config, overrides={}) as run_dir,
    ):
        write(run_dir)
        raise UserError("no wandb")
    return run_dir


def save(*parts):
    """Return what writes a file into a run's folder."""

    def write(run_dir):
        path = run_dir.joinpath(*parts)
        path.parent.mkdir(parents=True)
        path.write_text("{}")

    return write


def test_the_folder_of_a_refused_start_is_free_again(config):
    assert not refuse(config, save("checkpoints", "bc", "trash", "leftover")).exists()
    start(config)


def test_a_refused_start_leaves_what_was_in_its_folder(config, tmp_path):
    note = tmp_path / "run" / "metrics" / "note.txt"
    note.parent.mkdir(parents=True)
    note.write_text("mine")
    run_dir = refuse(config)
    assert list(run_dir.iterdir()) == [note.parent] and note.read_text() == "mine"


@pytest.mark.parametrize(
    "made", [("checkpoints", "bc", "6", "state"), ("metrics", "bc", "metrics.jsonl")], ids=lambda made: made[0]
)
def test_a_run_that_had_begun_keeps_its_folder_when_it_fails(config, made):
    run_dir = refuse(config, save(*made))
    assert run_dir.joinpath(*made).is_file() and (run_dir / "config.json").is_file()


@pytest.mark.parametrize(
    ("old", "new"),
    [('\n  "seed"', '\n  "sued"'), ('\n  "model"', '\n  "modem"'), ('\n  "seed": 0', '\n  "seed": "0"')],
)
def test_a_config_that_lost_what_acting_reads_is_refused(config, tmp_path, old, new):
    with runs.claim_run_dir(runs.choose_run_dir(config), config, overrides={}) as run_dir:
        path = run_dir / "config.json"
        text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(UserError, match="damaged or was changed"):
        runs.open_run_config(run_dir)
    (run_dir / "config.json.sha256").unlink()
    with pytest.raises(UserError, match=r"config\.json: (seed|model) missing or of another kind"):
        runs.open_run_config(run_dir)


def test_a_run_is_not_resumed_without_an_option_that_it_had(config):
    before = config.copy_and_resolve_references()
    with before.unlocked():
        before.data.kept = 1
    with runs.claim_run_dir(runs.choose_run_dir(before), before, overrides={}):
        pass
    config.resume = config.run_dir
    with pytest.raises(UserError, match=r"other values of data\.kept"):
        runs.choose_run_dir(config)


def test_leftovers_of_a_killed_run_are_cleared_when_it_is_resumed(config):
    run_dir = start(config)
    for name in (".results.json.123.tmp", "export/.123.tmp/model.safetensors"):
        (run_dir / name).parent.mkdir(parents=True, exist_ok=True)
        (run_dir / name).touch()
    config.resume = config.run_dir
    start(config)
    assert list(run_dir.rglob(".*")) == []


@pytest.mark.parametrize("section", ["matcher", "held_out"])
def test_a_runs_function_is_code_of_others_and_called_only_if_its_module_is_named(config, section):
    function = {"name": "callable", "function": "os.path:join"}
    if section == "matcher":
        config.matcher = function
    else:
        config.evaluator.held_out_matcher = function
    with runs.claim_run_dir(runs.choose_run_dir(config), config, overrides={}) as run_dir:
        pass
    with pytest.raises(UserError, match=r"calls a function of the module os\.path.*--imports os\.path$"):
        runs.open_run_config(run_dir)
    with pytest.raises(UserError, match=r"--imports json,os\.path$"):
        runs.open_run_config(run_dir, imports=("json",))
    assert runs.open_run_config(run_dir, imports=("os.path",))[1].imports == ("os.path",)


@pytest.mark.parametrize("imports", [None, "os.path", 3])
def test_imports_that_are_no_list_are_said_to_be_damage(config, imports):
    with runs.claim_run_dir(runs.choose_run_dir(config), config, overrides={}) as run_dir:
        pass
    saved = json.loads((run_dir / "config.json").read_text())
    files.save_with_checksum(run_dir / "config.json", json.dumps(saved | {"imports": imports}))
    with pytest.raises(UserError, match="imports is no list of names"):
        runs.open_run_config(run_dir)
