"""The mesh, batches on it, and which parameter axes are split; eight virtual devices (conftest)."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from ilqljax.errors import UserError
from ilqljax.training.mesh import (
    MeshConfig,
    batch_sharding,
    check_batch_size,
    infer_param_shardings,
    make_mesh,
    shard_batch,
)

L, D, V, POSITIONS = 2, 8, 32, 16


def make_shapes(vocabulary: int = V) -> dict:
    def shape(*sizes):
        return jax.ShapeDtypeStruct(sizes, jnp.float32)

    def dense(*sizes):
        return {"kernel": shape(*sizes), "bias": shape(*sizes[:-2], sizes[-1])}

    block = {
        "ln_1": {"scale": shape(L, D), "bias": shape(L, D)},
        "attn": {"c_attn": dense(L, D, 3 * D), "c_proj": dense(L, D, D)},
        "mlp": {"c_fc": dense(L, D, 4 * D), "c_proj": dense(L, 4 * D, D)},
    }
    trunk = {"wte": shape(vocabulary, D), "wpe": shape(POSITIONS, D), "h": block, "ln_f": {"scale": shape(D)}}
    head = {"dense_in": dense(D, 2 * D), "dense_out": dense(2 * D, vocabulary)}
    return {"trunk": trunk, "q1": head, "v": {"dense_in": dense(D, 2 * D), "dense_out": dense(2 * D, 1)}}


def infer_specs(shapes, **sizes) -> dict[str, PartitionSpec]:
    shardings = infer_param_shardings(shapes, make_mesh(MeshConfig(**sizes)))
    leaves, _ = jax.tree_util.tree_flatten_with_path(shardings)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf.spec for path, leaf in leaves}


@pytest.mark.parametrize(
    ("config", "sizes"),
    [
        (MeshConfig(), (8, 1, 1)),
        (MeshConfig(fsdp=4), (2, 4, 1)),
        (MeshConfig(data=1, fsdp=-1, tensor=2), (1, 4, 2)),
        (MeshConfig(data=2, fsdp=2, tensor=2), (2, 2, 2)),
        (MeshConfig(data=2), (2, 1, 1)),
    ],
)
def test_mesh_has_the_configured_sizes(config, sizes):
    mesh = make_mesh(config)
    assert tuple(mesh.shape.values()) == sizes
    assert mesh.axis_names == ("data", "fsdp", "tensor")
    assert mesh.axis_types == (AxisType.Auto,) * 3


def test_mesh_uses_the_devices_given():
    devices = jax.devices()[2:5]
    assert make_mesh(MeshConfig(), devices).devices.ravel().tolist() == devices


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (MeshConfig(fsdp=3), "config.mesh fsdp=3 x tensor=1 needs a multiple of 3 devices, and there are 8."),
        (MeshConfig(data=16), "config.mesh data=16 x fsdp=1 x tensor=1 needs 16 devices, and there are 8."),
        (MeshConfig(data=-1, fsdp=-1), "config.mesh.data and config.mesh.fsdp are both -1."),
        (MeshConfig(tensor=0), "config.mesh.tensor=0 is not a number of devices."),
    ],
)
def test_mesh_that_does_not_fit_the_devices_is_refused(config, message):
    with pytest.raises(UserError) as raised:
        make_mesh(config)
    assert str(raised.value).startswith(message)


def test_batch_rows_lie_on_data_and_fsdp_in_order():
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    tokens = np.arange(24, dtype=np.int32).reshape(8, 3)
    sharded = shard_batch({"tokens": tokens, "length": np.arange(8)}, mesh)
    np.testing.assert_array_equal(sharded["tokens"], tokens)
    assert sharded["tokens"].sharding == batch_sharding(mesh)
    assert {shard.data.shape for shard in sharded["tokens"].addressable_shards} == {(2, 3)}
    assert {shard.data.shape for shard in sharded["length"].addressable_shards} == {(2,)}


def test_batch_that_does_not_divide_is_refused_with_the_remedy():
    mesh = make_mesh(MeshConfig(data=4))
    with pytest.raises(UserError) as raised:
        shard_batch({"tokens": np.zeros((6, 3), np.int32)}, mesh)
    assert str(raised.value) == (
        "batch_size=6 is not divisible by the 4 devices on mesh axis 'data'. "
        "Use a multiple of 4 or set config.mesh.data=2."
    )


def test_batch_that_no_data_size_divides_names_the_multiple_only():
    with pytest.raises(UserError) as raised:
        check_batch_size(6, make_mesh(MeshConfig(data=2, fsdp=4)))
    assert str(raised.value) == (
        "batch_size=6 is not divisible by the 8 devices on mesh axes 'data' and 'fsdp'. Use a multiple of 8."
    )


def test_parameters_are_split_by_name():
    specs = infer_specs(make_shapes(), data=2, fsdp=2, tensor=2)
    split = {name: tuple(spec) for name, spec in specs.items() if spec != PartitionSpec()}
    assert split == {
        "trunk/wte": ("tensor", "fsdp"),
        "trunk/wpe": (None, "fsdp"),
        "trunk/h/attn/c_attn/kernel": (None, "fsdp", "tensor"),
        "trunk/h/attn/c_proj/kernel": (None, "tensor", "fsdp"),
        "trunk/h/mlp/c_fc/kernel": (None, "fsdp", "tensor"),
        "trunk/h/mlp/c_proj/kernel": (None, "tensor", "fsdp"),
        "q1/dense_in/kernel": ("fsdp", "tensor"),
        "q1/dense_out/kernel": ("fsdp", "tensor"),
        "v/dense_in/kernel": ("fsdp", "tensor"),
        "v/dense_out/kernel": (("fsdp", "tensor"), None),
    }


def test_odd_vocabulary_leaves_both_mesh_axes_to_the_width():
    specs = infer_specs(make_shapes(vocabulary=33), data=2, fsdp=2, tensor=2)
    assert specs["trunk/wte"] == PartitionSpec(None, ("fsdp", "tensor"))
    assert specs["q1/dense_out/kernel"] == PartitionSpec(("fsdp", "tensor"), None)


def test_axis_that_does_not_divide_stays_whole():
    shapes = {"c_fc": {"kernel": jax.ShapeDtypeStruct((6, 8), jnp.float32)}}
    assert infer_specs(shapes, data=1, fsdp=4, tensor=2)["c_fc/kernel"] == PartitionSpec(None, "tensor")


def test_moments_and_targets_are_split_as_their_parameters():
    shapes = make_shapes()
    state = {"target": {"q1": shapes["q1"]}, "opt": jax.eval_shape(optax.adamw(1e-3).init, shapes)}
    specs = infer_specs(state, data=2, fsdp=2, tensor=2)
    for name, spec in infer_specs(shapes, data=2, fsdp=2, tensor=2).items():
        assert specs[f"opt/0/mu/{name}"] == specs[f"opt/0/nu/{name}"] == spec
        assert not name.startswith("q1/") or specs[f"target/{name}"] == spec
    assert specs["opt/0/count"] == PartitionSpec()


def test_prng_key_is_replicated():
    mesh = make_mesh(MeshConfig())
    assert infer_param_shardings({"key": jax.random.key(0)}, mesh)["key"] == NamedSharding(mesh, PartitionSpec())


@pytest.mark.parametrize("sizes", [{"data": 8}, {"data": 1, "fsdp": 8}, {"data": 2, "fsdp": 2, "tensor": 2}])
def test_sharded_head_gives_the_numbers_of_one_device(sizes):
    mesh = make_mesh(MeshConfig(**sizes))
    rng = np.random.default_rng(0)
    shapes = make_shapes()["q1"]
    params = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)
    batch = rng.normal(size=(8, D)).astype(np.float32)

    def apply(params, x):
        hidden = jax.nn.relu(x @ params["dense_in"]["kernel"] + params["dense_in"]["bias"][None])
        return hidden @ params["dense_out"]["kernel"] + params["dense_out"]["bias"][None]

    sharded = jax.device_put(params, infer_param_shardings(shapes, mesh))
    actual = jax.jit(apply)(sharded, shard_batch(batch, mesh))
    np.testing.assert_allclose(actual, apply(params, batch), rtol=1e-5, atol=1e-5)
