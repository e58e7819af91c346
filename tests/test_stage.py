"""One stage of training, around its steps: what it refuses to save, and where its policy acts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dialogues import answer
from ml_collections import ConfigDict

from ilqljax.data.dataset import ObservationDataset
from ilqljax.data.tokenizer import CharacterTokenizer
from ilqljax.models.gpt2 import GPT2, GPT2Config
from ilqljax.models.value_lm import ValueLM, ValueLMConfig
from ilqljax.rl.algorithms import make_learner
from ilqljax.training import loop as stage
from ilqljax.training.checkpoint import CheckpointStore, restore_raw
from ilqljax.training.loop import StageInputs, TrainConfig, train_stage
from ilqljax.training.mesh import MeshConfig, make_mesh
from ilqljax.training.metrics import NonFiniteParamsError

TOKENIZER = CharacterTokenizer("ab")
CONFIG = ConfigDict({"seed": 0, "wandb": {"use_wandb": False}})


MODEL = ValueLM(GPT2(GPT2Config(TOKENIZER.vocab_size, 8, n_embd=4, n_layer=1, n_head=1)), ValueLMConfig())
ROWS = ObservationDataset([answer("a", "b", -1.0), answer("b", "a", 0.0)], TOKENIZER)
SETTINGS = TrainConfig(batch_size=2, length_buckets=(8,), n_rollouts=0)


def clone(run_dir, monkeypatch, step, *, make_environments=list, **settings):
    """Run a stage whose steps are only what `step` makes of the state."""

    def step_fn(state, batch):
        state = step(state)._replace(step=state.step + 1)
        return state, {"loss": jnp.ones(()), "tokens": jnp.ones(())}

    monkeypatch.setattr(stage, "make_train_step", lambda *_, **__: step_fn)
    monkeypatch.setattr(stage, "evaluate_loss", lambda *_, **__: {"loss": 1.0})
    inputs = StageInputs(ROWS, ROWS, make_environments, make_policy=lambda state: None, trunk=None)
    return train_stage(
        "bc",
        make_learner("bc", MODEL, {}),
        dataclasses.replace(SETTINGS, **settings),
        inputs,
        config=CONFIG,
        mesh=make_mesh(MeshConfig(data=2)),
        run_dir=run_dir,
    )


def test_parameters_that_the_last_update_ruined_are_not_saved_over_good_ones(tmp_path, monkeypatch):
    def ruin(state):
        return state._replace(params=jax.tree.map(lambda x: jnp.where(state.step == 2, jnp.nan, x), state.params))

    with pytest.raises(NonFiniteParamsError, match=r"after step 3\. Resume the run.*lower learning rate"):
        clone(tmp_path, monkeypatch, ruin, total_steps=4, save_every=1)
    folder = tmp_path / "checkpoints" / "bc"
    assert CheckpointStore(folder).steps() == [2]
    jax.tree.map(lambda x: np.testing.assert_array_equal(np.isfinite(x), True), restore_raw(folder)["params"])


def test_every_evaluation_plays_the_same_games(tmp_path, monkeypatch):
    played = []

    def play(generators, policy):
        played.append([int(rng.integers(1 << 30)) for rng in generators])
        return {"return": 0.0}

    monkeypatch.setattr(stage, "evaluate_rollouts", play)
    environments = lambda: [np.random.default_rng(i) for i in range(2)]  # noqa: E731
    clone(
        tmp_path,
        monkeypatch,
        lambda state: state,
        make_environments=environments,
        total_steps=2,
        eval_every=1,
        n_rollouts=2,
    )
    assert played[0] == played[1]
