"""A task of a user's own, in a file of theirs: it trains, is judged, and is judged again, with no edit of ilqljax."""

import json
import subprocess
import sys
import time

import pytest

from ilqljax.cli import run_command
from ilqljax.errors import UserError
from ilqljax.train import train
from ilqljax.training.evaluation import open_run

TASK = '''
import json
import numpy as np
from ilqljax import CharacterTokenizer, LanguageEnvironment, LanguageObservation, ObservationDataset, register
from ilqljax.data.tokenizer import Tokenizer


class Answer(LanguageObservation):
    """Say "b" to get 1."""

    def __init__(self, said=""):
        self.said = said

    def to_sequence(self):
        return [("a", None)] + [(s, float(s == "b")) for s in self.said], bool(self.said)

    def __str__(self):
        return self.said


class Game(LanguageEnvironment):
    def reset(self):
        self.state = Answer()
        return self.state

    def step(self, action):
        self.state = Answer(action[:1] or "a")
        return self.state, float(action == "b"), True

    def is_terminal(self):
        return bool(self.state.said)


@register("tokenizer", "mine")
def make_tokenizer():
    return CharacterTokenizer("abc")


@register("dataset", "mine")
def make_dataset(tokenizer: Tokenizer, *, n: int = 8):
    return ObservationDataset([Answer("abc"[i % 3]) for i in range(n)], tokenizer)


@register("environment", "mine")
def make_environment():
    return lambda i: Game()


@register("evaluator", "mine")
def make_judge(*, n: int = 2):
    def judge(names, make, *, out_dir):
        said = {name: make(name).act_batch([Answer()] * n) for name in names}
        (out_dir / "said.json").write_text(json.dumps(said))
        return [{"policy": name} for name in names], "table of mine"

    return judge
'''


def write_task(folder, *, steps=2):
    """Write the task's file, and return it and a config."""
    file = folder / "mine.py"
    file.write_text(TASK)
    stage = {"total_steps": steps, "batch_size": 2, "length_buckets": (8,), "n_rollouts": 2, "log_every": 1}
    return file, {
        "task": "mine",
        "algorithm": "ilql",
        "imports": (str(file),),
        "run_dir": str(folder / "run"),
        "model": {"name": "gpt2", "n_positions": 16, "n_embd": 8, "n_layer": 1, "n_head": 1},
        **{name: {"name": "mine"} for name in ("tokenizer", "dataset", "validation_dataset", "pretrain_dataset")},
        **{name: {"name": "mine"} for name in ("environment", "evaluator")},
        "pretrain": stage,
        "train": stage,
        "decode": {"max_new_tokens": 2, "beta": 1.0},
        "acting": {"length_buckets": (8,)},
        "mesh": {"data": 1},
    }


CALLER = """
import signal, sys
from pathlib import Path
import ilqljax as il
before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
try:
    il.train_run(eval(Path(sys.argv[1]).read_text()))
except il.errors.Interrupted as error:
    assert before == [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    raise SystemExit(error.status)
"""


@pytest.mark.slow
def test_a_training_called_from_a_program_saves_its_step_at_sigterm_and_goes_on(tmp_path):
    _, config = write_task(tmp_path, steps=1_000_000)
    (tmp_path / "config.txt").write_text(repr(config))
    command = [sys.executable, "-c", CALLER, str(tmp_path / "config.txt")]
    metrics = tmp_path / "run" / "metrics" / "bc" / "metrics.jsonl"
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while not (metrics.is_file() and metrics.stat().st_size) and process.poll() is None:
            time.sleep(0.05)
        process.terminate()
        _, said = process.communicate(timeout=60)
    assert process.returncode == 143, said
    (step,) = (
        int(folder.name) for folder in (tmp_path / "run" / "checkpoints" / "bc").iterdir() if folder.name.isdecimal()
    )
    assert f"continues from step {step} of bc" in said
    config["resume"], config["run_dir"] = config["run_dir"], ""
    config["pretrain"] = config["pretrain"] | {"total_steps": step + 2}
    config["train"] = config["train"] | {"total_steps": 2}
    run_dir = train(config)
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert [line["step"] for line in lines if "train/loss" in line] == list(range(1, step + 3))
    assert (run_dir / "results.json").is_file()


@pytest.mark.slow
def test_a_task_in_a_file_trains_and_is_judged_again_when_its_import_is_named(tmp_path, capsys):
    file, config = write_task(tmp_path)
    run_dir = train(config)
    assert all("table of mine" in (run_dir / name).read_text() for name in ("results.txt", "report.html"))
    with pytest.raises(UserError, match=r"its config imports .*mine\.py\. That is code of whoever trained it"):
        open_run(run_dir)
    run_command(["evaluate", "--run", str(run_dir), "--out", str(tmp_path / "again"), "--imports", str(file)])
    assert json.loads((tmp_path / "again" / "said.json").read_text()).keys() == {"bc", "ilql"}
    assert "table of mine" in capsys.readouterr().out
