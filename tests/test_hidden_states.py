"""Hidden states of a frozen trunk: the same training as without keeping them, kept once, and never of another trunk."""

import dataclasses
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilqljax.data.dataset import ObservationDataset, SelectedRows
from ilqljax.data.tokenizer import CharacterTokenizer
from ilqljax.envs.base import ListDialogue
from ilqljax.models.llama import Llama, LlamaConfig
from ilqljax.models.value_lm import ValueLM, ValueLMConfig, get_trunk
from ilqljax.rl.algorithms import make_learner
from ilqljax.training import hidden_states
from ilqljax.training.checkpoint import CheckpointStore
from ilqljax.training.fit import fit
from ilqljax.training.hidden_states import with_hidden_states
from ilqljax.training.loop import Start, make_stage, train_stage
from ilqljax.training.mesh import MeshConfig, make_mesh
from ilqljax.training.run_config import TrainConfig

TOKENIZER = CharacterTokenizer("abcdefghij ")
BACKBONE = Llama(
    LlamaConfig(TOKENIZER.vocab_size, n_positions=64, n_embd=16, n_layer=2, n_head=2, n_kv_head=1, n_inner=24)
)
FROZEN = ValueLM(BACKBONE, ValueLMConfig(lora_rank=2, frozen_value=True, q_head="low_rank", q_rank=4))
HALF = ValueLM(BACKBONE, dataclasses.replace(FROZEN.config, frozen_value=False, frozen_value_layers=1))
SLOW_HALF = pytest.param(HALF, marks=pytest.mark.slow)
SAID = [("abc"[: 1 + i % 3] * 5, "dea"[i % 3 :], float(i % 4)) for i in range(19)]
DIALOGUES = [ListDialogue([(asked, None), (answer, reward)], over=True) for asked, answer, reward in SAID]
SETTINGS = {
    "total_steps": 12, "lr": 1e-2, "batch_size": 4, "length_buckets": (32,), "n_rollouts": 0,
    "loss": {"awac_weight": 0.0},
}  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "ilqljax" / "hidden"


@pytest.fixture(scope="module")
def trunk():
    return BACKBONE.init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]


def make_rows():
    return ObservationDataset(DIALOGUES, TOKENIZER)


def train(trunk, model=FROZEN, **settings):
    settings = TrainConfig(**SETTINGS | settings)
    fitted = fit(make_rows(), "ilql", model=model, trunk=trunk, validation=make_rows(), settings=settings)
    trained, losses = fitted.trained, [record for record in fitted.curve if "validation/loss" in record]
    names = ("v", "q1", "q2", *(("trunk",) if "trunk" in trained.params else ()))
    return {name: trained.params[name] for name in names}, trained.target, losses[-1]["validation/loss"]


@pytest.mark.parametrize("model", [FROZEN, SLOW_HALF])
def test_training_equals_that_of_a_trunk_run_at_every_step(model, trunk, cache):
    kept, run = train(trunk, model), train(trunk, model, keep_hidden=False)
    assert len(list(cache.iterdir())) == 1
    # bfloat16 has 8 bits: states, and so what a few steps make of them, agree to about 1 in 256.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0.02, atol=0.01), kept, run)


@pytest.mark.slow
@pytest.mark.parametrize("model", [FROZEN, HALF])
def test_without_rounding_it_is_the_same_training(model, trunk, monkeypatch):
    monkeypatch.setattr(hidden_states.ml_dtypes, "bfloat16", np.float32)
    monkeypatch.setattr(hidden_states.jnp, "bfloat16", np.float32)
    monkeypatch.setattr(hidden_states, "BYTES", 4)
    kept, run = train(trunk, model), train(trunk, model, keep_hidden=False)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), kept, run)


@pytest.mark.parametrize("model", [FROZEN, HALF])
def test_rows_bring_what_the_trunk_computes_of_them(model, trunk):
    rows = make_rows()
    (kept,) = with_hidden_states(model, trunk, rows)
    assert kept.size() == rows.size() and kept.group_size == rows.group_size
    for i in (0, 1, 18):
        point, own = kept.get_item(i), rows.get_item(i)
        np.testing.assert_array_equal(point.tokens, own.tokens)
        if model is FROZEN:
            want = FROZEN.run_trunk(trunk, own.tokens[None]).hidden[0]
        else:  # what the second of two layers reads
            lower = Llama(dataclasses.replace(BACKBONE.config, n_layer=1))
            first = {**trunk, "h": jax.tree.map(lambda x: x[:1], trunk["h"])}
            want = lower.apply({"params": first}, own.tokens[None]).block_output[0]
        np.testing.assert_allclose(np.float32(point.hidden), want, rtol=0.01, atol=0.01)


def test_they_are_computed_once_and_anew_for_another_trunk_or_other_rows(trunk, cache, monkeypatch):
    calls = []
    compute = hidden_states.compute_hidden_states
    monkeypatch.setattr(hidden_states, "compute_hidden_states", lambda *a, **k: (calls.append(a), compute(*a, **k)))
    rows = make_rows()
    for _ in range(2):
        with_hidden_states(FROZEN, trunk, rows)
    assert len(calls) == 1
    with_hidden_states(FROZEN, jax.tree.map(lambda x: x + 1e-6, trunk), rows)
    with_hidden_states(FROZEN, trunk, SelectedRows(rows, [1, 0, *range(2, 19)]))
    remat = ValueLM(Llama(dataclasses.replace(BACKBONE.config, rope_theta=5e3)), FROZEN.config)
    with_hidden_states(remat, trunk, rows)
    with_hidden_states(HALF, trunk, rows)
    assert len(calls) == 5 and len(list(cache.iterdir())) == 5


def test_a_file_cut_short_is_computed_again(trunk, cache):
    with_hidden_states(FROZEN, trunk, make_rows())
    (path,) = cache.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    with_hidden_states(FROZEN, trunk, make_rows())
    assert path.read_bytes() == whole


def test_the_files_used_last_are_kept(cache, monkeypatch, trunk):
    monkeypatch.setattr(hidden_states, "KEPT_FILES", 2)
    for scale in (1.0, 2.0, 3.0):
        with_hidden_states(FROZEN, jax.tree.map(lambda x, s=scale: x * s, trunk), make_rows())
    assert len(list(cache.iterdir())) == 2


@pytest.mark.slow
def test_they_are_kept_only_of_a_trunk_that_nothing_trains(trunk, cache):
    train(trunk, loss={"awac_weight": 1.0})  # the policy's own trunk has to be run over the tokens
    assert not cache.exists()
    assert get_trunk({"base": trunk}, "trunk") == trunk


@pytest.mark.slow
def test_a_critic_on_frozen_layers_is_resumed_on_a_mesh_as_if_nothing_had_been(tmp_path, trunk):
    settings = TrainConfig(**SETTINGS | {"total_steps": 4, "save_every": 2})

    def run():
        stage = make_stage("ilql", make_learner("ilql", HALF, settings.loss), settings, make_rows(), make_rows())
        with CheckpointStore(tmp_path / "steps", metric_name="validation_loss", mode="min") as store:
            return train_stage(
                stage,
                key=jax.random.key(0),
                seed=0,
                mesh=make_mesh(MeshConfig(data=2, fsdp=2), jax.devices()[:4]),
                store=store,
                open_writers=lambda first: [],
                start=Start(trunk),
            )

    unbroken = run()
    shutil.rmtree(tmp_path / "steps" / "4")
    resumed = run()
    for name in ("params", "target", "opt_state"):
        jax.tree.map(np.testing.assert_array_equal, getattr(resumed, name), getattr(unbroken, name))


def test_what_a_killed_process_left_is_removed_when_it_is_old(cache):
    cache.mkdir(parents=True)
    for name in (".a.bfloat16.1.tmp", ".b.bfloat16.2.tmp"):
        (cache / name).touch()
    os.utime(cache / ".a.bfloat16.1.tmp", (1e9, 1e9))
    hidden_states.remove_oldest(cache)
    assert [path.name for path in cache.iterdir()] == [".b.bfloat16.2.tmp"]
