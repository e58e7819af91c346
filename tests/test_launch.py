"""The examples of how to start several processes, run with stand-ins for what a cluster has."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ilqljax.training.run_config import load_run_config

LAUNCH = Path(__file__).parent.parent / "scripts" / "launch"
TRAIN = 'echo "$JAX_COORDINATOR_ADDRESS $JAX_PROCESS_ID/$JAX_NUM_PROCESSES $*" >> calls; exit ${STATUS:-0}'
STAND_INS = {
    "ilqljax": TRAIN,
    "srun": 'for i in 0 1; do SLURM_PROCID=$i "$@"; status=$?; done; exit $status',
    "scontrol": 'if [ "$1" = show ]; then echo node7; echo node8; else echo "$*" >> calls; fi',
    "ssh": 'cd /; eval "$2"',
}
needs_bash = pytest.mark.skipif(sys.platform == "win32", reason="needs bash")


@pytest.fixture
def launch(tmp_path):
    """Return a function that runs a script in an empty folder and returns its status and what was called."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, text in STAND_INS.items():
        (tools / name).write_text(f"#!/bin/bash\n{text}\n")
        (tools / name).chmod(0o755)

    def run(script, *args, **variables):
        (tmp_path / "calls").unlink(missing_ok=True)
        environment = {"PATH": f"{tools}:{os.environ['PATH']}", **variables}
        done = subprocess.run(["bash", LAUNCH / script, *args], env=environment, cwd=tmp_path, timeout=60)
        return done.returncode, sorted((tmp_path / "calls").read_text().splitlines())

    return run


def check_options(calls):
    """Options are the train program's, and what they set is in the config that they name."""
    for call in calls:
        _, _, command, flag, config, *options = call.split()
        assert (command, flag) == ("train", "--config") and "--distributed" in options
        assignments = [option.removeprefix("--config.") for option in options if option.startswith("--config.")]
        assert len(assignments) == len(options) - 1
        loaded = load_run_config(config)
        for assignment in assignments:
            assert assignment.partition("=")[0] in loaded


@needs_bash
def test_a_slurm_job_trains_on_all_nodes_and_goes_on_when_it_is_queued_again(launch, tmp_path):
    job = {"SLURM_JOB_NAME": "try", "SLURM_JOB_ID": "5", "SLURM_JOB_NODELIST": "node[7-8]", "SLURM_NNODES": "2"}
    status, calls = launch("slurm.sh", **job, STATUS="143")
    assert status == 143 and calls.pop() == "requeue 5"
    assert [call.split()[:2] for call in calls] == [["node7:12345", "0/2"], ["node7:12345", "1/2"]]
    assert all(call.endswith(" --config.run_dir=runs/try-5") for call in calls)
    check_options(calls)
    (tmp_path / "runs" / "try-5").mkdir(parents=True)
    (tmp_path / "runs" / "try-5" / "config.json").touch()
    status, again = launch("slurm.sh", **job)
    assert status == 0
    assert again == [call.replace(".run_dir=", ".resume=") for call in calls]


@needs_bash
def test_hosts_are_told_who_they_are(launch):
    status, calls = launch("ssh.sh", "a", "b", "c", RESUME="runs/x")
    assert status == 0 and [call.split()[:2] for call in calls] == [["a:12345", f"{i}/3"] for i in range(3)]
    assert all(call.endswith(" --config.resume=runs/x") for call in calls)
    check_options(calls)
    assert launch("ssh.sh", "a", "b", STATUS="3")[0] == 3


def test_pods_are_told_who_they_are():
    job_set = yaml.safe_load((LAUNCH / "jobset.yaml").read_text())
    (workers,) = job_set["spec"]["replicatedJobs"]
    job = workers["template"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    given = {one["name"]: one.get("value") for one in container["env"]}
    name = job_set["metadata"]["name"]
    assert given["JAX_COORDINATOR_ADDRESS"] == f"{name}-{workers['name']}-0-0.{name}:12345"
    assert int(given["JAX_NUM_PROCESSES"]) == job["parallelism"] == job["completions"]
    assert pod["terminationGracePeriodSeconds"] > load_run_config("configs/workable.py").grace_seconds
    (text,) = container["args"]
    (line,) = re.findall(r"exec (ilqljax.*)", text)
    check_options([f"address 0/2 {line.removeprefix('ilqljax ')}".replace('"$place"', "--config.run_dir=runs/train")])
