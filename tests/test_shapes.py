"""The shapes and dtypes that annotations name are checked while tests run."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import shapes
from dialogues import answer
from jaxtyping import Float, TypeCheckError, jaxtyped

from ilqljax.data.datapoint import DataPoint
from ilqljax.data.tokenizer import CharacterTokenizer
from ilqljax.errors import UserError
from ilqljax.hiring.matching.dense import DenseIndex
from ilqljax.hiring.reward.diversity import diversity_score
from ilqljax.rl import losses


@pytest.mark.parametrize("numpy", [np, jnp])
def test_an_argument_of_a_wrong_shape_is_caught(numpy):
    fits, wider = numpy.zeros((2, 3)), numpy.zeros((2, 4))
    losses.td_loss(fits, fits, fits, discount=0.9)
    with pytest.raises(TypeCheckError, match=r"td_loss(.|\n)*parameter 'v_next'"):
        losses.td_loss(fits, fits, wider, discount=0.9)
    with pytest.raises(TypeCheckError, match="parameter 'values'"):
        losses.gather_positions(numpy.zeros((2, 3)), numpy.zeros((2, 1), int))


def test_a_wrong_shape_is_caught_while_a_program_is_traced():
    with pytest.raises(TypeCheckError, match="parameter 'mask'"):
        jax.eval_shape(partial(losses.discounted_returns, discount=0.9), jnp.zeros((2, 3)), jnp.ones((2, 2), bool))


def test_a_wrong_dtype_is_caught():
    with pytest.raises(TypeCheckError, match="parameter 'codes_of_topk'"):
        diversity_score(np.zeros(3), np.array([0.5, 0.5]))


def test_shapes_are_left_unchecked_where_the_package_itself_is_to_refuse_them():
    with shapes.unchecked(), pytest.raises(UserError, match="rows of numbers"):
        DenseIndex(np.zeros(3))
    with pytest.raises(TypeCheckError, match="parameter 'vectors'"):
        DenseIndex(np.zeros(3))


def test_a_wrong_field_of_a_row_is_caught():
    point = DataPoint.from_observation(answer("ab", "c", 1.0), CharacterTokenizer("abc"))
    with pytest.raises(TypeCheckError, match="parameter 'terminals'"):
        dataclasses.replace(point, terminals=point.terminals[1:])


def test_a_wrong_result_is_caught():
    @jaxtyped(typechecker=shapes.check_shapes)
    def drop_last(x: Float[np.ndarray, "B A"]) -> Float[np.ndarray, "B A"]:
        return x[:, :-1]

    with pytest.raises(TypeCheckError, match="return value"):
        drop_last(np.zeros((2, 3)))
