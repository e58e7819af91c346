"""Judge a run's policies on the evaluation postings, each once, and write what they did.

    python scripts/eval_policy.py --run runs/workable-... --save_path out/ [--beta 4 --temperature 0]

Writes evaluation.jsonl (a line per policy and posting: prompt, original, rewrite, rewards, log-probability,
shortlists), results.json and impact_ratios.csv into --save_path, and prints the table.
"""

import argparse

from ilqljax.cli import run_main
from ilqljax.training.compilation import enable_compilation_cache
from ilqljax.training.evaluation import add_decode_arguments, evaluate_run, read_decode_arguments


def main() -> None:
    """Read the arguments and judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", required=True, help="folder that training printed")
    parser.add_argument("--save_path", default="", help="folder for the results; the run's own by default")
    add_decode_arguments(parser)
    args = parser.parse_args()
    enable_compilation_cache()
    out = evaluate_run(args.run, out_dir=args.save_path, overrides=read_decode_arguments(args))
    print(f"results are in {out}")


if __name__ == "__main__":
    run_main(main)
