"""Sample rewrites of a run's training postings, as data of the next run, or of several in rounds.

    ilqljax data sample --run runs/workable-... --out samples.jsonl --n 4
    ilqljax train --config configs/workable.py --config.data.rewrites_path=samples.jsonl
    ilqljax data sample --run runs/workable-... --out rounds --rounds 3 --n 4 --keep improved

The next run scores them with its matcher beside the operators' rewrites; what was cut off unfinished is left out.

With --rounds, --out is a folder: in each round the latest policy proposes, what is new and passes the guardrails is
scored and added to the data, and a clone and a critic are trained on all of it with the run's config. The same command
goes on where one was killed, and with more --rounds does only those that are missing.
"""

import argparse
from dataclasses import replace

from ilqljax.cli import add_options, add_run, list_given, read_options
from ilqljax.data.files import check_writable
from ilqljax.decoding.options import DecodeConfig
from ilqljax.errors import UserError
from ilqljax.hiring.data.prepare import save_samples
from ilqljax.hiring.environment import PostingObservation
from ilqljax.hiring.postings.posting import build_prompt
from ilqljax.hiring.proposals import KEEP, RoundsConfig

DECODING = ("temperature", "top_k", "top_p", "beta")
ROUNDS = ("keep", "max_postings", "pretrain_steps", "train_steps", "seed")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the run, how it samples, the rounds, and what to write."""
    add = parser.add_argument
    add_run(parser)
    add("--out", required=True, help="JSON Lines file to write; with --rounds a folder")
    text = "whose samples; '' for those of the run's algorithm (default: bc, with --rounds the run's algorithm)"
    add("--policy", default=argparse.SUPPRESS, help=text)
    add("--n", type=int, default=4, help="samples of each posting")
    add_options(parser, DecodeConfig, DECODING, unset="the run's own")
    add("--rounds", type=int, default=0, help="propose and train so often; 0 only samples, and the rest is not for it")
    add_options(parser, RoundsConfig, ROUNDS, known={"keep": KEEP})


def run(args: argparse.Namespace) -> None:
    """Sample, and write the file, or do the rounds."""
    config = read_options(args, RoundsConfig, ROUNDS, rounds=max(args.rounds, 1), n=max(args.n, 1))
    if args.n < 1 or args.rounds < 0:
        raise UserError(f"--n={args.n}, --rounds={args.rounds}: sample at least one rewrite of each posting.")
    if args.rounds:
        _run_rounds(args, replace(config, policy=getattr(args, "policy", "")))
        return
    if replace(config, n=RoundsConfig.n) != RoundsConfig(rounds=1):
        raise UserError(f"--{', --'.join(ROUNDS)} are options of rounds. Give --rounds=2, or leave them out.")
    _sample(args)


def _run_rounds(args: argparse.Namespace, config: RoundsConfig) -> None:
    from ilqljax.data.files import check_writable_folder
    from ilqljax.hiring.rounds import run_rounds
    from ilqljax.train import train
    from ilqljax.training.compilation import enable_compilation_cache

    check_writable_folder(args.out)
    enable_compilation_cache()
    decoding = list_given(args, DecodeConfig, DECODING)
    run_rounds(args.run, args.out, config, train=train, decoding=decoding, imports=args.imports)
    print(f"the last policy is {args.out}/round-{config.rounds}/run")


def _sample(args: argparse.Namespace) -> None:
    from ilqljax.training.compilation import enable_compilation_cache
    from ilqljax.training.evaluation import make_policy, open_run

    check_writable(args.out)  # now, not after hours of sampling
    enable_compilation_cache()
    run = open_run(args.run, imports=args.imports)
    name = run.name_policy(getattr(args, "policy", "bc"))
    data = run.build_section("data")
    options = {"n_generations": args.n, "beam_width": 0, **list_given(args, DecodeConfig, DECODING)}
    policy = make_policy(run.config, run.built, run.select_policy(name), **options)
    postings = data.prepared.select_postings("train")
    generations = policy.generate_batch([PostingObservation(build_prompt(p), posting=p) for p in postings])
    samples = [(p.id, g.text) for p, found in zip(postings, generations, strict=True) for g in found if g.finished]
    n_written = save_samples(args.out, samples, source=name)
    print(f"{n_written} different rewrites of {len(postings)} postings are in {args.out}")
