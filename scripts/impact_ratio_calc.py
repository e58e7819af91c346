"""Tabulate impact ratios of an evaluation file: per attribute and category, before and after rewriting.

    python scripts/impact_ratio_calc.py --eval_file runs/x/evaluation.jsonl --save_path ratios.csv
    (optional: --attributes gender,region --selected 10)

Assessed are all members of a posting's shortlist, selected its first `--selected`; counts are pooled over postings.
"Shuffled" is the same ratio under randomly permuted labels. The format of the file: `ilqljax.hiring.evaluation.record`;
the meaning of each number: `ilqljax.hiring.evaluation.impact`.
"""

import argparse

from ilqljax.cli import run_main
from ilqljax.hiring.evaluation.file import load_evaluations
from ilqljax.hiring.evaluation.impact import tabulate_impact_ratios
from ilqljax.hiring.evaluation.tables import check_save_path, format_impact_ratios, save_rows


def main() -> None:
    """Save the table and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--eval_file", required=True, help="evaluation JSONL written by scripts/eval_policy.py")
    parser.add_argument("--save_path", required=True, help="where to save; .csv or .json chooses the format")
    parser.add_argument("--attributes", default="", help="comma-separated; all that the file has by default")
    parser.add_argument("--selected", type=int, default=10, help="members of a shortlist that count as selected")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap and of the permutations")
    args = parser.parse_args()
    check_save_path(args.save_path)
    rows = tabulate_impact_ratios(
        load_evaluations(args.eval_file),
        attributes=[name.strip() for name in args.attributes.split(",") if name.strip()],
        n_selected=args.selected,
        seed=args.seed,
    )
    save_rows(args.save_path, rows)
    print(format_impact_ratios(rows))


if __name__ == "__main__":
    run_main(main)
