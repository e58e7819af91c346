"""Judge a run's policies again, decoded otherwise if wanted.

    ilqljax evaluate --run runs/workable-... --out out --beta 4 --temperature 0

Training ends with the same judgement. Prints the table and writes it to results.json and results.txt, beside
judgement.json (the options, versions and seed that made it) and what the task's evaluator writes: for postings
evaluation.jsonl (a line per policy and posting) and impact_ratios.csv. Results that are there are never written over.
Of a judgement that was killed, the same command goes on after the last policy that was done.
"""

import argparse

from ilqljax.cli import add_options, add_renamed, add_run, list_given
from ilqljax.decoding.options import DecodeConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the run, where results go, and how to decode."""
    add_run(parser)
    add_renamed(
        parser, "--out", "--save_path", default="", help="new folder; the run's own, or one in its judged/, if left out"
    )
    add_options(parser, DecodeConfig, unset="the run's own")


def run(args: argparse.Namespace) -> None:
    """Judge."""
    from ilqljax.training.compilation import enable_compilation_cache
    from ilqljax.training.evaluation import evaluate_run

    enable_compilation_cache()
    out = evaluate_run(args.run, out_dir=args.out, overrides=list_given(args, DecodeConfig), imports=args.imports)
    print(f"results are in {out}")
