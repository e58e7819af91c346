"""One stage of training, around its steps: what it refuses to save."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dialogues import answer
from ml_collections import ConfigDict

from ilqljax import stage
from ilqljax.algorithms import make_learner
from ilqljax.checkpoint import CheckpointStore, restore_raw
from ilqljax.data.dataset import ObservationDataset
from ilqljax.data.tokenizer import CharacterTokenizer
from ilqljax.metrics import NonFiniteParamsError
from ilqljax.models.gpt2 import GPT2, GPT2Config
from ilqljax.models.value_lm import ValueLM, ValueLMConfig
from ilqljax.sharding import MeshConfig, make_mesh
from ilqljax.stage import StageInputs, TrainConfig, train_stage

TOKENIZER = CharacterTokenizer("ab")
CONFIG = ConfigDict({"seed": 0, "wandb": {"use_wandb": False}})


def make_inputs():
    rows = ObservationDataset([answer("a", "b", -1.0), answer("b", "a", 0.0)], TOKENIZER)
    return StageInputs(rows, rows, environments=[], make_policy=lambda state: None, trunk=None)


def test_parameters_that_the_last_update_ruined_are_not_saved_over_good_ones(tmp_path, monkeypatch):
    model = ValueLM(GPT2(GPT2Config(TOKENIZER.vocab_size, 8, n_embd=4, n_layer=1, n_head=1)), ValueLMConfig())
    settings = TrainConfig(total_steps=4, batch_size=2, length_buckets=(8,), eval_every=9, save_every=1, n_rollouts=0)

    def ruin(state, batch):
        params = jax.tree.map(lambda x: jnp.where(state.step == 2, jnp.nan, x), state.params)
        return state._replace(step=state.step + 1, params=params), {"loss": jnp.ones(()), "tokens": jnp.ones(())}

    monkeypatch.setattr(stage, "make_train_step", lambda *_, **__: ruin)
    mesh = make_mesh(MeshConfig(data=2))
    with pytest.raises(NonFiniteParamsError, match=r"after step 3\. Resume the run.*lower learning rate"):
        train_stage(
            "bc", make_learner("bc", model, {}), settings, make_inputs(), config=CONFIG, mesh=mesh, run_dir=tmp_path
        )
    folder = tmp_path / "checkpoints" / "bc"
    assert CheckpointStore(folder).steps() == [2]
    jax.tree.map(lambda x: np.testing.assert_array_equal(np.isfinite(x), True), restore_raw(folder)["params"])
