"""Prepare a data folder of the hiring task: postings, candidates, splits and several scored rewrites per posting.

    python scripts/prepare_data.py --out_dir data/sample                                 the built-in sample
    python scripts/prepare_data.py --out_dir data/mine --path DIR                        DIR's jobs and candidates
    python scripts/prepare_data.py --out_dir data/hn --path hn_who_is_hiring.jsonl.gz    real posts

The folder appears whole or not at all. Formats: `ilqljax.hiring.postings.sources`; the folder's files:
`ilqljax.hiring.data.prepare`.
"""

import argparse

from ilqljax.cli import run_main
from ilqljax.hiring.data.prepare import SPLIT_CHOICES, DataConfig, prepare_data
from ilqljax.hiring.data.prepared import format_summary
from ilqljax.hiring.postings.sources import SOURCES
from ilqljax.hiring.reward.scores import RewardConfig


def main() -> None:
    """Prepare the folder and print its summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data, reward = DataConfig(), RewardConfig()
    parser.add_argument("--out_dir", required=True, help="the folder to make")
    parser.add_argument("--source", default="", help=f"{', '.join(SOURCES)}; detected from the path by default")
    parser.add_argument("--path", default="", help="file or folder of the postings; none for the sample")
    parser.add_argument("--candidates_path", default="", help="candidates.jsonl, where not beside the postings")
    parser.add_argument("--seed", type=int, default=data.seed)
    parser.add_argument("--plant", type=float, default=data.plant, help="strength of the sample's planted correlation")
    parser.add_argument("--max_postings", type=int, default=data.max_postings, help="0 keeps all")
    parser.add_argument("--max_words", type=int, default=data.max_words, help="drop longer postings; 0 keeps all")
    parser.add_argument("--operators", default=",".join(data.operators), help="comma-separated rewriting operators")
    parser.add_argument("--splits", default=data.splits, help=f"one of {', '.join(SPLIT_CHOICES)}")
    parser.add_argument("--attribute", default=reward.attribute, help="declared attribute whose distribution counts")
    parser.add_argument("--top", type=int, default=reward.k, help="length of the shortlist")
    parser.add_argument("--distance", default=reward.distance)
    parser.add_argument("--target", default=reward.target)
    parser.add_argument("--compat", default=reward.compat, help="'original' for the original project's distance")
    args = parser.parse_args()
    config = DataConfig(
        source=args.source,
        path=args.path,
        candidates_path=args.candidates_path,
        seed=args.seed,
        plant=args.plant,
        max_postings=args.max_postings,
        max_words=args.max_words,
        operators=tuple(name.strip() for name in args.operators.split(",") if name.strip()),
        splits=args.splits,
        reward=RewardConfig(
            attribute=args.attribute, k=args.top, distance=args.distance, target=args.target, compat=args.compat
        ),
    )
    prepared = prepare_data(config, out_dir=args.out_dir)
    print(format_summary(prepared.summary))
    print(f"written to {prepared.folder}")


if __name__ == "__main__":
    run_main(main)
