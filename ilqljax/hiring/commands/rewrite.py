"""Rewrite one posting with a trained policy.

    ilqljax rewrite --run runs/workable-... --job job.json --n 16
    ilqljax rewrite --run runs/workable-... --job posting.txt --title "Ward Nurse" --company "Blue Oak"
    cat posting.txt | ilqljax rewrite --run runs/workable-... --job - --log decisions.jsonl

--job is an object as in jobs.jsonl, a text file, or - for standard input. Samples that fail a guardrail are dropped,
and the best of the others is shown with what it changes. "No safe improvement found" is a normal answer.
"""

import argparse
import os
import sys
import time

from ilqljax.cli import add_run
from ilqljax.data.files import check_writable
from ilqljax.errors import UserError
from ilqljax.hiring.proposals import DECISIONS, RANKINGS, log_decision


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the run, the posting, and what becomes of the rewrite."""
    add = parser.add_argument
    add_run(parser, "--checkpoint")
    add("--job", required=True, help="job.json, a text file, or - for standard input")
    add("--title", default="", help="of a text file's job")
    add("--company", default="", help="of a text file's job")
    add("--location", default="", help="of a text file's job")
    add("--n", type=int, default=16, help="rewrites to sample")
    add("--policy", default="", help="the run's algorithm if left out; 'bc' for its clone")
    add("--rank_by", default="reward", help=f"what sorts improvements: {', '.join(RANKINGS)}")
    add("--log", default="", help="JSON Lines file that decisions are appended to")
    add("--decision", default="", help=f"{', '.join(DECISIONS)}; asked for on a terminal if left out")


def run(args: argparse.Namespace) -> None:
    """Rewrite, show, and log a decision if asked."""
    from ilqljax.hiring.rewrite import ask_for_decision, format_rewriting, read_job, rewrite_with_run
    from ilqljax.training.compilation import enable_compilation_cache
    from ilqljax.training.evaluation import open_run

    posting = read_job(args.job, title=args.title, company=args.company, location=args.location)
    if args.decision and (args.decision not in DECISIONS or not args.log):
        raise UserError(f"--decision={args.decision} needs --log, and is one of {', '.join(DECISIONS)}.")
    if args.log:
        check_writable(args.log, append=True)  # now, not when there is a decision to lose
    enable_compilation_cache()
    run = open_run(args.run, imports=args.imports)
    data = run.build_section("data")
    rewriting = rewrite_with_run(run, data, posting, n=args.n, policy=args.policy, rank_by=args.rank_by)
    print(format_rewriting(rewriting, data, colour=sys.stdout.isatty() and "NO_COLOR" not in os.environ))
    if rewriting.safe and args.log:
        decision = args.decision or ask_for_decision(can_ask=args.job != "-" and sys.stdin.isatty())
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        log_decision(args.log, decision, rewriting, run=str(run.folder), time=now)
        print(f"{decision}: appended to {args.log}")
