"""The adversarial set of Wordle games, on which one step of policy improvement is not enough.

It is made so that averaging over what followed a first guess misleads, and only looking for the best
continuation does not. An expert (information gain) plays, and each of its games gives

| kind        | games | what is played                                                              | worth        |
|-------------|-------|-----------------------------------------------------------------------------|--------------|
| expert      | 1     | the expert's own game                                                       | -1.7 or so   |
| adversarial | 5     | its first two guesses, then only repeats of these, to the end; none for a   | -6           |
|             |       | game of one or two guesses                                                  |              |
| suboptimal  | 5     | a game of its own from the start by mixture(0.5)                            | -3 or so     |

so that most games that begin with the expert's first guess are lost, though it is the best first guess.
"""

from dataclasses import replace

import numpy as np

from ilqljax.errors import UserError
from ilqljax.wordle.data import play_game
from ilqljax.wordle.environment import WordleObservation
from ilqljax.wordle.game import WordList
from ilqljax.wordle.policies import InformationPolicy, MixturePolicy, WordlePolicy

EXPERT, ADVERSARIAL, SUBOPTIMAL = "expert", "adversarial", "suboptimal"
N_BRANCHES = 5
BRANCH_AT = 2  # guesses of the expert that an adversarial game keeps


class RepeatPolicy(WordlePolicy):
    """Guess again one of the game's first `first` guesses (0: of all); any word where there is none of the list."""

    def __init__(self, words: WordList, rng: np.random.Generator | int = 0, *, first: int = 0):
        super().__init__(words, rng)
        self.first = first

    def choose(self, obs: WordleObservation) -> int:
        numbers = self.words.numbers
        earlier = [numbers[guess] for guess in obs.guesses[: self.first or None] if guess in numbers]
        return int(self.rng.choice(earlier)) if earlier else self.draw_any()


def make_adversarial_games(
    words: WordList, n_experts: int, *, seed: int, keep_short: bool = True
) -> list[WordleObservation]:
    """Play the adversarial set for `n_experts` expert games.

    A game's notes hold its `kind` and its `expert`, the number of the expert game that it belongs to. With `keep_short`
    expert games of one or two guesses, which have no branches, are kept too, as the original does; without them the
    expert's first guess is judged by its unlucky games alone, and a list on which it never needs three guesses raises
    a `UserError`.
    """
    rng = np.random.default_rng(seed)
    expert, other = InformationPolicy(words), MixturePolicy(words, p=0.5)
    repeat = RepeatPolicy(words, first=BRANCH_AT)
    games = []
    for number in range(n_experts):
        attempts = (play_game(expert, rng) for _ in range(1000))
        game = next((game for game in attempts if keep_short or len(game.guesses) > BRANCH_AT), None)
        if game is None:
            raise UserError(
                f"the expert solved 1,000 games in a row within {BRANCH_AT} guesses, and the adversarial set without "
                "short games needs longer ones: give a list of more words, or keep_short=True"
            )
        n_branches = N_BRANCHES if len(game.guesses) > BRANCH_AT else 0
        branches = [play_game(repeat, rng, game.first(BRANCH_AT)) for _ in range(n_branches)]
        others = [play_game(other, rng) for _ in range(N_BRANCHES)]
        kinds = [(EXPERT, [game]), (ADVERSARIAL, branches), (SUBOPTIMAL, others)]
        games += [replace(g, notes={"kind": kind, "expert": number}) for kind, group in kinds for g in group]
    return games
