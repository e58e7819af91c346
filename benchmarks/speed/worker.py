"""One round of one side of one work item: `python -m benchmarks.speed.worker ITEM NUMBER SIDE ROUND [PROFILE]`.

It prepares, does the work once to warm up and says so, with what it computed where the other side must find the same;
then it does the work once more, or again and again for half a second, and prints the median of the seconds and the most
memory that it had. With PROFILE, a folder, it writes a trace of that work there.
"""

import json
import resource
import sys
from statistics import median

from benchmarks.speed.clock import measure_seconds
from benchmarks.speed.work import ITEMS

# Short work is repeated for this long.
MIN_SECONDS = 0.5


def main() -> None:
    """Prepare, and answer."""
    item, number, side, round_number, *profile = sys.argv[1:]
    if side == "torch":
        from benchmarks.speed.torch_twin import make_run
    else:
        from benchmarks.speed.ours import make_run
        from ilqljax.training.compilation import enable_compilation_cache

        enable_compilation_cache()
    run, index = make_run(ITEMS[item][int(number)]), int(round_number)
    first = run(index)
    answer({"ready": True, "value": first if isinstance(first, float) else None})  # of an item that computes one
    if profile:
        import jax

        jax.profiler.start_trace(profile[0])
    seconds = [measure_seconds(lambda: run(index))]
    while sum(seconds) < MIN_SECONDS and not profile:
        seconds.append(measure_seconds(lambda: run(index)))
    answer({"seconds": median(seconds)})
    if profile:
        jax.profiler.stop_trace()
    answer({"peak_bytes": measure_peak(side)})


def measure_peak(side: str) -> int:
    """Return the most memory that the process had: the device's where that is not the host."""
    if side == "ours":
        import jax

        stats = jax.local_devices()[0].memory_stats()
        if stats:
            return stats["peak_bytes_in_use"]
    else:
        import torch

        if torch.cuda.is_initialized():
            return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def answer(values: dict) -> None:
    """Print one line of JSON."""
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
