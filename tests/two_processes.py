"""Start a script as the two processes of one run."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from ilqljax.training import processes

FLAGS = "--xla_backend_optimization_level=0"  # compiles in less time
TIMEOUT_S = 600  # many times what a quiet machine takes: a run that hangs must fail, and a slow one must not


def start_two(script: str, *words: str | Path) -> list[subprocess.Popen]:
    """Start a test file as process 0 and process 1, which find each other by the environment."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    environment = os.environ | {"XLA_FLAGS": FLAGS, processes.ADDRESS: address, processes.COUNT: "2"}
    environment["PYTHONPATH"] = str(Path(__file__).resolve().parents[1])
    return [
        subprocess.Popen(
            [sys.executable, script, *map(str, words)],
            env=environment | {processes.INDEX: str(i)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]


def finish_two(both: list[subprocess.Popen]) -> list[tuple[str, str]]:
    """Wait for both to end well, and return what each wrote to its two streams; none is left."""
    try:
        outputs = [process.communicate(timeout=TIMEOUT_S) for process in both]
    finally:
        for process in both:
            process.kill()
            process.wait()
    said = "".join(f"--- process {i}:\n{errors}" for i, (_, errors) in enumerate(outputs))
    assert [process.returncode for process in both] == [0, 0], said
    return outputs
