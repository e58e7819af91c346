"""Multi-step against one-step on the adversarial Wordle set: does Q prefer the expert's first guess?

    python scripts/wordle_multistep.py --out runs/wordle-multistep [--quick]

For each expectile and seed an ILQL critic is trained on the adversarial set (`ilqljax.tasks.wordle.data`), and
the share of cases with Q(expert's first guess) > Q(sub-optimal first guess) is recorded on the way. Beside the
curves stands what a table with these rows would say (`ilqljax.experiments.table`). Writes results.json (each
run as soon as it is done; the same command continues), table.md and plot.svg.
"""

import argparse
import time
from pathlib import Path

import numpy as np

from ilqljax.cli import run_main
from ilqljax.compilation import enable_compilation_cache
from ilqljax.config import resolve_path
from ilqljax.data.dataset import ObservationDataset
from ilqljax.experiments.fit import fit
from ilqljax.experiments.plots import Line, draw_lines
from ilqljax.experiments.results import Results
from ilqljax.experiments.table import solve_table
from ilqljax.experiments.wordle import (
    encode_first_guesses,
    make_first_guess_values,
    make_fit_config,
    make_model,
    rank_pairs,
)
from ilqljax.files import save_text
from ilqljax.tasks.wordle.data import make_adversarial_games, make_tokenizer, pair_first_guesses
from ilqljax.tasks.wordle.game import load_words

DISCOUNT = 0.99


class Case:
    """One seed's adversarial set and the first guesses that are compared."""

    def __init__(self, args: argparse.Namespace, seed: int) -> None:
        self.args, self.seed, self.tokenizer = args, seed, make_tokenizer()
        games = make_adversarial_games(load_words(args.words), args.experts, seed=seed, keep_short=not args.drop_short)
        self.dataset = ObservationDataset(games, self.tokenizer)
        self.pairs = pair_first_guesses(games)
        self.words = sorted({word for pair in self.pairs for word in pair})
        self.tokens = encode_first_guesses(self.words, self.tokenizer)

    def solve(self, expectile: float) -> list[float]:
        """Return the shares by the table."""
        rows = [self.dataset.get_item(i) for i in range(self.dataset.size())]
        _, q = solve_table(rows, discount=DISCOUNT, expectile=expectile)
        values = [[q[tuple(row[: i + 1]), row[i + 1]] for i in range(len(row) - 1)] for row in self.tokens.tolist()]
        return rank_pairs(np.array(values), self.words, self.pairs)

    def train(self, expectile: float) -> dict:
        """Return the shares over training."""
        args = self.args
        model = make_model(
            self.tokenizer, n_layer=args.layers, n_embd=args.width, n_head=args.heads, separate_policy=False
        )
        values = make_first_guess_values(model, self.tokens)
        curve: list[tuple[int, list[float]]] = []

        def watch(step: int, params: dict, target: dict) -> None:
            curve.append((step, rank_pairs(np.asarray(values(params, target)), self.words, self.pairs)))

        started = time.monotonic()
        loss = {"expectile": expectile, "cql_weight": args.cql, "discount": DISCOUNT}
        config = make_fit_config(steps=args.steps, batch_size=args.batch, lr=args.lr, polyak=args.polyak, loss=loss)
        every = max(1, args.steps // 25)
        fit("ilql", model, self.dataset, config, seed=self.seed, watch=watch, watch_every=every)
        return {"steps": [s for s, _ in curve], "shares": [v for _, v in curve], "seconds": time.monotonic() - started}


def report(args: argparse.Namespace, cells: dict, out: Path) -> str:
    """Write the table and the plot from the results."""
    lines, rows = [], ["| expectile | network, mean of seeds | each seed | table |", "|---|---|---|---|"]
    for expectile in args.expectiles:
        runs = [cells[f"train {expectile} {seed}"] for seed in args.seeds]
        curves = np.array([run["shares"] for run in runs])[..., -1]
        tables = [cells[f"table {expectile} {seed}"][-1] for seed in args.seeds]
        last = curves[:, -1]
        rows.append(
            f"| {expectile} | {last.mean():.3f} | {', '.join(f'{x:.3f}' for x in last)} | {np.mean(tables):.3f} |"
        )
        band = curves.std(axis=0).tolist()
        lines.append(Line(f"expectile {expectile}", runs[0]["steps"], curves.mean(axis=0).tolist(), band))
    seconds = sum(cell["seconds"] for name, cell in cells.items() if name.startswith("train"))
    text = "\n".join(
        [*rows, "", f"Seeds {list(args.seeds)}, {args.steps} steps of {args.batch} games, {seconds:.0f} s."]
    )
    save_text(out / "table.md", text + "\n")
    title = "Q(expert's first guess) > Q(sub-optimal first guess)"
    labels = {"x_label": "step", "y_label": "share of cases", "y_range": (0.0, 1.0)}
    save_text(out / "plot.svg", draw_lines(lines, title=title, **labels))
    return text


def main() -> None:
    """Read the arguments, run what is missing and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="runs/wordle-multistep", help="folder of the results")
    parser.add_argument("--words", default="", help="a file with one word a line; ilqljax's own list if left out")
    parser.add_argument("--expectiles", type=float, nargs="+", default=[0.5, 0.7, 0.9, 0.99])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--experts", type=int, default=500, help="expert games; the set holds up to eleven times as many"
    )
    parser.add_argument("--drop_short", action="store_true", help="leave expert games of under three guesses out")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--polyak", type=float, default=0.2, help="how fast the targets follow")
    parser.add_argument("--cql", type=float, default=0.0, help="weight of the conservative term")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--quick", action="store_true", help="a smoke test of seconds")
    args = parser.parse_args()
    if args.quick:
        quick = {
            "seeds": [0],
            "expectiles": [0.5, 0.9],
            "experts": 20,
            "steps": 10,
            "batch": 8,
            "layers": 1,
            "width": 32,
        }
        vars(args).update(quick)
    enable_compilation_cache()
    out = resolve_path(args.out)
    results = Results(out / "results.json", {k: v for k, v in vars(args).items() if k != "out"})
    for seed in args.seeds:
        case = Case(args, seed)
        for expectile in args.expectiles:
            results.compute(f"table {expectile} {seed}", lambda c=case, e=expectile: c.solve(e))
            results.compute(f"train {expectile} {seed}", lambda c=case, e=expectile: c.train(e))
    print(report(args, results.cells, out))


if __name__ == "__main__":
    run_main(main)
