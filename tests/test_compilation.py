"""The persistent cache, and a count of compilations."""

import jax
import jax.numpy as jnp

from ilqljax.training.compilation import CompilationCounter, enable_compilation_cache


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


def test_programs_keep_what_they_compile_where_the_environment_says(monkeypatch, tmp_path):
    kept = jax.config.jax_compilation_cache_dir
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    try:
        enable_compilation_cache()  # the test's environment names a place: it is not overridden
        assert jax.config.jax_compilation_cache_dir == kept
        monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
        enable_compilation_cache()
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "ilqljax" / "xla")
    finally:
        jax.config.update("jax_compilation_cache_dir", kept)
