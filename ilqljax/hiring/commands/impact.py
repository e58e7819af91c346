"""Tabulate an evaluation's impact ratios by category, before and after rewriting.

    ilqljax report impact --run runs/workable-... --out ratios.csv --attributes gender,region --selected 10

Assessed are all members of a posting's shortlist, selected its first --selected; counts are pooled over postings.
"Shuffled" is the same ratio under randomly permuted labels. The format of the evaluation:
`ilqljax.hiring.evaluation.record`; the meaning of each number: `ilqljax.hiring.evaluation.impact`.
"""

import argparse

from ilqljax.cli import add_renamed
from ilqljax.data.pages import clean_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the evaluation, what is tabulated, and the file to write."""
    text = "folder of a run or of `ilqljax evaluate --out`, or an evaluation.jsonl"
    add_renamed(parser, "--run", "--eval_file", required=True, help=text)
    text = "where to save; .csv or .json chooses the format"
    add_renamed(parser, "--out", "--save_path", required=True, help=text)
    parser.add_argument("--attributes", default="", help="comma-separated; all that the file has if left out")
    parser.add_argument("--selected", type=int, default=10, help="members of a shortlist that count as selected")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap and of the permutations")


def run(args: argparse.Namespace) -> None:
    """Save the table and print it."""
    from ilqljax.hiring.evaluation.impact import tabulate_impact_ratios
    from ilqljax.hiring.evaluation.record import load_evaluations
    from ilqljax.hiring.evaluation.summary import check_save_path, format_impact_ratios, save_rows

    check_save_path(args.out)
    rows = tabulate_impact_ratios(
        load_evaluations(args.run),
        attributes=[name.strip() for name in args.attributes.split(",") if name.strip()],
        n_selected=args.selected,
        seed=args.seed,
    )
    save_rows(args.out, rows)
    print(clean_text(format_impact_ratios(rows)))
