"""The plainest observations, and policies of a tiny model that answer them."""

import functools
import string
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from ilqljax.data.tokenizer import CharacterTokenizer
from ilqljax.decoding.generate import DecodeConfig
from ilqljax.decoding.policy import TextPolicy
from ilqljax.envs.base import LanguageObservation
from ilqljax.models.gpt2 import GPT2, GPT2Config
from ilqljax.models.value_lm import ValueLM, ValueLMConfig

TOKENIZER = CharacterTokenizer(string.ascii_lowercase + " .,!?'-")
N_POSITIONS, N_NEW = 16, 4
MODEL = ValueLM(
    GPT2(GPT2Config(vocab_size=TOKENIZER.vocab_size, n_positions=N_POSITIONS, n_embd=16, n_layer=2, n_head=2)),
    ValueLMConfig(double_q=False, separate_policy=False, separate_target=False),
)


@dataclass(frozen=True)
class Said(LanguageObservation):
    """The environment said one thing."""

    text: str
    over: bool = False

    def to_sequence(self):
        return [(self.text, None)], self.over

    def __str__(self):
        return self.text


OBSERVATIONS = [Said(text) for text in ("hello", "a", "", "what is it", "yes no")]


@functools.cache
def draw_networks():
    shapes = jax.eval_shape(MODEL.init_params, jax.random.key(0))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: jnp.asarray(rng.normal(0.0, 0.3, x.shape), jnp.float32), shapes)
    return params, MODEL.init_target(params)


def make_policy(networks, *, batch_size=2, length_buckets=(), seed=0, value_range=(-np.inf, np.inf), **options):
    options = {"max_new_tokens": N_NEW} | options
    return TextPolicy(
        MODEL,
        DecodeConfig(**options),
        TOKENIZER,
        params=networks[0],
        target=networks[1],
        seed=seed,
        batch_size=batch_size,
        length_buckets=length_buckets,
        value_range=value_range,
    )
