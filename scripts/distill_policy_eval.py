"""Summarise an evaluation file: rewards of originals and rewrites, paired differences, copies, guardrails, entropies.

    python scripts/distill_policy_eval.py --eval_file runs/x/evaluation.jsonl [--save_path distilled.csv]

The format of the file: `ilqljax.hiring.evaluation.record`; the meaning of each number:
`ilqljax.hiring.evaluation.summary`.
"""

import argparse

from ilqljax.cli import run_main
from ilqljax.hiring.evaluation.file import load_evaluations
from ilqljax.hiring.evaluation.summary import distill_evaluations
from ilqljax.hiring.evaluation.tables import check_save_path, format_distilled, save_rows


def main() -> None:
    """Print the summary, one column a policy, and save it if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--eval_file", required=True, help="evaluation JSONL written by scripts/eval_policy.py")
    parser.add_argument("--save_path", default="", help="also save the numbers; .csv or .json chooses the format")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap over postings")
    args = parser.parse_args()
    if args.save_path:
        check_save_path(args.save_path)
    rows = distill_evaluations(load_evaluations(args.eval_file), seed=args.seed)
    if args.save_path:
        save_rows(args.save_path, rows)
    print(format_distilled(rows))


if __name__ == "__main__":
    run_main(main)
