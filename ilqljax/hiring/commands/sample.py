"""Sample rewrites of a run's training postings, as further offline data of the next run.

    ilqljax data sample --run runs/workable-... --out samples.jsonl --n 4
    ilqljax train --config configs/workable.py --config.data.rewrites_path=samples.jsonl

The next run scores them with its matcher beside the operators' rewrites; what was cut off unfinished is left out.
"""

import argparse

from ilqljax.cli import add_options, add_run, list_given
from ilqljax.data.files import check_writable
from ilqljax.decoding.options import DecodeConfig
from ilqljax.errors import UserError
from ilqljax.hiring.data.prepare import save_samples
from ilqljax.hiring.environment import PostingObservation
from ilqljax.hiring.postings.posting import build_prompt

DECODING = ("temperature", "top_k", "top_p", "beta")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the run, how it samples, and the file to write."""
    add_run(parser)
    parser.add_argument("--out", required=True, help="JSON Lines file to write")
    parser.add_argument("--policy", default="bc", help="whose samples; '' for those of the run's algorithm")
    parser.add_argument("--n", type=int, default=4, help="samples of each posting")
    add_options(parser, DecodeConfig, DECODING, unset="the run's own")


def run(args: argparse.Namespace) -> None:
    """Sample, and write the file."""
    from ilqljax.training.compilation import enable_compilation_cache
    from ilqljax.training.evaluation import make_policy, open_run

    if args.n < 1:
        raise UserError(f"--n={args.n}: sample at least one rewrite of each posting.")
    check_writable(args.out)  # now, not after hours of sampling
    enable_compilation_cache()
    run = open_run(args.run, imports=args.imports)
    name = run.name_policy(args.policy)
    data = run.build_section("data")
    options = {"n_generations": args.n, "beam_width": 0, **list_given(args, DecodeConfig, DECODING)}
    policy = make_policy(run.config, run.built, run.select_policy(name), **options)
    postings = data.prepared.select_postings("train")
    generations = policy.generate_batch([PostingObservation(build_prompt(p), posting=p) for p in postings])
    samples = [(p.id, g.text) for p, found in zip(postings, generations, strict=True) for g in found if g.finished]
    n_written = save_samples(args.out, samples, source=name)
    print(f"{n_written} different rewrites of {len(postings)} postings are in {args.out}")
