"""Whole utterances as actions, and the padding that the original counts."""

from functools import partial

import jax
import numpy as np
import optax
import pytest

from benchmarks.parity.cases import Case, Dialogue
from benchmarks.parity.training import PADDING, describe_batch, make_original_loss
from ilqljax.data.datapoint import DataPoint, collate
from ilqljax.data.tokenizer import CharacterTokenizer
from ilqljax.errors import UserError
from ilqljax.models.gpt2 import GPT2, GPT2Config
from ilqljax.models.value_lm import ValueLM, ValueLMConfig
from ilqljax.rl.algorithms import init_learner_state, make_learner
from ilqljax.rl.objectives.values import Critic, ILQLConfig, compute_critic, select_transitions, weigh_actions
from ilqljax.rl.steps import TargetConfig, count_batch, make_train_step

TOKENIZER = CharacterTokenizer("abcdqr")
OPTIONS = {"awac_weight": 0.5, "cql_weight": 0.0, "discount": 0.9, "expectile": 0.8, "beta": 0.7}


def make_batch(*dialogues):
    rows = [DataPoint.from_observation(Dialogue(*d), TOKENIZER) for d in dialogues]
    return collate(rows, length=14, n_actions=8, n_utterance_actions=3, pad_id=TOKENIZER.pad_id)


LONG = ([["q", None], ["ab", 1.5], ["r", None], ["c", -0.5]], True)
UNFINISHED = ([["q", None], ["ab", 1.5]], False)


@pytest.fixture(scope="module")
def model() -> ValueLM:
    sizes = GPT2Config(vocab_size=TOKENIZER.vocab_size, n_positions=16, n_embd=8, n_layer=1, n_head=2)
    return ValueLM(GPT2(sizes), ValueLMConfig())


@pytest.fixture(scope="module")
def learned(model):
    learner = make_learner("ilql_utterance", model, OPTIONS)
    init = partial(init_learner_state, learner, optimizer=optax.sgd(0.1))
    return learner, jax.jit(lambda key: init(key=key))(jax.random.key(0))


def test_a_token_has_the_weight_of_its_utterance(model):
    batch = make_batch(LONG)  # <s> q </s> a b </a> r </s> c </a> </eod>
    assert batch.per_token.action_idxs[0, :5].tolist() == [2, 3, 4, 7, 8]
    zeros = np.zeros((1, 3))
    critic = Critic(zeros, zeros, np.array([[1.0, -2.0, 9.0]]), zeros[None], zeros[None], zeros[None])
    weights = weigh_actions(model.at_level("utterance"), ILQLConfig(beta=1.0), batch, critic)
    np.testing.assert_allclose(weights[0, :5], np.exp([1.0, 1.0, 1.0, -2.0, -2.0]), rtol=1e-6)


def test_utterance_heads_have_one_output_whatever_the_model_was_built_for(learned):
    _, state = learned
    assert state.params["q1"]["dense_out"]["kernel"].shape == (16, 1)
    assert state.target["q2"]["dense_out"]["kernel"].shape == (16, 1)


def test_the_utterance_losses_are_those_of_a_numpy_twin(model, learned):
    learner, state = learned
    model = model.at_level("utterance")
    batch = make_batch(LONG, UNFINISHED)
    hidden = jax.jit(partial(model.compute_hidden, policy=False))(state.params, state.target, batch.tokens)
    v = np.asarray(model.compute_v(state.params, hidden.value))
    slow = np.asarray(model.compute_target_q(state.target, hidden.target, None))
    q = [
        np.asarray(model.finish_q(state.params[n], model.compute_q_features(state.params[n], hidden.value), None))
        for n in ("q1", "q2")
    ]
    # Row 0 acts from states 2 and 7 by utterances that close at 5 and 9; row 1 stays unfinished, at its state 5.
    steps = [(0, 2, 5, 7, 1.5, 0), (0, 7, 9, 10, -0.5, 1), (1, 2, 5, 5, 1.5, 0)]
    v_loss, q_loss = [], []
    for row, state_idx, action_idx, next_idx, reward, terminal in steps:
        gap = slow[row, action_idx] - v[row, state_idx]
        v_loss.append((0.8 if gap >= 0 else 0.2) * gap**2)
        goal = reward + 0.9 * (1 - terminal) * v[row, next_idx]
        q_loss.append(sum((goal - head[row, action_idx]) ** 2 for head in q))
    _, metrics = jax.jit(learner.loss_fn)(state.params, state.target, batch, count_batch(batch), None)
    assert float(metrics["v_loss"]) == pytest.approx(np.mean(v_loss), rel=1e-4)
    assert float(metrics["q_loss"]) == pytest.approx(np.mean(q_loss), rel=1e-4)


@pytest.mark.slow
def test_a_train_step_moves_everything_that_the_loss_reads(learned):
    learner, state = learned
    step = jax.jit(make_train_step(learner.loss_fn, optax.sgd(0.1), target=TargetConfig()))
    after, metrics = step(state, make_batch(LONG, UNFINISHED))
    assert np.isfinite(float(metrics["loss"]))
    for name in ("trunk", "v", "q1", "q2", "policy"):
        moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), after.params[name], state.params[name])
        assert max(jax.tree.leaves(moved)) > 0, name


@pytest.mark.parametrize("name", ["cql_weight", "dm_weight"])
def test_an_utterance_critic_has_no_other_actions_to_compare_with(model, name):
    with pytest.raises(UserError, match=f"{name}=0.1"):
        make_learner("ilql_utterance", model, {name: 0.1})


def test_an_unknown_level_lists_the_known_ones(model):
    with pytest.raises(UserError, match="level='word' is unknown"):
        model.at_level("word")


@pytest.mark.slow
@pytest.mark.parametrize("level", ["token", "utterance"])
def test_padding_of_an_unfinished_row_is_counted_as_the_original_does(model, level):
    model = model.at_level(level)
    params = jax.jit(model.init_params)(jax.random.key(1))
    target = model.init_target(params)
    batch = make_batch(LONG, UNFINISHED)
    algorithm = "ilql" if level == "token" else "ilql_utterance"
    arrays = {"batch/u_rewards": np.zeros(1)}
    rows = [DataPoint.from_observation(Dialogue(*LONG), TOKENIZER)]
    case = Case("x", {}, {}, arrays, TOKENIZER, rows, batch, (), model, algorithm, OPTIONS, params, target)
    assert list(describe_batch(case)) == [PADDING]

    moves = select_transitions(model, batch)
    hidden = jax.jit(partial(model.compute_hidden, policy=True))(params, target, batch.tokens)
    critic = jax.jit(partial(compute_critic, model, ILQLConfig(**OPTIONS)))(params, target, batch, hidden)
    counted = 1.0 - moves.terminals[:, :-1]
    gap = np.asarray(critic.target_q_t - critic.v_t)
    v_loss = (np.where(gap >= 0, 0.8, 0.2) * gap**2 * counted).sum() / counted.sum()
    goal = np.asarray(moves.rewards + 0.9 * critic.v_next)
    q_loss = (((goal - np.asarray(critic.q_t)) ** 2).sum(0) * counted).sum() / counted.sum()

    inputs = (params, target, batch, count_batch(batch), None)
    total, metrics = jax.jit(make_original_loss(case, OPTIONS))(*inputs)
    _, ours = jax.jit(make_learner(algorithm, model, OPTIONS).loss_fn)(*inputs)
    assert float(metrics["v_loss"]) == pytest.approx(v_loss, rel=1e-4)
    assert float(metrics["q_loss"]) == pytest.approx(q_loss, rel=1e-4)
    assert float(metrics["token_loss"]) == pytest.approx(float(ours["token_loss"]), rel=1e-6)
    assert float(total) == pytest.approx(v_loss + q_loss + 0.5 * float(ours["token_loss"]), rel=1e-4)
    assert float(ours["q_loss"]) != pytest.approx(q_loss, rel=1e-3)
