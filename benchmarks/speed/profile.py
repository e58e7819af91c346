"""Where the time of a work item goes: a device trace of one round, summed by part of the program.

A trace knows operations by the names that XLA gave them; the program that XLA dumped says which line of ours each came
from. Time is that of the operation alone, without those it waits for; where several run at once, all count, so the sum
is that of all threads and exceeds the wall time.
"""

import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from jax.profiler import ProfileData

from benchmarks.speed.table import run_round

# Scopes that say which part of the program an operation belongs to; the first one found counts.
PARTS = (
    ("vocabulary", r"\bvocabulary\b"),
    ("value heads", r"\bheads\b"),
    ("attention", r"\battn\b"),
    ("MLP", r"\bmlp\b"),
    ("layer norms", r"\bln_\w+\b"),
    ("embeddings", r"\b(GPT2|Llama)\b"),
    ("optimizer", r"\boptimizer\b"),
    ("targets", r"\btargets\b"),
)
BACKWARD = "transpose(jvp"


class Operation(NamedTuple):
    """An operation's time on its own: its name in XLA, where it came from, and seconds."""

    name: str
    origin: str
    seconds: float


def profile_item(item: str, number: int, *, folder: Path, n_operations: int = 15) -> str:
    """Trace one round of an item into `folder` and return tables of its parts and of its dearest operations.

    The trace opens in TensorBoard's profile page and in Perfetto.

    Raises:
        UserError: the item ended early.
    """
    with tempfile.TemporaryDirectory() as dumped:
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_dump_to={dumped} --xla_dump_hlo_as_text"
        round_ = run_round(item, number, "ours", 0, environment={"XLA_FLAGS": flags}, profile=str(folder))
        operations = read_operations(folder, read_origins(Path(dumped)))
    total = sum(operation.seconds for operation in operations) or 1.0
    parts: Counter[str] = Counter()
    for operation in operations:
        parts[name_part(operation.origin)] += operation.seconds
    lines = [
        f"{item}: {round_.seconds:.3g} s; {total:.3g} s over all threads",
        "",
        "part                  seconds  share",
    ]
    lines += [f"{name:20s}  {seconds:7.3f}  {seconds / total:5.1%}" for name, seconds in parts.most_common()]
    lines += ["", "seconds  operation"]
    lines += [f"{o.seconds:7.3f}  {o.name}  {o.origin}" for o in operations[:n_operations]]
    return "\n".join(lines)


def name_part(origin: str) -> str:
    """Name the part of the program that an operation's origin belongs to, and whether it is of the backward pass."""
    for name, pattern in PARTS:
        if re.search(pattern, origin):
            return f"{name}, backward" if BACKWARD in origin else name
    return "other"


def read_origins(dumped: Path) -> dict[str, str]:
    """Map XLA's names of operations to our scopes, from the programs it dumped; the largest program wins a name."""
    origins: dict[str, str] = {}
    programs = sorted(dumped.glob("*after_optimizations.txt"), key=lambda file: file.stat().st_size)
    for file in programs:
        for name, origin in re.findall(r"%([\w.\-]+) = [^\n]*?op_name=\"([^\"]+)\"", file.read_text(encoding="utf-8")):
            origins[name] = origin
    return origins


def read_operations(folder: Path, origins: dict[str, str]) -> list[Operation]:
    """Read the newest trace below a folder: each operation's time without what runs inside it, dearest first."""
    trace = max(folder.rglob("*.xplane.pb"), key=lambda file: file.stat().st_mtime)
    own: Counter[str] = Counter()
    for plane in ProfileData.from_file(str(trace)).planes:
        for line in plane.lines:
            events = [
                (event.start_ns, event.start_ns + event.duration_ns, operation)
                for event in line.events
                if event.duration_ns > 0 and (operation := dict(event.stats).get("hlo_op"))
            ]
            own.update(sum_own_time(events))
    found = [Operation(name, origins.get(name, ""), nanoseconds / 1e9) for name, nanoseconds in own.items()]
    return sorted(found, key=lambda operation: -operation.seconds)


def sum_own_time(events: Iterable[tuple[float, float, str]]) -> Counter[str]:
    """Sum, by name, the time of one thread's (start, end, name) without what lies inside: 0-10 a, 2-5 b is a 7, b 3."""
    own: Counter[str] = Counter()
    open_: list[tuple[float, str]] = []
    for start, end, name in sorted(events, key=lambda event: (event[0], -event[1])):
        while open_ and open_[-1][0] <= start:
            open_.pop()
        if open_:
            own[open_[-1][1]] -= min(end, open_[-1][0]) - start
        own[name] += end - start
        open_.append((end, name))
    return own
