"""What the two Wordle experiments share: the model, its training settings and the values of first guesses."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from ilqljax.data.tokenizer import Tokenizer
from ilqljax.models.gpt2 import GPT2, GPT2Config
from ilqljax.models.value_lm import ValueLM, ValueLMConfig
from ilqljax.rl.steps import TargetConfig
from ilqljax.training.run_config import TrainConfig
from ilqljax.wordle.environment import MAX_TOKENS
from ilqljax.wordle.game import N_GUESSES, N_LETTERS

# Of games of at most 2, 3, ... 6 guesses.
LENGTH_BUCKETS = tuple(MAX_TOKENS - 2 * (N_LETTERS + 1) * fewer for fewer in range(N_GUESSES - 2, -1, -1))
ACTION_BUCKETS = tuple((N_LETTERS + 1) * n for n in range(1, N_GUESSES + 1))


def make_model(tokenizer: Tokenizer, *, n_layer: int, n_embd: int, n_head: int, **networks: bool) -> ValueLM:
    """Make a small GPT-2 with value heads that a game fits in, and the `networks` of `ValueLMConfig`."""
    config = GPT2Config(tokenizer.vocab_size, 80, n_embd, n_layer, n_head, unroll=n_layer)
    return ValueLM(GPT2(config), ValueLMConfig(**networks))


def make_train_config(*, steps: int, polyak: float = 0.01, **settings: Any) -> TrainConfig:
    """Make the settings of one training on games: `TrainConfig`'s, with a short warm-up and the buckets of games."""
    buckets = {"length_buckets": LENGTH_BUCKETS, "action_buckets": ACTION_BUCKETS}
    target = TargetConfig(polyak=polyak)
    return TrainConfig(total_steps=steps, warmup_steps=steps // 20, target=target, **buckets, **settings)


def encode_first_guesses(words: Sequence[str], tokenizer: Tokenizer) -> np.ndarray:
    """Return `<a>` w o r d s `</a>` for each word."""
    return np.array([[tokenizer.boa_id, *tokenizer.encode(word), tokenizer.eoa_id] for word in words], np.int32)


def make_first_guess_values(model: ValueLM, tokens: np.ndarray):
    """Make the compiled function from (params, target) to min target Q of every action of the first guesses [W 6].

    The last column, at the closing `</a>`, is the value of the word as a whole.
    """

    @jax.jit
    def values(params: dict, target: dict) -> jax.Array:
        hidden = model.compute_hidden(params, target, tokens, policy=False)
        return model.compute_target_q(target, hidden.target[:, :-1], tokens[:, 1:])

    return values


def rank_pairs(values: np.ndarray, words: Sequence[str], pairs: Sequence[tuple[str, str]]) -> list[float]:
    """Return, for each action of the guess, the share of pairs whose first word has the higher value."""
    numbers = {word: i for i, word in enumerate(words)}
    first, second = (np.array([numbers[pair[side]] for pair in pairs]) for side in (0, 1))
    return [float(share) for share in (values[first] > values[second]).mean(axis=0)]
