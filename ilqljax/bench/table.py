"""Run work items side by side and tabulate: seconds, ratios pair by pair, shares of the machine's limits, memory."""

import json
import subprocess
import sys
from contextlib import ExitStack
from typing import Any

import numpy as np

from ilqljax.bench.machine import spread
from ilqljax.bench.work import ITEMS, ActWork, Work
from ilqljax.errors import UserError

Row = dict[str, Any]


class Worker:
    """A process that does one side of an item when asked."""

    def __init__(self, item: str, number: int, side: str) -> None:
        command = [sys.executable, "-m", "ilqljax.bench.worker", item, str(number), side]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.side = side
        self._read()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.__exit__(None, None, None)  # closes its pipes, and waits

    def run(self) -> float:
        """Do the work once and return the seconds it took."""
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return self._read()["seconds"]

    def finish(self) -> float:
        """End the process and return its peak memory in bytes."""
        self._process.stdin.close()
        return self._read()["peak_bytes"]

    def _read(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            raise UserError(f"The {self.side} side of the benchmark ended early; its messages stand above.")
        return json.loads(line)


def measure_item(item: str, number: int, *, n_pairs: int, against: str) -> Row:
    """Run one item `n_pairs` times, the two sides in turn."""
    work = ITEMS[item][number]
    sides = ["ours", *([against] if against else [])]
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker(item, number, side)) for side in sides]
        seconds = [[worker.run() for worker in workers] for _ in range(n_pairs)]
        peaks = [worker.finish() for worker in workers]
    row: Row = {"item": work.name, "n_pairs": n_pairs, "flops": work.flops, "n_units": work.n_tokens}
    for i, side in enumerate(sides):
        row[f"{side}_seconds"] = spread([pair[i] for pair in seconds])
        row[f"{side}_peak_bytes"] = peaks[i]
    if against:
        row["ratio"] = spread([pair[1] / pair[0] for pair in seconds])
    return row | bound_memory(work, row["ours_seconds"][0])


def bound_memory(work: Work, seconds: float) -> Row:
    """Return how many bytes a second reading all parameters once a decoding step amounts to; of decoding only."""
    return {"bytes_per_second": work.bytes_per_token * work.n_new / seconds} if isinstance(work, ActWork) else {}


def format_table(rows: list[Row], *, product_rate: float, bandwidth: float, against: str) -> str:
    """Lay the rows out as plain text, with what their columns mean."""
    header = ["item", "seconds [range]", "units/s", "of products", "of bandwidth", "peak GB"]
    header += [f"{against} seconds", f"times {against} [range]", "peak share"] if against else []
    body = [header]
    for row in rows:
        median, low, high = row["ours_seconds"]
        share = row["flops"] / median / product_rate
        traffic = f"{row['bytes_per_second'] / bandwidth:.0%}" if "bytes_per_second" in row else ""
        cells = [
            row["item"],
            f"{median:.3g} [{low:.3g}, {high:.3g}]",
            f"{row['n_units'] / median:,.0f}",
            f"{share:.0%}",
        ]
        cells += [traffic, f"{row['ours_peak_bytes'] / 1e9:.2f}"]
        if against:
            ratio = "{:.2f} [{:.2f}, {:.2f}]".format(*row["ratio"])
            peak = row["ours_peak_bytes"] / row[f"{against}_peak_bytes"]
            cells += [f"{row[f'{against}_seconds'][0]:.3g}", ratio, f"{peak:.0%}"]
        body.append(cells)
    widths = np.array([[len(cell) for cell in line] for line in body]).max(0)
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in body]
    lines.append(
        f"medians of interleaved runs; units are tokens (texts for reward); products {product_rate / 1e9:,.0f} GFLOP/s "
        f"and bandwidth {bandwidth / 1e9:,.1f} GB/s, measured in this run."
    )
    return "\n".join(lines)
