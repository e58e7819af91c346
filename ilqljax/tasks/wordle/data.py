"""Games to learn from: an endless stream of them, a fixed number, and the adversarial set.

The adversarial set is made so that averaging over what followed a first guess misleads, and only looking for the best
continuation does not. An expert (information gain) plays, and each of its games gives

| kind        | games | what is played                                                              | worth        |
|-------------|-------|-----------------------------------------------------------------------------|--------------|
| expert      | 1     | the expert's own game                                                       | -1.7 or so   |
| adversarial | 5     | its first two guesses, then only repeats of these, to the end; none for a   | -6           |
|             |       | game of one or two guesses                                                  |              |
| suboptimal  | 5     | a game of its own from the start by mixture(0.5)                            | -3 or so     |

so that most games that begin with the expert's first guess are lost, though it is the best first guess.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ilqljax.data.datapoint import DataPoint
from ilqljax.data.dataset import IterableRLDataset
from ilqljax.data.tokenizer import CharacterTokenizer, Tokenizer
from ilqljax.envs.base import interact_environment, interact_environments
from ilqljax.errors import UserError
from ilqljax.tasks.wordle.environment import WordleEnvironment, WordleObservation, make_environments
from ilqljax.tasks.wordle.game import COLOURS, LETTERS, WordList
from ilqljax.tasks.wordle.policies import InformationPolicy, MixturePolicy, RepeatPolicy, WordlePolicy

EXPERT, ADVERSARIAL, SUBOPTIMAL = "expert", "adversarial", "suboptimal"
N_BRANCHES = 5
BRANCH_AT = 2  # guesses of the expert that an adversarial game keeps


def make_tokenizer() -> CharacterTokenizer:
    """Make the tokenizer of 35 ids: 26 letters, 3 colours, 6 control tokens."""
    return CharacterTokenizer(LETTERS + COLOURS, unk=False)


class WordleStream(IterableRLDataset):
    """Play a game for every row that is asked for."""

    def __init__(self, policy: WordlePolicy, tokenizer: Tokenizer):
        """Hold who plays."""
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
    return interact_environment(environment, policy.seeded(rng), environment.state)[0]


def play_games(policy: WordlePolicy, n: int, *, seed: int) -> list[WordleObservation]:
    """Play n games, the hidden words those of `make_environments`."""
    environments = make_environments(policy.words, n, seed=seed)
    player = policy.seeded(np.random.default_rng((seed, n)))
    return [obs for obs, _ in interact_environments(environments, player)]


def make_adversarial_games(
    words: WordList, n_experts: int, *, seed: int, keep_short: bool = True
) -> list[WordleObservation]:
    """Play the adversarial set for `n_experts` expert games.

    A game's notes hold its `kind` and its `expert`, the number of the expert game that it belongs to.

    Args:
        words: the list.
        n_experts: expert games.
        seed: of all games.
        keep_short: keep expert games of one or two guesses too, as the original does; they have no branches. Without
            them the expert's first guess is judged by its unlucky games alone.

    Raises:
        UserError: without short games, the expert never needs three guesses, so that nothing can be made.
    """
    rng = np.random.default_rng(seed)
    expert, other = InformationPolicy(words), MixturePolicy(words, p=0.5)
    repeat = RepeatPolicy(words, first=BRANCH_AT)
    games = []
    for number in range(n_experts):
        game = _play_expert_game(expert, rng, shortest=1 if keep_short else BRANCH_AT + 1)
        n_branches = N_BRANCHES if len(game.guesses) > BRANCH_AT else 0
        branches = [play_game(repeat, rng, game.first(BRANCH_AT)) for _ in range(n_branches)]
        others = [play_game(other, rng) for _ in range(N_BRANCHES)]
        kinds = [(EXPERT, [game]), (ADVERSARIAL, branches), (SUBOPTIMAL, others)]
        games += [replace(g, notes={"kind": kind, "expert": number}) for kind, group in kinds for g in group]
    return games


def _play_expert_game(expert: WordlePolicy, rng: np.random.Generator, *, shortest: int) -> WordleObservation:
    """Play until a game has enough guesses."""
    for _ in range(1000):
        game = play_game(expert, rng)
        if len(game.guesses) >= shortest:
            return game
    raise UserError(
        f"the expert solved 1,000 games in a row within {BRANCH_AT} guesses, and the adversarial set without short "
        "games needs longer ones: give a list of more words, or keep_short=True"
    )


def pair_first_guesses(games: Sequence[WordleObservation]) -> list[tuple[str, str]]:
    """Pair each expert game's first guess with those of its sub-optimal games; equal guesses make no case."""
    first = {g.notes["expert"]: g.guesses[0] for g in games if g.notes["kind"] == EXPERT}
    pairs = [(first[g.notes["expert"]], g.guesses[0]) for g in games if g.notes["kind"] == SUBOPTIMAL]
    return [pair for pair in pairs if pair[0] != pair[1]]
