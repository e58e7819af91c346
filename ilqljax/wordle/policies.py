"""Hand-written ways to play: what the data is made of, and the ceiling that learning is measured against.

| policy           | guesses                                                                                   |
|------------------|-------------------------------------------------------------------------------------------|
| random word      | any word of the list                                                                      |
| random consistent| any word that may still be hidden                                                         |
| mixture(p)       | with probability p a consistent word, else any word                                       |
| information gain | the consistent word whose colours tell most about the hidden word; ties are drawn         |
"""

import copy
from abc import abstractmethod
from typing import Self

import numpy as np
from jaxtyping import Float, Int, Integer

from ilqljax.envs.base import Policy
from ilqljax.errors import UserError
from ilqljax.wordle.environment import WordleObservation
from ilqljax.wordle.game import N_CODES, WordList

# Guesses whose information differs by less than this are tied: sums in another order differ in their last bits.
TIE = 1e-9


class WordlePolicy(Policy):
    """Choose words of a list with a random generator."""

    def __init__(self, words: WordList, rng: np.random.Generator | int = 0):
        """Hold the list and a generator, or the seed of one."""
        self.words, self.rng = words, np.random.default_rng(rng)

    def seeded(self, rng: np.random.Generator) -> Self:
        """Return the same policy on another generator; what was computed so far is shared."""
        other = copy.copy(self)
        other.rng = rng
        return other

    def act(self, obs: WordleObservation) -> str:
        return self.words.words[self.choose(obs)]

    @abstractmethod
    def choose(self, obs: WordleObservation) -> int:
        """Return the number of the next guess in the list."""

    def find_consistent(self, obs: WordleObservation) -> Int[np.ndarray, " N"]:
        """Return the numbers of the words that may still be hidden; errors are those of `WordList.list_consistent`."""
        return self.words.list_consistent(obs.guesses, obs.colours)

    def draw_any(self) -> int:
        """Return any word's number."""
        return int(self.rng.integers(len(self.words)))


class RandomPolicy(WordlePolicy):
    """Guess any word of the list."""

    def choose(self, obs: WordleObservation) -> int:
        return self.draw_any()


class MixturePolicy(WordlePolicy):
    """Guess, with probability `p`, a random word that may still be hidden; else any word."""

    def __init__(self, words: WordList, rng: np.random.Generator | int = 0, *, p: float):
        """Hold the probability, or raise a `UserError` if it is not from 0 to 1.

        Args:
            words: what is guessed.
            rng: the generator, or its seed.
            p: how often the guess fits what is known.
        """
        if not 0 <= p <= 1:
            raise UserError(f"p={p} is not a probability: give a number from 0 to 1")
        super().__init__(words, rng)
        self.p = p

    def choose(self, obs: WordleObservation) -> int:
        return int(self.rng.choice(self.find_consistent(obs))) if self.rng.random() < self.p else self.draw_any()


class ConsistentPolicy(MixturePolicy):
    """Guess a random word that may still be hidden."""

    def __init__(self, words: WordList, rng: np.random.Generator | int = 0):
        super().__init__(words, rng, p=1.0)


class InformationPolicy(WordlePolicy):
    """Guess the consistent word whose colours are expected to tell most about the hidden word.

    The information is the entropy of the guess's colours over the words that may still be hidden. The best guesses of a
    set of words are computed once and kept in memory, shared by all copies.
    """

    def __init__(self, words: WordList, rng: np.random.Generator | int = 0):
        super().__init__(words, rng)
        self._best: dict[bytes, np.ndarray] = {}

    def choose(self, obs: WordleObservation) -> int:
        return int(self.rng.choice(self.find_best(self.find_consistent(obs))))

    def find_best(self, fitting: Int[np.ndarray, " N"]) -> Int[np.ndarray, " M"]:
        """Return the words of a set whose colours tell most about which of the set is hidden."""
        key = fitting.tobytes()
        if key not in self._best:
            information = compute_information(self.words.table[np.ix_(fitting, fitting)])
            self._best[key] = fitting[information > information.max() - TIE]
        return self._best[key]


def compute_information(codes: Integer[np.ndarray, "G N"]) -> Float[np.ndarray, " G"]:
    """Return the entropy (natural logarithm) of each guess's colours over equally likely hidden words."""
    counts, n_hidden = np.stack([np.bincount(row, minlength=N_CODES) for row in codes]), codes.shape[1]
    return np.log(n_hidden) - (counts * np.log(np.maximum(counts, 1))).sum(axis=1) / n_hidden
