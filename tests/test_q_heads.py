"""Q heads over the vocabulary: full, of low rank, and tied to the embeddings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilqljax.errors import UserError
from ilqljax.models import heads
from ilqljax.models.gpt2 import GPT2, GPT2Config
from ilqljax.models.value_lm import ValueLM, ValueLMConfig
from ilqljax.rl.objectives.values import score_actions

V, D, R = 21, 8, 3
BACKBONE = GPT2(GPT2Config(V, n_positions=8, n_embd=D, n_layer=1, n_head=2))
KINDS = {
    "full": {},
    "low_rank": {"q_head": "low_rank", "q_rank": R},
    "low_rank, residual": {"q_head": "low_rank", "q_rank": R, "advanced_mlp": True},
    "tied": {"q_head": "tied"},
}


def make_head(kind, **options):
    model = ValueLM(BACKBONE, ValueLMConfig(**KINDS[kind], **options))
    params = model.init_params(jax.random.key(0))
    noise = jax.tree.map(lambda x: 0.3 * jax.random.normal(jax.random.key(x.size), x.shape), params["q1"])
    params = params | {"q1": noise}
    return model, params, model.get_q_heads(params, params)["q1"]


def slow_head(kind, head, x):
    """Compute a head's outputs by its formula, in double precision."""
    p = jax.tree.map(np.float64, head)

    def layer(name, x):
        return x @ p[name]["kernel"] + p[name].get("bias", 0.0)

    features = np.maximum(layer("dense_in", x), 0.0)
    if kind == "tied":
        own = layer("dense_tied", features)
        return own[:, :-1] @ p["embedding"].T + own[:, -1:] + p["dense_out"]["bias"]
    return layer("dense_out", layer("dense_rank", features) if kind == "low_rank" else features)


@pytest.mark.parametrize("kind", ["full", "low_rank", "tied"])
def test_outputs_are_those_of_the_formula(kind):
    model, _, head = make_head(kind)
    x = np.random.default_rng(0).normal(size=(5, D)).astype(np.float32)
    q = heads.project(head, model.compute_q_features(head, x))
    np.testing.assert_allclose(q, slow_head(kind, head, np.float64(x)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_taken_outputs_and_scores_are_those_of_all(kind):
    model, _, head = make_head(kind)
    x = jax.random.normal(jax.random.key(1), (5, D))
    features, ids = model.compute_q_features(head, x), jnp.asarray([0, 20, 3, 3, 7])
    q = np.asarray(heads.project(head, features))
    np.testing.assert_allclose(heads.take_outputs(head, features, ids), q[np.arange(5), ids], rtol=1e-5, atol=1e-5)
    scores = score_actions(head, features, ids, temperature=0.5)
    np.testing.assert_allclose(scores.taken, q[np.arange(5), ids], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(scores.log_normalizer, np.log(np.exp(q / 0.5).sum(1)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["full", "tied"])
def test_target_values_of_all_tokens_are_the_lesser_of_both_heads(kind):
    model, params, _ = make_head(kind)
    params = params | {"q2": jax.tree.map(lambda x: x[::-1], params["q1"])}
    target = model.get_q_heads(params, params)
    hidden = jax.random.normal(jax.random.key(1), (5, D))
    both = [heads.project(head, model.compute_q_features(head, hidden)) for head in target.values()]
    assert 0.1 < (both[0] < both[1]).mean() < 0.9  # each is the lesser one somewhere
    np.testing.assert_allclose(model.compute_target_q_all(target, hidden), np.minimum(*both), rtol=1e-5, atol=1e-5)


def test_a_tied_head_leaves_the_embeddings_alone_and_learns_the_rest():
    model, params, _ = make_head("tied")
    x, ids = jax.random.normal(jax.random.key(1), (5, D)), jnp.asarray([0, 20, 3, 3, 7])

    def loss(params):
        head = model.get_q_heads(params, params)["q1"]
        return score_actions(head, model.compute_q_features(head, x), ids, temperature=1.0).log_normalizer.sum()

    gradient = jax.grad(loss)(params)
    assert not gradient["trunk"]["wte"].any()
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient["q1"]):
        assert leaf.any(), jax.tree_util.keystr(path)


def test_sizes_are_what_the_kind_promises():
    def count(kind):
        params = make_head(kind)[1]["q1"]
        return sum(x.size for name, part in params.items() if name != "dense_in" for x in jax.tree.leaves(part))

    assert count("full") == 2 * D * V + V
    assert count("low_rank") == 2 * D * R + R * V + V
    assert count("tied") == 2 * D * (D + 1) + (D + 1) + V


def test_an_utterance_critic_has_one_output_whatever_the_kind():
    for kind in KINDS:
        model, params, head = make_head(kind, level="utterance")
        q = model.finish_q(head, model.compute_q_features(head, jnp.ones((2, D))), None)
        assert q.shape == (2,) and params["q1"]["dense_out"]["bias"].shape == (1,)


def test_a_residual_tied_head_is_refused():
    with pytest.raises(UserError, match=r"q_head='tied' has no residual form\. Set advanced_mlp=False"):
        ValueLMConfig(q_head="tied", advanced_mlp=True)
    with pytest.raises(UserError, match=r"q_head='factored' is unknown\. Known: full, low_rank, tied"):
        ValueLMConfig(q_head="factored")


def test_parts_of_another_type_are_refused():
    with pytest.raises(UserError, match=r"backbone=3 is of type int\. Give a GPT2 or a Llama"):
        ValueLM(3, ValueLMConfig())
