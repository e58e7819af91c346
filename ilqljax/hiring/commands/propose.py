"""Let a pretrained instruct model paraphrase the training postings, before anything is trained.

    ilqljax data propose --data data/workable --model smollm2 --out proposals.jsonl
    ilqljax data propose --data data/mine --model DIR --levels sentence --temperatures 0.5,1 --n 4 --out proposals.jsonl
    ilqljax train --config workable:smollm2 --config.data.rewrites_path=proposals.jsonl

--data is a prepared folder: `ilqljax data prepare` makes one, and a training's is its config.data.folder. Whole
postings and single sentences are paraphrased; what is unfinished, known, repeated or fails a guardrail is dropped and
counted, on the terminal and in a file beside --out that ends in .counts.json.
"""

import argparse
from dataclasses import asdict
from pathlib import Path

from ilqljax.cli import add_options, read_options
from ilqljax.hiring.audit.program import MATCHERS, make_source, parse_options
from ilqljax.hiring.paraphrases import LEVELS, ParaphraseConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the data, the model, how it paraphrases, and the file to write."""
    add = parser.add_argument
    add("--data", required=True, help="prepared folder, whose training postings are paraphrased")
    add("--model", required=True, help="an instruct model's directory or GGUF file, a hub name, or 'smollm2'")
    add("--out", required=True, help="JSON Lines file to write")
    add("--max_postings", type=int, default=0, help="a seeded choice of at most so many postings; 0 for all")
    add("--matcher", default="tfidf", help=f"what scored the data: {', '.join(MATCHERS)}")
    add("--matcher_options", default="", help="the matcher's, such as path=DIR or url=http://..., comma-separated")
    add_options(parser, ParaphraseConfig, known={"levels": LEVELS})


def run(args: argparse.Namespace) -> None:
    """Paraphrase, print what became of it, and write both files."""
    from ilqljax.data.files import check_writable, save_text
    from ilqljax.data.json_lines import save_json_lines
    from ilqljax.hiring.audit.tables import format_json
    from ilqljax.hiring.data.prepare import choose_some
    from ilqljax.hiring.data.prepared import load_prepared
    from ilqljax.hiring.paraphrases import paraphrase_postings
    from ilqljax.hiring.proposals import count_by_source, format_counts, list_known, to_row
    from ilqljax.hiring.writer import ModelWriter
    from ilqljax.models.builders import load_model
    from ilqljax.training.compilation import enable_compilation_cache

    config, counts_path = read_options(args, ParaphraseConfig), Path(args.out).with_suffix(".counts.json")
    check_writable(args.out)  # now, not after hours of writing
    data = load_prepared(args.data)
    reward = data.make_reward(make_source(args.matcher, options=parse_options(args.matcher_options)))
    postings = choose_some(data.select_postings("train"), args.max_postings, seed=config.seed)
    enable_compilation_cache()
    writer = ModelWriter(load_model(args.model, chat=True, instruction=config.instruction), config)
    found = paraphrase_postings(
        postings, writer, reward, config, known=list_known(data.rewrites), guardrails=reward.guardrails
    )
    save_json_lines(args.out, map(to_row, found.rewrites))
    totals = {name: getattr(found, name) for name in ("n_postings", "n_tokens", "n_without_room")}
    settings = {**asdict(config), **{name: getattr(args, name) for name in ("data", "model", "max_postings")}}
    counts = {"settings": settings, **totals, "sources": count_by_source(found.counts)}
    save_text(counts_path, format_json(counts))
    print(format_counts(found.counts))
    print(f"{found.n_tokens:,} tokens of {found.n_postings} of {len(postings)} postings", end="")
    print(f"; {found.n_without_room} texts had no room in the model" if found.n_without_room else "")
    print(f"{len(found.rewrites)} proposals are in {args.out}, what became of the others in {counts_path}")
