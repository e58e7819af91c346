"""Write a run's policy for transformers, and its critic as safetensors; or its adapter for PEFT.

    ilqljax export --run runs/workable-... --out exported
    ilqljax export --run runs/workable-... --out clone --policy bc
    ilqljax export --run runs/workable-... --out adapter --adapter

transformers' AutoModelForCausalLM.from_pretrained (with torch installed) and AutoTokenizer.from_pretrained load the
folder; `<s>`, `</a>` and the other control tokens are special tokens there, and generate ends and suppresses what the
policy does. A run starts from the folder with --config.model.path=exported --config.pretrain.total_steps=0, critic
included. Its README.md is a model card; one that is not ours stays. The files: `ilqljax.models.io.networks`.

--adapter is for runs with config.model.lora_rank: peft.PeftModel.from_pretrained loads the adapter on the model that
the run started from, with rows for the control tokens; the card has the lines.
"""

import argparse
from pathlib import Path

from ilqljax.cli import add_renamed, add_run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the run, its policy, and the folder to write."""
    add_run(parser, "--load")
    add_renamed(parser, "--out", "--save", required=True, help="folder to write")
    parser.add_argument("--policy", default="", help="the run's algorithm if left out; 'bc' for its clone")
    parser.add_argument("--adapter", action="store_true", help="write the adapter alone, in PEFT's format")


def run(args: argparse.Namespace) -> None:
    """Export."""
    from ilqljax.training.evaluation import open_run
    from ilqljax.training.export import export_adapter, export_policy, save_card

    run, out = open_run(args.run, imports=args.imports), Path(args.out)
    what = run.config, run.built, run.select_policy(args.policy)
    if args.adapter:
        export_adapter(out, *what)
    else:
        export_policy(out, *what, critic=True)
    if not save_card(out, *what, policy=run.name_policy(args.policy), run_dir=run.folder, adapter=args.adapter):
        print(f"{out / 'README.md'} is not one that export wrote, and stays")
    if args.adapter:
        print(f"wrote {out}; README.md says how PEFT loads it")
    else:
        print(f"wrote {out}; start from it with --config.model.path={out} --config.pretrain.total_steps=0")
