"""The work items as this project does them: each returns a function that does the work once and waits for it."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ilqljax.algorithms import find_unreached, init_learner_state, make_learner
from ilqljax.bench.work import SEED, VOCAB_SIZE, ActWork, RewardWork, Sizes, TrainWork, Work
from ilqljax.decoding.generate import DecodeConfig, make_generate
from ilqljax.fairness.dense_matching import DenseIndex
from ilqljax.models.gpt2 import GPT2, GPT2Config
from ilqljax.models.value_lm import ValueLM, ValueLMConfig
from ilqljax.optim import OptimConfig, make_optimizer
from ilqljax.steps import TargetConfig, make_train_step
from ilqljax.types import Batch, Transitions


def make_run(work: Work) -> Callable[[], None]:
    """Prepare an item; what is prepared (parameters, compiled programs) is not part of a run."""
    makers = {TrainWork: make_train, ActWork: make_act, RewardWork: make_reward}
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


def make_train(work: TrainWork) -> Callable[[], None]:
    """Prepare a training step, compiled, its state donated."""
    learner = make_learner("ilql" if work.critic else "bc", make_model(work.sizes, dtype=work.dtype), {})
    optimizer = make_optimizer(OptimConfig(lr=1e-5))
    state = jax.jit(lambda key: init_learner_state(learner, optimizer=optimizer, key=key))(jax.random.key(SEED))
    unreached = find_unreached(learner, state)
    step = make_train_step(learner.loss_fn, optimizer, target=TargetConfig(), unreached=unreached)
    step, held, batch = jax.jit(step, donate_argnums=0), [state], make_batch(work)

    def run() -> None:
        state, metrics = step(held.pop(), batch)
        held.append(state)
        metrics["loss"].block_until_ready()
        state.step.block_until_ready()

    return run


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


def make_act(work: ActWork) -> Callable[[], None]:
    """Prepare ILQL sampling of exactly `n_new` tokens a row: no token ends an utterance."""
    model = make_model(work.sizes, dtype=work.dtype)
    params = jax.jit(model.init_params)(jax.random.key(SEED))
    target = jax.jit(lambda params: jax.tree.map(jnp.copy, model.init_target(params)))(params)
    config = DecodeConfig(max_new_tokens=work.n_new, beta=work.beta)
    generate = make_generate(model, config, end_ids=(), pad_id=VOCAB_SIZE - 1)
    tokens = np.random.default_rng(SEED).integers(0, 50_257, (work.batch_size, work.prompt)).astype(np.int32)
    lengths = np.full(work.batch_size, work.prompt, np.int32)
    keys = jax.random.split(jax.random.key(SEED), work.batch_size)
    return lambda: generate(params, target, tokens, lengths, keys).tokens.block_until_ready()


def make_reward(work: RewardWork) -> Callable[[], None]:
    """Prepare the exact search; texts' vectors are given, as an encoder would give them."""
    candidates, texts = work.make_vectors()
    index = DenseIndex(candidates)
    return lambda: index.top_k(texts, work.k)
