"""Checkpoints of the original: read as they are, and refused with every name that is wrong."""

import runpy
from pathlib import Path

import jax
import numpy as np
import pytest

from ilqljax.errors import UserError
from ilqljax.models.io.networks import load_networks
from ilqljax.models.io.original import load_original, params_from_original

torch = pytest.importorskip("torch", reason="the original's checkpoints are torch files: pip install torch")

HERE = Path(__file__).parent
GOLDEN = {
    path.stem: path
    for folder in (HERE / "golden", HERE.parents[1] / "shared" / "golden")
    for path in sorted(folder.glob("*.npz"))
}
N_HEAD = 2


def read_init(name):
    with np.load(GOLDEN[name]) as arrays:
        return {key.removeprefix("init/"): arrays[key] for key in arrays.files if key.startswith("init/")}


def save(path, weights, wrap=lambda weights: weights):
    torch.save(wrap({name: torch.from_numpy(np.array(value)) for name, value in weights.items()}), path)
    return path


@pytest.mark.parametrize("name", GOLDEN)
def test_a_checkpoint_gives_the_networks_that_parity_is_shown_for(name, tmp_path):
    weights = read_init(name)
    networks = load_original(save(tmp_path / "model.pkl", weights), n_head=N_HEAD)
    jax.tree.map(np.testing.assert_array_equal, networks[1:], params_from_original(weights))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda weights: {"model": weights},
        lambda weights: {"state_dict": weights, "step": torch.tensor(3)},
        lambda weights: {f"module.{name}": value for name, value in weights.items()},
    ],
    ids=["wrapped", "with its step", "data parallel"],
)
def test_wrappers_and_prefixes_are_taken_off(wrap, tmp_path):
    weights = read_init("ilql_shared_single_q")
    networks = load_original(save(tmp_path / "model.pkl", weights, wrap), n_head=N_HEAD)
    jax.tree.map(np.testing.assert_array_equal, networks[1:], params_from_original(weights))


def test_half_precision_is_read_as_float32(tmp_path):
    weights = {name: value.astype(np.float16) for name, value in read_init("bc_single").items()}
    networks = load_original(save(tmp_path / "model.pkl", weights), n_head=N_HEAD)
    assert {x.dtype for x in jax.tree.leaves(networks.params)} == {np.dtype(np.float32)}


def test_missing_unexpected_and_misshapen_names_are_all_listed(tmp_path):
    weights = read_init("ilql_shared_single_q")
    del weights["model.transformer.h.0.ln_1.bias"]
    weights["model.transformer.h.0.extra"] = np.zeros(3, np.float32)
    weights["model.transformer.ln_f.weight"] = np.zeros(5, np.float32)
    with pytest.raises(UserError) as error:
        load_original(save(tmp_path / "model.pkl", weights), n_head=N_HEAD)
    for part in ("(model.*)", "Missing: h.0.ln_1.bias.", "Unexpected: h.0.extra.", "ln_f.weight: (5,), not ("):
        assert part in str(error.value)


def test_heads_of_another_size_are_refused(tmp_path):
    weights = read_init("ilql_shared_single_q")
    weights["v.0.weight"], weights["v.0.bias"] = weights["v.0.weight"][:-1], weights["v.0.bias"][:-1]
    weights["v.2.weight"] = weights["v.2.weight"][:, :-1]
    with pytest.raises(UserError, match="params/v/dense_in/bias"):
        load_original(save(tmp_path / "model.pkl", weights), n_head=N_HEAD)


@pytest.mark.parametrize(
    ("kept", "missing"), [("v", "q, target_q"), ("q", "v, target_q"), ("target_q", "v, q"), ("q v", "target_q")]
)
def test_a_critic_without_one_of_its_heads_is_refused_by_name(tmp_path, kept, missing):
    weights = read_init("ilql_shared_single_q")
    weights = {name: x for name, x in weights.items() if name.partition(".")[0] in ("model", *kept.split())}
    with pytest.raises(UserError, match=f"holds the heads {', '.join(kept.split())} of a critic, but not {missing}"):
        load_original(save(tmp_path / "model.pkl", weights), n_head=N_HEAD)


def test_an_output_layer_of_its_own_is_refused(tmp_path):
    weights = read_init("bc_single")
    weights["model.lm_head.weight"] = weights["model.lm_head.weight"] + 1.0
    with pytest.raises(UserError, match="only tied heads"):
        load_original(save(tmp_path / "model.pkl", weights), n_head=N_HEAD)


def test_what_is_no_file_of_tensors_is_refused_and_never_executed(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    torch.save({"model": Evil()}, tmp_path / "evil.pkl")
    (tmp_path / "text.pkl").write_text("no pickle")
    torch.save([1, 2], tmp_path / "list.pkl")
    torch.save({"epoch": 3}, tmp_path / "numbers.pkl")
    torch.save({"other": torch.zeros(2)}, tmp_path / "other.pkl")
    for name in ("evil", "text", "list", "numbers", "other", "absent"):
        with pytest.raises(UserError, match=rf"{name}\.pkl"):
            load_original(tmp_path / f"{name}.pkl")
    assert not (tmp_path / "executed").exists()


def test_a_width_that_does_not_tell_the_heads_asks_for_them(tmp_path):
    with pytest.raises(UserError, match="--n_head"):
        load_original(save(tmp_path / "model.pkl", read_init("bc_single")))


def test_import_script_writes_a_folder_with_everything(tmp_path, monkeypatch, capsys):
    weights = read_init("ilql_shared_single_q")
    path = save(tmp_path / "model.pkl", weights)
    script = HERE.parent / "scripts" / "import_torch.py"
    argv = [str(script), "--load", str(path), "--save", str(tmp_path / "out"), "--n_head", str(N_HEAD)]
    monkeypatch.setattr("sys.argv", argv)
    runpy.run_path(str(script), run_name="__main__")
    assert "target q1" in capsys.readouterr().out
    jax.tree.map(np.testing.assert_array_equal, load_networks(tmp_path / "out")[1:], params_from_original(weights))
