"""Where the commands of `ilqljax report` find the evaluation that they summarise."""

import argparse
from pathlib import Path

from ilqljax.cli import add_renamed


def add_evaluation(parser: argparse.ArgumentParser) -> None:
    """Add the evaluation to read."""
    text = "folder of a run or of `ilqljax evaluate --out`, or an evaluation.jsonl"
    add_renamed(parser, "--run", "--eval_file", required=True, help=text)


def find_evaluation(path: str) -> Path:
    """Return the evaluation's file, where its folder may be given."""
    return Path(path) / "evaluation.jsonl" if Path(path).is_dir() else Path(path)
