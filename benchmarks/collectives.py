"""What the devices of a compiled program exchange in one run of it, read from the compiler's text (HLO)."""

import math
import re
from collections import defaultdict
from typing import NamedTuple

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
N_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s64": 8, "u64": 8, "f64": 8}  # others: 4
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{$")
_COLLECTIVE = re.compile(rf"^\s*(?:ROOT )?%?\S+ = (.*?) ({'|'.join(KINDS)})(?:-start)?\(")
_WHILE = re.compile(r" while\(.*?body=%?([\w.-]+)")
_TRIPS = re.compile(r'known_trip_count[^}]*?"n":"(\d+)"')
_CALLED = re.compile(r"(?:to_apply|calls|true_computation|false_computation)=%?([\w.-]+)")
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")


class Exchange(NamedTuple):
    """Hold one collective: its kind, how often a run does it, and the shapes and bytes of its results on a device."""

    kind: str
    n_times: int
    shapes: tuple[tuple[int, ...], ...]
    n_bytes: int


def list_exchanges(hlo: str) -> list[Exchange]:
    """Return a compiled program's collectives, those of loops as often as these go round.

    A loop whose number of rounds the compiler does not know counts once.
    """
    collectives: dict[str, list[tuple[str, tuple[tuple[int, ...], ...], int]]] = defaultdict(list)
    called: dict[str, list[tuple[str, int]]] = defaultdict(list)
    entry = name = ""
    for line in hlo.splitlines():
        if match := _COMPUTATION.match(line):
            name = match[2]
            entry = name if match[1] else entry
        elif match := _COLLECTIVE.match(line):
            arrays = [
                (kind, tuple(map(int, filter(None, sizes.split(","))))) for kind, sizes in _ARRAY.findall(match[1])
            ]
            n_bytes = sum(N_BYTES.get(kind, 4) * math.prod(shape) for kind, shape in arrays)
            collectives[name].append((match[2], tuple(shape for _, shape in arrays), n_bytes))
        elif match := _WHILE.search(line):
            trips = _TRIPS.search(line)
            called[name].append((match[1], int(trips[1]) if trips else 1))
        else:
            called[name] += [(other, 1) for other in _CALLED.findall(line)]

    def walk(name: str, n_times: int) -> list[Exchange]:
        found = [Exchange(kind, n_times, shapes, n_bytes) for kind, shapes, n_bytes in collectives[name]]
        for other, n in called[name]:
            found += walk(other, n_times * n)
        return found

    return walk(entry, 1)


def sum_bytes(exchanges: list[Exchange]) -> int:
    """Return the bytes of all results on a device in one run."""
    return sum(exchange.n_times * exchange.n_bytes for exchange in exchanges)
