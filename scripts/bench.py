"""Measure speed: fixed work items, beside plain PyTorch and beside the machine's own limits.

    python scripts/bench.py --out bench.json                                   all items of a CPU
    python scripts/bench.py --items train-small,act --against torch --pairs 5  needs the torch extra
    python scripts/bench.py --items gpu-train,gpu-act                          on a GPU

The two sides run in processes of their own and take turns; the table quotes medians and ranges. Items and what they
cost: `ilqljax.bench.work`.
"""

import argparse
import importlib.util
import json

from ilqljax.bench.machine import measure_bandwidth, measure_product_rate
from ilqljax.bench.table import format_table, measure_item
from ilqljax.bench.work import CPU_ITEMS, ITEMS
from ilqljax.cli import run_main
from ilqljax.errors import UserError
from ilqljax.files import save_text


def main() -> None:
    """Measure, print the table and save the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", default=",".join(CPU_ITEMS), help=f"comma-separated, of {', '.join(ITEMS)}")
    parser.add_argument("--against", default="", choices=("", "torch"), help="also run the plain PyTorch twin")
    parser.add_argument("--pairs", type=int, default=5, help="counted runs of each side")
    parser.add_argument("--out", default="", help="JSON file for the numbers")
    args = parser.parse_args()
    names = [name.strip() for name in args.items.split(",") if name.strip()]
    if unknown := [name for name in names if name not in ITEMS]:
        raise UserError(f"--items: {', '.join(unknown)} unknown. Known: {', '.join(ITEMS)}.")
    if args.pairs < 1:
        raise UserError(f"--pairs={args.pairs}: at least one run is needed.")
    if args.against == "torch" and importlib.util.find_spec("torch") is None:
        raise UserError("--against torch needs torch: pip install 'ilqljax[torch]'.")
    on_gpu = any(name.startswith("gpu-") for name in names)
    limits = {
        "product_rate": measure_product_rate(dtype="bfloat16" if on_gpu else "float32"),
        "bandwidth": measure_bandwidth(),
    }
    rows = []
    for name in names:
        for number in range(len(ITEMS[name])):
            rows.append(measure_item(name, number, n_pairs=args.pairs, against=args.against))
            print(f"{rows[-1]['item']}: {rows[-1]['ours_seconds'][0]:.3g} s", flush=True)
    print(format_table(rows, **limits, against=args.against))
    if args.out:
        save_text(args.out, json.dumps({**limits, "against": args.against, "items": rows}, indent=2) + "\n")


if __name__ == "__main__":
    run_main(main)
