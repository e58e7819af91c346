"""The Llama family: a NumPy twin, rotary scalings, its cache, meshes, training and acting; transformers' numbers."""

import cmath
import dataclasses
import functools
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dialogues import answer
from jax.sharding import PartitionSpec

from benchmarks.parity.families import FAMILIES, compare, load_reference, read_references
from ilqljax.data.datapoint import DataPoint, collate
from ilqljax.data.tokenizer import CharacterTokenizer
from ilqljax.decoding.beam import make_beam_search
from ilqljax.decoding.generate import DecodeConfig, make_generate
from ilqljax.decoding.sampling import prepare_for_decoding
from ilqljax.errors import UserError
from ilqljax.models.backbone import CacheSlots, KVCache, compute_logits
from ilqljax.models.cpu import attention, compile_for
from ilqljax.models.llama import Llama, LlamaConfig, rotary_frequencies
from ilqljax.models.value_lm import ValueLM, ValueLMConfig
from ilqljax.rl.algorithms import init_learner_state, make_learner
from ilqljax.rl.optim import OptimConfig, make_optimizer
from ilqljax.rl.steps import TargetConfig, make_train_step
from ilqljax.training.mesh import MeshConfig, infer_param_shardings, make_mesh, shard_batch

CONFIG = LlamaConfig(
    vocab_size=32, n_positions=24, n_embd=16, n_layer=2, n_head=4, n_kv_head=2, n_inner=24, rope_theta=50.0, tied=False
)
LLAMA3 = {
    "rope_scaling": "llama3",
    "rope_factor": 8.0,
    "rope_low_factor": 1.0,
    "rope_high_factor": 4.0,
    "rope_length": 48,
}
CONFIGS = {
    "grouped, untied": CONFIG,
    "as many heads of keys, own epsilon": dataclasses.replace(CONFIG, n_kv_head=4, rms_norm_epsilon=1e-2),
    "one head of keys, wide heads, biases": dataclasses.replace(
        CONFIG, n_kv_head=1, head_size=6, qkv_bias=True, output_bias=True, mlp_bias=True
    ),
    "Qwen2": dataclasses.replace(CONFIG, qkv_bias=True),
    "Qwen3": dataclasses.replace(CONFIG, head_size=8, qk_norm=True),
    "linear": dataclasses.replace(CONFIG, rope_scaling="linear", rope_factor=4.0),
    "llama3": dataclasses.replace(CONFIG, head_size=12, **LLAMA3),
}
GOLDEN = Path(__file__).parent / "golden" / "families.npz"


@functools.cache
def make_trunk(config, seed=0):
    """Draw every parameter, norms and biases too, at a scale that keeps attention sharp enough to matter."""
    shapes = jax.eval_shape(Llama(config).init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: rng.normal(0.0, 0.4, x.shape).astype(np.float32), shapes)


def make_tokens(config=CONFIG, *, n_rows=2, length=0, seed=1):
    return np.random.default_rng(seed).integers(0, config.vocab_size, (n_rows, length or config.n_positions - 1))


@functools.cache
def make_run(config):
    """Compile a trunk: `run(trunk, tokens, positions=None)` gives its output with keys and values."""
    return jax.jit(lambda trunk, *rows: Llama(config).apply({"params": trunk}, *rows, return_kv=True))


def compute_slow_angle(config, pair):
    """Return the angle per position of a pair, from the published formulas, in which wavelengths are compared."""
    angle = 1.0 / config.rope_theta ** (2 * pair / config.head_size)
    if config.rope_scaling == "linear":
        return angle / config.rope_factor
    if config.rope_scaling == "none":
        return angle
    wavelength = 2 * math.pi / angle
    if wavelength < config.rope_length / config.rope_high_factor:
        return angle
    if wavelength > config.rope_length / config.rope_low_factor:
        return angle / config.rope_factor
    smooth = (config.rope_length / wavelength - config.rope_low_factor) / (
        config.rope_high_factor - config.rope_low_factor
    )
    return (1 - smooth) * angle / config.rope_factor + smooth * angle


def turn_slowly(config, x, position):
    """Turn one head's vector: entries i and i + K/2 are a complex number, multiplied by exp(i angle position)."""
    half, turned = config.head_size // 2, np.zeros_like(x)
    for i in range(half):
        z = complex(x[i], x[i + half]) * cmath.exp(1j * compute_slow_angle(config, i) * position)
        turned[i], turned[i + half] = z.real, z.imag
    return turned


def norm_slowly(params, x, epsilon):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon) * params["scale"]


def apply_slowly(layer, x):
    return x @ layer["kernel"] + layer.get("bias", 0.0)


def slow_llama(config, trunk, tokens, positions):
    """Compute one row's hidden states in double precision, head by head and position by position."""
    c, trunk = config, jax.tree.map(np.float64, trunk)
    x = trunk["wte"][tokens]
    for layer in range(c.n_layer):
        p = jax.tree.map(lambda w, layer=layer: w[layer], trunk["h"])
        attn, normed = p["attn"], norm_slowly(p["ln_1"], x, c.rms_norm_epsilon)
        query, key, value = (
            apply_slowly(attn[name], normed).reshape(len(tokens), -1, c.head_size)
            for name in ("q_proj", "k_proj", "v_proj")
        )
        if c.qk_norm:
            query = norm_slowly(attn["q_norm"], query, c.rms_norm_epsilon)
            key = norm_slowly(attn["k_norm"], key, c.rms_norm_epsilon)
        mixed = np.zeros((len(tokens), c.n_head, c.head_size))
        for head in range(c.n_head):
            shared = head // (c.n_head // c.n_kv_head)
            q = np.stack([turn_slowly(c, *pair) for pair in zip(query[:, head], positions, strict=True)])
            k = np.stack([turn_slowly(c, *pair) for pair in zip(key[:, shared], positions, strict=True)])
            for t in range(len(tokens)):
                scores = k[: t + 1] @ q[t] / math.sqrt(c.head_size)
                weights = np.exp(scores - scores.max())
                mixed[t, head] = weights @ value[: t + 1, shared] / weights.sum()
        x = x + apply_slowly(attn["o_proj"], mixed.reshape(len(tokens), -1))
        normed = norm_slowly(p["ln_2"], x, c.rms_norm_epsilon)
        gate = apply_slowly(p["mlp"]["gate_proj"], normed)
        inner = gate / (1.0 + np.exp(-gate)) * apply_slowly(p["mlp"]["up_proj"], normed)
        x = x + apply_slowly(p["mlp"]["down_proj"], inner)
    return norm_slowly(trunk["ln_f"], x, c.rms_norm_epsilon), x


@pytest.mark.parametrize("name", CONFIGS)
def test_hidden_states_equal_the_numpy_twin(name):
    config = CONFIGS[name]
    trunk, tokens = make_trunk(config), make_tokens(config, length=14)
    # One row in order, one at positions that jump and fall: they say how far pairs turn, not what is seen.
    positions = np.stack([np.arange(14), np.random.default_rng(2).permutation(config.n_positions)[:14]])
    output = make_run(config)(trunk, tokens, positions)
    for row in range(2):
        hidden, block_output = slow_llama(config, trunk, tokens[row], positions[row])
        np.testing.assert_allclose(output.hidden[row], hidden, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(output.block_output[row], block_output, rtol=1e-4, atol=1e-4)
    logits = compute_logits(trunk, output.hidden)
    np.testing.assert_allclose(
        logits[0], slow_llama(config, trunk, tokens[0], positions[0])[0] @ trunk["lm_head"].T, rtol=1e-4, atol=1e-3
    )


@pytest.mark.parametrize("name", ["grouped, untied", "linear", "llama3"])
def test_rotary_angles_are_those_of_the_formulas(name):
    config = dataclasses.replace(CONFIGS[name], head_size=16)
    expected = [compute_slow_angle(config, pair) for pair in range(8)]
    np.testing.assert_allclose(rotary_frequencies(config), expected, rtol=1e-6)


def test_llama3_keeps_short_wavelengths_mixes_middle_ones_and_stretches_long_ones():
    config = dataclasses.replace(CONFIG, head_size=16, **LLAMA3)
    plain = dataclasses.replace(config, rope_scaling="none")
    stretched = rotary_frequencies(plain) / rotary_frequencies(config)
    wavelengths = 2 * np.pi / rotary_frequencies(plain)
    np.testing.assert_allclose(stretched[wavelengths < 48 / 4], 1.0, rtol=1e-6)
    np.testing.assert_allclose(stretched[wavelengths > 48], 8.0, rtol=1e-6)
    mixed = stretched[(wavelengths > 48 / 4) & (wavelengths < 48)]
    assert len(mixed) >= 2 and ((mixed > 1.0) & (mixed < 8.0)).all() and (np.diff(stretched) >= 0).all()


def test_only_differences_of_positions_count():
    trunk, tokens, run = make_trunk(CONFIG), make_tokens(length=10), make_run(CONFIG)
    here, later = np.arange(10)[None], np.arange(10)[None] + 13
    np.testing.assert_allclose(run(trunk, tokens, here).hidden, run(trunk, tokens, later).hidden, rtol=1e-3, atol=1e-4)
    gapped = run(trunk, tokens, here + 3 * (here > 4)).hidden
    np.testing.assert_array_equal(gapped[:, :5], run(trunk, tokens, here).hidden[:, :5])
    assert np.abs(gapped[:, 5:] - run(trunk, tokens, here).hidden[:, 5:]).max(-1).min() > 1e-3


@pytest.mark.parametrize("name", ["grouped, untied", "one head of keys, wide heads, biases", "Qwen3"])
def test_cached_decoding_equals_the_full_forward_at_every_position(name, each_way):
    config = CONFIGS[name]
    trunk, tokens = make_trunk(config), make_tokens(config, length=12)
    n_rows, length = tokens.shape
    positions = np.sort(np.random.default_rng(3).permutation(config.n_positions)[:length])[None]
    full = make_run(config)(trunk, tokens, positions)
    # A slot is storage, not a position: tokens are stored out of order, among slots that hold garbage.
    n_slots, slots = 16, np.random.default_rng(2).permutation(16)[:length]
    heads = (n_rows * config.n_kv_head,) if each_way == "cpu" else (n_rows, config.n_kv_head)
    shape = (config.n_layer, *heads, n_slots, config.head_size)
    cache = KVCache(np.full(shape, 7.0, np.float32), np.full(shape, -9.0, np.float32))
    seen = np.zeros((n_rows, n_slots), bool)
    step = jax.jit(
        lambda trunk, token, position, cache, slots: Llama(config).apply(
            {"params": trunk}, token, position, cache=cache, slots=slots
        )
    )
    for t, slot in enumerate(slots):
        seen[:, slot] = True
        output = step(
            trunk, tokens[:, t : t + 1], positions[:, t : t + 1], cache, CacheSlots(slot, seen[:, None].copy())
        )
        np.testing.assert_allclose(output.hidden[:, 0], full.hidden[:, t], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(output.block_output[:, 0], full.block_output[:, t], rtol=1e-4, atol=1e-4)
        cache = output.cache
        np.testing.assert_allclose(cache.keys[..., slot, :], full.cache.keys[..., t, :], rtol=1e-4, atol=1e-4)


def test_what_follows_changes_nothing_before_it():
    trunk, tokens, run = make_trunk(CONFIG), make_tokens(), make_run(CONFIG)
    other = tokens.copy()
    other[:, 5:] = (other[:, 5:] + 1) % CONFIG.vocab_size
    hidden, changed = run(trunk, tokens).hidden, run(trunk, other).hidden
    np.testing.assert_array_equal(hidden[:, :5], changed[:, :5])
    assert np.abs(hidden[:, 5:] - changed[:, 5:]).max(-1).min() > 1e-3


def test_padding_at_the_end_changes_nothing_before_it():
    trunk, tokens, run = make_trunk(CONFIG), make_tokens(), make_run(CONFIG)
    np.testing.assert_allclose(run(trunk, tokens[:, :5]).hidden, run(trunk, tokens).hidden[:, :5], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["grouped, untied", "Qwen3"])
def test_half_precision_is_close_and_gives_float32_logits(name, each_way):
    config = CONFIGS[name]
    trunk = jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(np.float32), make_trunk(config))
    tokens, half = make_tokens(config), dataclasses.replace(config, dtype="bfloat16")
    exact, rounded = (make_run(c)(trunk, tokens).hidden for c in (config, half))
    assert rounded.dtype == jnp.bfloat16
    error = np.linalg.norm(np.float32(rounded) - exact) / np.linalg.norm(exact)
    assert 1e-4 < error < 0.03
    assert compute_logits(trunk, rounded).dtype == jnp.float32


def make_gradient(config):
    """Compile gradients of a sum of all logits, each with a weight of its own."""

    def objective(trunk, tokens):
        logits = compute_logits(trunk, Llama(config).apply({"params": trunk}, tokens).hidden)
        return jnp.mean(logits * jnp.sin(jnp.arange(logits.size)).reshape(logits.shape))

    return jax.jit(jax.grad(objective))


def assert_close_trees(found, expected, rtol=1e-4):
    """Compare trees, each array to the scale of its own largest number."""

    def check(path, a, b):
        a, b = np.asarray(a), np.asarray(b)
        assert np.isfinite(a).all() and np.abs(b).max() > 0, path
        np.testing.assert_allclose(a, b, rtol=0, atol=rtol * np.abs(b).max(), err_msg=str(path))

    jax.tree_util.tree_map_with_path(check, found, expected)


@pytest.mark.slow
def test_recomputed_and_unrolled_layers_have_the_same_gradients():
    trunk, tokens = make_trunk(CONFIG), make_tokens(length=8)
    expected = make_gradient(CONFIG)(trunk, tokens)
    for options in ({"remat": True}, {"unroll": 2}, {"remat": True, "unroll": 2}):
        assert_close_trees(make_gradient(dataclasses.replace(CONFIG, **options))(trunk, tokens), expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["grouped, untied", "Qwen3"])
def test_gradients_through_blocks_of_a_long_row_are_those_of_plain_attention(name):
    config = dataclasses.replace(CONFIGS[name], n_positions=300)
    trunk, tokens = make_trunk(config), make_tokens(config, length=attention.BLOCK + 50)
    found = {}
    for platform in ("cpu", "tpu"):
        with compile_for(platform):
            found[platform] = make_gradient(config)(trunk, tokens)
    assert_close_trees(found["cpu"], found["tpu"], rtol=1e-3)


@pytest.mark.slow
def test_layers_with_arrays_of_their_own_compute_the_same():
    """What acting on a CPU reads where layers are unrolled."""
    trunk, tokens = make_trunk(CONFIG), make_tokens(length=8)
    unrolled = ValueLM(Llama(dataclasses.replace(CONFIG, unroll=2)), ValueLMConfig())
    networks = prepare_for_decoding(unrolled, {"policy": trunk}, {}, critic=False)
    assert isinstance(networks.trunks["policy"]["h"], tuple)
    config = DecodeConfig(6, temperature=0.0)
    rows = (tokens, np.array([8, 3]), jax.random.split(jax.random.key(0), 2))
    expected, found = (
        make_generate(model, config, end_ids=(3,), pad_id=0)(
            prepare_for_decoding(model, {"policy": trunk}, {}, critic=False), *rows
        )
        for model in (ValueLM(Llama(CONFIG), ValueLMConfig()), unrolled)
    )
    np.testing.assert_array_equal(found.tokens, expected.tokens)
    np.testing.assert_allclose(found.log_probability, expected.log_probability, rtol=1e-4)


@pytest.mark.parametrize(
    "sizes", [{"data": 1, "fsdp": 8}, {"data": 2, "fsdp": 2, "tensor": 2}, {"data": 1, "fsdp": 2, "tensor": 4}]
)
def test_sharded_gradients_are_those_of_one_device(sizes):
    mesh = make_mesh(MeshConfig(**sizes))
    trunk, tokens = make_trunk(CONFIG), make_tokens(n_rows=8, length=8)
    shardings = infer_param_shardings(trunk, mesh)
    kernels = {**shardings["h"]["attn"], **shardings["h"]["mlp"]}
    specs = {name: tuple(kernel["kernel"].spec) for name, kernel in kernels.items()}
    rows = dict.fromkeys(("o_proj", "down_proj"), (None, "tensor", "fsdp"))
    columns = dict.fromkeys(("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"), (None, "fsdp", "tensor"))
    assert specs == rows | columns
    assert shardings["lm_head"].spec == shardings["wte"].spec == PartitionSpec("tensor", "fsdp")
    found = make_gradient(CONFIG)(jax.device_put(trunk, shardings), shard_batch(tokens, mesh))
    assert_close_trees(found, make_gradient(CONFIG)(trunk, tokens))


TOKENIZER = CharacterTokenizer("abcdefgh")


@functools.cache
def train_a_step(name, networks):
    """Return the state before and after one step on two answers."""
    config = dataclasses.replace(CONFIG, vocab_size=TOKENIZER.vocab_size)
    options = {"awac_weight": 1.0} if name == "ilql" else {}  # else its policy is not trained
    learner = make_learner(name, ValueLM(Llama(config), networks), options)
    optimizer = make_optimizer(OptimConfig(lr=0.1, weight_decay=0.0))
    state = init_learner_state(learner, optimizer=optimizer, key=jax.random.key(0))
    points = [DataPoint.from_observation(answer("abc", text, r), TOKENIZER) for text, r in (("defg", -1.0), ("h", 2.0))]
    batch = collate(points, length=16, n_actions=8, n_utterance_actions=1, pad_id=TOKENIZER.pad_id, batch_size=2)
    step = jax.jit(make_train_step(learner.loss_fn, optimizer, target=TargetConfig()))
    return jax.device_get((state.params, *step(state, batch)))


def find_moved(before, after):
    moved = jax.tree.map(lambda a, b: bool(np.abs(a - b).max() > 0), before, after)
    return {jax.tree_util.keystr(path, simple=True, separator="/") for path, x in jax.tree.leaves_with_path(moved) if x}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "networks", "policy"),
    [
        ("bc", ValueLMConfig(), "policy"),
        ("ilql", ValueLMConfig(separate_policy=False, double_q=False), "trunk"),
        ("ilql", ValueLMConfig(), "policy"),
    ],
)
def test_a_training_step_reaches_every_part_of_an_untied_model(name, networks, policy):
    before, after, metrics = train_a_step(name, networks)
    assert np.isfinite(metrics["loss"])
    everything = find_moved(jax.tree.map(np.zeros_like, before), jax.tree.map(np.ones_like, before))
    moved = find_moved(before, after.params)
    assert {f"{policy}/lm_head", f"{policy}/wte", f"{policy}/h/attn/k_proj/kernel"} <= moved
    unused = {"trunk/lm_head"} if policy == "policy" and "trunk" in before else set()  # the value trunk's
    assert moved == everything - unused
    if name == "ilql":
        assert find_moved(before["trunk"], after.target["trunk"]) >= {"wte", "ln_f/scale"}


V, PAD, ENDS, N_NEW = CONFIG.vocab_size, 31, (2, 5, 11, 20, 23), 5
PROMPTS = ([30], [7, 8, 9, 10, 12, 13], [14, 1, 3])


def pad_prompts():
    tokens = np.full((len(PROMPTS), 6), PAD, np.int32)
    for row, prompt in zip(tokens, PROMPTS, strict=True):
        row[: len(prompt)] = prompt
    return tokens, np.array([len(prompt) for prompt in PROMPTS], np.int32)


@functools.cache
def make_networks(name):
    """Return a model with a critic, and its parameters and targets, all different."""
    model = ValueLM(Llama(CONFIGS[name]), ValueLMConfig(double_q=False))
    params = jax.eval_shape(model.init_params, jax.random.key(0))
    rng = np.random.default_rng(3)
    draw = functools.partial(jax.tree.map, lambda x: rng.normal(0.0, 0.35, x.shape).astype(np.float32))
    return model, draw(params), draw(model.init_target(params))


@functools.cache
def make_slow_scores(name, beta):
    """Return `score(row)`: log-probabilities of the next token, from the whole row."""
    model, params, target = make_networks(name)

    @jax.jit
    def compute(params, target, tokens):
        hidden = model.compute_hidden(params, target, tokens, policy=True)
        advantages = (
            model.compute_target_q_all(target, hidden.target) - model.compute_v(params, hidden.value)[..., None]
        )
        return jax.nn.log_softmax(compute_logits(params["policy"], hidden.policy))[0], advantages[0]

    def score(row):
        padded = np.full((1, 12), PAD)
        padded[0, : len(row)] = row
        log_p, advantages = (np.float64(x[len(row) - 1]) for x in compute(params, target, padded))
        scores = log_p + beta * advantages
        return scores - np.log(np.exp(scores - scores.max()).sum()) - scores.max()

    return score


@pytest.mark.parametrize(("name", "beta"), [("grouped, untied", 0.0), ("Qwen3", 1.0)])
def test_greedy_generation_equals_a_slow_loop(name, beta, each_way):
    model, params, target = make_networks(name)
    score = make_slow_scores(name, beta)
    generate = make_generate(model, DecodeConfig(N_NEW, temperature=0.0, beta=beta), end_ids=ENDS, pad_id=PAD)
    networks = prepare_for_decoding(model, params, target, critic=bool(beta))
    found = generate(networks, *pad_prompts(), jax.random.split(jax.random.key(0), len(PROMPTS)))
    for i, prompt in enumerate(PROMPTS):
        row = list(prompt)
        while len(row) < len(prompt) + N_NEW and (len(row) == len(prompt) or row[-1] not in ENDS):
            row.append(int(score(row).argmax()))
        assert found.tokens[i, : found.lengths[i]].tolist() == row[len(prompt) :]


@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_beams_are_those_of_a_slow_search(beta, each_way):
    name, width = "grouped, untied", 3
    model, params, target = make_networks(name)
    score = make_slow_scores(name, beta)
    search = make_beam_search(model, DecodeConfig(N_NEW, beta=beta), width=width, end_ids=ENDS, pad_id=PAD)
    found = search(prepare_for_decoding(model, params, target, critic=bool(beta)), *pad_prompts())
    for i, prompt in enumerate(PROMPTS):
        beams = [(0.0, [])]
        for _ in range(N_NEW):
            closed = [beam for beam in beams if beam[1] and beam[1][-1] in ENDS]
            going = [beam for beam in beams if beam not in closed]
            candidates = [
                (total + s, [*new, token]) for total, new in going for token, s in enumerate(score([*prompt, *new]))
            ]
            beams = sorted(closed + candidates, key=lambda beam: -beam[0])[:width]
        np.testing.assert_allclose(found.scores[i], [total for total, _ in beams], rtol=1e-4, atol=1e-4)
        rows = zip(found.tokens[i], found.lengths[i], strict=True)
        assert [tokens[:length].tolist() for tokens, length in rows] == [new for _, new in beams]


@pytest.fixture(scope="module")
def references():
    return read_references(GOLDEN)


def test_every_family_has_golden_numbers(references):
    assert references.keys() == FAMILIES.keys()
    assert GOLDEN.stat().st_size < 600_000


@pytest.mark.parametrize("name", FAMILIES)
def test_transformers_numbers_are_met(references, name):
    reference = references[name]
    found = compare(*load_reference(reference), reference)
    assert max(found[:3]) < 3e-6, found  # also at positions around 8,000, where one rounding of an angle is 1e-5
    assert found.n_equal == found.n_prompts == 20
    assert len({tuple(row) for row in reference.continuations}) > 5  # else greedy text says little


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_kv_head": 3}, "n_head=4 is not divisible by n_kv_head=3"),
        ({"head_size": 5}, "head_size=5 is odd"),
        ({"n_embd": 18}, "n_embd=18 is not divisible by n_head=4"),
        ({"rope_scaling": "yarn"}, r"rope_scaling='yarn' is unknown.*llama3"),
        ({"rope_factor": 0.5}, r"rope_factor=0\.5 is out of range"),
        ({"rope_high_factor": 1.0}, r"rope_high_factor=1\.0 must be above rope_low_factor=1\.0"),
        ({"rope_high_factor": math.nan}, "rope_high_factor=nan"),
        ({"rope_theta": 0.0}, r"rope_theta=0\.0"),
        ({"vocab_size": 0}, "vocab_size=0"),
        ({"n_inner": 0}, "n_inner=0"),
    ],
)
def test_options_that_make_no_model_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        LlamaConfig(**{**dataclasses.asdict(CONFIG), "head_size": 0, **options})
