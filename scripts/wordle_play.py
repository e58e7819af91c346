"""Play Wordle with what was learned from one policy's games, and see how much of the gap to the optimum closes.

    python scripts/wordle_play.py --out runs/wordle-play [--words FILE] [--p 0.34] [--quick]

One set of games by mixture(p) is played; on it are trained BC, filtered BC (the best games only), and three critics:
Monte Carlo, one-step (expectile 0.5) and ILQL, which steer BC's policy. All play the same hidden words. Writes
results.json (each training as soon as it is judged; the same command continues), all networks, table.md and plot.svg.

BC begins with a clone of the guesses that solved a game, short games as often as long ones. A solving guess always fits
the colours, where a third of the others is sure to, so that what colours mean is learned far sooner. This clone plays
too, as "solving guesses". From its trunk the critics start, which bootstrap once a guess.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ilqljax.cli import run_main
from ilqljax.compilation import enable_compilation_cache
from ilqljax.config import resolve_path
from ilqljax.data.dataset import SelectedRows
from ilqljax.decoding.generate import DecodeConfig
from ilqljax.decoding.policy import TextPolicy
from ilqljax.errors import UserError
from ilqljax.experiments.fit import FitConfig, fit
from ilqljax.experiments.plots import Line, draw_lines
from ilqljax.experiments.results import Results
from ilqljax.experiments.wordle import make_fit_config, make_model
from ilqljax.files import read_arrays, save_arrays, save_text
from ilqljax.models.networks_folder import flatten, unflatten
from ilqljax.objectives.values import ILQLConfig
from ilqljax.steps import TargetConfig
from ilqljax.tasks.wordle.data import MixtureGames, SolvingGuesses, balance_lengths, make_tokenizer
from ilqljax.tasks.wordle.evaluation import WordleJudge, summarize_games
from ilqljax.tasks.wordle.game import load_words
from ilqljax.tasks.wordle.policies import InformationPolicy, MixturePolicy

DISCOUNT = 0.99
SORT_WINDOW = 16  # batches
PLAYED = 2000  # seeds of the games that policies are judged on; the pilots that settings were chosen in had 1000
SOLVING = "solving guesses"
CLONES = (SOLVING, "bc", "filtered bc")  # each starts from the one before
CRITICS = {
    "mc": {"mc_returns": True, "expectile": 0.5, "td_lambda": 1.0, "turn_lambda": 1.0},
    "one-step": {"expectile": 0.5},
    "ilql": {},
}


class Experiment:
    """One seed: its games, and the trainings on them."""

    def __init__(self, args: argparse.Namespace, seed: int, out: Path) -> None:
        self.args, self.seed, self.out, self.tokenizer = args, seed, out, make_tokenizer()
        words = load_words(args.words)
        self.policy = MixturePolicy(words, np.random.default_rng((seed, 1)), p=args.p)
        best = {"best_of": args.best_of, "best_of_beta": args.best_of_beta}
        judged = {"n_games": args.games, "betas": args.betas, "seed": PLAYED + seed}
        self.judge = WordleJudge(words, self.policy, **judged, **best)
        self.games = MixtureGames(self.policy, args.data_games, self.tokenizer, seed=seed)
        size = {"n_layer": args.layers, "n_embd": args.width, "n_head": args.heads}
        self.model = make_model(self.tokenizer, **size, separate_policy=True, separate_target=False)

    def reference(self) -> dict:
        """Return what the data policy and information gain are worth."""
        players = {"data": self.policy, "information gain": InformationPolicy(self.judge.words, self.seed)}
        return {name: summarize_games(self.judge.play(player)) for name, player in players.items()}

    def clone(self, name: str) -> dict:
        """Return the trunk of one of `CLONES`; trained once, then a file."""
        path = self.out / f"{name.replace(' ', '_')}_{self.seed}.safetensors"
        if path.is_file():
            return unflatten(read_arrays(path, advice="Delete it: the clone is then trained again."))
        args, games, number = self.args, self.games, CLONES.index(name)
        if name == SOLVING:
            rows = balance_lengths(SolvingGuesses(games), args.data_games, seed=self.seed)
            # All its rows have six actions, so that sorting them by length is free of bias.
            config = self.configure(steps=args.clone_steps, lr=args.lr, sort_window=SORT_WINDOW)
        elif name == "bc":
            rows, config = games, self.configure(steps=args.bc_steps, lr=args.lr)
        else:
            best = np.argsort(-games.returns, kind="stable")[: max(1, int(args.keep * games.size()))]
            rows, config = SelectedRows(games, best), self.configure(steps=args.filtered_steps, lr=args.lr)
        trunk = self.clone(CLONES[number - 1]) if number else None
        # Each training has a seed of its own.
        fitted = fit("bc", self.model, rows, config, seed=len(CLONES) * self.seed + number, trunk=trunk)
        trunk = jax.device_get(fitted["params"]["policy"])
        save_arrays(path, flatten(trunk))
        return trunk

    def critic(self, name: str) -> dict:
        """Return `params` and `target` of one of `CRITICS`; trained once from a clone's trunk, then a file."""
        path = self.out / f"{name}_{self.seed}.safetensors"
        if path.is_file():
            return unflatten(read_arrays(path, advice="Delete it: the critic is then trained again."))
        args, trunk = self.args, self.clone(SOLVING)
        params = self.model.init_params(jax.random.key(self.seed), trunk=trunk, policy=trunk)
        start = (params, self.model.init_target(params))
        loss = critic_loss(args, name)
        config = self.configure(steps=args.steps, lr=args.critic_lr, polyak=args.polyak, loss=loss)
        networks = jax.device_get(fit("ilql", self.model, self.games, config, seed=self.seed, networks=start))
        save_arrays(path, flatten(networks))
        return networks

    def configure(self, **settings: Any) -> FitConfig:
        """Settle what all trainings share."""
        return make_fit_config(batch_size=self.args.batch, optimizer="muon", **settings)

    def judge_clone(self, name: str) -> dict:
        """Train BC and play with it."""
        started, networks = time.monotonic(), {"params": {"policy": self.clone(name)}, "target": {}}
        decodings = {"greedy": {"temperature": 0.0}, "sampled": {}, "nucleus": {"top_p": self.args.top_p}}
        rows = {f"{name} {how}": self.play(networks, **options) for how, options in decodings.items()}
        return rows | {"seconds": time.monotonic() - started}

    def judge_critic(self, name: str) -> dict:
        """Train a critic and let every policy play with every beta of it."""
        started, args, networks, rows = time.monotonic(), self.args, self.critic(name), {}
        for over in args.over:
            acting = {"params": networks["params"] | {"policy": self.clone(over)}, "target": networks["target"]}
            named = label(name, over)
            rows |= {
                f"{named} {how}": self.play(acting, top_p=args.top_p, **options)
                for how, options in self.judge.steering.items()
            }
        return rows | {"seconds": time.monotonic() - started}

    def play(self, networks: dict, **decode: float) -> dict:
        """Play all games with one way to decode."""
        config = DecodeConfig(max_new_tokens=6, **decode)
        options = {"seed": self.seed, "batch_size": min(512, self.args.games), "length_buckets": (13, 37, 61)}
        return summarize_games(self.judge.play(TextPolicy(self.model, config, self.tokenizer, **networks, **options)))


def critic_loss(args: argparse.Namespace, name: str) -> dict:
    """Return a critic's options of `ilqljax.objectives.values.ILQLConfig`."""
    loss = {"expectile": args.expectile, "td_lambda": args.td_lambda, "cql_weight": args.cql, "discount": DISCOUNT}
    return loss | {"turn_lambda": args.turn_lambda} | CRITICS[name]


def report(args: argparse.Namespace, cells: dict, out: Path) -> str:
    """Write the table and the plot from the results."""
    names = [
        name for cell in [f"{c} {args.seeds[0]}" for c in cell_names(args)] for name in cells[cell] if name != "seconds"
    ]
    find = {
        (name, seed): cells[f"{c} {seed}"].get(name)
        for c in cell_names(args)
        for seed in args.seeds
        for name in names
        if name in cells[f"{c} {seed}"]
    }
    mean = {n: np.mean([find[n, s]["return"] for s in args.seeds]) for n in names}
    low, high = mean["data"], mean["information gain"]
    rows = ["| policy | mean return | standard error | gap closed | solved | no word |", "|---|---|---|---|---|---|"]
    for name in names:
        runs = [find[name, seed] for seed in args.seeds]
        error = np.sqrt(sum(run["standard_error"] ** 2 for run in runs)) / len(runs)
        share = [100 * np.mean([run[key] for run in runs]) for key in ("solved", "no_word")]
        closed = 100 * (mean[name] - low) / (high - low)
        rows.append(
            f"| {name} | {mean[name]:.3f} | {error:.3f} | {closed:.0f} % | {share[0]:.1f} % | {share[1]:.2f} % |"
        )
    seconds = sum(cell.get("seconds", 0.0) for cell in cells.values())
    text = "\n".join([*rows, "", f"Seeds {list(args.seeds)}, {args.games} games a row and seed, {seconds:.0f} s."])
    save_text(out / "table.md", text + "\n")
    x = [float(np.log2(beta)) for beta in args.betas]
    level = [n for n in ("information gain", f"{SOLVING} greedy", "data", "bc sampled") if n in mean]
    flat = [Line(n, x, [float(mean[n])] * len(x), [0.0] * len(x)) for n in level]
    steered = [label(critic, over) for critic in args.critics for over in args.over]
    curves = [Line(n, x, [float(mean[f"{n} beta={b:g}"]) for b in args.betas], [0.0] * len(x)) for n in steered]
    labels = {"x_label": "log2 of beta", "y_label": "mean return", "y_range": (-6.0, 0.0)}
    save_text(out / "plot.svg", draw_lines([*curves, *flat], title="Wordle: mean return over beta", **labels))
    return text


def label(critic: str, over: str) -> str:
    """Name a critic and, unless it is BC, the policy that it steers."""
    return critic if over == "bc" else f"{critic} over {over}"


def cell_names(args: argparse.Namespace) -> list[str]:
    """List what is computed for each seed."""
    return ["reference", *CLONES, *args.critics]


def check_args(args: argparse.Namespace) -> None:
    """Refuse what would fail only after hours.

    Raises:
        UserError: naming the argument, and what to give instead.
    """
    steps = ("clone_steps", "bc_steps", "filtered_steps", "steps")
    for name in ("games", "data_games", *steps, "batch", "best_of"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name} {getattr(args, name)}: give 1 or more")
    for name in ("lr", "critic_lr", "keep"):
        if not getattr(args, name) > 0:
            raise UserError(f"--{name} {getattr(args, name)}: give more than 0")
    if not min(args.betas) > 0:
        raise UserError(f"--betas {args.betas}: give positive ones; the clones' rows are those without a critic")
    if not args.best_of_beta > 0:
        raise UserError(
            f"--best_of_beta {args.best_of_beta}: give a positive one, or --best_of 1 for none of these rows"
        )
    if not 0 < args.top_p <= 1:
        raise UserError(f"--top_p {args.top_p}: give a share above 0, or 1 for no nucleus")
    for name in args.critics:
        ILQLConfig(**critic_loss(args, name))
    TargetConfig(polyak=args.polyak)


def main() -> None:
    """Read the arguments, run what is missing and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="runs/wordle-play", help="folder of the results")
    parser.add_argument("--words", default="", help="a file with one word a line; ilqljax's own list if left out")
    parser.add_argument("--p", type=float, default=1 / 3, help="share of consistent guesses in the data")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--betas", type=float, nargs="+", default=[1.0, 4.0, 16.0, 64.0])
    parser.add_argument("--games", type=int, default=4096, help="games that every policy is judged on")
    parser.add_argument("--data_games", type=int, default=1_000_000, help="games that are learned from")
    parser.add_argument("--keep", type=float, default=0.3, help="share of the games that filtered BC keeps")
    parser.add_argument("--clone_steps", type=int, default=18_000, help="steps on the solving guesses")
    parser.add_argument("--bc_steps", type=int, default=12_000, help="further steps on all games")
    parser.add_argument("--filtered_steps", type=int, default=300, help="further steps of BC on the best games")
    parser.add_argument("--critics", nargs="+", choices=CRITICS, default=list(CRITICS), help="which are trained")
    parser.add_argument("--over", nargs="+", choices=["bc", SOLVING], default=["bc"], help="policies they steer")
    parser.add_argument("--steps", type=int, default=2500, help="of each critic")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=3e-3, help="of the clones")
    parser.add_argument("--critic_lr", type=float, default=2e-3)
    parser.add_argument("--polyak", type=float, default=0.03, help="how fast the targets follow")
    parser.add_argument("--td_lambda", type=float, default=1.0, help="of one-step and ILQL, within a guess")
    parser.add_argument("--turn_lambda", type=float, default=0.0, help="its factor where a guess ends; 0 is V alone")
    parser.add_argument("--expectile", type=float, default=0.8, help="of ILQL")
    parser.add_argument("--cql", type=float, default=0.02, help="weight of the conservative term")
    parser.add_argument("--top_p", type=float, default=0.7, help="nucleus of the policies that a critic steers")
    parser.add_argument("--best_of", type=int, default=64, help="samples that one more row chooses from; 1 is off")
    parser.add_argument("--best_of_beta", type=float, default=16.0, help="their beta, in sampling and in choosing")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--quick", action="store_true", help="a smoke test of seconds")
    args = parser.parse_args()
    check_args(args)
    if args.quick:
        small = {
            "games": 16,
            "data_games": 64,
            "clone_steps": 4,
            "bc_steps": 4,
            "filtered_steps": 4,
            "steps": 4,
            "batch": 8,
            "layers": 1,
            "width": 32,
        }
        vars(args).update(small | {"betas": [16.0], "best_of": 2, "critics": ["mc", "ilql"]})
    enable_compilation_cache()
    out = resolve_path(args.out)
    results = Results(out / "results.json", {k: v for k, v in vars(args).items() if k != "out"})
    for seed in args.seeds:
        experiment = Experiment(args, seed, out)
        results.compute(f"reference {seed}", experiment.reference)
        for name in CLONES:
            results.compute(f"{name} {seed}", lambda e=experiment, n=name: e.judge_clone(n))
        for name in args.critics:
            results.compute(f"{name} {seed}", lambda e=experiment, n=name: e.judge_critic(n))
    print(report(args, results.cells, out))


if __name__ == "__main__":
    run_main(main)
