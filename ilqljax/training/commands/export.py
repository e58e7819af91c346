"""Write a run's policy for transformers, and its critic as safetensors.

    ilqljax export --run runs/workable-... --out exported
    ilqljax export --run runs/workable-... --out clone --policy bc

transformers' AutoModelForCausalLM.from_pretrained loads the folder (with torch installed). The tokenizer beside the
weights is not transformers': `ilqljax.load_tokenizer` reads it. A run starts from the folder with
--config.model.path=exported --config.pretrain.total_steps=0, critic included. The files: `ilqljax.models.io.networks`.
"""

import argparse
from pathlib import Path

from ilqljax.cli import add_renamed, add_run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the run, its policy, and the folder to write."""
    add_run(parser, "--load")
    add_renamed(parser, "--out", "--save", required=True, help="folder to write")
    parser.add_argument("--policy", default="", help="the run's algorithm if left out; 'bc' for its clone")


def run(args: argparse.Namespace) -> None:
    """Export."""
    from ilqljax.training.evaluation import export_policy, open_run

    run = open_run(args.run, imports=args.imports)
    export_policy(Path(args.out), run.built, run.select_policy(args.policy), critic=True)
    print(f"wrote {args.out}; start from it with --config.model.path={args.out} --config.pretrain.total_steps=0")
