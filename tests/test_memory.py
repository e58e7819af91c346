"""What a step takes on each device, as the compiler counts it (`benchmarks.memory`)."""

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks.collectives import list_exchanges
from benchmarks.memory import measure_step
from ilqljax.models.chunks import keep_rows
from ilqljax.models.llama import LlamaConfig
from ilqljax.training.mesh import MeshConfig, make_mesh, trace_on

CONFIG = LlamaConfig(vocab_size=512, n_positions=64, n_embd=64, n_layer=2, n_head=4, n_kv_head=2, n_inner=128)
SIZES = {"length": 64, "n_actions": 32}


@pytest.mark.parametrize("algorithm", [pytest.param("bc", marks=pytest.mark.slow), "ilql"])
def test_more_devices_with_as_many_rows_each_need_no_more_memory_each(algorithm):
    one, eight = (measure_step(CONFIG, algorithm, n_devices=n, **SIZES) for n in (1, 8))
    assert eight.held < one.held / 2
    assert eight.temporary < 1.25 * one.temporary


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["bc", "ilql"])
def test_no_scores_over_the_vocabulary_are_added_up_over_devices(algorithm):
    """The embeddings are split over the axis that a score sums over; they are brought together, once a step."""
    exchanges = measure_step(CONFIG, algorithm, n_devices=8, **SIZES).exchanges
    of_scores = {(n * SIZES["n_actions"], CONFIG.vocab_size) for n in (1, 8)}  # of one row, or of all
    assert any(exchange.kind == "all-gather" for exchange in exchanges)
    for exchange in exchanges:
        assert of_scores.isdisjoint(exchange.shapes), exchange


@pytest.mark.slow
def test_groups_that_share_parameters_never_send_all_rows_to_all_devices():
    """Between embeddings split over their width and rows the compiler needs a stop within each group."""
    exchanges = measure_step(CONFIG, "bc-whole", n_devices=8, n_sharing=4, **SIZES).exchanges
    assert (8, SIZES["length"], CONFIG.n_embd) not in [shape for exchange in exchanges for shape in exchange.shapes]


def test_collectives_of_a_loop_count_as_often_as_it_goes_round():
    mesh = make_mesh(MeshConfig(data=1, fsdp=8))
    rows, whole = (NamedSharding(mesh, PartitionSpec(axis)) for axis in ("fsdp", None))

    def run(x, kernels):
        return jax.lax.scan(lambda x, kernel: (x @ jax.lax.with_sharding_constraint(kernel, whole), None), x, kernels)[
            0
        ]

    stacked = NamedSharding(mesh, PartitionSpec(None, "fsdp"))
    shapes = jax.ShapeDtypeStruct((8, 16), np.float32), jax.ShapeDtypeStruct((5, 16, 16), np.float32)
    compiled = jax.jit(run, in_shardings=(rows, stacked), out_shardings=rows).lower(*shapes).compile()
    gathers = [each for each in list_exchanges(compiled.as_text()) if each.kind == "all-gather"]
    assert sum(each.n_times * each.n_bytes for each in gathers) == 5 * 16 * 16 * 4


@pytest.mark.parametrize(("n_rows", "kept"), [(16, True), (12, False)])
def test_rows_are_kept_where_they_are_where_all_devices_have_as_many(n_rows, kept):
    mesh = make_mesh(MeshConfig(data=2, fsdp=4))
    x = np.arange(float(n_rows))[:, None]
    out = jax.jit(trace_on(mesh, keep_rows))(jax.device_put(x, NamedSharding(mesh, PartitionSpec())))
    np.testing.assert_array_equal(out, x)
    assert (out.sharding.spec == PartitionSpec(("data", "fsdp"))) == kept
    np.testing.assert_array_equal(jax.jit(keep_rows)(x), x)  # without a mesh


def test_a_frozen_trunk_is_held_whether_a_step_reads_it_or_not():
    trunk = CONFIG.vocab_size * 64 + 2 * 64 * (64 + 32 + 32 + 64 + 3 * 128)
    assert measure_step(CONFIG, "ilql", n_devices=1, **SIZES).held > 4 * trunk
