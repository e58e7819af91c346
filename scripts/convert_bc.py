"""Make an ILQL model's policy out of a BC checkpoint.

    python scripts/convert_bc.py --load runs/workable-.../ --save converted/

--load is a run with a BC stage. --save becomes a directory that `--config.model.path=` (with `:ilql`) and transformers'
GPT2LMHeadModel load, with the tokenizer beside it: ILQL then starts its policy and its value trunk from the clone.
"""

import argparse
from pathlib import Path

from ilqljax.cli import run_main
from ilqljax.errors import UserError
from ilqljax.evaluate import export_policy, open_run


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
    print(f"wrote {args.save}; use it with --config configs/workable.py:ilql --config.model.path={args.save}")


if __name__ == "__main__":
    run_main(main)
