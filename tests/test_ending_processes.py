"""Two processes, of which one is asked to end: both end, however late the request gets from one to the other.

`python tests/test_ending_processes.py` is one of the two.
"""

import os
import signal
import sys
import time

import pytest
from two_processes import finish_two, start_two

from ilqljax import train as train_module
from ilqljax.training import ending, processes

DELAY_S = 4  # as on a machine with other work


def run_as_one_of_two() -> None:
    """Train what is nothing but a judgement in which the first process is asked to end; write the status."""
    look = ending._look

    def look_late(*args) -> None:
        time.sleep(DELAY_S)
        look(*args)

    def judge(*_, ending, **__) -> None:
        with ending.losing("the judgement"):
            processes.broadcast_from_leader(lambda: os.kill(os.getpid(), signal.SIGTERM) or time.sleep(60))

    ending._look, train_module.train_until_asked = look_late, judge
    try:
        train_module.main(["--config=workable", "--distributed"])
    except SystemExit as error:
        sys.stdout.write(f"status: {error.code}\n")


@pytest.mark.slow
def test_both_end_with_the_signals_status_where_one_is_told_before_it_is_asked():
    outputs = finish_two(start_two(__file__))
    assert all("status: 143" in output for output, _ in outputs)
    assert "error" not in outputs[1][1]


if __name__ == "__main__":
    run_as_one_of_two()
