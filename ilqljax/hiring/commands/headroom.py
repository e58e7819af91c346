"""Measure what rewriting could gain at all, before a model is trained.

    ilqljax data headroom --sample
    ilqljax data headroom --jobs jobs.jsonl --candidates candidates.jsonl --attributes gender --top 50
    ilqljax data headroom --jobs jobs.jsonl --candidates candidates.jsonl --rewrites samples.jsonl --matcher encoder

Each posting is edited in many ways; the best edit by one half of the people is judged on the other half, and all is
compared with attributes dealt out at random. What each number means: `ilqljax/hiring/evaluation/headroom.py`.
"""

import argparse
from dataclasses import replace

from ilqljax.cli import add_options, read_options
from ilqljax.data.pages import clean_text
from ilqljax.hiring.audit.program import (
    MATCHERS,
    SAMPLE,
    SCORE,
    list_names,
    load_jobs,
    make_matcher,
    parse_options,
)
from ilqljax.hiring.evaluation.headroom import HeadroomConfig
from ilqljax.hiring.reward.distances import DISTANCE_NAMES
from ilqljax.hiring.reward.scores import RewardConfig

RENAMED = {"k": "top"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the postings, the people, what ranks, and how it is measured."""
    add = parser.add_argument
    add("--sample", action="store_true", help="the built-in sample market")
    add("--jobs", default="", help="postings: a file or folder of any known format, or 'sample'")
    add(
        "--candidates", default="", help="candidates.jsonl, or 'sample'; may be left out where the jobs bring their own"
    )
    add("--plant", type=float, default=0.8, help="strength of the sample's planted correlation, 0 to 1")
    add("--rewrites", default="", help="further edits, such as `ilqljax data sample` writes")
    add("--attributes", default="", help="comma-separated; all that are declared if left out")
    add("--max_postings", type=int, default=0, help="a random part of the postings of this size; 0 for all")
    add("--matcher", default="tfidf", help=f"what ranks: {', '.join(MATCHERS)}")
    add("--matcher_options", default="", help="the matcher's, such as path=DIR or url=http://..., comma-separated")
    add("--out", default="", help="JSON file for every number; none if left out")
    add_options(parser, RewardConfig, (*SCORE, "k"), renamed=RENAMED, known={"distance": DISTANCE_NAMES})
    add_options(parser, HeadroomConfig)


def run(args: argparse.Namespace) -> None:
    """Measure, print the table, and write the numbers if a file is named."""
    from ilqljax.data.files import check_writable, save_text
    from ilqljax.errors import UserError
    from ilqljax.hiring.attributes import AttributeTable
    from ilqljax.hiring.audit.categories import UNKNOWN_WORDS, unify_candidates, warn_of_unknown
    from ilqljax.hiring.audit.market import AuditConfig, choose_score
    from ilqljax.hiring.audit.tables import format_json
    from ilqljax.hiring.data.prepare import load_samples
    from ilqljax.hiring.evaluation.headroom import format_headroom, list_edits, measure_headroom

    if args.sample == bool(args.jobs):
        raise UserError("Give either --jobs (with --candidates) or --sample. To try it: ilqljax data headroom --sample")
    if args.out:
        check_writable(args.out)
    postings, candidates = load_jobs(args, SAMPLE if args.sample else args.jobs)
    candidates, taken = unify_candidates(candidates, unknown=UNKNOWN_WORDS, names=list_names(args))
    warn_of_unknown(taken, where=args.candidates or args.jobs or SAMPLE)
    table = AttributeTable.from_candidates(candidates)
    names = list_names(args) or table.names
    if not names:
        raise UserError("The candidates declare no attribute. Add attributes to the candidates' file.")
    score = read_options(args, RewardConfig, (*SCORE, "k"), renamed=RENAMED)
    config = AuditConfig(names, top=score.k, n_selected=1, score=score)
    scores = [replace(choose_score(config, name), k=score.k) for name in names]
    further = load_samples(args.rewrites, train_ids=[p.id for p in postings]) if args.rewrites else {}
    edits = list_edits(postings, further=further, seed=args.seed)
    matcher = make_matcher(args.matcher, candidates, options=parse_options(args.matcher_options))
    found = measure_headroom(
        edits,
        table,
        scores,
        matcher=matcher,
        groups=[posting.group for posting in postings],
        config=read_options(args, HeadroomConfig),
    )
    print(f"{len(candidates):,} people, ranked by {args.matcher}, in shortlists of {score.k}")
    print(clean_text(format_headroom(found, edits)))
    if args.out:
        settings = {name: value for name, value in vars(args).items() if name != "out"}
        save_text(args.out, format_json({"settings": settings, "attributes": [each.to_json() for each in found]}))
