"""Make an ILQL model's policy out of a BC checkpoint.

    python scripts/convert_bc.py --load runs/workable-.../ --save converted/

--load is a run with a BC stage. --save becomes a directory that transformers' GPT2LMHeadModel loads, with the tokenizer
beside it. `--config.model.path=DIR --config.pretrain.total_steps=0` starts an algorithm's policy and its value trunk
from the clone.
"""

import argparse
from pathlib import Path

from ilqljax.cli import run_main
from ilqljax.errors import UserError
from ilqljax.training.evaluation import open_run
from ilqljax.training.policies import export_policy


def main() -> None:
    """Read the arguments and convert."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--load", required=True, help="folder of a run with a BC stage")
    parser.add_argument("--save", required=True, help="directory to write")
    args = parser.parse_args()
    run = open_run(args.load)
    if "bc" not in run.policies:
        raise UserError(
            f"{args.load} has no BC checkpoint, only {', '.join(run.policies)}. Give a run with a BC stage."
        )
    export_policy(Path(args.save), run.built, run.policies["bc"])
    print(f"wrote {args.save}; start from it with --config.model.path={args.save} --config.pretrain.total_steps=0")


if __name__ == "__main__":
    run_main(main)
