"""The work items as this project does them: each returns a function that does the work once and waits for it."""

from collections.abc import Callable, Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.speed.work import (
    SEED,
    VOCAB_SIZE,
    ActWork,
    LoaderWork,
    RaggedWork,
    RewardWork,
    Sizes,
    StartupWork,
    TrainWork,
    Work,
)
from ilqljax.data.dataset import ObservationDataset, SelectedRows
from ilqljax.data.loader import eval_batches, expect_counts, make_train_loader
from ilqljax.data.tokenizer import CharacterTokenizer
from ilqljax.data.types import Batch, Transitions
from ilqljax.decoding.generate import DecodeConfig, make_generate
from ilqljax.decoding.sampling import prepare_for_decoding
from ilqljax.hiring.matching.dense import DenseIndex
from ilqljax.models.gpt2 import GPT2, GPT2Config
from ilqljax.models.value_lm import ValueLM, ValueLMConfig
from ilqljax.rl.algorithms import find_unreached, init_learner_state, make_learner
from ilqljax.rl.optim import OptimConfig, make_optimizer
from ilqljax.rl.steps import TargetConfig, TrainState, make_train_step

# What rows of real lengths are padded to.
BUCKETS = {"length_buckets": (256, 384, 512), "action_buckets": (128, 192, 256)}


def make_run(work: Work) -> Callable[[int], None]:
    """Prepare an item; what is prepared (parameters, compiled programs) is not part of a run.

    A run takes the number of the round, which decides the rows of an item that goes through a list.
    """
    makers = {
        TrainWork: make_train,
        RaggedWork: make_ragged,
        LoaderWork: make_loading,
        StartupWork: lambda startup: make_train(startup.work),
        ActWork: make_act,
        RewardWork: make_reward,
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


def make_batch(work: TrainWork) -> Batch:
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


def make_reward(work: RewardWork) -> Callable[[int], None]:
    """Prepare the exact search; texts' vectors are given, as an encoder would give them."""
    candidates, texts = work.make_vectors()
    index = DenseIndex(candidates)
    return lambda number: index.top_k(texts, work.k)
