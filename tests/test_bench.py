"""Benchmarks are no tests; these are tests of what they count, and of their two sides doing the same work."""

import math

import numpy as np
import pytest

from ilqljax.bench import work
from ilqljax.bench.ours import make_run
from ilqljax.bench.table import format_table, measure_item
from ilqljax.bench.work import ActWork, RewardWork, Sizes, TrainWork

TINY = Sizes(width=16, n_layer=2, n_head=2, n_positions=64)
SMALL_WORK = (
    TrainWork("ilql", 2, 16, 8, critic=True, sizes=TINY),
    TrainWork("bc", 2, 16, 8, critic=False, sizes=TINY),
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
    run()
    run()


@pytest.mark.parametrize("item", SMALL_WORK, ids=lambda item: item.name)
def test_the_plain_twin_runs_the_same_items(item):
    pytest.importorskip("torch", reason="the twin is written in torch: pip install torch")
    from ilqljax.bench import torch_twin

    torch_twin.make_run(item)()


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


@pytest.mark.slow
def test_a_worker_takes_turns_and_reports_its_peak(monkeypatch):
    row = measure_item("reward", 0, n_pairs=2, against="")
    assert len(row["ours_seconds"]) == 3
    assert all(math.isfinite(x) and x > 0 for x in (*row["ours_seconds"], row["ours_peak_bytes"]))
    assert np.isclose(row["flops"], 2 * 256 * 17_600 * 384)
