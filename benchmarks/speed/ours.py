"""The work items as this project does them: each returns a function that does the work once and waits for it."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from benchmarks.speed.work import (
    SEED,
    VOCAB_SIZE,
    ActWork,
    AdapterWork,
    HeadsWork,
    LoaderWork,
    PretrainedWork,
    RaggedWork,
    RewardWork,
    SampleWork,
    Sizes,
    StartupWork,
    TrainWork,
    Work,
)
from ilqljax.data.dataset import ObservationDataset, SelectedRows
from ilqljax.data.loader import eval_batches, expect_counts, make_train_loader
from ilqljax.data.tokenizer import CharacterTokenizer
from ilqljax.data.types import Array, Batch, Transitions
from ilqljax.decoding.generate import DecodeConfig, make_generate
from ilqljax.decoding.sampling import prepare_for_decoding
from ilqljax.hiring.matching.dense import DenseIndex
from ilqljax.models.backbone import compute_logits
from ilqljax.models.gpt2 import GPT2, GPT2Config
from ilqljax.models.io.hf import load_language_model, resize_vocabulary
from ilqljax.models.value_lm import ValueLM, ValueLMConfig, policy_trunk
from ilqljax.rl.algorithms import find_unreached, init_learner_state, make_learner
from ilqljax.rl.optim import OptimConfig, make_optimizer
from ilqljax.rl.steps import TargetConfig, TrainState, make_train_step

# What rows of real lengths are padded to.
BUCKETS = {"length_buckets": (256, 384, 512), "action_buckets": (128, 192, 256)}


def make_run(work: Work) -> Callable[[int], float | None]:
    """Prepare an item; what is prepared (parameters, compiled programs) is not part of a run.

    A run takes the number of the round, which decides the rows of an item that goes through a list. It returns a number
    that the twin must find too, where both start from the same weights: a loss, or what `measure_prompts` says.
    """
    makers = {
        TrainWork: make_train,
        RaggedWork: make_ragged,
        LoaderWork: make_loading,
        StartupWork: lambda startup: make_train(startup.work),
        ActWork: make_act,
        RewardWork: make_reward,
        AdapterWork: make_adapter_train,
        HeadsWork: make_heads_train,
        SampleWork: make_sample,
    }
    return makers[type(work)](work)


def make_model(sizes: Sizes, *, dtype: str) -> ValueLM:
    """Make a GPT-2 of a size with three trunks and two Q heads, its layers unrolled."""
    config = GPT2Config(
        vocab_size=VOCAB_SIZE,
        n_positions=sizes.n_positions,
        n_embd=sizes.width,
        n_layer=sizes.n_layer,
        n_head=sizes.n_head,
        dtype=dtype,
        unroll=sizes.n_layer,
    )
    return ValueLM(GPT2(config), ValueLMConfig())


def make_step(work: TrainWork | RaggedWork) -> tuple[Callable, TrainState, Batch | None]:
    """Make an item's training step, its first state, and the batch of one with a single batch."""
    learner = make_learner("ilql" if work.critic else "bc", make_model(work.sizes, dtype=work.dtype), {})
    optimizer = make_optimizer(OptimConfig(lr=1e-5))
    state = jax.jit(lambda key: init_learner_state(learner, optimizer=optimizer, key=key))(jax.random.key(SEED))
    unreached = find_unreached(learner, state)
    ragged = isinstance(work, RaggedWork)
    counts = expect_counts(make_rows(work), batch_size=work.batch_size) if ragged else None
    step = make_train_step(learner.loss_fn, optimizer, target=TargetConfig(), unreached=unreached, counts=counts)
    return step, state, None if ragged else make_batch(work)


def make_train(work: TrainWork) -> Callable[[int], None]:
    """Prepare a training step, compiled, its state donated."""
    step, state, batch = make_step(work)
    return run_steps(jax.jit(step, donate_argnums=0), state, lambda _: [batch])


def make_ragged(work: RaggedWork) -> Callable[[int], None]:
    """Prepare training steps on batches of the loader's, padded to buckets."""
    step, state, _ = make_step(work)
    load = make_batches(work)
    return run_steps(jax.jit(step, donate_argnums=0), state, load)


def run_steps(step: Callable, state: TrainState, load: Callable[[int], Iterable[Batch]]) -> Callable[[int], None]:
    """Make the function that takes a round's steps and waits for the last."""
    held = [state]

    def run(number: int) -> None:
        for batch in load(number):
            state, metrics = step(held.pop(), batch)
            held.append(state)
        metrics["loss"].block_until_ready()
        held[0].step.block_until_ready()

    return run


def make_batches(work: RaggedWork) -> Callable[[int], Iterator[Batch]]:
    """Make the function from a round's number to its batches: the list's next rows, the shortest first."""
    rows, n = make_rows(work), work.batch_size * work.n_steps

    def load(number: int) -> Iterator[Batch]:
        first = number % work.n_rounds * n
        numbers = first + np.argsort(rows.row_sizes[first : first + n, 0], kind="stable")
        return eval_batches(SelectedRows(rows, numbers), batch_size=work.batch_size, **BUCKETS)

    return load


def make_loading(work: LoaderWork) -> Callable[[int], None]:
    """Prepare the training loader alone."""
    loader = make_train_loader(
        make_rows(work), batch_size=work.batch_size, seed=SEED, sort_window=work.n_steps, **BUCKETS
    )

    def run(number: int) -> None:
        for _ in range(work.n_steps):
            next(loader)

    return run


def make_rows(work: RaggedWork) -> ObservationDataset:
    """Make a dataset of rows of the item's lengths; a character is a token."""
    return ObservationDataset([Row(*lengths) for lengths in work.lengths], CharacterTokenizer("a"))


class Row:
    """A dialogue of a prompt and an answer of so many tokens, their control tokens included."""

    def __init__(self, prompt: int, answer: int) -> None:
        self.sequence = [("a" * (prompt - 2), None), ("a" * (answer - 1), -1.0)]

    def to_sequence(self) -> tuple[list[tuple[str, float | None]], bool]:
        """Return the two utterances; the dialogue is over."""
        return self.sequence, True

    def metadata(self) -> dict:
        """Return nothing."""
        return {}


def make_batch(work: TrainWork | AdapterWork | HeadsWork) -> Batch:
    """Make rows whose last actions end the row, with one reward at the end."""
    rows, n = work.batch_size, work.n_actions
    actions = np.tile(np.arange(work.length - n - 1, work.length - 1, dtype=np.int32), (rows, 1))
    states = np.concatenate([actions, np.full((rows, 1), work.length - 1, np.int32)], axis=1)
    rewards, terminals = np.zeros((rows, n), np.float32), np.zeros((rows, n + 1), np.float32)
    rewards[:, -1], terminals[:, -1] = -1.0, 1.0
    per_token = Transitions(states, actions, rewards, terminals, np.ones((rows, n), bool))
    ends = Transitions(states[:, [0, -1]], states[:, -1:], rewards[:, -1:], terminals[:, -2:], np.ones((rows, 1), bool))
    return jax.device_put(Batch(work.make_tokens(), np.ones((rows, work.length), bool), per_token, ends))


def make_act(work: ActWork) -> Callable[[int], None]:
    """Prepare ILQL sampling of exactly `n_new` tokens a row: no token ends an utterance."""
    model = make_model(work.sizes, dtype=work.dtype)
    params = jax.jit(model.init_params)(jax.random.key(SEED))
    target = jax.jit(lambda params: jax.tree.map(jnp.copy, model.init_target(params)))(params)
    config = DecodeConfig(max_new_tokens=work.n_new, beta=work.beta)
    generate = make_generate(model, config, end_ids=(), pad_id=VOCAB_SIZE - 1)
    tokens = np.random.default_rng(SEED).integers(0, 50_257, (work.batch_size, work.prompt)).astype(np.int32)
    lengths = np.full(work.batch_size, work.prompt, np.int32)
    keys = jax.random.split(jax.random.key(SEED), work.batch_size)
    networks = prepare_for_decoding(model, params, target, critic=True)
    return lambda number: generate(networks, tokens, lengths, keys).tokens.block_until_ready()


def load_pretrained(work: PretrainedWork, options: ValueLMConfig) -> tuple[ValueLM, dict]:
    """Load the item's model, with rows for the control tokens, and its trunk."""
    backbone, trunk = load_language_model(work.path, dtype=work.dtype)
    trunk = resize_vocabulary(trunk, work.sizes.vocab_size, n_text=work.sizes.n_text)
    config = dataclasses.replace(backbone.config, vocab_size=work.sizes.vocab_size)
    return ValueLM(type(backbone)(config), options), trunk


def make_adapter_train(work: AdapterWork) -> Callable[[int], float]:
    """Prepare a cloning step of adapters."""
    model, trunk = load_pretrained(work, ValueLMConfig(lora_rank=work.rank))
    learner, optimizer = make_learner("bc", model, {}), make_optimizer(OptimConfig(lr=1e-5))
    state = init_learner_state(learner, optimizer=optimizer, key=jax.random.key(SEED), trunk=trunk)
    step = jax.jit(make_train_step(learner.loss_fn, optimizer, target=TargetConfig()), donate_argnums=0)
    batch = make_batch(work)
    return report_loss(step, state, batch)


def make_heads_train(work: HeadsWork) -> Callable[[int], float]:
    """Prepare an ILQL step on hidden states that are known, in the dtype that they are kept in."""
    options = ValueLMConfig(lora_rank=16, frozen_value=True, q_head="low_rank", q_rank=work.rank)
    model, trunk = load_pretrained(work, options)
    learner, optimizer = make_learner("ilql", model, {}), make_optimizer(OptimConfig(lr=1e-5))
    params = model.init_params(jax.random.key(SEED), trunk=trunk) | work.draw_heads()
    networks = params, model.init_target(params)
    state = init_learner_state(learner, optimizer=optimizer, key=jax.random.key(SEED), networks=networks)
    step = jax.jit(make_train_step(learner.loss_fn, optimizer, target=TargetConfig()), donate_argnums=0)
    batch = make_batch(work)
    hidden = jax.jit(lambda trunk, tokens: model.select_hidden(model.run_trunk(trunk, tokens)).astype(jnp.bfloat16))
    return report_loss(step, state, batch._replace(hidden=hidden(trunk, batch.tokens)))


def report_loss(step: Callable, state: TrainState, batch: Batch) -> Callable[[int], float]:
    """Make the function that takes a step and returns its loss."""
    held = [state]

    def run(number: int) -> float:
        state, metrics = step(held.pop(), batch)
        held.append(jax.block_until_ready(state))
        return float(metrics["loss"])

    return run


def make_sample(work: SampleWork) -> Callable[[int], float]:
    """Prepare sampling from a policy whose adapter acting folds in; no token ends an utterance."""
    model, trunk = load_pretrained(work, ValueLMConfig(lora_rank=16))
    params = {"policy": model.adapt_trunk(jax.random.key(SEED), trunk)}
    config = DecodeConfig(max_new_tokens=work.n_new, top_p=work.top_p)
    generate = make_generate(model, config, end_ids=(), pad_id=work.sizes.n_text)
    tokens, lengths = work.draw_tokens(work.prompt), np.full(work.batch_size, work.prompt, np.int32)
    keys = jax.random.split(jax.random.key(SEED), work.batch_size)
    networks = prepare_for_decoding(model, params, {}, critic=False)
    value = measure_prompts(model, params, tokens)

    def run(number: int) -> float:
        generate(networks, tokens, lengths, keys).tokens.block_until_ready()
        return value

    return run


def measure_prompts(model: ValueLM, params: dict, tokens: Int[np.ndarray, "B P"]) -> float:
    """Return the mean log-probability of the likeliest token after each prompt, by which both sides are compared."""

    @jax.jit
    def measure(params: dict, tokens: Array) -> Array:
        trunk = policy_trunk(params)
        logits = compute_logits(trunk, model.run_trunk(trunk, tokens).hidden[:, -1])
        return jax.nn.log_softmax(logits).max(axis=-1).mean()

    return float(measure(params, tokens))


def make_reward(work: RewardWork) -> Callable[[int], None]:
    """Prepare the exact search; texts' vectors are given, as an encoder would give them."""
    candidates, texts = work.make_vectors()
    index = DenseIndex(candidates)
    return lambda number: index.top_k(texts, work.k)
