"""Kill a small training again and again, resume it, and compare its end with that of one that nobody disturbed.

    python -m benchmarks.fault_campaign                  24 kills: each signal at each moment, in turn; about 10 minutes
    python -m benchmarks.fault_campaign --kills 6 --seed 1
    python -m benchmarks.fault_campaign --processes 2    runs of two processes: one of them or both are killed

A run is resumed after each kill until it ends; another one takes the kills that are left. At its end all arrays of the
last checkpoints (parameters, targets, optimizer, key), the recorded losses, and the judged rewrites must be those of
the undisturbed run, bit for bit. Of several processes those that are left must end soon, and every second run goes on
with one process, and with all of them again after the next kill: sums are then taken in another order, and networks and
losses must be the same but for rounding (`TOLERANCE`).
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import count, cycle, islice, product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ilqljax.cli import run_main
from ilqljax.errors import UserError
from ilqljax.training import processes
from ilqljax.training.judgement import JUDGEMENT

STAGES = ("bc", "ilql")
SIGNALS = {"SIGKILL": -signal.SIGKILL, "SIGTERM": 128 + signal.SIGTERM, "SIGINT": 128 + signal.SIGINT}  # status
SECONDS_BETWEEN_LOOKS = 0.002
LONGEST_RUN_S = 600
JITTER_S = 0.03  # after the moment, at most
LONGEST_END_S = 60  # of the processes after one was killed: the grace time, and what a busy machine takes
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


class Attempt(NamedTuple):
    """One kill, and what it left.

    Attributes:
        status: that the processes ended with, in their order.
        recorded: stage and step of the last metrics that were written.
        lost: steps that were recorded, and that the resumed run takes again.
        run: its number, from 1 on.
        who: which process, or "all".
        seconds: until the last process had ended.
    """

    signal: str
    moment: str
    status: tuple[int, ...]
    recorded: str
    lost: int
    run: int
    who: str = "all"
    seconds: float = 0.0


def find_saves(run_dir: Path) -> set[Path]:
    """Find steps that are being written."""
    return set(run_dir.glob("checkpoints/*/*.orbax-checkpoint-tmp*"))


def find_steps(run_dir: Path) -> set[Path]:
    """Find steps that are complete."""
    return {path for path in run_dir.glob("checkpoints/*/*") if path.name.isdecimal()}


def find_deletions(run_dir: Path) -> set[Path]:
    """Find steps that are being deleted."""
    return set(run_dir.glob("checkpoints/*/trash/*"))


def find_records(run_dir: Path) -> set[tuple[Path, int]]:
    """Find metrics, by how long their files are."""
    return {(path, path.stat().st_size) for path in run_dir.glob("metrics/*/metrics.jsonl")}


def find_judgement(run_dir: Path) -> set[tuple[Path, int]]:
    """Find what is written when the last stage is done."""
    return {(path, path.stat().st_mtime_ns) for path in run_dir.glob("export/policy/config.json")}


def find_judged(run_dir: Path) -> set[Path]:
    """Find policies whose rewrites the judgement keeps until it is done."""
    return {path for path in run_dir.glob("unfinished/*.json") if path.name != JUDGEMENT}


MOMENTS: dict[str, Callable[[Path], set] | None] = {
    "random": None,  # any time from the start on
    "a step is taken": find_records,
    "a save begins": find_saves,
    "a save is complete": find_steps,
    "an old step is deleted": find_deletions,
    "the judgement begins": find_judgement,
    "a policy is judged": find_judged,
}
MET_ONCE = ("the judgement begins", "a policy is judged")  # or twice, but the run may end before a kill then


def start_training(
    folder: Path, name: str, *, resume: bool, n_processes: int = 1, rounds: bool = False
) -> list[subprocess.Popen]:
    """Start the training, or go on with it; what it says goes to a file. Where it `rounds`, eps is larger."""
    run_dir, options = folder / name, {"total_steps": 24, "save_every": 2, "eval_every": 8, "log_every": 1}
    options |= {"n_rollouts": 2, "warmup_steps": 2, "length_buckets": (320,), "action_buckets": (128,)}
    if rounds:  # a smaller one makes steps of gradients that are nothing but rounding
        options |= {"eps": 1e-3}
    config: dict[str, Any] = {f"{stage}.{key}": v for stage in ("pretrain", "train") for key, v in options.items()}
    config |= {"data.folder": folder / "data", "data.n_postings": 40, "data.n_candidates": 200, "data.n_practice": 4}
    config |= {"data.fractions": (0.5, 0.2, 0.3), "tokenizer.vocab_size": 600, "model.n_embd": 16, "model.n_head": 2}
    config |= {"model.n_layer": 1, "model.unroll": 1, "model.n_positions": 384, "decode.max_new_tokens": 16}
    config |= {"acting.length_buckets": (224,), "evaluator.best_of": 1, "evaluator.max_postings": 2}
    config |= {"evaluator.fluency": "", "mesh.data": n_processes, ("resume" if resume else "run_dir"): run_dir}
    words = [f"--config.{key}={value}" for key, value in config.items()]
    one_device = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=1"  # a process, tests' too
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": one_device.strip()}
    if n_processes > 1:
        with socket.socket() as free:
            free.bind(("localhost", 0))
            address = f"localhost:{free.getsockname()[1]}"
        environment |= {processes.ADDRESS: address, processes.COUNT: str(n_processes)}
        words.append("--distributed")
    with (folder / f"{name}.log").open("a") as log:
        return [
            subprocess.Popen(
                [sys.executable, "-m", "ilqljax.train", "--config=workable", *words],
                stdout=log,
                stderr=log,
                env=environment | ({processes.INDEX: str(i)} if n_processes > 1 else {}),
            )
            for i in range(n_processes)
        ]


def wait_for(
    moment: str, run_dir: Path, started: list[subprocess.Popen], rng: np.random.Generator, seconds: float
) -> None:
    """Wait until it is time to kill, or a process has ended; undisturbed a run takes so many seconds."""
    find, n_events, start = MOMENTS[moment], int(rng.integers(1, 6)), time.monotonic()
    if moment in MET_ONCE:
        n_events = 1
    deadline = start + (rng.uniform(0, seconds) if find is None else LONGEST_RUN_S)
    before: set = find(run_dir) if find else set()
    while all(one.poll() is None for one in started) and time.monotonic() < deadline:
        if find and (new := find(run_dir) - before):
            n_events, before = n_events - 1, before | new
            if not n_events:
                time.sleep(rng.uniform(0, JITTER_S))
                return
        time.sleep(SECONDS_BETWEEN_LOOKS)


def read_records(run_dir: Path, stage: str) -> list[dict[str, Any]]:
    """Read a stage's complete metric records, without what a clock says."""
    path, records = run_dir / "metrics" / stage / "metrics.jsonl", []
    for line in path.read_bytes().split(b"\n")[:-1] if path.is_file() else ():
        record = json.loads(line)
        records.append(
            {key: v for key, v in record.items() if not key.endswith(("_second", "_seconds", "compilations"))}
        )
    return records


def find_progress(run_dir: Path) -> tuple[str, int, int]:
    """Return the last stage with metrics, its last recorded step, and its newest checkpoint."""
    for stage in reversed(STAGES):
        if records := read_records(run_dir, stage):
            steps = [int(path.name) for path in find_steps(run_dir) if path.parent.name == stage]
            return stage, records[-1]["step"], max(steps, default=0)
    return "none", 0, 0


def read_end(run_dir: Path) -> dict[str, Any]:
    """Return what a run ends with: losses, rewrites, every array's checksum, which reading the networks compares."""
    from ilqljax import open_run
    from ilqljax.training.step_files import name_leaves

    policies = open_run(run_dir).policies
    end: dict[str, Any] = {"rewrites": (run_dir / "evaluation.jsonl").read_text()}
    for stage in STAGES:
        last = max((path for path in find_steps(run_dir) if path.parent.name == stage), key=lambda path: int(path.name))
        saved = json.loads((last / "extra" / "metadata").read_text())
        arrays = {key: v for key, v in saved["checksums"].items() if key != "extra"}
        end[stage] = (last.name, arrays, saved["values"]["loader"], read_records(run_dir, stage))
        trained = policies[stage]
        leaves = name_leaves({"params": trained.params, "target": trained.target})
        end[f"{stage} networks"] = {name: np.asarray(leaf, np.float64) for name, leaf in leaves.items()}
    return end


def find_differing(end: dict[str, Any], expected: dict[str, Any], *, rounds: bool) -> str:
    """Name what an end has other than the expected one: bit for bit, or but for rounding where it `rounds`."""
    names = [name for name in expected if not name.endswith(" networks")]
    if not rounds:
        return ", ".join(name for name in names if end[name] != expected[name])
    differing = []
    for stage in STAGES:
        (step, _, loader, records), (other_step, _, other_loader, other_records) = end[stage], expected[stage]
        if (step, loader) != (other_step, other_loader) or not _are_close(records, other_records):
            differing.append(stage)
        if not _are_close([end[f"{stage} networks"]], [expected[f"{stage} networks"]]):
            differing.append(f"{stage} networks")
    return ", ".join(differing)


def _are_close(records: list[dict[str, Any]], others: list[dict[str, Any]]) -> bool:
    """Compare numbers and arrays by name; what a policy did is left out, a sample may turn on a rounding."""
    if len(records) != len(others):
        return False
    for one, other in zip(records, others, strict=True):
        names = {name for name in one.keys() | other.keys() if not name.startswith("rollout/")}
        if not names <= one.keys() & other.keys():
            return False
        if not all(np.allclose(one[name], other[name], equal_nan=True, **TOLERANCE) for name in names):
            return False
    return True


def finish(started: list[subprocess.Popen], log: Path) -> None:
    """Wait for a run that nobody kills to end; raises a `UserError` where it fails."""
    statuses = [process.wait(LONGEST_RUN_S) for process in started]
    if any(statuses):
        raise UserError(f"A run ended with status {statuses}. See what it says in {log}.")


def kill(started: list[subprocess.Popen], name: str, who: str, log: Path) -> tuple[tuple[int, ...], float]:
    """Send a signal to one process or all; return the statuses of all, and the seconds until all had ended.

    Raises:
        UserError: one goes on or ends as it should not; none is left running.
    """
    targets = started if who == "all" else [started[int(who)]]
    for process in targets:
        process.send_signal(signal.Signals[name])
    begin = time.monotonic()
    try:
        statuses = tuple(process.wait(LONGEST_END_S if len(started) > 1 else LONGEST_RUN_S) for process in started)
    except subprocess.TimeoutExpired as error:
        raise UserError(
            f"A process runs {LONGEST_END_S} s after {name} came to {who}. See what it says in {log}."
        ) from error
    finally:
        for process in started:
            process.kill()
    signalled = {process.returncode for process in targets} - {0}
    # A process that does not listen yet ends by the signal itself, and takes the others with it.
    if signalled - {SIGNALS[name], -signal.Signals[name]} and not (who == "all" and len(started) > 1):
        raise UserError(f"A run ended with status {statuses} at {name}. See what it says in {log}.")
    if name != "SIGKILL" and signalled == {SIGNALS[name]} and set(statuses) - {0, SIGNALS[name]}:
        raise UserError(f"Processes ended with status {statuses} at {name} to {who}. See what they say in {log}.")
    return statuses, time.monotonic() - begin


def run_campaign(
    folder: Path,
    kills: Iterator[tuple[str, str, str]],
    *,
    seed: int = 0,
    n_processes: int = 1,
    longest: int = 10**9,
    say: Callable[[str], object] = print,
) -> tuple[list[Attempt], list[str]]:
    """Kill runs until there is no kill left, and let the last of them end; no run takes more kills than `longest`.

    A kill is a signal, a moment, and which process of how many there are, or "all". Returns the kills, and for each run
    "" or what its end has other than the undisturbed run's.

    Raises:
        UserError: a run that was not killed fails, or processes go on when one of them was killed.
    """
    rng, start, rounds = np.random.default_rng(seed), time.monotonic(), n_processes > 1
    shared = {"rounds": rounds, "n_processes": n_processes}
    finish(start_training(folder, "undisturbed", resume=False, **shared), folder / "undisturbed.log")
    seconds, expected = time.monotonic() - start, read_end(folder / "undisturbed")
    attempts, differing, planned = [], [], next(kills, None)
    for n in count(1):
        name = f"run-{n}"
        run_dir, log, taken = folder / name, folder / f"{name}.log", 0
        alternates = rounds and n % 2 == 0
        while True:
            how = shared | {"n_processes": 1 if alternates and taken % 2 else n_processes}
            started = start_training(folder, name, resume=(run_dir / "config.json").is_file(), **how)
            if planned is None or taken == longest:
                finish(started, log)
                break
            signal_name, moment, who = planned
            wait_for(moment, run_dir, started, rng, seconds)
            who = who if len(started) > 1 else "all"
            statuses, ended = kill(started, signal_name, who, log)
            if not any(statuses):  # it had ended before
                break
            stage, recorded, saved = find_progress(run_dir)
            attempts.append(
                Attempt(signal_name, moment, statuses, f"{stage} {recorded}", recorded - saved, n, who, round(ended, 1))
            )
            say(f"{name}: {', '.join(map(str, attempts[-1]))}")
            planned, taken = next(kills, None), taken + 1
        differing.append(find_differing(read_end(run_dir), expected, rounds=alternates))
        say(f"{name}: ended {'with another ' + differing[-1] if differing[-1] else 'as the undisturbed run'}")
        if planned is None:
            return attempts, differing


def format_table(attempts: list[Attempt], differing: list[str]) -> str:
    """Write a Markdown table: kills, those whose run ended as the undisturbed one, and steps that were taken again."""
    rows = defaultdict(list)
    for attempt in attempts:
        key = attempt.signal, attempt.who, attempt.moment
        rows[key].append((attempt.lost, attempt.seconds, not differing[attempt.run - 1]))
    lines = [
        "| signal | to | when | kills | survived | steps lost, most | seconds to the end, most |",
        "|---|---|---|---|---|---|---|",
    ]
    for key, kills in rows.items():
        lost, seconds, survived = zip(*kills, strict=True)
        lines.append(f"| {' | '.join(key)} | {len(kills)} | {sum(survived)} | {max(lost)} | {max(seconds):.1f} |")
    return "\n".join(lines)


def plan_kills(n_processes: int) -> Iterator[tuple[str, str, str]]:
    """Yield kills without end: of one process each signal at each moment; of several also each of them, and all."""
    if n_processes == 1:
        yield from ((*kill, "all") for kill in cycle(product(SIGNALS, MOMENTS)))
    signals, moments, everyone = [*SIGNALS], [*MOMENTS], [*map(str, range(n_processes)), "all"]
    for i in count():  # the numbers of signals and of moments have no common factor, so that all pairs come
        who = everyone[(i + i // len(signals) + 1) % len(everyone)]
        yield signals[i % len(signals)], moments[i % len(moments)], who


def main() -> None:
    """Run the campaign and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=24, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--processes", type=int, default=1, help="of the training")
    parser.add_argument("--out", default="", help="folder to keep the runs in; default: a temporary one")
    args = parser.parse_args()
    plan = plan_kills(args.processes)
    longest = -(-args.kills // 2) if args.processes > 1 else args.kills  # both kinds of run take kills
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(args.out or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        attempts, differing = run_campaign(
            folder, islice(plan, args.kills), seed=args.seed, n_processes=args.processes, longest=longest
        )
    print(format_table(attempts, differing))
    print(f"{len(differing)} runs, {differing.count('')} of which ended as the undisturbed one")
    if any(differing):
        raise UserError("A run that was killed ended otherwise than the undisturbed one.")


if __name__ == "__main__":
    run_main(main)
