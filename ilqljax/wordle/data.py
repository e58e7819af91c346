"""Games to learn from: an endless stream of them, a fixed number, or a million as arrays."""

from dataclasses import replace
from functools import cached_property

import numpy as np
from jaxtyping import Int

from ilqljax.data.datapoint import DataPoint
from ilqljax.data.dataset import IterableRLDataset, ListRLDataset, SelectedRows
from ilqljax.data.tokenizer import AGENT_END, CharacterTokenizer, Tokenizer
from ilqljax.envs.base import interact_environments
from ilqljax.errors import UserError
from ilqljax.wordle.environment import WordleEnvironment, WordleObservation, make_environments
from ilqljax.wordle.game import CODES, COLOURS, LETTERS, N_GUESSES, N_LETTERS, PATTERNS, SOLVED
from ilqljax.wordle.policies import MixturePolicy, WordlePolicy

BLOCK = 10_000  # games that are played at once


def make_tokenizer() -> CharacterTokenizer:
    """Make the tokenizer of 35 ids: 26 letters, 3 colours, 6 control tokens."""
    return CharacterTokenizer(LETTERS + COLOURS, unk=False)


class WordleStream(IterableRLDataset):
    """Play a game for every row that is asked for."""

    def __init__(self, policy: WordlePolicy, tokenizer: Tokenizer):
        super().__init__(tokenizer)
        self.policy = policy

    def sample_item(self, rng: np.random.Generator) -> DataPoint:
        """Return a game whose hidden word and guesses are drawn with `rng`."""
        return self.encode(play_game(self.policy, rng))


def play_game(
    policy: WordlePolicy, rng: np.random.Generator, start: WordleObservation | None = None
) -> WordleObservation:
    """Play one game to its end, from a position where one is given."""
    environment = WordleEnvironment(policy.words, rng)
    if start is not None:
        environment.set_state(start)
    return interact_environments([environment], policy.seeded(rng), [environment.state])[0][0]


def play_games(policy: WordlePolicy, n: int, *, seed: int) -> list[WordleObservation]:
    """Play n games, the hidden words those of `make_environments`."""
    environments = make_environments(policy.words, n, seed=seed)
    player = policy.seeded(np.random.default_rng((seed, n)))
    return [obs for obs, _ in interact_environments(environments, player)]


class MixtureGames(ListRLDataset):
    """Hold many games of mixture(p) as arrays; a row is made when it is asked for.

    A million games are played in about half a minute and take 35 MB.
    """

    def __init__(self, policy: MixturePolicy, n: int, tokenizer: Tokenizer, *, seed: int):
        """Play n games, all of a block at once; they are not those of `play_games`, but drawn alike."""
        super().__init__(tokenizer)
        self.words = policy.words
        if n < 1:
            raise UserError(f"n={n}: play at least one game")
        if len(self.words) > np.iinfo(np.uint16).max:
            raise UserError(f"a list of {len(self.words)} words: MixtureGames numbers at most 65,535, use play_games")
        rng = np.random.default_rng((seed, n))
        blocks = [_play_block(policy, min(BLOCK, n - start), rng) for start in range(0, n, BLOCK)]
        self._guesses, self._codes = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
        hits = self._codes == CODES[SOLVED]
        self.solved = hits.any(axis=1)  # [N]
        self.n_guesses = np.where(self.solved, hits.argmax(axis=1) + 1, N_GUESSES)  # [N]
        self.returns = self.solved - self.n_guesses.astype(np.float64)  # [N]

    def get_game(self, i: int) -> WordleObservation:
        """Return game `i`."""
        played = slice(self.n_guesses[i])
        guesses, codes = self._guesses[i, played].tolist(), self._codes[i, played].tolist()
        return WordleObservation(tuple(self.words.words[g] for g in guesses), tuple(PATTERNS[c] for c in codes))

    def get_item(self, i: int) -> DataPoint:
        return self.encode(self.get_game(i))

    def size(self) -> int:
        return len(self.n_guesses)

    @cached_property
    def row_sizes(self) -> Int[np.ndarray, "N 3"]:
        """Return each row's tokens, actions and utterance actions; reads no row unless a view may have changed it."""
        if self._views:
            return super().row_sizes
        n = self.n_guesses
        return np.stack([2 + 2 * (N_LETTERS + 1) * n, (N_LETTERS + 1) * n, n], axis=1)


class FittingGuesses(ListRLDataset):
    """Show guesses that are sure to fit the colours, one a row: every game's first, and the last of solved games.

    A first guess has no colours to fit and a solving one always fits; of mixture(p)'s other guesses a share p is sure
    to. So what colours mean is learned in far fewer of these rows. What led to the guess is prompt, what followed it
    is left out.
    """

    def __init__(self, games: MixtureGames):
        """Choose the guesses; a `UserError` if no game was solved after its first, so that no row has colours."""
        super().__init__(games.tokenizer, **games.settings)
        self._views = games._views
        later = np.flatnonzero(games.solved & (games.n_guesses > 1))
        if not len(later):
            raise UserError(
                f"none of {games.size()} games was solved by a second or later guess: play more games, or with a "
                "larger p"
            )
        self.games = games
        self.game_idxs = np.concatenate([np.arange(games.size()), later])  # [N] the game of each row
        # [N] how many guesses of the game a row holds; the last one is the action.
        self.n_guesses = np.concatenate([np.ones(games.size(), np.int64), games.n_guesses[later]])

    def get_item(self, i: int) -> DataPoint:
        row = self.encode(self.games.get_game(int(self.game_idxs[i])).first(int(self.n_guesses[i])))
        actions, states = slice(-N_LETTERS - 1, None), slice(-N_LETTERS - 2, None)
        return replace(
            row,
            prompt_length=row.raw.rindex(AGENT_END) - N_LETTERS,
            action_idxs=row.action_idxs[actions],
            state_idxs=row.state_idxs[states],
            rewards=row.rewards[actions],
            terminals=row.terminals[states],
            utterance_action_idxs=row.utterance_action_idxs[-1:],
            utterance_state_idxs=row.utterance_state_idxs[-2:],
            utterance_rewards=row.utterance_rewards[-1:],
            utterance_terminals=row.utterance_terminals[-2:],
        )

    def size(self) -> int:
        return len(self.game_idxs)

    @cached_property
    def row_sizes(self) -> Int[np.ndarray, "N 3"]:
        """Return each row's tokens, the six actions of a guess, and its one utterance; reads no row without a view."""
        if self._views:
            return super().row_sizes
        n = self.n_guesses
        ended = n == self.games.n_guesses[self.game_idxs]  # and closed by a token of its own
        return np.stack([1 + 2 * (N_LETTERS + 1) * n + ended, np.full_like(n, N_LETTERS + 1), np.ones_like(n)], axis=1)


def balance_turns(guesses: FittingGuesses, n: int, *, seed: int) -> SelectedRows:
    """Draw n guesses with replacement, first guesses as often as second ones and so on to the last.

    Games are seldom solved early, and a late guess is hard to learn to find; what early ones teach comes first.
    """
    rng = np.random.default_rng((seed, n))
    groups = [np.flatnonzero(guesses.n_guesses == number) for number in np.unique(guesses.n_guesses)]
    drawn = [rng.choice(group, size=-(-n // len(groups))) for group in groups]
    return SelectedRows(guesses, np.stack(drawn, axis=1).reshape(-1)[:n])


def _play_block(policy: MixturePolicy, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Play n games side by side, and return guesses and colours [n 6]; what follows a solving guess means nothing."""
    table = policy.words.table
    hidden, consistent = rng.integers(len(table), size=n), np.ones((n, len(table)), bool)
    guesses, codes = np.empty((n, N_GUESSES), np.uint16), np.empty((n, N_GUESSES), np.uint8)
    for k in range(N_GUESSES):
        fitting = (rng.random(consistent.shape, np.float32) + consistent).argmax(axis=1)
        guess = np.where(rng.random(n) < policy.p, fitting, rng.integers(len(table), size=n))
        guesses[:, k], codes[:, k] = guess, table[guess, hidden]
        consistent &= table[guess] == codes[:, k, None]
    return guesses, codes
