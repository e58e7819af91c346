"""Sampling with drafts against the loop without; the places that drafts are copied from against a NumPy twin."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilqljax.decoding.drafts import LONGEST_MATCH, look_up
from ilqljax.decoding.generate import DecodeConfig, make_generate
from ilqljax.decoding.sampling import prepare_for_decoding
from ilqljax.errors import UserError
from ilqljax.models.gpt2 import GPT2, GPT2Config
from ilqljax.models.llama import Llama, LlamaConfig
from ilqljax.models.value_lm import ValueLM, ValueLMConfig

V, N_NEW, WIDTH, N_DRAFTS = 40, 14, 10, 3
PAD, SUPPRESSED, ENDS = 39, (39, 17), (5,)
GPT2_TRUNK = GPT2Config(V, n_positions=WIDTH + N_NEW, n_embd=16, n_layer=2, n_head=2)
LLAMA_TRUNK = LlamaConfig(V, WIDTH + N_NEW, 16, 2, 4, 2, n_inner=24, rope_theta=50.0, tied=False)
PROMPTS = ([33], [7, 8, 9, 10, 12, 7, 8, 9, 10, 12], [34, 1, 3, 1, 3, 1], [33, 36, 0, 4])
KEYS = jax.random.split(jax.random.key(1), len(PROMPTS))

SHARED = ValueLMConfig(double_q=False, separate_policy=False, separate_target=False)
ADAPTERS = ValueLMConfig(double_q=False, lora_rank=2, n_new_rows=2)
GREEDY, SAMPLED = DecodeConfig(N_NEW, temperature=0.0), DecodeConfig(N_NEW, temperature=0.5, beta=0.3, n_generations=2)
UNROLLED = dataclasses.replace(GPT2_TRUNK, unroll=2)
slow = pytest.mark.slow


@functools.cache
def make_networks(backbone, networks):
    """Return `(model, params, target)` whose policy often writes what it has written after the same token."""
    model = ValueLM((GPT2 if isinstance(backbone, GPT2Config) else Llama)(backbone), networks)
    shapes = jax.eval_shape(model.init_params, jax.random.key(0))
    rng = np.random.default_rng(3)

    def draw(path, shape):
        name = path[-1].key
        scale = {"wte": 1.0, "wte_rows": 1.0, "lm_head": 1.0, "lm_head_rows": 1.0}.get(name, 0.3)
        return rng.normal(1.0 if name == "scale" else 0.0, scale, shape.shape).astype(np.float32)

    params = jax.tree_util.tree_map_with_path(draw, shapes)
    return model, params, jax.tree_util.tree_map_with_path(draw, jax.eval_shape(model.init_target, shapes))


def sample(backbone, networks, config, *, prompts=PROMPTS, end_ids=ENDS):
    model, params, target = make_networks(backbone, networks)
    laid_out = prepare_for_decoding(model, params, target, critic=config.beta != 0.0)
    lengths = np.array([len(prompt) for prompt in prompts])
    tokens = np.full((len(prompts), max(lengths)), PAD, np.int32)
    for row, prompt in enumerate(prompts):
        tokens[row, : len(prompt)] = prompt
    generate = make_generate(model, config, end_ids=end_ids, pad_id=PAD, suppress_ids=SUPPRESSED)
    return jax.device_get(generate(laid_out, tokens, lengths, KEYS[: len(prompts)]))


def slow_place(text, near):
    """Find where a list's last tokens stand: the longest run, of equals the first from `near` on, else the first."""

    def rate(place):
        run = 0
        while run < min(LONGEST_MATCH, place + 1) and text[place - run] == text[len(text) - 1 - run]:
            run += 1
        return (-run, place < near, place)

    return min(range(len(text) - 1), key=rate, default=0)


def count_passes(prompt, written, k):
    """Count the passes that write `written` after a prompt, and in how many of them a draft was wrong at once."""
    text, rest, near, passes, wrong = list(prompt), list(written), 0, 0, 0
    while rest:
        place = slow_place(text, near)
        draft, right = text[place + 1 : place + 1 + k], 0
        while right < min(len(draft), len(rest) - 1) and draft[right] == rest[right]:
            right += 1
        text, rest, near = text + rest[: right + 1], rest[right + 1 :], place + right + 1
        passes, wrong = passes + 1, wrong + (right == 0)
    return passes, wrong


def check_equality(backbone, networks, config):
    """Samples with drafts are those without, in the passes that the twin counts. Return the plain ones."""
    plain = sample(backbone, networks, config)
    drafted = sample(backbone, networks, dataclasses.replace(config, draft_tokens=N_DRAFTS))
    np.testing.assert_array_equal(drafted.tokens, plain.tokens)
    np.testing.assert_array_equal(drafted.lengths, plain.lengths)
    for name in ("log_probability", "advantage", "value"):
        np.testing.assert_allclose(getattr(drafted, name), getattr(plain, name), rtol=1e-4, atol=1e-4, err_msg=name)
    np.testing.assert_array_equal(plain.passes, plain.lengths)
    counted = [
        count_passes(PROMPTS[row // config.n_generations], tokens[:length], N_DRAFTS)
        for row, (tokens, length) in enumerate(zip(plain.tokens, plain.lengths, strict=True))
    ]
    assert drafted.passes.tolist() == [passes for passes, _ in counted]
    # Else nothing above would see a draft that is kept, or one that is not.
    assert drafted.passes.sum() < 0.9 * plain.passes.sum()
    assert any(wrong for _, wrong in counted)
    return plain


@pytest.mark.parametrize(
    ("text", "near", "place", "draft"),
    [("abcab", 0, 1, "ca"), ("abaca", 1, 2, "ca"), ("abaca", 3, 0, "ba"), ("abcdx", 1, 1, "cd")],
)
def test_drafts_follow_where_the_last_tokens_stand(text, near, place, draft):
    rows = jnp.asarray([[ord(token) for token in text + "????"]])
    places, drafts = look_up(rows, jnp.array([len(text)]), jnp.array([near]), n=len(draft))
    assert places.tolist() == [place] == [slow_place(text, near)]
    assert "".join(map(chr, drafts[0])) == draft


def test_places_are_those_of_the_twin():
    rng = np.random.default_rng(0)
    rows, known, near = rng.integers(0, 4, (300, 12)), rng.integers(2, 12, 300), rng.integers(0, 12, 300)
    places, drafts = look_up(jnp.asarray(rows), jnp.asarray(known), jnp.asarray(near), n=3)
    assert places.tolist() == [slow_place(row[:n].tolist(), m) for row, n, m in zip(rows, known, near, strict=True)]
    some = places < 9
    np.testing.assert_array_equal(
        drafts[some], [row[p + 1 : p + 4] for row, p in zip(rows, places, strict=True) if p < 9]
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [({"draft_tokens": -1}, "draft_tokens=-1"), ({"draft_tokens": 4, "beam_width": 2}, "beam_width=2 searches")],
)
def test_drafts_are_none_or_some_and_not_of_beams(options, message):
    with pytest.raises(UserError, match=message):
        DecodeConfig(**options)


@pytest.mark.parametrize(
    ("backbone", "networks", "config"),
    [
        pytest.param(GPT2_TRUNK, SHARED, GREEDY, id="greedy clone"),
        pytest.param(GPT2_TRUNK, ValueLMConfig(), SAMPLED, id="separate trunks"),
        pytest.param(LLAMA_TRUNK, ADAPTERS, SAMPLED, id="Llama, adapters", marks=slow),
        pytest.param(
            LLAMA_TRUNK, dataclasses.replace(ADAPTERS, frozen_value=True), SAMPLED, id="frozen value trunk", marks=slow
        ),
        pytest.param(UNROLLED, ValueLMConfig(advanced_mlp=True), SAMPLED, id="layers apart", marks=slow),
        pytest.param(
            GPT2_TRUNK, SHARED, dataclasses.replace(SAMPLED, beta=0.0, top_k=6, top_p=0.9), id="filters", marks=slow
        ),
    ],
)
def test_drafts_change_how_many_passes_it_takes_and_nothing_else(backbone, networks, config):
    plain = check_equality(backbone, networks, config)
    assert plain.lengths.max() == N_NEW


@slow
def test_drafts_change_nothing_the_plain_way_either(each_way):
    check_equality(LLAMA_TRUNK, SHARED, SAMPLED)


def test_nothing_is_kept_after_a_drafted_end():
    """Not even a draft that is what the model would have written, had it not ended."""
    written = sample(LLAMA_TRUNK, ValueLMConfig(), GREEDY).tokens[1].tolist()
    prompt, rest = [*PROMPTS[1], *written[:6]], written[6:8]  # it repeats itself
    place = slow_place(prompt, 0)
    assert prompt[place + 1 : place + 3] == rest and rest[0] != rest[1]
    config = DecodeConfig(WIDTH + N_NEW - len(prompt), temperature=0.0, draft_tokens=N_DRAFTS)
    drafted = sample(LLAMA_TRUNK, ValueLMConfig(), config, prompts=[prompt], end_ids=rest[:1])
    assert drafted.lengths.tolist() == [1] and set(drafted.tokens[0, 1:].tolist()) == {PAD}
