"""Run work items side by side and tabulate: seconds, ratios pair by pair, shares of the machine's limits, memory."""

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.speed.clock import spread
from benchmarks.speed.work import ITEMS, ActWork, SampleWork, StartupWork, Work
from ilqljax.errors import UserError

Row = dict[str, Any]
ROOT = Path(__file__).resolve().parents[2]  # what `python -m benchmarks` is run in
# How far the first losses of both sides may be apart, as a share.
TOLERANCES = {"float32": 2e-3, "bfloat16": 2e-2}
CACHE = "JAX_COMPILATION_CACHE_DIR"


def measure_limits(*, dtype: str) -> Row:
    """Measure the machine's rate of products (operations a second), its bandwidth, and the rates at which products of
    few rows read kernels, by the number of rows (bytes a second).

    Raises:
        UserError: it could not be measured.
    """
    command = [sys.executable, "-m", "benchmarks.speed.machine", dtype]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, cwd=ROOT)
    if done.returncode:
        raise UserError("The machine's own limits could not be measured; the messages stand above.")
    return json.loads(done.stdout)


class Round(NamedTuple):
    """What one process measured: seconds until its first work was done, seconds of the next, and its peak memory.

    `value` is what the first work computed, where the two sides start from the same weights.
    """

    ready_seconds: float
    seconds: float
    peak_bytes: float
    value: float | None = None


def run_round(
    item: str, number: int, side: str, index: int, *, environment: dict[str, str] | None = None, profile: str = ""
) -> Round:
    """Do one side of an item in a process of its own, so that no other has to share its memory.

    Both sides get huge pages from the allocator, as `ilqljax.models.cpu.restart_with_huge_pages` gives the
    training program.

    Raises:
        UserError: it ended early.
    """
    arguments = [item, str(number), side, str(index), *([profile] if profile else [])]
    command = [sys.executable, "-m", "benchmarks.speed.worker", *arguments]
    environment = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"} | os.environ | (environment or {})
    found, ready, started = {}, 0.0, time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT) as process:
        for line in process.stdout:
            ready = ready or time.monotonic() - started
            found |= json.loads(line) if line.startswith("{") else {}
    if process.returncode or not found.keys() >= {"seconds", "peak_bytes"}:
        name = ITEMS[item][number].name or item
        raise UserError(f"The {side} side of {name} ended early (exit status {process.returncode}; messages above).")
    return Round(ready, found["seconds"], found["peak_bytes"], found.get("value"))


def measure_item(item: str, number: int, *, n_pairs: int, against: str) -> Row:
    """Run one item `n_pairs` times, the two sides in turn, each in a fresh process.

    The row of an item whose other side fails has our side alone, and a note of it under "failed".

    Raises:
        UserError: our side failed, or the sides do not compute the same.
    """
    work = ITEMS[item][number]
    rounds: dict[str, list[Round]] = {"ours": []} | ({against: []} if against and work.has_twin else {})
    row: Row = {"item": work.name, "dtype": work.dtype, "n_pairs": n_pairs}
    row |= {"flops": work.flops, "n_units": work.n_tokens}
    startup = isinstance(work, StartupWork)
    with tempfile.TemporaryDirectory() as folder:
        if startup and work.warm:
            run_round(item, number, "ours", 0, environment={CACHE: folder})
        for index in range(n_pairs):
            cache = folder if startup and work.warm else os.path.join(folder, str(index))
            for side in list(rounds):
                try:
                    done = run_round(item, number, side, index, environment={CACHE: cache} if startup else None)
                except UserError as error:
                    if side == "ours":
                        raise
                    row["failed"] = str(error)
                    del rounds[side]
                else:
                    rounds[side].append(done)
            row |= compare_values(work, [done[-1].value for done in rounds.values()])
    seconds = {side: [r.ready_seconds if startup else r.seconds for r in done] for side, done in rounds.items()}
    for side, done in rounds.items():
        row[f"{side}_seconds"] = spread(seconds[side])
        row[f"{side}_peak_bytes"] = max(r.peak_bytes for r in done)
    if len(rounds) > 1:
        row["ratio"] = spread([theirs / ours for ours, theirs in zip(*seconds.values(), strict=True)])
    return row | bound_memory(work, row["ours_seconds"][0])


def bound_memory(work: Work, seconds: float) -> Row:
    """Return how many bytes a second reading all parameters once a decoding step amounts to; of decoding only."""
    acting = isinstance(work, (ActWork, SampleWork))
    return {"bytes_per_second": work.bytes_per_step * work.n_new / seconds} if acting else {}


def compare_values(work: Work, values: list[float | None]) -> Row:
    """Return what each side found, where that can be compared; a `UserError` where it is not the same."""
    found = [value for value in values if value is not None]
    if len(found) < 2:
        return {}
    if not math.isclose(*found, rel_tol=TOLERANCES[work.dtype]):
        raise UserError(f"{work.name}: the two sides find {found[0]:.6g} and {found[1]:.6g}, so they do other work.")
    return {"values": found}


def format_table(rows: list[Row], *, limits: dict[str, Row], against: str) -> str:
    """Lay the rows out as plain text, with what their columns mean; `limits` are those of each row's dtype."""
    header = ["item", "seconds [range]", "units/s", "of products", "of bandwidth", "peak GB"]
    header += [f"{against} seconds", f"times {against} [range]", "peak share"] if against else []
    body = [header]
    for row in rows:
        median, low, high = row["ours_seconds"]
        limit = limits[row["dtype"]]
        share = f"{row['flops'] / median / limit['product_rate']:.0%}" if row["flops"] else ""
        traffic = f"{row['bytes_per_second'] / limit['bandwidth']:.0%}" if "bytes_per_second" in row else ""
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
    lines += [row["failed"] for row in rows if "failed" in row]
    lines.append("medians of interleaved runs; units are tokens (texts for reward). Measured in this run:")
    lines += [
        f"{dtype} products {limit['product_rate'] / 1e9:,.0f} GFLOP/s, bandwidth {limit['bandwidth'] / 1e9:,.1f} GB/s"
        for dtype, limit in limits.items()
    ]
    lines += [
        f"{dtype} kernels are read by products of {rows} row(s) at {rate / 1e9:,.1f} GB/s"
        for dtype, limit in limits.items()
        for rows, rate in limit["kernel_rates"].items()
    ]
    return "\n".join(lines)
