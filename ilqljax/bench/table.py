"""Run work items side by side and tabulate: seconds, ratios pair by pair, shares of the machine's limits, memory."""

import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any, NamedTuple

import numpy as np

from ilqljax.bench.machine import spread
from ilqljax.bench.work import ITEMS, ActWork, StartupWork, Work
from ilqljax.errors import UserError

Row = dict[str, Any]
CACHE = "JAX_COMPILATION_CACHE_DIR"


def measure_limits(*, dtype: str) -> dict[str, float]:
    """Measure the machine's rate of products (operations a second) and its bandwidth (bytes a second)."""
    command = [sys.executable, "-m", "ilqljax.bench.machine", dtype]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


class Round(NamedTuple):
    """What one process measured: seconds until its first work was done, seconds of the next, and its peak memory."""

    ready_seconds: float
    seconds: float
    peak_bytes: float


def run_round(
    item: str, number: int, side: str, index: int, *, environment: dict[str, str] | None = None, profile: str = ""
) -> Round:
    """Do one side of an item in a process of its own, so that no other has to share its memory.

    Raises:
        UserError: it ended early.
    """
    arguments = [item, str(number), side, str(index), *([profile] if profile else [])]
    command = [sys.executable, "-m", "ilqljax.bench.worker", *arguments]
    started = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | (environment or {})) as process:
        lines, ready = [], 0.0
        for line in process.stdout:
            ready = ready or time.monotonic() - started
            lines.append(json.loads(line))
    if process.returncode or len(lines) != 3:
        raise UserError(f"The {side} side of {item} ended early; its messages stand above.")
    return Round(ready, lines[1]["seconds"], lines[2]["peak_bytes"])


def measure_item(item: str, number: int, *, n_pairs: int, against: str) -> Row:
    """Run one item `n_pairs` times, the two sides in turn, each in a fresh process."""
    work = ITEMS[item][number]
    sides = ["ours", *([against] if against and work.has_twin else [])]
    rounds: dict[str, list[Round]] = {side: [] for side in sides}
    with tempfile.TemporaryDirectory() as folder:
        if isinstance(work, StartupWork) and work.warm:
            run_round(item, number, "ours", 0, environment={CACHE: folder})
        for index in range(n_pairs):
            for side in sides:
                environment = {}
                if isinstance(work, StartupWork):
                    environment = {CACHE: folder if work.warm else os.path.join(folder, str(index))}
                rounds[side].append(run_round(item, number, side, index, environment=environment))
    row: Row = {"item": work.name, "n_pairs": n_pairs, "flops": work.flops, "n_units": work.n_tokens}
    seconds = {
        side: [r.ready_seconds if isinstance(work, StartupWork) else r.seconds for r in found]
        for side, found in rounds.items()
    }
    for side in sides:
        row[f"{side}_seconds"] = spread(seconds[side])
        row[f"{side}_peak_bytes"] = max(r.peak_bytes for r in rounds[side])
    if len(sides) > 1:
        row["ratio"] = spread([theirs / ours for ours, theirs in zip(*seconds.values(), strict=True)])
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
        share = f"{row['flops'] / median / product_rate:.0%}" if row["flops"] else ""
        traffic = f"{row['bytes_per_second'] / bandwidth:.0%}" if "bytes_per_second" in row else ""
        cells = [
            row["item"],
            f"{median:.3g} [{low:.3g}, {high:.3g}]",
            f"{row['n_units'] / median:,.0f}",
            share,
        ]
        cells += [traffic, f"{row['ours_peak_bytes'] / 1e9:.2f}"]
        if "ratio" in row:
            ratio = "{:.2f} [{:.2f}, {:.2f}]".format(*row["ratio"])
            peak = row["ours_peak_bytes"] / row[f"{against}_peak_bytes"]
            cells += [f"{row[f'{against}_seconds'][0]:.3g}", ratio, f"{peak:.0%}"]
        elif against:
            cells += ["", "", ""]
        body.append(cells)
    widths = np.array([[len(cell) for cell in line] for line in body]).max(0)
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in body]
    rates = {row["item"]: row["n_units"] / row["ours_seconds"][0] for row in rows}
    if rates.keys() >= {"loader", "train-ragged"}:
        lines.append(f"the loader gives {rates['loader'] / rates['train-ragged']:,.0f} times what train-ragged takes")
    lines.append(
        f"medians of interleaved runs; units are tokens (texts for reward); products {product_rate / 1e9:,.0f} GFLOP/s "
        f"and bandwidth {bandwidth / 1e9:,.1f} GB/s, measured in this run."
    )
    return "\n".join(lines)
