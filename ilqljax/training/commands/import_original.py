"""Convert a checkpoint of the original PyTorch code into what `ilqljax export` writes.

    ilqljax import --weights model_converted.pkl --out imported --tokenizer gpt2

A run starts from the folder with --config.model.path=imported --config.pretrain.total_steps=0, heads and targets
included. Needs torch: pip install 'ilqljax[torch]'.
"""

import argparse

from ilqljax.cli import add_renamed
from ilqljax.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the checkpoint, what it does not say of itself, and the folder to write."""
    text = "state dict (model.pkl, model_converted.pkl) of the original's BC, ILQL or per-utterance ILQL"
    add_renamed(parser, "--weights", "--load", required=True, help=text)
    add_renamed(parser, "--out", "--save", required=True, help="folder to write")
    parser.add_argument("--tokenizer", default="", help="its tokenizer, saved beside it: a directory, or a hub name")
    parser.add_argument("--n_head", type=int, default=0, help="attention heads; 0 takes them to be 64 wide")


def run(args: argparse.Namespace) -> None:
    """Convert."""
    from ilqljax.config import resolve_path
    from ilqljax.data.tokenizer import load_tokenizer
    from ilqljax.models.io.original import load_original
    from ilqljax.training.export import save_model

    networks = load_original(resolve_path(args.weights), n_head=args.n_head)
    tokenizer = load_tokenizer(args.tokenizer) if args.tokenizer else None
    vocab_size = networks.model.backbone.config.vocab_size
    if tokenizer is not None and tokenizer.vocab_size != vocab_size:
        raise UserError(
            f"{args.weights} knows {vocab_size} tokens and the tokenizer {args.tokenizer!r} {tokenizer.vocab_size}. "
            "Give the tokenizer that the model was trained with."
        )
    save_model(resolve_path(args.out), networks, tokenizer)
    kinds = ", ".join([*networks.params, *(f"target {name}" for name in networks.target)])
    print(f"wrote {args.out}: {kinds}; {networks.model.backbone.config}")
