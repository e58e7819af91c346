"""Two processes train as one: they start, act, are stopped, resume, and end with what one process with two devices has.

`python tests/test_many_processes.py` is one of the two.
"""

import itertools
import json
import os
import re
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from raw_checkpoints import restore_raw
from two_processes import TIMEOUT_S, finish_two, start_two

from ilqljax.decoding.policy import TextPolicy
from ilqljax.errors import Interrupted, UserError
from ilqljax.train import train
from ilqljax.training import ending, processes, shared_acting
from ilqljax.training import loop as stage
from ilqljax.training import mesh as sharding
from ilqljax.training.evaluation import evaluate_run
from ilqljax.training.run_config import load_run_config

STEPS = 4


def make_config(folder: Path, name: str) -> ConfigDict:
    config = load_run_config("configs/workable.py")
    config.run_dir = str(folder / name)
    config.data.update({"folder": str(folder / f"{name}-data"), "n_postings": 30, "n_candidates": 100, "n_practice": 4})
    config.data.fractions = (0.5, 0.2, 0.3)
    config.tokenizer.vocab_size = 400
    config.model.update({"n_embd": 16, "n_head": 2, "n_layer": 1, "unroll": 1, "n_positions": 512})
    for section in (config.pretrain, config.train):
        section.update({"total_steps": STEPS, "batch_size": 4, "accumulate_steps": 1, "warmup_steps": 1})
        section.update({"eval_every": STEPS, "save_every": 2, "log_every": 1, "n_rollouts": 0, "select": "last"})
        section.update({"length_buckets": (448,), "action_buckets": (192,)})
        section.eps = 1e-3  # a smaller one makes steps of gradients that are nothing but rounding
    config.train.n_rollouts = 2
    config.decode.max_new_tokens = 8
    config.acting.update({"batch_size": 4, "length_buckets": (256,)})
    config.evaluator.update({"best_of": 1, "max_postings": 6, "fluency": ""})
    config.mesh.update({"data": 1, "fsdp": 2})  # no process holds all of a parameter
    return config


def run_as_one_of_two(folder: Path) -> None:
    """Train until one of the two is asked to end, resume; then meet two mistakes."""
    processes.start_processes()
    calls = []

    def shard_and_ask(batch, mesh, shard=stage.shard_batch):
        calls.append(1)
        if len(calls) == STEPS + 3 and jax.process_index() == 1:  # before the third step of the second stage
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5 * ending.SECONDS_BETWEEN_LOOKS)  # steps take long enough for the two to agree
        return shard(batch, mesh)

    config = make_config(folder, "two")
    config.grace_seconds = float(TIMEOUT_S)
    run, acted = TextPolicy.run, []
    TextPolicy.run = lambda policy, prompts, numbers: acted.append(len(prompts)) or run(policy, prompts, numbers)
    stage.shard_batch, kept = shard_and_ask, stage.shard_batch
    try:
        train(config)
    except Interrupted as error:
        sys.stdout.write(f"stopped: {error.status}\n")
    stage.shard_batch = kept
    config.resume, config.run_dir = config.run_dir, ""
    acted.clear()
    train(config)
    sys.stdout.write(f"acted: {acted[-2:]}\n")  # one call of each policy; rollouts come before

    def fail() -> None:
        raise ValueError

    try:
        processes.broadcast_from_leader(fail)
    except (ValueError, UserError) as error:
        sys.stdout.write(f"failed: {type(error).__name__}\n")
    config.seed = jax.process_index()
    try:
        train(config)
    except UserError as error:
        sys.stdout.write(f"refused: {error}\n")
    processes.leave_together(longest_ms=1000 * TIMEOUT_S)  # jax waits for a short time, and a busy machine takes longer


@pytest.fixture(scope="module")
def runs_and_outputs(tmp_path_factory):
    """The folders of a run of two processes and of one, and what each of the two processes said."""
    folder = tmp_path_factory.mktemp("processes")
    both = start_two(__file__, folder)
    try:
        one = train(make_config(folder, "one"))
    finally:
        outputs = finish_two(both)
    return folder / "two", one, outputs


@pytest.mark.slow
def test_two_processes_train_what_one_with_two_devices_trains(runs_and_outputs):
    two, one, _ = runs_and_outputs
    for name in ("bc", "ilql"):
        found, expected = (restore_raw(run_dir / "checkpoints" / name) for run_dir in (two, one))
        assert found["step"] == STEPS
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), found, expected)


@pytest.mark.slow
def test_the_first_process_acts_and_writes_for_both(runs_and_outputs):
    two, one, (first, second) = runs_and_outputs
    for run_dir in (two, one):
        assert (run_dir / "export" / "policy" / "model.safetensors").is_file()
    rewrites = [
        [json.loads(line)["rewrite"] for line in (run_dir / "evaluation.jsonl").read_text().splitlines()]
        for run_dir in (two, one)
    ]
    assert rewrites[0] == rewrites[1]
    steps = [json.loads(line)["step"] for line in (two / "metrics/ilql/metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 4]  # the last with an evaluation
    assert len(list((two / "metrics" / "bc").glob("events*"))) == 2  # the run and the resumed run
    step = re.search(r"continues from step ([34]) of ilql", first[1])[1]  # whether the other had begun the third
    assert f"ilql: continuing from step {step}" in first[1] and "policy" in first[0]
    assert "SIGTERM: ending" not in first[1]
    said = [line.partition(":")[0] for line in second[0].splitlines() if not line.startswith("[Gloo]")]
    assert said == ["stopped", "acted", "failed", "refused"] and "stopped: 143" in second[0]
    assert "ilql" not in second[1] and "SIGTERM: ending" in second[1]


@pytest.mark.slow
def test_both_processes_write_in_the_judgement_what_one_writes(runs_and_outputs, tmp_path):
    two, _, (first, second) = runs_and_outputs
    assert "acted: [4, 4]" in first[0] and "acted: [2, 2]" in second[0]  # of 6 postings, in calls of 4
    alone = evaluate_run(two, out_dir=tmp_path / "alone")
    assert (two / "evaluation.jsonl").read_bytes() == (alone / "evaluation.jsonl").read_bytes()


@pytest.mark.slow
def test_a_failure_of_the_first_process_ends_the_others(runs_and_outputs):
    *_, (first, second) = runs_and_outputs
    assert "\nfailed: ValueError\n" in first[0] and "\nfailed: UserError\n" in second[0]


@pytest.mark.slow
def test_processes_with_other_configs_all_refuse_to_train(runs_and_outputs):
    *_, outputs = runs_and_outputs
    assert all("refused: Not all of the 2 processes have the same config: 1 differ" in output for output, _ in outputs)


@pytest.fixture
def initialized(monkeypatch):
    """What jax.distributed.initialize was called with."""
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *args, **_: calls.append(args))
    for name in (processes.ADDRESS, processes.COUNT, processes.INDEX):
        monkeypatch.delenv(name, raising=False)
    return calls


def test_the_environment_says_which_process_this_is(initialized, monkeypatch):
    processes.start_processes()
    for name, value in ((processes.ADDRESS, "10.0.0.1:1234"), (processes.COUNT, "2"), (processes.INDEX, "1")):
        monkeypatch.setenv(name, value)
    processes.start_processes()
    assert initialized == [(), ("10.0.0.1:1234", 2, 1)]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("localhost:1", "2", ""), "JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES without JAX_PROCESS_ID says too little"),
        (("localhost:1", "two", "0"), "JAX_NUM_PROCESSES='two' is not a whole number"),
        (("localhost:1", "2", "2"), "JAX_PROCESS_ID=2 is not below JAX_NUM_PROCESSES=2"),
        (("localhost", "2", "0"), "'localhost' is not HOST:PORT"),
    ],
)
def test_a_malformed_environment_is_refused(initialized, monkeypatch, given, message):
    for name, value in zip((processes.ADDRESS, processes.COUNT, processes.INDEX), given, strict=True):
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message):
        processes.start_processes()
    assert not initialized


def test_without_a_cluster_the_variables_are_named(initialized, monkeypatch):
    def fail(**_) -> None:
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", fail)
    with pytest.raises(UserError, match=r"no cluster was found .* JAX_COORDINATOR_ADDRESS=HOST:PORT"):
        processes.start_processes()


def test_waiting_for_another_process_is_done_in_short_calls_and_other_errors_are_raised():
    answers = iter(["DEADLINE_EXCEEDED: no key", "DEADLINE_EXCEEDED: no key", None, "UNAVAILABLE: Socket closed"])

    def get(_: str, wait_ms: int) -> str:
        assert wait_ms <= 1000  # Python hears of a signal between calls
        if problem := next(answers):
            raise jax.errors.JaxRuntimeError(problem)
        return "said"

    client = SimpleNamespace(blocking_key_value_get=get)
    assert processes.wait_for_text(client, "key") == "said"
    with pytest.raises(jax.errors.JaxRuntimeError, match="UNAVAILABLE"):
        processes.wait_for_text(client, "key")


class Texts(dict):
    """What processes tell each other, kept by key."""

    key_value_set = dict.__setitem__

    def blocking_key_value_get(self, key: str, _: int) -> str:
        return self[key]


@pytest.fixture
def take_part(monkeypatch):
    """Be one of two processes, which find what the one before told."""
    client = Texts()

    def be(index: int) -> Texts:
        monkeypatch.setattr(processes, "_numbers", itertools.count())
        monkeypatch.setattr(jax, "process_index", lambda: index)
        return client

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(processes, "get_client", lambda: client)
    return be


@pytest.mark.parametrize(("error", "told"), [(Interrupted(signal.SIGTERM), Interrupted), (ValueError(), UserError)])
def test_what_ends_the_first_process_ends_the_others_and_a_request_is_told_as_one(take_part, error, told):
    def fail() -> None:
        raise error

    take_part(0)
    with pytest.raises(type(error)):
        processes.broadcast_from_leader(fail)
    take_part(1)
    with pytest.raises(told) as raised:
        processes.broadcast_from_leader(lambda: None)
    assert getattr(raised.value, "status", 2) == (143 if told is Interrupted else 2)


@pytest.mark.parametrize(("error", "told"), [(Interrupted(signal.SIGINT), Interrupted), (ValueError(), UserError)])
def test_what_ends_a_process_that_writes_for_the_first_ends_it_too(take_part, error, told):
    def run(*_) -> None:
        raise error

    client = take_part(1)
    client["base/0"] = json.dumps({"name": "bc", "overrides": {}, "n": 2})
    call = [np.array([3])], np.array([0])
    client["base/0/1"] = json.dumps([[[3]], [0]])
    with pytest.raises(type(error)):
        shared_acting._serve(client, "base", lambda _: SimpleNamespace(run=run))
    take_part(0)
    with pytest.raises(told) as raised:
        shared_acting._run_shared(client, "base", itertools.count(), {}, lambda *_: [], [call, call])
    assert getattr(raised.value, "status", 2) == (130 if told is Interrupted else 2)


def test_texts_are_compared_without_a_computation_in_which_no_signal_is_heard(take_part, monkeypatch):
    monkeypatch.setattr(processes.multihost_utils, "process_allgather", lambda *_, **__: pytest.fail("it hears none"))
    client = take_part(0)
    with pytest.raises(KeyError):  # the other has told nothing yet
        processes.check_same("a", what="config")
    (first,) = client.values()
    take_part(1)
    processes.check_same("a", what="config")
    assert [*client.values()] == [first, first]
    take_part(1)
    with pytest.raises(UserError, match="Not all of the 2 processes have the same config: 1 differ"):
        processes.check_same("b", what="config")


def test_processes_that_would_share_rows_are_refused():
    sharding.check_owners(np.array([[[0, 0]], [[1, 1]]]))
    with pytest.raises(UserError, match=r"tensor=4 spans several processes: 4 devices are of 2\. .*divides the 2 dev"):
        sharding.check_owners(np.array([[[0, 0, 1, 1]]]))


if __name__ == "__main__":
    run_as_one_of_two(Path(sys.argv[1]))
