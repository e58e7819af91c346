import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilqljax.models import chunks
from ilqljax.models.backbone import compute_logits
from ilqljax.models.cpu import compile_for
from ilqljax.models.cpu.products import BLOCK, FEW_HEAD_ROWS, FEW_ROWS, cut_kernels
from ilqljax.models.dense import Dense, apply_dense
from ilqljax.rl.objectives.likelihood import score_rows, token_cross_entropy
from ilqljax.training.mesh import MeshConfig, batch_sharding, make_mesh


@pytest.mark.slow
@pytest.mark.usefixtures("each_way")
@pytest.mark.parametrize("max_logits", [9 * 3, 9 * 7])  # 7 rows of 9 scores: three chunks, the last padded; or one
@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize("axis", [0, 1])
def test_scores_and_their_gradients_equal_the_plain_ones(monkeypatch, max_logits, temperature, axis):
    monkeypatch.setattr(chunks, "MAX_LOGITS", max_logits)
    rng = np.random.default_rng(0)
    x, kernel, bias = (rng.normal(size=s).astype(np.float32) for s in ((7, 4), (4, 9), (9,)))
    ids = rng.integers(0, 9, 7)
    weights = rng.normal(size=(2, 7)).astype(np.float32)

    def plain(x, kernel, bias):
        scores = x @ kernel + bias[None]
        out = scores[jnp.arange(7), ids], jax.nn.logsumexp(scores / temperature, axis=1)
        return sum((w * o).sum() for w, o in zip(weights, out, strict=True)), out

    def ours(x, kernel, bias):
        out = tuple(score_rows(x, kernel, bias, ids, axis=axis, temperature=temperature))
        return sum((w * o).sum() for w, o in zip(weights, out, strict=True)), out

    lying = kernel if axis == 0 else kernel.T
    got, out = jax.jit(jax.grad(ours, argnums=(0, 1, 2), has_aux=True))(x, lying, bias)
    got = (got[0], got[1] if axis == 0 else got[1].T, got[2]), out
    expected = jax.jit(jax.grad(plain, argnums=(0, 1, 2), has_aux=True))(x, kernel, bias)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), got, expected)


@pytest.mark.usefixtures("each_way")
def test_the_filler_of_a_chunk_contributes_nothing_even_where_its_scores_are_huge(monkeypatch):
    monkeypatch.setattr(chunks, "MAX_LOGITS", 4 * 2)  # 3 rows of 4 scores: the second chunk has one filler row
    bias = jnp.array([0.0, 200.0, 0.0, 0.0])

    def loss(bias):
        return score_rows(jnp.zeros((3, 2)), jnp.zeros((2, 4)), bias, jnp.zeros(3, int)).taken.sum()

    np.testing.assert_array_equal(jax.grad(loss)(bias), [3.0, 0.0, 0.0, 0.0])


@pytest.mark.slow
@pytest.mark.usefixtures("each_way")
@pytest.mark.parametrize("max_logits", [50 * 7, 50 * 20])  # three chunks, or one
@pytest.mark.parametrize("axis", [0, 1])
def test_scores_of_half_precision_rows_are_float32_and_the_gradient_of_a_float32_kernel_too(
    monkeypatch, max_logits, axis
):
    monkeypatch.setattr(chunks, "MAX_LOGITS", max_logits)
    rng = np.random.default_rng(3)
    whole = [rng.normal(size=shape).astype(np.float32) for shape in ((20, 16), (16, 50) if axis == 0 else (50, 16))]
    rounded = [np.asarray(jnp.asarray(x, jnp.bfloat16), np.float32) for x in whole]

    def loss(x, kernel):
        out = score_rows(x, kernel, None, jnp.arange(20), axis=axis)
        return (out.log_normalizer - out.taken).sum(), out

    expected, exact = jax.grad(loss, argnums=(0, 1), has_aux=True)(*rounded)
    # As one program, in which the compiler may turn a product into one that the processor has no unit for.
    compiled = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
    gradients, out = compiled(jnp.asarray(whole[0], jnp.bfloat16), whole[1])
    assert {o.dtype.name for o in out} == {"float32"}
    assert [g.dtype.name for g in gradients] == ["bfloat16", "float32"]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), out, exact)
    for a, b in zip(gradients, expected, strict=True):
        assert np.linalg.norm(a.astype(np.float32) - b) < 0.01 * np.linalg.norm(b)


def test_the_compiled_gradient_of_a_tied_head_runs_in_half_precision():
    # XLA on a CPU without units for it refused the product that it made of an embedding given transposed.
    rng = np.random.default_rng(4)
    hidden, wte = (rng.normal(size=shape).astype(np.float32) for shape in ((2, 12, 16), (35, 16)))
    targets = rng.integers(0, 35, (2, 12))

    def loss(hidden, wte):
        return token_cross_entropy({"wte": wte}, hidden, targets).sum()

    half = jax.jit(jax.grad(loss, argnums=(0, 1)))(jnp.asarray(hidden, jnp.bfloat16), wte)
    whole = jax.jit(jax.grad(loss, argnums=(0, 1)))(hidden, wte)
    assert [g.dtype.name for g in half] == ["bfloat16", "float32"]
    for a, b in zip(half, whole, strict=True):
        np.testing.assert_allclose(np.asarray(a, np.float32), b, rtol=0.1, atol=0.05)


def test_products_of_rows_equal_a_dense_layer_and_its_gradients():
    rng = np.random.default_rng(1)
    x, kernel, out = (rng.normal(size=s).astype(np.float32) for s in ((2, 3, 4), (4, 5), (2, 3, 5)))
    layer = {"kernel": kernel, "bias": rng.normal(size=5).astype(np.float32)}
    for params in (layer, cut_kernels({"inner": layer})["inner"]):
        ours = jax.vjp(lambda x, params: Dense(5).apply({"params": params}, x), x, params)
        plain = jax.vjp(lambda x, params: nn.Dense(5).apply({"params": params}, x), x, layer)
        (dx, d_params), (expected_dx, expected) = ours[1](out), plain[1](out)
        d_kernel = d_params["kernel"] if "kernel" in d_params else d_params["kernel_blocks"][0, :, :5]
        for a, b in (
            (ours[0], plain[0]),
            (dx, expected_dx),
            (d_kernel, expected["kernel"]),
            (d_params["bias"], expected["bias"]),
        ):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(apply_dense(params, x), ours[0])


def test_a_dense_layer_draws_the_parameters_that_flax_draws():
    x, key = np.ones((2, 4), np.float32), jax.random.key(3)
    init = {"kernel_init": nn.initializers.normal(0.1)}
    jax.tree.map(np.testing.assert_array_equal, Dense(5, **init).init(key, x), nn.Dense(5, **init).init(key, x))


def test_kernels_are_cut_into_blocks_of_outputs_and_nothing_else_is_touched():
    def layer(n_outputs, **others):
        return {"kernel": np.ones((3, 4, n_outputs)), **others}

    params = {"h": {"c_fc": layer(5, bias=np.ones((3, 5))), "q_proj": layer(2 * BLOCK), "odd": layer(BLOCK + 1)}}
    params["h"]["ln"] = {"scale": np.ones((3, 4))}
    laid = jax.tree.map(np.shape, cut_kernels(params), is_leaf=lambda x: not isinstance(x, dict))
    assert laid["h"] == {
        "c_fc": {"kernel_blocks": (3, 1, 4, BLOCK), "bias": (3, 5)},
        "q_proj": {"kernel_blocks": (3, 2, 4, BLOCK)},
        "odd": {"kernel": (3, 4, BLOCK + 1)},  # nothing would tell how many outputs there are
        "ln": {"scale": (3, 4)},
    }


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("n_rows", [1, 2, FEW_ROWS, FEW_ROWS + 1])
@pytest.mark.parametrize(("n_outputs", "bias"), [(BLOCK + 1, True), (2 * BLOCK, False)])
def test_a_kernel_in_blocks_multiplies_as_it_does_whole(n_outputs, bias, n_rows, dtype):
    rng = np.random.default_rng(2)
    layer = {"kernel": rng.normal(size=(7, n_outputs)).astype(np.float32)}
    layer |= {"bias": rng.normal(size=n_outputs).astype(np.float32)} if bias else {}
    x = rng.normal(size=(n_rows, 7)).astype(np.float32)
    whole, cut = (np.asarray(apply_dense(p, x, dtype, "float32")) for p in (layer, cut_kernels(layer)))
    assert whole.shape == cut.shape == (n_rows, n_outputs)
    np.testing.assert_allclose(cut, whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("n_rows", "in_blocks"), [(FEW_HEAD_ROWS, True), (FEW_HEAD_ROWS + 1, False)])
def test_more_rows_than_a_few_are_multiplied_by_the_head_as_it_lies(n_rows, in_blocks):
    trunk = {"wte": jnp.ones((5, 3)), "head_blocks": 2.0 * jnp.ones((1, 3, BLOCK))}
    expected = 6.0 if in_blocks else 3.0
    np.testing.assert_array_equal(compute_logits(trunk, jnp.ones((n_rows, 3))), np.full((n_rows, 5), expected))


def row_losses(weights, x, ids):
    logits = x @ weights
    taken = jnp.take_along_axis(logits, ids[:, None], axis=1)[:, 0]
    return jax.nn.logsumexp(logits, axis=-1) - taken, jnp.square(logits).sum(-1)


@pytest.mark.parametrize("fitting", [3, 6])  # of 7 rows: three chunks of 3, or two of 4, the last of each filled up
def test_scanned_rows_equal_the_direct_call_and_its_gradients(monkeypatch, fitting):
    monkeypatch.setattr(chunks, "MAX_LOGITS", 9 * fitting)
    rng = np.random.default_rng(2)
    weights, x = rng.normal(size=(4, 9)).astype(np.float32), rng.normal(size=(7, 4)).astype(np.float32)
    ids = rng.integers(0, 9, size=7)
    cotangent = rng.normal(size=7).astype(np.float32)

    def scanned(weights, x):
        first, second = chunks.scan_vocabulary(lambda *rows: row_losses(weights, *rows), x, ids, vocab_size=9)
        return (first * cotangent).sum() + second.sum(), (first, second)

    def direct(weights, x):
        first, second = row_losses(weights, x, ids)
        return (first * cotangent).sum() + second.sum(), (first, second)

    got, expected = (jax.jit(jax.grad(f, argnums=(0, 1), has_aux=True))(weights, x) for f in (scanned, direct))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), got, expected)


@pytest.mark.parametrize(("max_logits", "shapes"), [(7, [(7,)]), (100, [(7,)]), (6, [(4,)]), (3, [(3,)])])
def test_rows_are_scanned_in_as_few_and_even_chunks_as_fit(monkeypatch, max_logits, shapes):
    monkeypatch.setattr(chunks, "MAX_LOGITS", max_logits)
    seen = set()

    def double(x):
        seen.add(x.shape)
        return 2 * x

    doubled = chunks.scan_vocabulary(double, jnp.arange(7.0), vocab_size=1)
    np.testing.assert_array_equal(doubled, 2 * np.arange(7))
    assert seen == set(shapes)


@pytest.mark.usefixtures("each_way")
def test_every_device_works_on_its_own_rows_of_every_chunk(monkeypatch):
    monkeypatch.setattr(chunks, "MAX_LOGITS", 50 * 32)  # 64 rows: two chunks of 32
    mesh = make_mesh(MeshConfig())
    x, ids = jax.device_put((jnp.ones((64, 6)), jnp.arange(64) % 50), batch_sharding(mesh))
    kernel = jax.device_put(jnp.ones((6, 50)), jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))

    def loss(x, kernel):
        return score_rows(x, kernel, None, ids).log_normalizer.sum()

    text = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(x, kernel).compile().as_text()
    # An eighth of a chunk's 32 rows; the product of all rows with the kernel would say [32,50] or [64,50].
    assert "f32[4,50]" in text
    assert "f32[32,50]" not in text
    assert "f32[64,50]" not in text


def test_products_of_a_half_precision_layer_and_of_its_gradient_are_of_half_precision_on_a_gpu():
    features, kernel = jnp.ones((6, 4), jnp.bfloat16), jnp.ones((4, 9))
    ids = jnp.zeros(6, jnp.int32)

    def loss(features, kernel):
        scores = score_rows(features, kernel, None, ids)
        return (scores.log_normalizer - scores.taken).sum()

    with compile_for("gpu"):
        program = jax.jit(jax.grad(loss, argnums=(0, 1))).trace(features, kernel).lower(lowering_platforms=("cuda",))
    products = [line for line in program.as_text().splitlines() if "dot_general" in line]
    assert len(products) == 3
    assert all(line.count("xbf16>") == 2 for line in products), products
