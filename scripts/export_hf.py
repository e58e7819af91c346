"""Write what a run has learned for other programs: the policy for transformers, the critic's heads as safetensors.

    python scripts/export_hf.py --run runs/workable-... --save exported/ [--policy bc]

transformers' GPT2LMHeadModel.from_pretrained loads the folder; `--config.model.path=` starts a run from it, critic
included. The files: `ilqljax.models.io.networks`.
"""

import argparse
from pathlib import Path

from ilqljax.cli import run_main
from ilqljax.training.evaluation import open_run
from ilqljax.training.policies import export_policy


def main() -> None:
    """Read the arguments and export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True, help="folder of a run")
    parser.add_argument("--save", required=True, help="directory to write")
    parser.add_argument("--policy", default="", help="the run's algorithm by default; 'bc' for its clone")
    args = parser.parse_args()
    run = open_run(args.run)
    export_policy(Path(args.save), run.built, run.select_policy(args.policy), critic=True)
    print(f"wrote {args.save}")


if __name__ == "__main__":
    run_main(main)
