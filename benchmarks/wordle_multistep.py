"""Multi-step against one-step on the adversarial Wordle set: does Q prefer the expert's first guess?

    python -m benchmarks.wordle_multistep --out runs/wordle-multistep [--quick]

`benchmarks.wordle.multistep` says what is done. Writes results.json (each training as soon as it is done; the same
command continues, with further seeds and expectiles too), table.md and plot.svg.
"""

import argparse

from benchmarks.wordle.multistep import MultistepConfig, run_multistep
from ilqljax.cli import add_options, read_options, run_main
from ilqljax.config import resolve_path
from ilqljax.models.cpu import restart_with_huge_pages
from ilqljax.training.compilation import enable_compilation_cache

QUICK = {"experts": 20, "steps": 10, "batch": 8, "layers": 1, "width": 32}


def main() -> None:
    """Read the arguments, run what is missing and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="runs/wordle-multistep", help="folder of the results")
    parser.add_argument("--expectiles", type=float, nargs="+", default=[0.5, 0.7, 0.9, 0.99])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add_options(parser, MultistepConfig)
    parser.add_argument("--quick", action="store_true", help="a smoke test of seconds")
    args = parser.parse_args()
    if args.quick:
        vars(args).update(QUICK | {"seeds": [0], "expectiles": [0.5, 0.9]})
    config = read_options(args, MultistepConfig)
    enable_compilation_cache()
    print(run_multistep(config, seeds=args.seeds, expectiles=args.expectiles, out=resolve_path(args.out)))


if __name__ == "__main__":
    restart_with_huge_pages()
    run_main(main)
