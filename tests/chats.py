"""A batch of dialogues, small models of every kind of networks, and what compares their numbers."""

import dataclasses
import functools
import string

import jax
import jax.numpy as jnp
import numpy as np

from ilqljax.data.datapoint import DataPoint, collate
from ilqljax.data.tokenizer import CharacterTokenizer
from ilqljax.models.gpt2 import GPT2, GPT2Config
from ilqljax.models.value_lm import ValueLM, ValueLMConfig
from ilqljax.rl.objectives.values import ILQLConfig
from tests.dialogues import Talk

TOKENIZER = CharacterTokenizer(string.ascii_lowercase + " .,!?'-")  # 40 ids
TRUNK = GPT2Config(vocab_size=TOKENIZER.vocab_size, n_positions=32, n_embd=16, n_layer=2, n_head=2)
SEPARATE = ValueLMConfig()
SEPARATE_SINGLE = ValueLMConfig(double_q=False)
JOINT = ValueLMConfig(separate_policy=False)
SHARED = ValueLMConfig(double_q=False, separate_policy=False, separate_target=False)
ADVANCED = ValueLMConfig(separate_policy=False, advanced_mlp=True)
# Every term is on, so that whatever breaks one breaks a test.
FULL = ILQLConfig(dm_weight=0.1, dm_margin=0.1, awac_weight=1.0, beta=0.5, transition_weight=0.3, discount=0.9)


DIALOGUES = (
    Talk((("ab", None), ("cd", 1.5))),
    Talk((("hi there", None), ("yo.", -0.5), ("ok?", None), ("", 2.0)), terminal=False),
    Talk((("a", 0.25), ("b", None))),
    Talk((("nobody answers", None),)),  # no action
    Talk((("x", None), ("long answer", -1.0)), terminal=False),
    Talk((("q", None), ("w", 1.0), ("e", None), ("rt", 0.5))),
)


def make_batch(dialogues=DIALOGUES, *, length=20, n_actions=13, batch_size=8):
    points = [DataPoint.from_observation(dialogue, TOKENIZER) for dialogue in dialogues]
    return collate(
        points,
        length=length,
        n_actions=n_actions,
        n_utterance_actions=2,
        pad_id=TOKENIZER.pad_id,
        batch_size=batch_size,
    )


BATCH = make_batch()


@functools.cache
def make_model(networks=SEPARATE, **numerics):
    return ValueLM(GPT2(dataclasses.replace(TRUNK, **numerics)), networks)


@functools.cache
def make_params(networks):
    """Draw `(params, target)`, all networks different, at a scale at which every term counts."""
    model = make_model(networks)
    shapes = jax.eval_shape(model.init_params, jax.random.key(0))
    rng = np.random.default_rng(0)

    def draw(shape):
        return jnp.asarray(rng.normal(0.0, 0.3, shape.shape), jnp.float32)

    return jax.tree.map(draw, shapes), jax.tree.map(draw, jax.eval_shape(model.init_target, shapes))


def assert_close(got, expected, rtol=1e-4, atol=1e-6):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), got, expected)


def leaf_paths(tree, condition):
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {tuple(key.key for key in path) for path, leaf in leaves if condition(leaf)}
