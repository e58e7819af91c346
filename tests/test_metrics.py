"""Metric writers, metrics fetched one step late, and progress."""

import contextlib
import io
import json
import math
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from ilqljax.errors import UserError
from ilqljax.training.compilation import CompilationCounter
from ilqljax.training.metrics import (
    JsonlWriter,
    NonFiniteError,
    Pace,
    ProgressBar,
    Recorder,
    TensorBoardWriter,
    WandbWriter,
    measure_peak_memory,
)
from ilqljax.training.run_config import TrainConfig


def read_records(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


# --- JSONL


def test_each_write_is_a_flushed_line(tmp_path):
    path = tmp_path / "run" / "metrics.jsonl"
    writer = JsonlWriter(path)
    writer.write(1, {"loss": 2.5})
    writer.write(2, {"loss": 2.25, "train/v": 1})
    assert read_records(path) == [{"step": 1, "loss": 2.5}, {"step": 2, "loss": 2.25, "train/v": 1.0}]
    writer.close()


def test_resume_drops_records_after_the_resumed_step(tmp_path):
    path = tmp_path / "metrics.jsonl"
    writer = JsonlWriter(path)
    for step in (1, 2, 3, 4):
        writer.write(step, {"loss": step})
    writer.close()
    writer = JsonlWriter(path, resume_step=2)
    writer.write(3, {"loss": 30})
    writer.close()
    assert [(r["step"], r["loss"]) for r in read_records(path)] == [(1, 1), (2, 2), (3, 30)]
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_without_resume_step_records_are_appended(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for step in (5, 1):
        writer = JsonlWriter(path)
        writer.write(step, {})
        writer.close()
    assert [r["step"] for r in read_records(path)] == [5, 1]


def test_a_full_disk_is_named_with_the_file(tmp_path):
    writer = JsonlWriter(tmp_path / "metrics.jsonl")
    writer._file.close()
    writer._file = Path("/dev/full").open("a")  # noqa: SIM115
    with pytest.raises(UserError, match=r"/dev/full: cannot be written \(No space left on device\)\. Free some space"):
        writer.write(1, {"a": 1.0})
    with contextlib.suppress(OSError):
        writer.close()


@pytest.mark.parametrize("cut", [b"", b'{"step": 2, "a"'])
def test_a_tail_of_nul_bytes_is_dropped(tmp_path, cut):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n' + cut + b"\0" * 4096)
    with contextlib.closing(JsonlWriter(path, resume_step=1)) as writer:
        writer.write(2, {"a": 2.0})
    assert path.read_text() == '{"step": 1}\n{"step": 2, "a": 2.0}\n'


def test_last_line_that_was_cut_off_is_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2, "lo')
    JsonlWriter(path, resume_step=5).close()
    assert path.read_text() == '{"step": 1}\n'


@pytest.mark.parametrize("damage", [b"\0" * 24 + b"\n", b'{"step": 1}\n\xff\n', b'{"step": 1}\n\0\0\n'])
def test_damage_is_not_taken_for_a_line_that_was_cut_off(tmp_path, damage):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(damage)
    with pytest.raises(UserError, match=r"metrics\.jsonl:.*Mend or move the file"):
        JsonlWriter(path, resume_step=5)
    assert path.read_bytes() == damage


@pytest.mark.parametrize("line", ["{oops", "[1]", '{"loss": 1}', "[" * 100_000, '{"step": ' + "1" * 5000 + "}"])
def test_line_that_is_not_a_record_is_refused_with_its_number(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1}}\n{line}\n{{"step": 3}}\n')
    before = path.read_text()
    with pytest.raises(UserError, match=r"metrics\.jsonl:2: "):
        JsonlWriter(path, resume_step=1)
    assert path.read_text() == before


def test_nan_is_written_as_null(tmp_path):
    path = tmp_path / "metrics.jsonl"
    writer = JsonlWriter(path)
    writer.write(1, {"a": math.nan, "b": -math.inf, "c": 1})
    writer.close()
    assert path.read_text() == '{"step": 1, "a": null, "b": null, "c": 1.0}\n'


# --- Other writers


def test_tensorboard_writes_an_event_file(tmp_path):
    writer = TensorBoardWriter(tmp_path, resume_step=3)
    writer.write(4, {"train/loss": 1.5})
    writer.close()
    (events,) = tmp_path.glob("events.out.tfevents.*")
    assert b"train/loss" in events.read_bytes()


def test_missing_wandb_names_the_extra(tmp_path, monkeypatch):
    class Absent:
        def find_spec(self, name, path=None, target=None):
            if name == "wandb":
                raise ModuleNotFoundError("No module named 'wandb'", name="wandb")

    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])
    with pytest.raises(UserError, match=r"pip install 'ilqljax\[wandb\]'"):
        WandbWriter("project", directory=tmp_path, name="n", mode="", config={})


def test_wandb_gets_mode_name_and_metrics(tmp_path, monkeypatch):
    calls = []

    class Run:
        def log(self, metrics, step):
            calls.append((step, metrics))

        def finish(self):
            calls.append("finished")

    def init(**arguments):
        calls.append(arguments)
        return Run()

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    writer = WandbWriter("p", directory=tmp_path / "w", name="n", mode="offline", config={"lr": 1})
    writer.write(3, {"loss": 1})
    writer.close()
    arguments, logged, finished = calls
    expected = {"project": "p", "mode": "offline", "resume": "allow", "config": {"lr": 1}, "name": "n"}
    assert {key: arguments[key] for key in expected} == expected
    assert (logged, finished) == ((3, {"loss": 1.0}), "finished")


def test_unknown_wandb_mode_is_refused(tmp_path):
    with pytest.raises(UserError, match="Known: online, offline, disabled"):
        WandbWriter("p", directory=tmp_path, name="n", mode="on", config={})


# --- Metrics fetched one step late

REST = {"tokens": 1, "flops": 0.0, "data_wait": 0.0}  # what the loop adds to a loss's own metrics


class Records(list):
    def write(self, step, metrics):
        self.append((step, metrics))


def make_recorder(records, *, log_every=1, total_steps=100):
    settings = TrainConfig(total_steps=total_steps, log_every=log_every)
    bar = ProgressBar(total_steps, "bc", stream=io.StringIO())
    return Recorder(settings, writers=[records], bar=bar, compilations=CompilationCounter())


def test_metrics_are_recorded_one_step_late():
    records = Records()
    recorder = make_recorder(records)
    recorder.push(1, {"loss": jnp.float32(0.5), **REST})
    assert records == []
    recorder.push(2, {"loss": jnp.float32(0.25), **REST})
    assert records == [(1, {"train/loss": 0.5, "train/tokens": 1.0})]
    recorder.flush()
    recorder.flush()
    assert [(step, metrics["train/loss"]) for step, metrics in records] == [(1, 0.5), (2, 0.25)]


def test_recorded_metrics_are_plain_floats():
    records = Records()
    recorder = make_recorder(records)
    recorder.push(1, REST | {"loss": jnp.float32(1), "tokens": jnp.int32(3), "lr": 0.5})
    recorder.flush()
    ((_, values),) = records
    types_of = {name: type(value) for name, value in values.items()}
    assert types_of == {"train/loss": float, "train/tokens": float, "train/lr": float}


def test_steps_are_written_as_often_as_the_settings_say_and_at_the_end():
    records = Records()
    recorder = make_recorder(records, log_every=3, total_steps=7)
    for step in range(1, 8):
        recorder.push(step, {"loss": 1.0, **REST})
    recorder.flush()
    assert [step for step, _ in records] == [3, 6, 7]


def test_push_does_not_wait_for_the_step_it_is_given():
    class Pending:
        def copy_to_host_async(self):
            pass

        def __array__(self, dtype=None, copy=None):
            raise AssertionError("fetched in the step that made it")

    recorder = make_recorder(Records())
    recorder.push(1, {"loss": jnp.float32(0), **REST})
    recorder.push(2, {"loss": Pending(), **REST})


@pytest.mark.parametrize("name", ["loss", "v_loss"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_non_finite_loss_stops_naming_the_step(name, value):
    records = Records()
    recorder = make_recorder(records)
    recorder.push(7, {"loss": 1.0, "v": jnp.float32(1), **REST, name: jnp.float32(value)})
    with pytest.raises(NonFiniteError, match=f"^{name} is {value} at step 7. .*lower learning rate") as raised:
        recorder.push(8, {"loss": jnp.float32(1), **REST})
    assert isinstance(raised.value, FloatingPointError)
    assert isinstance(raised.value, UserError)
    assert records == []


def test_other_metrics_may_be_non_finite():
    records = Records()
    recorder = make_recorder(records)
    recorder.push(1, {"loss": 1.0, "target_q": jnp.float32(jnp.inf), **REST})
    recorder.flush()
    assert records[0][1]["train/target_q"] == math.inf


def test_sharded_metrics_are_fetched():
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    value = jax.device_put(jnp.float32(3), jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))
    records = Records()
    recorder = make_recorder(records)
    recorder.push(1, {"loss": value, **REST})
    recorder.flush()
    assert records[0][1]["train/loss"] == 3.0


# --- Progress


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_log_file_gets_a_line_per_interval_and_a_last_one():
    stream, clock = io.StringIO(), Clock()
    with ProgressBar(100, "bc", stream=stream, clock=clock) as bar:
        for step in range(1, 8):
            clock.now += 10
            bar.update(step, tokens=500, loss=2.0, flops=0.0)
    assert stream.getvalue().splitlines() == [
        "bc: 3/100, loss 2, 50.0 tokens/s, 0.00FLOP/s, 16:10 left",
        "bc: 6/100, loss 2, 50.0 tokens/s, 0.00FLOP/s, 15:40 left",
        "bc: 7/100, loss 2, 50.0 tokens/s, 0.00FLOP/s, 15:30 left",
    ]


def test_rates_leave_out_the_first_step_which_compiles():
    stream, clock = io.StringIO(), Clock()
    with ProgressBar(3, "bc", stream=stream, clock=clock) as bar:
        clock.now = 1000.0
        bar.update(1, tokens=10, loss=1.0, flops=7e12)
        clock.now = 1001.0
        bar.update(2, tokens=10, loss=1.0, flops=2e12)
    assert stream.getvalue().splitlines()[-1] == "bc: 2/3, loss 1, 10.0 tokens/s, 2.00TFLOP/s, 00:01 left"


def test_terminal_gets_a_bar():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream, clock = Terminal(), Clock()
    with ProgressBar(4, "bc", initial=2, stream=stream, clock=clock) as bar:
        bar.update(3, tokens=5, loss=1.0, flops=0.0)
        clock.now = 1.0
        bar.message("evaluating")
        bar.update(4, tokens=5, loss=0.5, flops=0.0)
    text = stream.getvalue()
    assert "evaluating" in text
    assert "4/4, loss 0.5, 5.00 tokens/s" in text


def test_pace_is_that_of_the_steps_between_restarts():
    now = [0.0]
    pace = Pace(clock=lambda: now[0])

    def run(seconds, flops=0.0, **step):
        now[0] += seconds
        pace.count(flops=flops, **step)

    run(100.0, tokens=8, waited=50.0)  # the step that compiles only starts the clock
    assert pace.read() == {}
    run(1.0, tokens=10, waited=0.5, flops=100.0)
    run(3.0, tokens=30, waited=0.0, flops=300.0)
    assert pace.read() == {
        "tokens_per_second": 10.0,
        "step_seconds": 2.0,
        "data_wait_seconds": 0.25,
        "flops_per_second": 100.0,
    }
    run(2.0, tokens=10, waited=0.0)
    assert pace.read()["tokens_per_second"] == 5.0
    run(1.0, tokens=10, waited=0.0)
    pace.restart()
    assert pace.read() == {}
    run(60.0, tokens=10, waited=0.0)  # an evaluation went by
    run(1.0, tokens=7, waited=0.0)
    assert pace.read()["tokens_per_second"] == 7.0


# --- Memory


def test_the_peak_of_memory_is_in_gb_and_unknown_where_the_system_does_not_say(monkeypatch):
    usage = types.SimpleNamespace(RUSAGE_SELF=0, getrusage=lambda _: types.SimpleNamespace(ru_maxrss=2_000_000))
    monkeypatch.setitem(sys.modules, "resource", usage)
    for platform, expected in (("linux", 2.048), ("darwin", 0.002)):  # in KiB, and in bytes
        monkeypatch.setattr(sys, "platform", platform)
        assert measure_peak_memory() == pytest.approx(expected)
    monkeypatch.setitem(sys.modules, "resource", None)
    assert measure_peak_memory() is None
