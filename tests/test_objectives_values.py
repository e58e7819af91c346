"""Backups over all actions (Q-learning, psi-learning) against slow twins. The rest of the loss: `test_loss_terms`."""

import string

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dialogues import Talk, answer

from ilqljax.data.datapoint import DataPoint, collate
from ilqljax.data.tokenizer import CharacterTokenizer
from ilqljax.errors import UserError
from ilqljax.models.backbone import compute_logits
from ilqljax.models.gpt2 import GPT2, GPT2Config
from ilqljax.models.value_lm import ValueLM, ValueLMConfig, policy_trunk
from ilqljax.rl.losses import soft_value
from ilqljax.rl.objectives.likelihood import BCConfig, DecisionTransformerConfig, FilteredBCConfig
from ilqljax.rl.objectives.values import ILQLConfig, UtteranceILQLConfig, compute_critic, make_ilql_loss
from ilqljax.rl.steps import count_batch
from ilqljax.training.loop import TrainConfig

TOKENIZER = CharacterTokenizer(string.ascii_lowercase)
SIZES = GPT2Config(vocab_size=TOKENIZER.vocab_size, n_positions=16, n_embd=16, n_layer=1, n_head=2)


TALKS = (
    answer("ab", "cd", 1.5),
    Talk((("q", None), ("x", -1.0), ("r", None), ("yz", 0.5)), terminal=False),
)
POINTS = [DataPoint.from_observation(talk, TOKENIZER) for talk in TALKS]
BATCH = collate(POINTS, length=14, n_actions=8, n_utterance_actions=2, pad_id=TOKENIZER.pad_id, batch_size=3)
SEPARATE, SHARED = ValueLMConfig(), ValueLMConfig(double_q=False, separate_policy=False, separate_target=False)


def draw(shapes, seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(0.0, 0.3, x.shape), jnp.float32), shapes)


def make_networks(config):
    model = ValueLM(GPT2(SIZES), config)
    shapes = jax.eval_shape(model.init_params, jax.random.key(0))
    return model, draw(shapes, 0), draw(jax.eval_shape(model.init_target, shapes), 1)


def slow_values(model, params, target, tokens, *, backup, beta, low, high):
    """Each position's value over all actions, one row, in NumPy from the networks' raw outputs."""
    slow_trunk = target.get("trunk", params["trunk"])
    hidden = model.run_trunk(slow_trunk, tokens[None]).hidden
    q = np.array(model.compute_target_q_all(target, hidden)[0], np.float64).clip(low, high)
    if backup == "max":
        return q.max(-1)
    policy = policy_trunk(params)
    logits = np.array(compute_logits(policy, model.run_trunk(policy, tokens[None]).hidden)[0], np.float64)
    prior = np.exp(logits - logits.max(-1, keepdims=True))
    prior /= prior.sum(-1, keepdims=True)
    return np.log((prior * np.exp(beta * q)).sum(-1)) / beta


@pytest.mark.parametrize(
    "networks", [pytest.param(SEPARATE, marks=pytest.mark.slow), SHARED], ids=["separate", "shared"]
)
@pytest.mark.parametrize("backup", ["max", "soft"])
def test_loss_terms_equal_the_slow_twin(backup, networks):
    model, params, target = make_networks(networks)
    config = ILQLConfig(backup=backup, beta=2.0, discount=0.9, expectile=0.5, value_min=-0.5, value_max=0.8)
    td, v_loss, n_actions = 0.0, 0.0, 0
    for point in POINTS:
        values = slow_values(model, params, target, point.tokens, backup=backup, beta=2.0, low=-0.5, high=0.8)
        hidden = model.run_trunk(params["trunk"], point.tokens[None]).hidden
        v = np.array(model.compute_v(params, hidden)[0], np.float64)
        for k, i in enumerate(point.action_idxs):
            following = values[point.state_idxs[k + 1]] * (1.0 - point.terminals[k + 1])
            goal = point.rewards[k] + 0.9 * following
            for name in model.q_names:
                features = model.compute_q_features(params[name], hidden[:, i])
                q = float(model.finish_q(params[name], features, point.tokens[None, i + 1])[0])
                td += (goal - q) ** 2
            v_loss += 0.5 * (values[i] - v[i]) ** 2
            n_actions += 1
    _, metrics = jax.jit(make_ilql_loss(model, config))(params, target, BATCH, count_batch(BATCH), None)
    assert float(metrics["q_loss"]) == pytest.approx(td / n_actions, rel=1e-4)
    assert float(metrics["v_loss"]) == pytest.approx(v_loss / n_actions, rel=1e-4)


def test_lambda_one_regresses_q_on_the_return_of_a_finished_row():
    model, params, target = make_networks(SHARED)
    batch = collate(POINTS[:1], length=14, n_actions=8, n_utterance_actions=2, pad_id=TOKENIZER.pad_id)
    config = ILQLConfig(td_lambda=1.0, discount=0.9)
    hidden = model.compute_hidden(params, target, batch.tokens, policy=False)
    q = compute_critic(model, config, params, target, batch, hidden).q_t[0, 0]
    returns = 1.5 * 0.9 ** np.array([2, 1, 0])  # the reward comes with the third action
    _, metrics = make_ilql_loss(model, config)(params, target, batch, count_batch(batch), None)
    assert float(metrics["q_loss"]) == pytest.approx(float(np.mean((returns - np.array(q[:3])) ** 2)), rel=1e-4)


@pytest.mark.parametrize(("within", "turn"), [(1.0, 0.0), (0.8, 0.5)])
def test_turn_lambda_mixes_in_more_of_the_value_where_an_utterance_ends(within, turn):
    model, params, target = make_networks(SHARED)
    batch = collate(POINTS[1:], length=14, n_actions=8, n_utterance_actions=2, pad_id=TOKENIZER.pad_id)
    config = ILQLConfig(td_lambda=within, turn_lambda=turn, discount=0.9)
    hidden = model.compute_hidden(params, target, batch.tokens, policy=False)
    critic = compute_critic(model, config, params, target, batch, hidden)
    q, v_next = np.array(critic.q_t[0, 0, :5], np.float64), np.array(critic.v_next[0, :5], np.float64)
    # The actions are x </a> (worth -1), then y z </a> (worth 0.5); the dialogue goes on after them.
    rewards, lambdas = [0.0, -1.0, 0.0, 0.0, 0.5], [within, within * turn, within, within, 0.0]
    goal, following = np.zeros(5), v_next[4]
    for k in reversed(range(5)):
        goal[k] = rewards[k] + 0.9 * ((1.0 - lambdas[k]) * v_next[k] + lambdas[k] * following)
        following = goal[k]
    _, metrics = make_ilql_loss(model, config)(params, target, batch, count_batch(batch), None)
    assert float(metrics["q_loss"]) == pytest.approx(float(np.mean((goal - q) ** 2)), rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("backup", ["max", "soft"])
def test_backups_send_no_gradient_into_targets_or_policy(backup):
    model, params, target = make_networks(SEPARATE)
    loss = make_ilql_loss(model, ILQLConfig(backup=backup, beta=2.0))
    into = jax.grad(lambda p, t: loss(p, t, BATCH, count_batch(BATCH), None)[0], argnums=(0, 1))
    params_gradient, target_gradient = into(params, target)
    for tree in (params_gradient["policy"], target_gradient):
        assert not any(jnp.any(g) for g in jax.tree.leaves(tree))


def test_soft_value_lies_between_the_priors_mean_and_the_best_action():
    q, log_prior = jnp.array([0.0, 1.0]), jnp.log(jnp.array([0.75, 0.25]))
    assert float(soft_value(q, log_prior, beta=1e-3)) == pytest.approx(0.25, abs=1e-3)
    assert float(soft_value(q, log_prior, beta=1e3)) == pytest.approx(1.0, abs=2e-3)
    # beta 1: log(0.75 + 0.25 e) = 0.357374.
    assert float(soft_value(q, log_prior, beta=1.0)) == pytest.approx(0.357374, rel=1e-5)


def test_soft_value_normalises_the_policy_that_reaches_it():
    rng = np.random.default_rng(0)
    q, log_prior = rng.normal(size=(4, 7)), np.array(jax.nn.log_softmax(rng.normal(size=(4, 7))))
    value = np.array(soft_value(q, log_prior, beta=3.0))
    policy = np.exp(log_prior + 3.0 * (q - value[:, None]))
    np.testing.assert_allclose(policy.sum(-1), 1.0, rtol=1e-5)
    divergence = (policy * (np.log(policy) - log_prior)).sum(-1)
    np.testing.assert_allclose((policy * q).sum(-1) - divergence / 3.0, value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("config_class", "options", "message"),
    [
        (ILQLConfig, {"backup": "mean"}, "unknown"),
        (ILQLConfig, {"backup": "soft"}, "inverse temperature"),
        (ILQLConfig, {"td_lambda": 1.5}, "td_lambda"),
        (ILQLConfig, {"turn_lambda": -0.1}, "turn_lambda"),
        (ILQLConfig, {"expectile": 70.0}, "expectile"),
        (ILQLConfig, {"discount": -1.0}, "discount"),
        (UtteranceILQLConfig, {"backup": "max"}, "utterance critic"),
    ],
)
def test_backups_that_mean_nothing_are_refused(config_class, options, message):
    with pytest.raises(UserError, match=message):
        config_class(**options)


NAN = float("nan")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"v_weight": -1.0}, r"v_weight=-1\.0 is out of range"),
        ({"q_weight": NAN}, "q_weight=nan is out of range"),
        ({"cql_weight": -1.0}, "cql_weight"),
        ({"dm_weight": -1.0}, "dm_weight"),
        ({"awac_weight": -1.0}, "awac_weight"),
        ({"transition_weight": -1.0}, "transition_weight"),
        ({"clip_weight": -1.0}, "clip_weight"),
        ({"beta": -4.0}, r"beta=-4\.0 is out of range"),
        ({"cql_temperature": 0.0}, r"cql_temperature=0\.0 is out of range. Give a number in \(0, inf\)"),
        ({"cql_temperature": np.inf}, "cql_temperature=inf is out of range"),
        ({"beta": np.inf}, "beta=inf is out of range"),
        ({"q_weight": np.inf}, "q_weight=inf is out of range"),
        ({"clip_weight": np.nan}, "clip_weight=nan is out of range"),
        ({"dm_margin": np.nan}, "dm_margin=nan is out of range"),
        ({"value_min": np.nan}, "value_min=nan is not below"),
        ({"value_min": 1.0, "value_max": -1.0}, r"value_min=1\.0 is not below value_max=-1\.0"),
        ({"value_max": NAN}, "value_max=nan"),
        ({"exp_weights": False, "beta": 8.0, "awac_weight": 1.0}, r"beta=8\.0 with exp_weights=False"),
    ],
)
def test_numbers_that_turn_the_objective_round_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        ILQLConfig(**options)


def test_a_large_beta_without_a_policy_loss_to_weigh_is_taken():
    assert ILQLConfig(exp_weights=False, beta=8.0).beta == 8.0


@pytest.mark.parametrize(
    "make",
    [
        lambda: BCConfig(transition_weight=-1.0),
        lambda: FilteredBCConfig(transition_weight=NAN),
        lambda: DecisionTransformerConfig(transition_weight=-1.0),
        lambda: FilteredBCConfig(min_return=NAN),
        lambda: TrainConfig(n_rollouts=-3),
        lambda: TrainConfig(length_buckets=()),
    ],
)
def test_numbers_that_mean_nothing_are_refused_when_cloning(make):
    with pytest.raises(UserError, match=r"transition_weight|min_return|n_rollouts|length_buckets"):
        make()
