"""An independent PyTorch twin: it reproduces the original's numbers, and ours reproduces its own on other options."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.parity import compare_case, load_cases, rebuild_case

HERE = Path(__file__).parent
MADE = HERE / "twin" / "cases"  # python -m tests.twin.original tests/twin/cases 37
ILQL_CASES = ("ilql_default", "ilql_awac_joint", "ilql_mc_dm_clip", "ilql_no_prompt_token_reward")


def check(folder: Path) -> None:
    cases = load_cases(folder)
    rows = [row for name in cases["cases"] for row in compare_case(rebuild_case(folder, name, cases=cases))]
    wrong = [row for row in rows if not row.ok]
    assert not wrong, "\n".join(map(str, wrong))
    assert sum(row.compared for row in rows) > 30 * len(cases["cases"])


@pytest.mark.slow
def test_ours_equals_the_twin_with_advanced_heads_and_a_table_of_token_rewards():
    settings = list(json.loads((MADE / "cases.json").read_text())["cases"].values())
    assert any(case["model"]["advanced_mlp"] and isinstance(case["token_reward"], dict) for case in settings)
    check(MADE)


@pytest.fixture(scope="module")
def twin():
    pytest.importorskip("torch", reason="the twin is written in torch: pip install torch")
    from twin import original

    return original


def reproduce(twin, folder: Path, name: str) -> None:
    torch = twin.torch
    settings = json.loads((folder / "cases.json").read_text())["cases"][name]
    with np.load(folder / f"{name}.npz") as archive:
        arrays = {key: archive[key] for key in archive.files}
    model = twin.ILQL(settings["model"], settings["gpt2"], settings["vocab"])
    start = {key.removeprefix("init/"): torch.tensor(v) for key, v in arrays.items() if key.startswith("init/")}
    start.pop("pi.weight", None)  # the policy's tied output layer again
    model.load_state_dict(start)
    batch = {key: torch.tensor(arrays[f"batch/{key}"]) for key in ("tokens", "attn_mask", "state_idxs", "action_idxs")}
    batch |= {key: torch.tensor(arrays[f"batch/{key}"]) for key in ("rewards", "terminals")}
    batch["n_actions"] = [len(row["action_idxs"]) for row in settings["datapoints"]]
    found = twin.compute_arrays(model, batch, settings["loss"])
    idle = "loss/token_loss" if settings["model"]["seperate_policy"] and not settings["loss"]["awac_weight"] else ""
    compared = 0
    for key in sorted(set(found) & set(arrays)):
        if key.startswith(("loss/", "train_loss/", "grad/")) and key != idle:
            scale = np.abs(arrays[key]).max()
            assert np.abs(found[key] - arrays[key]).max() <= 1e-4 * scale + 1e-7, key
            compared += 1
    assert compared > 30


def test_the_twin_reproduces_the_original(twin):
    reproduce(twin, HERE / "golden", "ilql_shared_single_q")


@pytest.mark.parametrize("name", ILQL_CASES)
def test_the_twin_reproduces_the_original_on_all_cases(twin, shared_dir, name):
    reproduce(twin, shared_dir / "golden", name)


def test_ours_equals_the_twin_on_drawn_options(twin, tmp_path):
    twin.write_cases(tmp_path, {f"twin_{seed}": (twin.draw_settings(seed), seed) for seed in (3, 5, 9)})
    check(tmp_path)
