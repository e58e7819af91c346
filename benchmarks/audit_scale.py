"""Measure how long `ilqljax audit` takes of a large table, and how much memory, a form of table at a time.

    python -m benchmarks.audit_scale                             # a million rows of every form
    python -m benchmarks.audit_scale --rows 100000 scores within

The forms `frame*` are data frames that `audit_frame` audits. Every table is drawn from a seed: sex, race, 40 jobs of
different rates, and women's share of a job going with its rate. Each audit is a process of its own, as a user starts
it; printed are its processor seconds (all threads, user and system), seconds on the clock, and the most memory that
it held.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from ilqljax.cli import run_main

N_JOBS, ROWS_A_PERSON = 40, 4
SEX, RACE = ("Female", "Male", ""), ("Asian", "Black", "Hispanic", "White", "Two or more", "prefer not to say")
OPTIONS = {  # of the command, beside --attributes, by form
    "decisions": [],
    "scores": [],
    "counts": [],
    "people": [],  # several rows a person
    "within": ["--within", "job"],
    "people_within": ["--within", "job"],
    "jobs": ["--job_column", "job"],  # several rows a person, and one a job
    "weights": ["--weight_column", "weight"],
    "hidden": ["--min_count", "30"],
    "changes": [],  # scores, before and after
}
FRAME = (  # `audit_frame` of a data frame, by form
    "import sys, pandas\n"
    "from ilqljax import audit_frame\n"
    "frame = pandas.read_csv(sys.argv[1], keep_default_na=False)\n"
    "options = dict(option.split('=') for option in sys.argv[2:])\n"
    "audit_frame(frame, attributes=['sex', 'race'], selected='selected', **options)\n"
)
FRAMES = {
    "frame": [],
    "frame_people": ["person=id"],
    "frame_jobs": ["person=id", "posting=job"],
    "frame_within": ["person=id", "within=job"],
}
FORMS = [*OPTIONS, *FRAMES]


def write_table(path: Path, form: str, n_rows: int, *, seed: int) -> None:
    """Write one table of so many rows (of counts, applicants)."""
    import pandas

    rng = np.random.default_rng(seed)
    has_repeats = form in ("people", "people_within", "jobs", "frame_people", "frame_jobs", "frame_within")
    person = np.arange(n_rows) // (ROWS_A_PERSON if has_repeats else 1)
    n_people = int(person[-1]) + 1
    first_job = rng.integers(0, N_JOBS, n_people)
    sex = np.where(rng.random(n_people) < 0.05, 2, (rng.random(n_people) < 0.3 + 0.4 * first_job / N_JOBS).astype(int))
    race = rng.choice(len(RACE), n_people, p=(0.1, 0.2, 0.2, 0.4, 0.05, 0.05))
    job = (first_job[person] + np.arange(n_rows) % (ROWS_A_PERSON if has_repeats else 1)) % N_JOBS
    chance = 0.1 + 0.4 * job / N_JOBS + 0.03 * (sex[person] == 1) + 0.02 * (race[person] == 3)
    score = rng.random(n_rows) + chance
    chosen = (score > 1).astype(int)
    columns = {
        "id": [f"p{i}" for i in person.tolist()],
        "sex": np.array(SEX)[sex[person]],
        "race": np.array(RACE)[race[person]],
        "job": [f"job {i}" for i in job.tolist()],
    }
    frame = pandas.DataFrame(columns)
    if form == "scores":
        frame["score"] = score.round(4)
    elif form in ("changes", "after"):
        frame["score"] = (score + 0.1 * rng.random(n_rows)).round(4)
    else:
        frame["selected"] = chosen
    if form == "weights":
        frame["weight"] = rng.integers(1, 9, n_rows) / 4
    if form == "counts":
        grouped = frame.groupby(["sex", "race", "job"], sort=True)["selected"]
        frame = grouped.agg(applicants="size", selected="sum").reset_index()
    frame.to_csv(path, index=False)


def measure(command: list[str]) -> tuple[float, float, float]:
    """Run a command; return its processor seconds, its seconds on the clock and its peak memory in MB."""
    start = time.monotonic()
    with tempfile.TemporaryFile() as log:
        child = subprocess.Popen(command, stdout=log, stderr=log)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            log.seek(0)
            sys.exit(f"{' '.join(command)}:\n{log.read().decode()}")
    return usage.ru_utime + usage.ru_stime, time.monotonic() - start, usage.ru_maxrss / 1024


def main() -> None:
    """Print a line a form of table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("forms", nargs="*", default=FORMS, help=f"some of {', '.join(FORMS)}; all if none")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if unknown := set(args.forms) - set(FORMS):
        parser.error(f"unknown form {sorted(unknown)[0]}; known are {', '.join(FORMS)}")
    print(f"{args.rows:,} rows, seed {args.seed}\n{'form':<15}{'processor s':>12}{'clock s':>9}{'peak MB':>9}")
    with tempfile.TemporaryDirectory() as folder:
        for form in args.forms:
            path, out = Path(folder) / f"{form}.csv", Path(folder) / f"out_{form}"
            write_table(path, form, args.rows, seed=args.seed)
            command = [sys.executable, "-m", "ilqljax", "audit", "--scores", str(path), "--attributes", "sex,race"]
            if form == "changes":
                write_table(after := path.with_name("after.csv"), "after", args.rows, seed=args.seed)
                command += ["--scores_after", str(after)]
            command += [*OPTIONS.get(form, ()), "--out", str(out)]
            if form in FRAMES:
                command = [sys.executable, "-c", FRAME, str(path), *FRAMES[form]]
            seconds, clock, megabytes = measure(command)
            path.unlink()
            print(f"{form:<15}{seconds:>12.1f}{clock:>9.1f}{megabytes:>9.0f}", flush=True)


if __name__ == "__main__":
    run_main(main)
