"""Training in memory, from Python."""

import jax
import numpy as np
import pytest
from dialogues import answer

from ilqljax.data.dataset import ObservationDataset
from ilqljax.data.tokenizer import CharacterTokenizer
from ilqljax.models.gpt2 import GPT2, GPT2Config
from ilqljax.models.value_lm import ValueLM, ValueLMConfig
from ilqljax.training import loop
from ilqljax.training.fit import fit
from ilqljax.training.metrics import NonFiniteError
from ilqljax.training.run_config import TrainConfig

WORDS_TOKENIZER = CharacterTokenizer("abcdefgh")
SMALL = ValueLM(
    GPT2(GPT2Config(vocab_size=WORDS_TOKENIZER.vocab_size, n_positions=16, n_embd=8, n_layer=1, n_head=1)),
    ValueLMConfig(),
)
BUCKETS = {"length_buckets": (16,), "action_buckets": (4,)}
ANSWERS = ObservationDataset([answer("ab", text, float(i)) for i, text in enumerate("cdefgh")], WORDS_TOKENIZER)


@pytest.mark.parametrize("name", ["bc", "filtered_bc", "ilql", "dpo"])
def test_a_short_training_learns_and_is_watched(name):
    seen = []
    settings = TrainConfig(total_steps=4, batch_size=2, lr=1e-2, log_every=1, **BUCKETS)
    watch = lambda step, params, target: seen.append(step)  # noqa: E731
    fitted = fit(ANSWERS, name, model=SMALL, settings=settings, watch=watch, watch_every=3)
    assert seen == [0, 3, 4]  # the last step too
    assert "reference" not in fitted.trained.params
    assert (fitted.trained.target == {}) == (name != "ilql")
    assert [record["step"] for record in fitted.curve if "train/loss" in record] == [1, 2, 3, 4]


def test_a_training_is_watched_on_rows_of_its_own_and_returns_its_best_networks():
    settings = TrainConfig(total_steps=4, batch_size=2, lr=3.0, eval_every=1, select="best", **BUCKETS)
    seen = {}
    watch = lambda step, params, target: seen.update({step: jax.device_get(params)})  # noqa: E731
    fitted = fit(ANSWERS, "bc", model=SMALL, settings=settings, validation=ANSWERS, watch=watch, watch_every=1)
    losses = {record["step"]: record["validation/loss"] for record in fitted.curve if "validation/loss" in record}
    assert sorted(losses) == [1, 2, 3, 4]
    best = min(losses, key=lambda step: (losses[step], -step))
    assert best < 4  # such a rate makes it worse again
    jax.tree.map(np.testing.assert_array_equal, fitted.trained.params, seen[best])


def test_a_watcher_can_end_a_training():
    settings = TrainConfig(total_steps=9, batch_size=2, log_every=1, **BUCKETS)
    fitted = fit(ANSWERS, "bc", model=SMALL, settings=settings, watch=lambda step, *_: step == 2, watch_every=1)
    assert [record["step"] for record in fitted.curve] == [1, 2]


def test_heads_are_trained_from_given_networks_over_a_trunk_that_is_left_alone():
    params = SMALL.init_params(jax.random.key(7))
    loss = {"detach_v": True, "detach_q": True}
    settings = TrainConfig(total_steps=3, batch_size=2, lr=1e-2, optimizer="muon", loss=loss, **BUCKETS)
    start = jax.device_get((params, SMALL.init_target(params)))
    trained = fit(ANSWERS, "ilql", model=SMALL, settings=settings, networks=start).networks["params"]
    jax.tree.map(np.testing.assert_array_equal, trained["trunk"], start[0]["trunk"])
    moved = np.abs(trained["q1"]["dense_in"]["kernel"] - start[0]["q1"]["dense_in"]["kernel"])
    assert 0.0 < moved.max() < 0.1  # from these, not from those of seed 0


def test_a_sorted_training_sees_rows_of_like_length_and_divides_by_what_a_batch_holds_on_average(monkeypatch):
    dataset = ObservationDataset([answer("a" * n, "b", 1.0) for n in (1, 9) * 8], WORDS_TOKENIZER)
    make_loader, make_step, seen, counts = loop.make_train_loader, loop.make_train_step, [], []

    class WatchedLoader:
        def __init__(self, *args, **kwargs):
            self.loader = make_loader(*args, **kwargs)
            self.get_state = self.loader.get_state

        def __next__(self):
            batch = next(self.loader)
            seen.append(batch.tokens.shape[1])
            return batch

    monkeypatch.setattr(loop, "make_train_loader", WatchedLoader)
    monkeypatch.setattr(loop, "make_train_step", lambda *a, **k: counts.append(k["counts"]) or make_step(*a, **k))
    shapes = {"length_buckets": (8, 16), "action_buckets": (4,)}
    for window in (1, 4):
        settings = TrainConfig(total_steps=4, batch_size=4, lr=1e-3, sort_window=window, **shapes)
        fit(dataset, "bc", model=SMALL, settings=settings)
    assert seen[4:].count(8) == seen[4:].count(16) == 2  # half of the rows are short
    assert seen[:4].count(16) > 2
    unsorted, of_sorted = counts
    assert unsorted is None
    assert of_sorted.actions == pytest.approx(4 * dataset.row_sizes[:, 1].mean())


def test_a_training_that_diverges_is_stopped():
    settings = TrainConfig(total_steps=4, batch_size=2, lr=float("inf"), **BUCKETS)
    with pytest.raises(NonFiniteError, match="loss is nan at step"):
        fit(ANSWERS, "bc", model=SMALL, settings=settings)
