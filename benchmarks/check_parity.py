"""Compare ilqljax with the original's numbers, quantity by quantity.

    python scripts/check_parity.py ../shared/golden
    python scripts/check_parity.py DIR --case NAME

DIR holds cases.json and one NAME.npz a case. Errors are relative to the original array's largest value. Exit status: 0
where all that was compared agrees, 1 where something differs or nothing was compared, 2 where DIR is not usable.
"""

import argparse
import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # float32 there is what the tolerances are for

from benchmarks.parity import compare_case, format_comparison, load_cases, rebuild_case
from ilqljax.cli import run_main


def main() -> None:
    """Print a line for each quantity, and one that sums up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="DIR", help="cases.json and NAME.npz files")
    parser.add_argument("--case", default="", metavar="NAME", help="only this case")
    args = parser.parse_args()
    cases = load_cases(args.folder)
    n_compared, n_skipped, wrong, idle = 0, 0, [], []
    for name in [args.case] if args.case else cases["cases"]:
        before = n_compared
        for row in compare_case(rebuild_case(args.folder, name, cases=cases)):
            print(format_comparison(row), flush=True)
            n_compared += row.compared
            n_skipped += not row.compared
            wrong += [] if row.ok else [f"{row.case} {row.quantity}"]
        idle += [name] if n_compared == before else []
    tail = f"{n_compared} quantities compared, {n_skipped} not (the reason stands beside each)"
    if wrong or idle:
        reasons = [f"{len(wrong)} beyond tolerance: {', '.join(wrong)}"] if wrong else []
        reasons += [f"nothing compared in {', '.join(idle)}"] if idle else []
        print(f"DIFFERENT: {'; '.join(reasons)}; {tail}")
        raise SystemExit(1)
    print(f"EQUAL: all within tolerance; {tail}")


if __name__ == "__main__":
    run_main(main)
