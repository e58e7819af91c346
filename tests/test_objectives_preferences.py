"""DPO: the loss against a slow twin, and what it leaves alone."""

import string

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from dialogues import answer

from ilqljax.data.datapoint import DataPoint, collate
from ilqljax.data.tokenizer import CharacterTokenizer
from ilqljax.errors import UserError
from ilqljax.models.backbone import compute_logits
from ilqljax.models.gpt2 import GPT2, GPT2Config
from ilqljax.models.value_lm import ValueLM, ValueLMConfig
from ilqljax.rl.algorithms import init_learner_state, make_learner, select_acting_params
from ilqljax.rl.losses import dpo_loss
from ilqljax.rl.objectives.likelihood import DPOConfig, make_dpo_loss
from ilqljax.rl.steps import TargetConfig, count_batch, make_train_step

TOKENIZER = CharacterTokenizer(string.ascii_lowercase)
MODEL = ValueLM(
    GPT2(GPT2Config(vocab_size=TOKENIZER.vocab_size, n_positions=16, n_embd=16, n_layer=2, n_head=2)), ValueLMConfig()
)


ROWS = [answer("ab", "good", 1.0), answer("ab", "b", 0.0), answer("q", "yes", 1.0), answer("q", "nope", 0.0)]


def make_batch(rows=ROWS, **shape):
    points = [DataPoint.from_observation(row, TOKENIZER) for row in rows]
    shape = {"length": 12, "n_actions": 6, "n_utterance_actions": 1, "batch_size": 6} | shape
    return collate(points, pad_id=TOKENIZER.pad_id, **shape)


BATCH = make_batch()


@pytest.fixture(scope="module")
def params():
    shapes = jax.eval_shape(MODEL.init_trunk, jax.random.key(0))

    def draw(seed):
        rng = np.random.default_rng(seed)
        return jax.tree.map(lambda x: jnp.asarray(rng.normal(0.0, 0.3, x.shape), jnp.float32), shapes)

    return {"policy": draw(0), "reference": draw(1)}


def test_equal_ratios_cost_the_logarithm_of_two():
    assert float(dpo_loss(jnp.float32(-3.0), jnp.float32(-3.0), beta=0.5)) == pytest.approx(np.log(2.0), rel=1e-6)


def test_a_better_chosen_answer_costs_less_by_hand():
    # beta (2 - 1) = 0.5: -log(1 / (1 + e^-0.5)) = 0.474077.
    assert float(dpo_loss(jnp.float32(2.0), jnp.float32(1.0), beta=0.5)) == pytest.approx(0.474077, rel=1e-5)


def test_loss_equals_the_slow_twin(params):
    run = jax.jit(lambda trunk, tokens: compute_logits(trunk, MODEL.run_trunk(trunk, tokens).hidden))

    def log_ratio(row):
        points = DataPoint.from_observation(row, TOKENIZER)
        total = 0.0
        for sign, trunk in ((1, params["policy"]), (-1, params["reference"])):
            logp = np.array(jax.nn.log_softmax(run(trunk, points.tokens[None])[0]))
            total += sign * sum(float(logp[i, points.tokens[i + 1]]) for i in points.action_idxs)
        return total

    ratios = [log_ratio(row) for row in ROWS]
    margins = [ratios[0] - ratios[1], ratios[2] - ratios[3]]
    expected = np.mean([np.log1p(np.exp(-0.2 * margin)) for margin in margins])
    loss = jax.jit(make_dpo_loss(MODEL, DPOConfig(beta=0.2)))
    value, metrics = loss(params, {}, BATCH, count_batch(BATCH), None)
    assert float(value) == pytest.approx(expected, rel=1e-5)
    assert float(metrics["margin"]) == pytest.approx(np.mean(margins), rel=1e-4)
    assert float(metrics["accuracy"]) == np.mean(np.array(margins) > 0)


@pytest.mark.slow
def test_filler_rows_and_padding_change_nothing(params):
    loss = make_dpo_loss(MODEL, DPOConfig())
    values = []
    for shape in ({}, {"batch_size": 4}, {"length": 16, "n_actions": 8}):
        batch = make_batch(**shape)
        values.append(float(loss(params, {}, batch, count_batch(batch), None)[0]))
    np.testing.assert_allclose(values, values[0], rtol=1e-6)


def make_state(**options):
    learner = make_learner("dpo", MODEL, options)
    trunk = MODEL.init_trunk(jax.random.key(3))
    return learner, init_learner_state(learner, optimizer=optax.adam(1e-2), key=jax.random.key(0), trunk=trunk)


@pytest.mark.slow
def test_training_prefers_the_better_answers_and_leaves_the_reference_alone():
    learner, state = make_state(beta=0.5)
    step = jax.jit(make_train_step(learner.loss_fn, optax.adam(1e-2), target=TargetConfig()))
    before = state.frozen["reference"]
    for _ in range(10):
        state, metrics = step(state, BATCH)
    assert float(metrics["loss"]) < np.log(2.0) / 2
    assert float(metrics["accuracy"]) == 1.0
    jax.tree.map(np.testing.assert_array_equal, state.frozen["reference"], before)
    assert set(select_acting_params(state)) == {"policy"}


@pytest.mark.slow
def test_microbatches_of_pairs_equal_the_whole_batch():
    learner, state = make_state()
    batch = make_batch(batch_size=4)
    whole, halves = (
        make_train_step(learner.loss_fn, optax.sgd(1.0), target=TargetConfig(), accumulate_steps=n, group_size=2)
        for n in (1, 2)
    )
    state = state._replace(opt_state=optax.sgd(1.0).init(state.params))
    (one, first), (two, second) = jax.jit(whole)(state, batch), jax.jit(halves)(state, batch)
    assert float(first["loss"]) == pytest.approx(float(second["loss"]), rel=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), one.params, two.params)


@pytest.mark.parametrize(
    "options",
    [{"beta": 0.0}, {"min_gap": -1.0}, {"min_gap": float("nan")}, {"min_gap": float("nan")}, {"pairs_per_prompt": -1}],
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(UserError, match="out of range"):
        DPOConfig(**options)
