"""Measure speed: fixed work items, beside plain PyTorch and beside the machine's own limits.

    python scripts/bench.py --out bench.json                                   all items of a CPU
    python scripts/bench.py --items train-small,act --against torch --pairs 5  needs the torch extra
    python scripts/bench.py --items gpu-train,gpu-act                          on a GPU
    python scripts/bench.py --items train-small --profile traces/              where the time goes

Each round of each side runs in a process of its own, the two sides in turn; the table quotes medians and ranges. Items
and what they cost: `benchmarks.speed.work`.
"""

import argparse
import importlib.util
import json
from pathlib import Path

from benchmarks.speed.profile import profile_item
from benchmarks.speed.table import format_table, measure_item, measure_limits
from benchmarks.speed.work import CPU_ITEMS, ITEMS
from ilqljax.cli import run_main
from ilqljax.data.files import save_text
from ilqljax.errors import UserError


def main() -> None:
    """Measure, print the table and save the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", default=",".join(CPU_ITEMS), help=f"comma-separated, of {', '.join(ITEMS)}")
    parser.add_argument("--against", default="", choices=("", "torch"), help="also run the plain PyTorch twin")
    parser.add_argument("--pairs", type=int, default=5, help="counted runs of each side")
    parser.add_argument("--profile", default="", help="folder for traces and tables of parts, instead of measuring")
    parser.add_argument("--out", default="", help="JSON file for the numbers")
    args = parser.parse_args()
    names = [name.strip() for name in args.items.split(",") if name.strip()]
    if unknown := [name for name in names if name not in ITEMS]:
        raise UserError(f"--items: {', '.join(unknown)} unknown. Known: {', '.join(ITEMS)}.")
    if args.pairs < 1:
        raise UserError(f"--pairs={args.pairs}: at least one run is needed.")
    if args.against == "torch" and importlib.util.find_spec("torch") is None:
        raise UserError("--against torch needs torch: pip install 'ilqljax[torch]'.")
    if args.profile and (args.against or args.out):
        raise UserError("--profile writes traces and measures nothing: leave --against and --out away.")
    if args.profile:
        profile(names, Path(args.profile))
    else:
        measure(names, n_pairs=args.pairs, against=args.against, out=args.out)


def profile(names: list[str], out: Path) -> None:
    """Trace every item once and print where its time went."""
    for name in names:
        for number in range(len(ITEMS[name])):
            folder = out / f"{name}-{number}"
            text = profile_item(name, number, folder=folder)
            save_text(folder / "parts.txt", text + "\n")
            print(text + "\n", flush=True)


def measure(names: list[str], *, n_pairs: int, against: str, out: str) -> None:
    """Measure every item and print the table; the file is written first of all, and anew after each."""
    dtypes = sorted({work.dtype for name in names for work in ITEMS[name]})
    limits = {dtype: measure_limits(dtype=dtype) for dtype in dtypes}
    rows, skipped = [], []

    def save() -> None:
        if out:
            save_text(out, json.dumps({"limits": limits, "against": against, "items": rows}, indent=2) + "\n")

    save()
    for name in names:
        for number, work in enumerate(ITEMS[name]):
            if lacks := getattr(work, "lacks", ""):
                skipped.append(f"{work.name} was skipped, because its model is not there: {lacks}")
                continue
            rows.append(measure_item(name, number, n_pairs=n_pairs, against=against))
            print(f"{rows[-1]['item']}: {rows[-1]['ours_seconds'][0]:.3g} s", flush=True)
            save()
    print("\n".join([format_table(rows, limits=limits, against=against), *skipped]))


if __name__ == "__main__":
    run_main(main)
