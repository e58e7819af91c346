"""Summarise an evaluation, a column a policy.

    ilqljax report policies --run runs/workable-... --out policies.csv

The rows are rewards, paired differences, copies, guardrails and entropies. The format of the evaluation:
`ilqljax.hiring.evaluation.record`; the meaning of each number: `ilqljax.hiring.evaluation.summary`.
"""

import argparse

from ilqljax.cli import add_renamed
from ilqljax.data.pages import clean_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the evaluation, and the file to write."""
    text = "folder of a run or of `ilqljax evaluate --out`, or an evaluation.jsonl"
    add_renamed(parser, "--run", "--eval_file", required=True, help=text)
    text = "also save the numbers, in a file whose name ends in .csv or .json"
    add_renamed(parser, "--out", "--save_path", default="", help=text)
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap over postings")


def run(args: argparse.Namespace) -> None:
    """Print the summary, and save it if asked."""
    from ilqljax.hiring.evaluation.record import load_evaluations
    from ilqljax.hiring.evaluation.summary import check_save_path, distill_evaluations, format_distilled, save_rows

    if args.out:
        check_save_path(args.out)
    rows = distill_evaluations(load_evaluations(args.run), seed=args.seed)
    if args.out:
        save_rows(args.out, rows)
    print(clean_text(format_distilled(rows)))
