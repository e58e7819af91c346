"""Play Wordle with what was learned from one policy's games, and see how much of the gap to the optimum closes.

    python -m benchmarks.wordle_play --out runs/wordle-play [--words FILE] [--p 0.34] [--quick]

`benchmarks.wordle.play` says what is trained and played. Writes results.json (every training and every row as soon as
it is known; the same command continues, with further seeds, critics, policies or betas too), all networks, table.md and
plot.svg.
"""

import argparse

from benchmarks.wordle.play import CRITICS, FITTING, PlayConfig, run_play
from ilqljax.cli import add_options, read_options, run_main
from ilqljax.config import resolve_path
from ilqljax.models.cpu import restart_with_huge_pages
from ilqljax.training.compilation import enable_compilation_cache

QUICK = {"games": 16, "data_games": 64, "clone_steps": 4, "bc_steps": 4, "filtered_steps": 4, "steps": 4, "batch": 8}
QUICK |= {"layers": 1, "width": 32, "betas": [16.0], "best_of": 2, "critics": ["mc", "ilql"]}


def main() -> None:
    """Read the arguments, run what is missing and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="runs/wordle-play", help="folder of the results")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--critics", nargs="+", choices=CRITICS, default=list(CRITICS), help="which are trained")
    parser.add_argument("--over", nargs="+", choices=["bc", FITTING], default=["bc"], help="policies they steer")
    parser.add_argument("--betas", type=float, nargs="+", default=[1.0, 4.0, 16.0, 64.0])
    parser.add_argument("--best_of", type=int, default=64, help="samples that one more row chooses from; 1 is off")
    add_options(parser, PlayConfig)
    parser.add_argument("--quick", action="store_true", help="a smoke test of seconds, in an --out of its own")
    args = parser.parse_args()
    if args.quick:
        vars(args).update(QUICK)
    config = read_options(args, PlayConfig)
    enable_compilation_cache()
    chosen = {name: getattr(args, name) for name in ("seeds", "critics", "over", "betas", "best_of")}
    print(run_play(config, **chosen, out=resolve_path(args.out)))


if __name__ == "__main__":
    restart_with_huge_pages()
    run_main(main)
