"""Training in memory, from Python."""

import dataclasses

import jax
import numpy as np
import pytest
from dialogues import Talk, answer

from ilqljax.data.dataset import ObservationDataset
from ilqljax.data.tokenizer import CharacterTokenizer
from ilqljax.envs.base import LanguageEnvironment, ListDialogue
from ilqljax.errors import UserError
from ilqljax.models.gpt2 import GPT2, GPT2Config
from ilqljax.models.value_lm import ValueLM, ValueLMConfig
from ilqljax.rl.algorithms import ALGORITHMS, make_learner
from ilqljax.training import fit as fitting
from ilqljax.training import loop
from ilqljax.training.fit import FITTED, Fitted, choose_options, fit, load_fitted, make_rows
from ilqljax.training.metrics import NonFiniteError
from ilqljax.training.run_config import TrainConfig
from ilqljax.training.validation import Returns, measure_returns

WORDS_TOKENIZER = CharacterTokenizer("abcdefgh")
SMALL = ValueLM(
    GPT2(GPT2Config(vocab_size=WORDS_TOKENIZER.vocab_size, n_positions=16, n_embd=8, n_layer=1, n_head=1)),
    ValueLMConfig(),
)
BUCKETS = {"length_buckets": (16,), "action_buckets": (4,)}
ANSWERS = ObservationDataset([answer("ab", text, float(i)) for i, text in enumerate("cdefgh")], WORDS_TOKENIZER)


@pytest.mark.slow
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


@pytest.mark.slow
def test_heads_are_trained_from_given_networks_over_a_trunk_that_is_left_alone():
    params = SMALL.init_params(jax.random.key(7))
    loss = {"detach_v": True, "detach_q": True}
    settings = TrainConfig(total_steps=3, batch_size=2, lr=1e-2, optimizer="muon", loss=loss, **BUCKETS)
    start = jax.device_get((params, SMALL.init_target(params)))
    trained = fit(ANSWERS, "ilql", model=SMALL, settings=settings, networks=start).networks["params"]
    jax.tree.map(np.testing.assert_array_equal, trained["trunk"], start[0]["trunk"])
    moved = np.abs(trained["q1"]["dense_in"]["kernel"] - start[0]["q1"]["dense_in"]["kernel"])
    assert 0.0 < moved.max() < 0.1  # from these, not from those of seed 0


@pytest.mark.slow
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
    settings = TrainConfig(total_steps=4, batch_size=2, lr=1e38, **BUCKETS)
    with pytest.raises(NonFiniteError, match="loss is nan at step"):
        fit(ANSWERS, "bc", model=SMALL, settings=settings)


MOODS = {"sad": "cheer up", "tired": "take a rest", "hungry": "eat"}
TRIPLES = [(f"I am {mood}", said, float(said == fits)) for mood, fits in MOODS.items() for said in MOODS.values()]
BRIEF = {"total_steps": 2, "batch_size": 4, "log_every": 1}


@pytest.fixture(scope="module")
def fitted():
    return fit(TRIPLES, settings=BRIEF, validation=TRIPLES[:2], seed=3)


def test_one_call_makes_what_is_needed_and_its_result_acts(fitted):
    assert [sorted(record) for record in fitted.curve if "validation/loss" in record]
    longest = max(len(fitted.tokenizer.encode(said)) for said in MOODS.values()) + 1
    assert (fitted.decode.max_new_tokens, fitted.decode.beta) == (longest, 8.0)
    texts = [fitted.act("I am sad") for _ in range(2)]
    policy = fitted.policy()
    assert texts == [policy.act(ListDialogue([("I am sad", None)], over=False)), policy.act("I am sad")]
    assert fitted.policy(temperature=0.0).config.temperature == 0.0


@pytest.mark.slow
def test_a_policy_that_a_critic_steers_is_cloned_first(fitted):
    clone = fit(TRIPLES, "bc", settings=BRIEF, validation=TRIPLES[:2], seed=3)
    policy, random = fitted.networks["params"]["policy"], clone.trained.learner.model.init_trunk(jax.random.key(3))
    jax.tree.map(np.testing.assert_array_equal, policy, clone.networks["params"]["policy"])
    assert any(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a != b).any()), policy, random)))


def test_a_clone_that_plays_worse_than_its_data_is_warned_of(monkeypatch, caplog):
    found = {"return": -9.6, "return_standard_error": 0.2, "turns": 3.0}
    monkeypatch.setattr(fitting, "evaluate_rollouts", lambda *_: found)
    monkeypatch.setattr(Fitted, "policy", lambda self: None)
    curve = [{"step": 1, "validation/loss": 1.0}, {"step": 2, "train/loss": 0.5}, {"step": 2, "validation/loss": 2.0}]
    clone = Fitted("bc", None, None, None, 0, curve, Returns(-8.3, 0.1))
    assert clone.evaluate() == found
    assert "worth -9.6 (standard error 0.2), those of its data -8.3" in caplog.text
    assert "It overfits: its validation loss was 1 at step 1 and is 2." in caplog.text
    caplog.clear()
    dataclasses.replace(clone, data_returns=None).evaluate()
    assert not caplog.records


@pytest.mark.slow
@pytest.mark.parametrize(("algorithm", "known"), [("bc", True), ("filtered_bc", False)])
def test_what_its_data_are_worth_stays_with_a_clone(tmp_path, algorithm, known):
    settings = TrainConfig(total_steps=1, batch_size=2, **BUCKETS)
    fitted = fit(ANSWERS, algorithm, model=SMALL, settings=settings)
    assert fitted.data_returns == (measure_returns(ANSWERS) if known else None)
    fitted.save(tmp_path / "kept")
    assert load_fitted(tmp_path / "kept").data_returns == fitted.data_returns


def test_what_was_saved_is_read_back_and_acts_alike(fitted, tmp_path):
    fitted.save(tmp_path / "kept")
    loaded = load_fitted(tmp_path / "kept")
    jax.tree.map(np.testing.assert_array_equal, loaded.networks, jax.device_get(fitted.networks))
    assert (loaded.curve, loaded.decode, loaded.seed) == (fitted.curve, fitted.decode, 3)
    assert loaded.tokenizer.fingerprint == fitted.tokenizer.fingerprint
    assert loaded.policy().generate_batch(["I am sad"]) == fitted.policy().generate_batch(["I am sad"])
    with pytest.raises(UserError, match="not an empty folder"):
        fitted.save(tmp_path / "kept")
    (tmp_path / "kept" / FITTED).write_text("{}")
    with pytest.raises(UserError, match="damaged or was changed"):
        load_fitted(tmp_path / "kept")
    with pytest.raises(UserError, match="Give a folder that Fitted"):
        load_fitted(tmp_path)


def test_what_was_saved_has_its_tokenizer_for_transformers(fitted, tmp_path):
    from transformers import AutoTokenizer

    fitted.save(tmp_path / "kept")
    theirs, ours = AutoTokenizer.from_pretrained(tmp_path / "kept"), fitted.tokenizer
    assert theirs("I am sad, cheer up!")["input_ids"] == ours.encode("I am sad, cheer up!")
    assert theirs("<a></a>")["input_ids"] == [ours.boa_id, ours.eoa_id]


def test_a_folder_that_cannot_be_written_whole_is_not_there(fitted, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fitting, "save_with_checksum", fail)
    with pytest.raises(UserError, match="No space left"):
        fitted.save(tmp_path / "kept")
    assert list(tmp_path.iterdir()) == []


class Once(LanguageEnvironment):
    """Ask once, and pay 2 for anything."""

    def reset(self):
        self.seen = ListDialogue([("I am sad", None)], over=False)
        return self.seen

    def step(self, action):
        self.seen = ListDialogue([("I am sad", None), (action, 2.0)])
        return self.seen, 2.0, True

    def is_terminal(self):
        return self.seen.over


def test_the_result_plays_environments(fitted):
    found = fitted.evaluate([Once()])
    assert (found["return"], found["turns"]) == (2.0, 1.0)


@pytest.mark.parametrize("wrong", [("a", "b"), {"prompt": "a"}, "abc", ("a", "b", "1"), ("a", 1.0, "b")])
def test_anything_but_a_dialogue_is_refused_and_shown(wrong):
    with pytest.raises(UserError) as error:
        fit([TRIPLES[0], wrong])
    assert str(error.value).startswith(f"dialogue 1 is {wrong!r}. Give (prompt, text, reward)")


WRONG_ARGUMENTS = {
    "settings": (4, None, [("lr", 1.0)], {"loss": 3}, {"totl_steps": 1}, {3: 1}, {"lr": "fast"}),
    "decode": (3, None, {"betta": 3}),
    "model": (3, SMALL.backbone),
    "tokenizer": ("gpt2",),
    "seed": ("a", -1, 1.5, True),
    "watch_every": (-1, None),
    "validation": (3, [], [3]),
    "watch": (3,),
    "trunk": (3, {"a": 1}),
    "networks": (3, ({}, {})),
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, each) for name, values in WRONG_ARGUMENTS.items() for each in values]
)
def test_a_wrong_argument_is_refused_by_its_name_in_one_line(name, value):
    arguments = {"settings": BRIEF, name: value}
    with pytest.raises(UserError) as error:
        fit(TRIPLES, "ilql" if name == "networks" else "bc", **arguments)
    message = str(error.value)
    assert "\n" not in message
    assert name in message or value == [3]
    if isinstance(value, dict) and set(value) & {"totl_steps", "betta"}:
        assert "Did you mean '" in message


@pytest.mark.parametrize("dialogues", [None, 3])
def test_what_holds_no_dialogues_is_refused(dialogues):
    with pytest.raises(UserError, match=r"^dialogues=.* Give a list of \(prompt, text, reward\)"):
        fit(dialogues)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda fitted, folder: fitted.act(3), "observation=3 is of type int. Give a text"),
        (lambda fitted, folder: fitted.act([1, None]), r"observation=\[1, None\] is of type list. Give a text"),
        (lambda fitted, folder: fitted.act(ListDialogue([("a", None)])), "The dialogue 'a' is over"),
        (lambda fitted, folder: fitted.policy().act_batch("ab"), "is one text. Give a list"),
        (lambda fitted, folder: fitted.policy().act_batch(3), "observations=3 is of type int"),
        (lambda fitted, folder: fitted.policy(beta="x"), "decode.beta='x' is of type str"),
        (
            lambda fitted, folder: fitted.evaluate(betta=3),
            "betta is not an option of DecodeConfig. Did you mean 'beta'",
        ),
        (lambda fitted, folder: fitted.evaluate(), "no environment to play in"),
        (lambda fitted, folder: fitted.evaluate(3), "envs=3 is of type int"),
        (lambda fitted, folder: fitted.evaluate([3]), "environment=3 is of type int"),
        (lambda fitted, folder: fitted.evaluate([Once()] * 2), "an environment appears twice"),
        (lambda fitted, folder: fitted.save(5), "folder=5 is of type int. Give the path"),
        (lambda fitted, folder: load_fitted(None), "folder=None is of type NoneType. Give the path"),
        (lambda fitted, folder: load_fitted(folder), "is missing. Give a folder that Fitted.save wrote"),
    ],
)
def test_a_wrong_use_of_the_result_is_refused(fitted, tmp_path, call, message):
    with pytest.raises(UserError, match=message):
        call(fitted, tmp_path)


def test_a_folder_of_another_program_is_refused_by_what_it_lacks(tmp_path):
    (tmp_path / FITTED).write_text('{"algorithm": "bc"}')
    with pytest.raises(UserError, match="lacks curve, decode, dtype, options, seed, transform"):
        load_fitted(tmp_path)


def test_the_result_is_shown_in_one_line(fitted):
    shown = repr(fitted)
    assert shown.startswith("Fitted('ilql': ") and "step 2, train/loss " in shown and "beta=8" in shown
    assert "\n" not in shown and len(shown) < 150


@pytest.mark.parametrize("pair", ["ab", ("a",), ("a", "1"), (1.0, "a")])
def test_a_dialogue_is_written_in_pairs(pair):
    with pytest.raises(UserError, match="is not a text with its reward or None"):
        ListDialogue([("a", None), pair])


def test_a_ready_dataset_and_a_tokenizer_of_another_model_want_what_belongs_to_them():
    with pytest.raises(UserError, match="Give it model= and settings=TrainConfig"):
        fit(ANSWERS, settings=BRIEF, model=SMALL)
    with pytest.raises(UserError, match=r"validation=.* a dataset"):
        fit(ANSWERS, settings=TrainConfig(), model=SMALL, validation=TRIPLES)
    with pytest.raises(UserError, match=f"model: {WORDS_TOKENIZER.vocab_size} ids"):
        fit(TRIPLES, model=SMALL)
    with pytest.raises(UserError, match="steps is not an option of TrainConfig"):
        fit(TRIPLES, settings={"steps": 3})


def test_rewards_of_many_turns_are_scaled_and_not_shifted():
    one = make_rows([answer("a", "b", 1.0), answer("a", "c", 5.0)], None, None)
    assert (one.reward_shift, one.reward_scale) == (3.0, 0.5)
    many = make_rows([Talk((("a", None), ("b", 1.0), ("c", 5.0))), answer("a", "c", 3.0)], None, None)
    assert many.reward_shift == 0.0 and many.reward_scale == pytest.approx((3 / 8) ** 0.5)


def test_dialogues_of_many_turns_are_trained_by_muon_and_bootstrapped_once_a_turn():
    def choose(name, n_turns, settings=()):
        talks = [Talk((("a", -1.0), ("b", None)) * n_turns)] * 2
        chosen = choose_options(name, [make_rows(talks, WORDS_TOKENIZER, None)], None, dict(settings), {})[1]
        return chosen.optimizer, chosen.total_steps, chosen.lr, chosen.loss

    critic = {"cql_weight": 0.1, "td_lambda": 1.0, "turn_lambda": 0.0}
    assert choose("ilql", 3) == ("muon", 1200, 2e-3, critic)
    assert choose("bc", 3) == ("muon", 1200, 3e-3, {})
    assert choose("ilql", 2) == ("adamw", 500, 2e-3, {"cql_weight": 0.05, "td_lambda": 0.95})
    own = {"optimizer": "adamw", "total_steps": 7, "lr": 1.0, "loss": critic | {"turn_lambda": 1.0}}
    assert choose("ilql", 3, own) == ("adamw", 7, 1.0, own["loss"])


@pytest.mark.parametrize("name", ALGORITHMS)
def test_what_is_chosen_suits_every_algorithm_and_its_rows(name):
    rows = make_rows(TRIPLES, None, None)
    model, settings, decode = choose_options(name, [rows], None, BRIEF, {})
    learner = make_learner(name, model, settings.loss)
    stage = loop.make_stage(name, learner, settings, rows)
    assert settings.length_buckets == (stage.rows.row_sizes[:, 0].max(),)
    assert model.backbone.config.n_positions == settings.length_buckets[0] + decode.max_new_tokens
    assert (decode.n_generations > 1) == (learner.model.config.level == "utterance")
