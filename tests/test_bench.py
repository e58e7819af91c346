"""Benchmarks are no tests; these are tests of what they count, and of their two sides doing the same work."""

import math
from dataclasses import replace

import numpy as np
import pytest

from ilqljax.bench import work
from ilqljax.bench.ours import make_batches, make_run
from ilqljax.bench.profile import name_part, sum_own_time
from ilqljax.bench.table import format_table, measure_item, run_round
from ilqljax.bench.work import ActWork, LoaderWork, RaggedWork, RewardWork, Sizes, TrainWork
from ilqljax.errors import UserError

TINY = Sizes(width=16, n_layer=2, n_head=2, n_positions=64)
SMALL_WORK = (
    TrainWork("ilql", 2, 16, 8, critic=True, sizes=TINY),
    TrainWork("bc", 2, 16, 8, critic=False, sizes=TINY),
    RaggedWork("ragged", 2, n_steps=1, lengths=((9, 7), (5, 4), (20, 12), (6, 5)), sizes=TINY),
    LoaderWork("loader", 2, n_steps=2, lengths=((9, 7), (5, 4), (20, 12), (6, 5)), sizes=TINY),
    ActWork("act", 2, prompt=8, n_new=3, sizes=TINY),
    RewardWork("reward", 100, n_texts=4, width=8, k=5),
)


def test_a_training_step_of_gpt2_small_costs_what_its_products_cost():
    item = work.ITEMS["train-small"][0]
    trunk = 12 * (24 * 768**2 + 2 * 512 * 768) * 1024  # products of 12 blocks, causal attention, 1,024 tokens
    head = 2 * 512 * (768 * 1536 + 1536 * 50_263)
    assert item.flops == pytest.approx(4 * trunk + 2 * 3 * head)
    assert item.flops == pytest.approx(1.2e12, rel=0.05)


def test_searching_costs_one_product():
    assert RewardWork("r", 1000).flops == 2 * 256 * 1000 * 384


@pytest.mark.parametrize("item", SMALL_WORK, ids=lambda item: item.name)
def test_each_kind_of_item_runs(item):
    run = make_run(item)
    run(0)
    run(1)


def test_a_round_of_ragged_rows_takes_the_next_ones_of_the_list_and_begins_again():
    item = next(item for item in SMALL_WORK if isinstance(item, RaggedWork))
    load = make_batches(item)
    lengths = [[batch.token_mask.sum(1).tolist() for batch in load(number)] for number in range(3)]
    # A row's prompt and answer, and the end of the dialogue.
    assert lengths == [[[17, 10]], [[33, 12]], [[17, 10]]]
    assert [int(batch.per_token.action_mask.sum()) for batch in load(0)] == [7 + 4]
    assert item.n_tokens == (16 + 9 + 32 + 11) / 2


@pytest.mark.parametrize("item", [item for item in SMALL_WORK if item.has_twin], ids=lambda item: item.name)
def test_the_plain_twin_runs_the_same_items(item):
    pytest.importorskip("torch", reason="the twin is written in torch: pip install torch")
    from ilqljax.bench import torch_twin

    run = torch_twin.make_run(item)
    run(0)
    run(1)


@pytest.mark.parametrize("name", ["ilql", "bc", "act"])
def test_the_plain_twin_runs_in_half_precision(name):
    pytest.importorskip("torch", reason="the twin is written in torch: pip install torch")
    from ilqljax.bench import torch_twin

    item = next(item for item in SMALL_WORK if item.name == name)
    torch_twin.make_run(replace(item, dtype="bfloat16"))(0)


def test_the_table_has_medians_ratios_and_shares():
    row = {
        "item": "x",
        "flops": 1e9,
        "n_units": 100,
        "ours_seconds": (1.0, 0.5, 2.0),
        "ours_peak_bytes": 1e9,
        "torch_seconds": (3.0, 2.0, 4.0),
        "torch_peak_bytes": 4e9,
        "ratio": (3.0, 2.0, 4.0),
    }
    line = format_table([row], product_rate=2e9, bandwidth=1e10, against="torch").splitlines()[1]
    assert line.split() == ["x", "1", "[0.5,", "2]", "100", "50%", "1.00", "3", "3.00", "[2.00,", "4.00]", "25%"]


def test_rows_without_a_twin_or_without_products_leave_their_cells_empty():
    row = {"item": "loader", "flops": 0.0, "n_units": 100, "ours_seconds": (1.0, 0.5, 2.0), "ours_peak_bytes": 1e9}
    other = row | {"item": "train-ragged", "n_units": 5, "flops": 1e9}
    table = format_table([row, other], product_rate=2e9, bandwidth=1e10, against="torch").splitlines()
    assert table[1].split() == ["loader", "1", "[0.5,", "2]", "100", "1.00"]
    assert table[3] == "the loader gives 20 times what train-ragged takes"


@pytest.mark.slow
def test_each_round_is_a_process_of_its_own_and_reports_its_peak():
    row = measure_item("reward", 0, n_pairs=2, against="")
    assert len(row["ours_seconds"]) == 3
    assert all(math.isfinite(x) and x > 0 for x in (*row["ours_seconds"], row["ours_peak_bytes"]))
    assert np.isclose(row["flops"], 2 * 256 * 17_600 * 384)


def test_a_side_that_fails_is_reported():
    with pytest.raises(UserError, match="The torch side of loader ended early"):
        run_round("loader", 0, "torch", 0)


def test_own_time_leaves_out_what_runs_inside():
    events = [(0, 10, "loop"), (2, 5, "product"), (5, 6, "product"), (12, 13, "loop")]
    assert sum_own_time(events) == {"loop": 10 - 4 + 1, "product": 4}


def test_parts_are_named_after_scopes():
    assert name_part("jit(step)/jvp(GPT2)/h/attn/c_attn/dot_general") == "attention"
    assert name_part("jit(step)/transpose(jvp(GPT2))/h/mlp/c_fc/transpose") == "MLP, backward"
    assert name_part("jit(step)/optimizer/mul") == "optimizer"
    assert name_part("") == "other"
