import jax
import jax.numpy as jnp
import pytest

from benchmarks.speed.ours import make_step
from benchmarks.speed.work import Sizes, TrainWork
from ilqljax.training.compilation import count_product_flops

A, B = jnp.ones((2, 3)), jnp.ones((3, 5))
PRODUCT = 2 * 2 * 3 * 5


def test_a_product_is_two_operations_for_each_multiply_add():
    assert count_product_flops(jnp.matmul, A, B) == PRODUCT
    assert count_product_flops(lambda a, b: jnp.einsum("nij,njk->nik", a, b), A[None], B[None]) == PRODUCT


def test_loops_count_every_round_and_conditions_their_dearest_branch():
    def loop(a, b):
        return jax.lax.scan(lambda carry, _: (carry + (a @ b).sum(), None), 0.0, length=7)[0]

    def branch(a, b):
        return jax.lax.cond(a.sum() > 0, lambda: (a @ b).sum(), lambda: a.sum())

    assert count_product_flops(loop, A, B) == 7 * PRODUCT
    assert count_product_flops(branch, A, B) == PRODUCT


def test_nothing_is_counted_twice_through_jit_checkpoint_and_own_gradients():
    assert count_product_flops(jax.jit(jnp.matmul), A, B) == PRODUCT
    assert count_product_flops(jax.checkpoint(jnp.matmul), A, B) == PRODUCT
    gradient = jax.value_and_grad(lambda a, b: (a @ b).sum(), argnums=(0, 1))
    assert count_product_flops(gradient, A, B) == 3 * PRODUCT


@pytest.mark.slow
@pytest.mark.parametrize("critic", [True, False])
def test_a_training_step_costs_what_the_benchmark_derives(critic):
    work = TrainWork("x", 2, 64, 32, critic=critic, sizes=Sizes(width=32, n_layer=3, n_head=2, n_positions=64))
    step, state, batch = make_step(work)
    # The benchmark counts attention at half the square, and neither V nor the target's features and taken columns.
    assert count_product_flops(step, state, batch) == pytest.approx(work.flops, rel=0.05)
