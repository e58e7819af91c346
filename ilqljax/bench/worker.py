"""One side of one work item in a process of its own: `python -m ilqljax.bench.worker ITEM NUMBER SIDE`.

It prepares, runs once to warm up and says "ready"; then it does the work once for every line it reads, and answers with
the seconds that took; at the end of its input it says how much memory it had at most. So two sides can take turns, and
each has its own peak.
"""

import json
import resource
import sys

from ilqljax.bench.machine import measure_seconds
from ilqljax.bench.work import ITEMS
from ilqljax.compilation import restart_with_huge_pages


def main() -> None:
    """Prepare, and answer."""
    item, number, side = sys.argv[1:]
    if side == "torch":
        from ilqljax.bench.torch_twin import make_run
    else:
        from ilqljax.bench.ours import make_run
    run = make_run(ITEMS[item][int(number)])
    answer({"ready": True, "first_seconds": measure_seconds(run)})
    for _ in sys.stdin:
        answer({"seconds": measure_seconds(run)})
    answer({"peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024})


def answer(values: dict) -> None:
    """Print one line of JSON."""
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    if sys.argv[-1] == "ours":
        restart_with_huge_pages()
    main()
