"""Algorithms by name: each trains by the one step, and what makes it that algorithm cannot be configured away."""

import string

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from dialogues import answer

from ilqljax.data.dataset import ObservationDataset
from ilqljax.data.loader import make_train_loader
from ilqljax.data.tokenizer import CharacterTokenizer
from ilqljax.errors import UserError
from ilqljax.models.gpt2 import GPT2, GPT2Config
from ilqljax.models.value_lm import ValueLM, ValueLMConfig
from ilqljax.rl.algorithms import ALGORITHMS, init_learner_state, make_learner, read_options
from ilqljax.rl.objectives.values import ILQLConfig
from ilqljax.rl.steps import TargetConfig, make_train_step
from ilqljax.training.run_config import load_run_config

TOKENIZER = CharacterTokenizer(string.ascii_lowercase + " ")
MODEL = ValueLM(
    GPT2(GPT2Config(vocab_size=TOKENIZER.vocab_size, n_positions=24, n_embd=16, n_layer=1, n_head=2)), ValueLMConfig()
)
OPTIONS = {"psi": {"beta": 2.0}, "decision_transformer": {"prefix": " "}}


DATASET = ObservationDataset([answer(p, a, float(i)) for p in ("ab", "q") for i, a in enumerate("xyz")], TOKENIZER)


# One of each kind every time: a policy, a critic, and preferences.
TRAINED = [name if name in ("ilql", "dpo") else pytest.param(name, marks=pytest.mark.slow) for name in ALGORITHMS]


@pytest.mark.parametrize("name", TRAINED)
def test_every_algorithm_trains_by_the_same_step_and_lowers_its_loss(name):
    learner = make_learner(name, MODEL, OPTIONS.get(name, {}))
    rows = learner.algorithm.transform.fit(DATASET, learner.config).apply(DATASET)
    optimizer = optax.adam(1e-3)
    state = init_learner_state(learner, optimizer=optimizer, key=jax.random.key(0))
    step = jax.jit(make_train_step(learner.loss_fn, optimizer, target=TargetConfig(polyak=0.0)))
    batch = next(make_train_loader(rows, batch_size=4, seed=0, length_buckets=(16,)))
    losses = []
    for _ in range(8):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < losses[0]
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(state.params))


def test_monte_carlo_is_ilql_with_returns_for_v():
    _, options = read_options("mc", {"cql_weight": 0.5})
    assert options == ILQLConfig(cql_weight=0.5, mc_returns=True, expectile=0.5)


def test_one_step_is_ilql_at_the_mean():
    assert read_options("sarsa", {})[1] == ILQLConfig(expectile=0.5)


def test_an_option_that_makes_the_algorithm_is_refused():
    with pytest.raises(UserError, match=r"expectile=0\.5 is what makes the algorithm 'sarsa'"):
        read_options("sarsa", {"expectile": 0.7})


def test_options_of_another_algorithm_are_refused_with_the_way_to_choose_it():
    with pytest.raises(UserError, match=r"configs/workable\.py:dpo"):
        read_options("dpo", {"beta": 0.1, "cql_weight": 0.5})


def test_an_unknown_algorithm_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match="filtered_bc"):
        read_options("ppo", {})


@pytest.mark.parametrize(
    ("file", "name"),
    [(f"configs/{task}.py", name) for task in ("workable", "hackernews", "wordle") for name in ALGORITHMS],
)
def test_configs_have_every_algorithm_with_options_that_it_takes(file, name):
    if (file, name) == ("configs/wordle.py", "dpo"):
        pytest.skip("a stream of games has no two answers to one prompt")
    config = load_run_config(f"{file}:{name}")
    assert config.algorithm == name
    read_options(name, config.train.loss)


@pytest.mark.parametrize("name", ["ilql_utterance", "chai"])
def test_a_critic_of_utterances_has_one_output(name):
    learner = make_learner(name, MODEL, {})
    state = init_learner_state(learner, optimizer=optax.sgd(0.1), key=jax.random.key(0))
    assert state.params["q1"]["dense_out"]["kernel"].shape[-1] == 1


@pytest.mark.parametrize("name", ["bc", "dpo"])
def test_networks_for_an_algorithm_without_a_critic_are_refused(name):
    params = MODEL.init_params(jax.random.key(0))
    networks = (params, MODEL.init_target(params))
    with pytest.raises(UserError, match="without a critic"):
        init_learner_state(
            make_learner(name, MODEL, {}), optimizer=optax.sgd(0.1), key=jax.random.key(0), networks=networks
        )


def test_the_reference_is_the_policy_that_training_starts_from():
    state = init_learner_state(make_learner("dpo", MODEL, {}), optimizer=optax.sgd(0.1), key=jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, state.frozen["reference"], state.params["policy"])
