"""The Wordle task's objects by name, for configs: words, policies, tokenizer, datasets, environment, evaluator."""

from collections.abc import Callable

from ilqljax.config import register
from ilqljax.data.dataset import ListRLDataset, ObservationDataset
from ilqljax.data.tokenizer import Tokenizer
from ilqljax.envs.base import LanguageEnvironment
from ilqljax.errors import UserError
from ilqljax.wordle.data import (
    FittingGuesses,
    MixtureGames,
    WordleStream,
    balance_turns,
    make_tokenizer,
    play_games,
)
from ilqljax.wordle.environment import make_environment
from ilqljax.wordle.evaluation import WordleJudge
from ilqljax.wordle.game import WordList, load_words
from ilqljax.wordle.policies import ConsistentPolicy, InformationPolicy, MixturePolicy, RandomPolicy, WordlePolicy

register("words", "wordle")(load_words)
register("tokenizer", "wordle")(make_tokenizer)
register("policy", "wordle_random")(RandomPolicy)
register("policy", "wordle_consistent")(ConsistentPolicy)
register("policy", "wordle_mixture")(MixturePolicy)
register("policy", "wordle_information")(InformationPolicy)
register("dataset", "wordle_stream")(WordleStream)
register("evaluator", "wordle")(WordleJudge)


@register("dataset", "wordle_fitting")
def build_fitting(policy: WordlePolicy, tokenizer: Tokenizer, *, n_games: int, seed: int = 0) -> ListRLDataset:
    """Play games of a mixture, and draw as many guesses that are sure to fit the colours, of each turn alike.

    Args:
        policy: the mixture.
        tokenizer: makes rows of the guesses.
        n_games: how many games, and how many guesses.
        seed: of the hidden words, the guesses and the draw.

    Raises:
        UserError: the policy is not a mixture, or solved no game after its first guess.
    """
    if not isinstance(policy, MixturePolicy):
        raise UserError(
            f"fitting guesses are those of wordle_mixture, not of {type(policy).__name__}. Name wordle_stream as "
            "config.pretrain_dataset and wordle_games as config.pretrain_validation_dataset, or another policy."
        )
    return balance_turns(FittingGuesses(MixtureGames(policy, n_games, tokenizer, seed=seed)), n_games, seed=seed)


@register("dataset", "wordle_games")
def build_games(policy: WordlePolicy, tokenizer: Tokenizer, *, n_games: int, seed: int = 0) -> ObservationDataset:
    """Play a fixed number of a policy's games.

    Args:
        policy: who plays.
        tokenizer: makes rows of the games.
        n_games: how many.
        seed: of the hidden words and the guesses.
    """
    return ObservationDataset(play_games(policy, n_games, seed=seed), tokenizer)


@register("environment", "wordle")
def build_environment(words: WordList, *, seed: int = 0) -> Callable[[int], LanguageEnvironment]:
    """Make the function from a number to an environment whose hidden words depend on it and the seed.

    Args:
        words: what may be hidden.
        seed: of the hidden words.
    """
    return lambda i: make_environment(words, i, seed=seed)
