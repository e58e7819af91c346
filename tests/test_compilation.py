"""A count of compilations."""

import jax
import jax.numpy as jnp

from ilqljax.training.compilation import CompilationCounter


def test_compilations_are_counted_while_the_counter_is_open_and_once():
    def double(x):
        return 2 * x

    run = jax.jit(double)
    shapes = [jnp.ones(n) for n in (2, 3, 5)]
    with CompilationCounter() as counter:
        run(shapes[0])
        run(shapes[0])
        found = counter.read()
        assert found["compilations"] == 1
        assert found["compile_seconds"] > 0
        assert counter.read() == {}
        run(shapes[1])
        assert counter.read()["compilations"] == 1
    run(shapes[2])
    assert counter.read() == {}
