"""Wordle's judgement: every policy plays the same hidden words, all games at once.

| row              | plays                                                                              |
|------------------|------------------------------------------------------------------------------------|
| data             | the policy that the data was made with                                             |
| information gain | the ceiling (`ilqljax.wordle.policies`)                                            |
| NAME greedy      | a language model's likeliest letters                                               |
| NAME sampled     | its samples at temperature 1, of all letters                                       |
| NAME beta=b      | its samples with the critic's advantage times b, filtered as `config.decode` says  |
| NAME best of n   | of n such samples, the likeliest by log-probability + b Q (`rank_by="policy+value"`) |
"""

import functools
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ilqljax.data.json_lines import save_json_lines
from ilqljax.decoding.policy import TextPolicy
from ilqljax.envs.base import Policy, interact_environments
from ilqljax.errors import UserError
from ilqljax.training.judgement import keep_made
from ilqljax.wordle.environment import WordleObservation, compute_returns, make_environments
from ilqljax.wordle.game import WordList, is_word
from ilqljax.wordle.policies import InformationPolicy, WordlePolicy

logger = logging.getLogger(__name__)

GAMES_FILE = "games.jsonl"


class WordleJudge:
    """Play many games with every policy and report mean returns with standard errors."""

    def __init__(
        self,
        words: WordList,
        policy: WordlePolicy,
        *,
        n_games: int = 4096,
        betas: tuple[float, ...] = (1.0, 4.0, 16.0, 64.0),
        best_of: int = 1,
        best_of_beta: float = 16.0,
        seed: int = 0,
    ) -> None:
        """Hold what is played.

        Args:
            words: the hidden words are drawn from these.
            policy: who played the data.
            n_games: games for each row of the table.
            betas: weights of the advantage, for policies with a critic.
            best_of: samples of which one more row plays the likeliest under the tilted policy; 1 leaves it out.
            best_of_beta: their beta, in sampling and in choosing.
            seed: of the hidden words; equal for all policies.

        Raises:
            UserError: `n_games` or `best_of` is below 1, or `best_of_beta` not positive.
        """
        if min(n_games, best_of) < 1 or not best_of_beta > 0:
            raise UserError(
                f"n_games={n_games}, best_of={best_of}, best_of_beta={best_of_beta}: give at least 1, at least 1 "
                "(which leaves that row out) and a positive number (at 0 no critic runs that could choose)."
            )
        self.words, self.data_policy = words, policy
        self.n_games, self.seed = n_games, seed
        # How a critic steers: the options of `DecodeConfig` by the row's name.
        self.steering = {f"beta={beta:g}": {"beta": beta} for beta in betas}
        if best_of > 1:
            best = {"beta": best_of_beta, "n_generations": best_of, "rank_by": "policy+value", "beam_width": 0}
            self.steering[f"best of {best_of}"] = best

    def __call__(
        self, names: Sequence[str], make: Callable[..., TextPolicy], *, out_dir: Path
    ) -> tuple[list[dict], str]:
        """Play with every policy, write `games.jsonl`, and return rows and a table.

        What a language model played is kept until the judgement is done; the first two rows take seconds.
        """
        rng = np.random.default_rng(self.seed)
        data, ceiling = self.data_policy.seeded(rng), InformationPolicy(self.words, rng)
        quick: dict[str, Policy] = {"data": data, "information gain": ceiling}
        players = dict(quick)
        for name in names:
            ways = {"greedy": {"temperature": 0.0}, "sampled": {"top_k": 0, "top_p": 1.0}}
            ways = self.steering if "v" in make(name).params else ways
            players |= {f"{name} {way}": make(name, **{"temperature": 1.0} | options) for way, options in ways.items()}
        given = [self.words.fingerprint, self.n_games, self.seed]
        rows, lines = [], []
        for name, player in players.items():
            play = functools.partial(self.play, player)
            games = play() if name in quick else play_or_recall(out_dir, name, play, given=given)
            rows.append({"policy": name, **summarize_games(games)})
            logger.info("%s: mean return %.3f over %d games", name, rows[-1]["return"], len(games))
            lines += [{"policy": name, "guesses": game.guesses, "colours": game.colours} for game in games]
        save_json_lines(out_dir / GAMES_FILE, lines)
        return rows, format_table(rows)

    def play(self, player: Policy) -> list[WordleObservation]:
        """Play all games with one policy."""
        environments = make_environments(self.words, self.n_games, seed=self.seed)
        return [obs for obs, _ in interact_environments(environments, player)]


def play_or_recall(
    out_dir: Path, name: str, play: Callable[[], list[WordleObservation]], *, given: list
) -> list[WordleObservation]:
    """Return the games that an interrupted judgement kept under a name, or play and keep them (`keep_made`)."""
    made = keep_made(out_dir, name, lambda: [[game.guesses, game.colours] for game in play()], given=given)
    return [WordleObservation(tuple(guesses), tuple(colours)) for guesses, colours in made]


def summarize_games(games: Sequence[WordleObservation]) -> dict[str, float]:
    """Return the mean return, its standard error, and the shares of solved games and of guesses that are not words."""
    returns = compute_returns(games)
    error = returns.std(ddof=1) / np.sqrt(len(returns)) if len(returns) > 1 else float("nan")
    return {
        "return": float(returns.mean()),
        "standard_error": float(error),
        "n_games": len(games),
        "solved": float(np.mean([game.solved for game in games])),
        "no_word": float(np.mean([not is_word(guess) for game in games for guess in game.guesses])),
    }


def format_table(rows: Sequence[dict]) -> str:
    """Lay the rows out as a Markdown table."""
    lines = ["| policy | mean return | solved | guesses that are not words |", "|---|---|---|---|"]
    lines += [
        f"| {row['policy']} | {row['return']:.3f} ± {row['standard_error']:.3f} | {100 * row['solved']:.1f} % | "
        f"{100 * row['no_word']:.2f} % |"
        for row in rows
    ]
    return "\n".join(lines)
