"""Prepare a data folder: postings, candidates, splits and several scored rewrites per posting.

    ilqljax data prepare --out data/sample                                 the built-in sample
    ilqljax data prepare --out data/mine --path DIR                        DIR's jobs and candidates
    ilqljax data prepare --out data/hn --path hn_who_is_hiring.jsonl.gz    real posts

The folder appears whole or not at all. Formats: `ilqljax.hiring.postings.sources`; the folder's files:
`ilqljax.hiring.data.prepare`.
"""

import argparse

from ilqljax.cli import add_options, add_renamed, read_options
from ilqljax.data.pages import clean_text
from ilqljax.hiring.data.prepare import SPLIT_CHOICES, DataConfig, prepare_data
from ilqljax.hiring.data.prepared import format_summary
from ilqljax.hiring.edits.operators import ALL_OPERATORS
from ilqljax.hiring.postings.sources import SOURCES
from ilqljax.hiring.reward.distances import DISTANCE_NAMES
from ilqljax.hiring.reward.scores import RewardConfig

RENAMED = {"k": "top"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the folder, what it is made of, and how rewrites are scored."""
    add_renamed(parser, "--out", "--out_dir", required=True, help="folder to make")
    add_options(parser, DataConfig, known={"source": SOURCES, "splits": SPLIT_CHOICES, "operators": ALL_OPERATORS})
    add_options(parser, RewardConfig, renamed=RENAMED, known={"distance": DISTANCE_NAMES})


def run(args: argparse.Namespace) -> None:
    """Prepare the folder and print its summary."""
    reward = read_options(args, RewardConfig, renamed=RENAMED)
    prepared = prepare_data(read_options(args, DataConfig, reward=reward), out_dir=args.out)
    print(clean_text(format_summary(prepared.summary)))
    print(f"written to {prepared.folder}")
