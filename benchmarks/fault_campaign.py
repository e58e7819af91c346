"""Kill a small training again and again, resume it, and compare its end with that of one that nobody disturbed.

    python -m benchmarks.fault_campaign                  24 kills: each signal at each moment, in turn; about 10 minutes
    python -m benchmarks.fault_campaign --kills 6 --seed 1

A run is resumed after each kill until it ends; another one takes the kills that are left. At its end all arrays of the
last checkpoints (parameters, targets, optimizer, key), the recorded losses, and the judged rewrites must be those of
the undisturbed run, bit for bit.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import count, islice, product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ilqljax.cli import run_main
from ilqljax.errors import UserError

STAGES = ("bc", "ilql")
SIGNALS = {"SIGKILL": -signal.SIGKILL, "SIGTERM": 128 + signal.SIGTERM, "SIGINT": 128 + signal.SIGINT}  # status
SECONDS_BETWEEN_LOOKS = 0.002
LONGEST_RUN_S = 600
JITTER_S = 0.03  # after the moment, at most


class Attempt(NamedTuple):
    """One kill, and what it left.

    Attributes:
        status: that the process ended with.
        recorded: stage and step of the last metrics that were written.
        lost: steps that were recorded, and that the resumed run takes again.
        run: its number, from 1 on.
    """

    signal: str
    moment: str
    status: int
    recorded: str
    lost: int
    run: int


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


MOMENTS: dict[str, Callable[[Path], set] | None] = {
    "random": None,  # any time from the start on
    "a step is taken": find_records,
    "a save begins": find_saves,
    "a save is complete": find_steps,
    "an old step is deleted": find_deletions,
    "the judgement begins": find_judgement,
}


def start_training(folder: Path, name: str, *, resume: bool) -> subprocess.Popen:
    """Start the training, or go on with it; what it says goes to a file."""
    run_dir, options = folder / name, {"total_steps": 24, "save_every": 2, "eval_every": 8, "log_every": 1}
    options |= {"n_rollouts": 2, "warmup_steps": 2, "length_buckets": (320,), "action_buckets": (128,)}
    config: dict[str, Any] = {f"{stage}.{key}": v for stage in ("pretrain", "train") for key, v in options.items()}
    config |= {"data.folder": folder / "data", "data.n_postings": 40, "data.n_candidates": 200, "data.n_practice": 4}
    config |= {"data.fractions": (0.5, 0.2, 0.3), "tokenizer.vocab_size": 600, "model.n_embd": 16, "model.n_head": 2}
    config |= {"model.n_layer": 1, "model.unroll": 1, "model.n_positions": 384, "decode.max_new_tokens": 16}
    config |= {"acting.length_buckets": (224,), "evaluator.best_of": 1, "evaluator.max_postings": 2, "mesh.data": 1}
    config |= {"evaluator.fluency": "", ("resume" if resume else "run_dir"): run_dir}
    words = [f"--config.{key}={value}" for key, value in config.items()]
    with (folder / f"{name}.log").open("a") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "ilqljax.train", "--config=workable", *words],
            stdout=log,
            stderr=log,
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
        )


def wait_for(moment: str, run_dir: Path, process: subprocess.Popen, rng: np.random.Generator, seconds: float) -> None:
    """Wait until it is time to kill a process, or the process has ended; undisturbed a run takes so many seconds."""
    find, n_events, start = MOMENTS[moment], int(rng.integers(1, 6)), time.monotonic()
    if moment == "the judgement begins":
        n_events = 1
    deadline = start + (rng.uniform(0, seconds) if find is None else LONGEST_RUN_S)
    before: set = find(run_dir) if find else set()
    while process.poll() is None and time.monotonic() < deadline:
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

    open_run(run_dir)
    end: dict[str, Any] = {"rewrites": (run_dir / "evaluation.jsonl").read_text()}
    for stage in STAGES:
        last = max((path for path in find_steps(run_dir) if path.parent.name == stage), key=lambda path: int(path.name))
        saved = json.loads((last / "extra" / "metadata").read_text())
        arrays = {key: v for key, v in saved["checksums"].items() if key != "extra"}
        end[stage] = (last.name, arrays, saved["values"]["loader"], read_records(run_dir, stage))
    return end


def finish(process: subprocess.Popen, log: Path) -> None:
    """Wait for a run that nobody kills to end; raises a `UserError` where it fails."""
    if status := process.wait(LONGEST_RUN_S):
        raise UserError(f"A run ended with status {status}. See what it says in {log}.")


def run_campaign(
    folder: Path, kills: Iterator[tuple[str, str]], *, seed: int = 0, say: Callable[[str], object] = print
) -> tuple[list[Attempt], list[str]]:
    """Kill runs until there is no kill left, and let the last of them end.

    Returns the kills, and for each run "" or what its end has other than the undisturbed run's.

    Raises:
        UserError: a run that was not killed fails.
    """
    rng, start = np.random.default_rng(seed), time.monotonic()
    finish(start_training(folder, "undisturbed", resume=False), folder / "undisturbed.log")
    seconds, expected = time.monotonic() - start, read_end(folder / "undisturbed")
    attempts, differing, planned = [], [], next(kills, None)
    for n in count(1):
        name = f"run-{n}"
        run_dir, log = folder / name, folder / f"{name}.log"
        while True:
            process = start_training(folder, name, resume=(run_dir / "config.json").is_file())
            if planned is None:
                finish(process, log)
                break
            wait_for(planned[1], run_dir, process, rng, seconds)
            process.send_signal(signal.Signals[planned[0]])
            if not (status := process.wait(LONGEST_RUN_S)):  # it had ended before
                break
            if status not in (SIGNALS[planned[0]], -signal.Signals[planned[0]]):  # the latter before it listens
                raise UserError(f"A run ended with status {status} at {planned[0]}. See what it says in {log}.")
            stage, recorded, saved = find_progress(run_dir)
            attempts.append(Attempt(*planned, status, f"{stage} {recorded}", recorded - saved, n))
            say(f"{name}: {', '.join(map(str, attempts[-1]))}")
            planned = next(kills, None)
        end = read_end(run_dir)
        differing.append(", ".join(key for key in expected if end[key] != expected[key]))
        say(f"{name}: ended {'with another ' + differing[-1] if differing[-1] else 'as the undisturbed run'}")
        if planned is None:
            return attempts, differing


def format_table(attempts: list[Attempt], differing: list[str]) -> str:
    """Write a Markdown table: kills, those whose run ended as the undisturbed one, and steps that were taken again."""
    rows = defaultdict(list)
    for attempt in attempts:
        rows[attempt.signal, attempt.moment].append((attempt.lost, not differing[attempt.run - 1]))
    lines = ["| signal | when | kills | survived | steps lost, most |", "|---|---|---|---|---|"]
    for (name, moment), kills in rows.items():
        lost, survived = zip(*kills, strict=True)
        lines.append(f"| {name} | {moment} | {len(kills)} | {sum(survived)} | {max(lost)} |")
    return "\n".join(lines)


def main() -> None:
    """Run the campaign and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=24, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--out", default="", help="folder to keep the runs in; default: a temporary one")
    args = parser.parse_args()
    cycle = (kill for _ in count() for kill in product(SIGNALS, MOMENTS))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(args.out or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        attempts, differing = run_campaign(folder, islice(cycle, args.kills), seed=args.seed)
    print(format_table(attempts, differing))
    print(f"{len(differing)} runs, {differing.count('')} of which ended as the undisturbed one")
    if any(differing):
        raise UserError("A run that was killed ended otherwise than the undisturbed one.")


if __name__ == "__main__":
    run_main(main)
