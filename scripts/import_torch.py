"""Read a checkpoint of the original PyTorch code, and write it in the formats of this project.

    python scripts/import_torch.py --load model_converted.pkl --save imported/ --tokenizer gpt2

--load is a state dict (`model.pkl`, `model_converted.pkl`) of the original's BC, ILQL or per-utterance ILQL. --save
becomes a folder as scripts/export_hf.py writes it: `--config.model.path=` starts a run from it (with
`--config.pretrain.total_steps=0`), heads and targets included. Needs torch: pip install 'ilqljax[torch]'.
"""

import argparse

from ilqljax.cli import run_main
from ilqljax.config import resolve_path
from ilqljax.data.tokenizer import load_tokenizer
from ilqljax.errors import UserError
from ilqljax.models.io.networks import save_networks
from ilqljax.models.io.original import load_original


def main() -> None:
    """Read the arguments and convert."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--load", required=True, help="state dict written by torch.save")
    parser.add_argument("--save", required=True, help="directory to write")
    parser.add_argument("--tokenizer", default="", help="its tokenizer, saved beside it: a directory, or a hub name")
    parser.add_argument("--n_head", type=int, default=0, help="attention heads, where they are not 64 wide")
    args = parser.parse_args()
    networks = load_original(resolve_path(args.load), n_head=args.n_head)
    tokenizer = load_tokenizer(args.tokenizer) if args.tokenizer else None
    vocab_size = networks.model.backbone.config.vocab_size
    if tokenizer is not None and tokenizer.vocab_size != vocab_size:
        raise UserError(
            f"{args.load} knows {vocab_size} tokens and the tokenizer {args.tokenizer!r} {tokenizer.vocab_size}. Give "
            "the tokenizer that the model was trained with."
        )
    ids = {}
    if tokenizer is not None:
        ids = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eoa_id, "pad_token_id": tokenizer.pad_id}
    save_networks(resolve_path(args.save), networks, special_ids=ids)
    if tokenizer is not None:
        tokenizer.save(resolve_path(args.save))
    kinds = ", ".join([*networks.params, *(f"target {name}" for name in networks.target)])
    print(f"wrote {args.save}: {kinds}; {networks.model.backbone.config}")


if __name__ == "__main__":
    run_main(main)
