"""Looking into a critic: its numbers against a slow twin, n-grams by hand, and a page that shows them safely."""

import math
import re
import runpy
import string
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dialogues import Talk, answer

from ilqljax.data.dataset import ObservationDataset
from ilqljax.data.tokenizer import CharacterTokenizer
from ilqljax.errors import UserError
from ilqljax.models.backbone import compute_logits
from ilqljax.models.gpt2 import GPT2, GPT2Config
from ilqljax.models.value_lm import ValueLM, ValueLMConfig
from ilqljax.training import evaluation as evaluate
from ilqljax.training.inspection import (
    ActionValue,
    format_ngrams,
    format_table,
    inspect_rows,
    rank_ngrams,
    render_heatmap,
)

TOKENIZER = CharacterTokenizer(string.ascii_lowercase + "<>&")
SIZES = GPT2Config(vocab_size=TOKENIZER.vocab_size, n_positions=24, n_embd=16, n_layer=1, n_head=2)


TALKS = [
    answer("ab", "cd", 1.5),
    Talk((("q", None), ("x", -1.0), ("r", None), ("", 0.5)), terminal=False),
]
DATASET = ObservationDataset(TALKS, TOKENIZER)


def make_networks(level):
    model = ValueLM(GPT2(SIZES), ValueLMConfig(level=level))
    shapes = jax.eval_shape(model.init_params, jax.random.key(0))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: jnp.asarray(rng.normal(0.0, 0.3, x.shape), jnp.float32), shapes)
    return model, params, jax.tree.map(lambda x: x + 0.1, model.init_target(params))


def slow_outputs(model, params, target, tokens):
    """V, online Q and least target Q of every position, and log-probabilities of every token, one row at a time."""
    hidden = model.run_trunk(params["trunk"], tokens[None]).hidden
    slow = model.run_trunk(target["trunk"], tokens[None]).hidden

    def q(heads, x):
        return [np.array(model.q_head.apply({"params": heads[name]}, x)[0], np.float64) for name in model.q_names]

    logits = compute_logits(params["policy"], model.run_trunk(params["policy"], tokens[None]).hidden)[0]
    v = np.array(model.compute_v(params, hidden)[0], np.float64)
    return v, q(params, hidden), np.minimum(*q(target, slow)), np.array(jax.nn.log_softmax(logits), np.float64)


def test_values_of_tokens_equal_the_slow_twin():
    model, params, target = make_networks("token")
    rows = inspect_rows(model, DATASET, params=params, target=target, batch_size=2, length_buckets=(16,))
    assert [[a.text for a in row] for row in rows] == [["c", "d", "</a>"], ["x", "</a>", "</a>"]]
    assert [a.utterance for a in rows[1]] == [0, 0, 1]
    for i, row in enumerate(rows):
        point = DATASET.get_item(i)
        v, q, target_q, log_p = slow_outputs(model, params, target, point.tokens)
        for action, at, reward in zip(row, point.action_idxs, point.rewards, strict=True):
            token = point.tokens[at + 1]
            expected = [v[at], *(head[at, token] for head in q), target_q[at, token], log_p[at, token], reward]
            got = [action.v, *action.q, action.target_q, action.log_probability, action.reward]
            np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
            assert action.advantage == pytest.approx(action.target_q - action.v, abs=1e-6)


def test_values_of_utterances_equal_the_slow_twin():
    model, params, target = make_networks("utterance")
    rows = inspect_rows(model, DATASET, params=params, target=target, batch_size=4, length_buckets=(16,))
    assert [[a.text for a in row] for row in rows] == [["cd"], ["x", ""]]
    for i, row in enumerate(rows):
        point = DATASET.get_item(i)
        v, q, target_q, log_p = slow_outputs(model, params, target, point.tokens)
        starts, ends = point.utterance_state_idxs[:-1], point.utterance_action_idxs
        for action, start, end, reward in zip(row, starts, ends, point.utterance_rewards, strict=True):
            said = sum(log_p[at, point.tokens[at + 1]] for at in range(start, end))
            expected = [v[start], *(head[end, 0] for head in q), target_q[end, 0], said, reward]
            got = [action.v, *action.q, action.target_q, action.log_probability, action.reward]
            np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_target_values_are_clipped_as_in_training():
    model, params, target = make_networks("token")
    networks = {"params": params, "target": target, "batch_size": 2, "length_buckets": (16,)}
    free = inspect_rows(model, DATASET, **networks)
    clipped = inspect_rows(model, DATASET, **networks, value_range=(-np.inf, -0.5))
    assert any(a.target_q > -0.5 for row in free for a in row)
    for a, c in zip(chain(*free), chain(*clipped), strict=True):
        assert c.target_q == pytest.approx(min(a.target_q, -0.5), abs=1e-6)
        assert c.advantage == pytest.approx(c.target_q - a.v, abs=1e-6)


def test_a_clone_has_no_critic_to_look_into():
    model, params, _ = make_networks("token")
    with pytest.raises(UserError, match="no critic"):
        inspect_rows(model, DATASET, params={"policy": params["policy"]}, target={})


def act(text, advantage, utterance=0):
    return ActionValue(text, utterance, 0.0, (advantage,), advantage, advantage, -1.0, 0.0)


ROWS = [[act("a", 1.0), act("b", 3.0)], [act("a", 2.0), act("c", 0.0)]]


def test_ngrams_by_hand():
    found = [(g.texts, g.advantage, g.count) for g in rank_ngrams(ROWS, longest=2, min_count=1)]
    assert found == [(("b",), 3, 1), (("a", "b"), 2, 1), (("a",), 1.5, 2), (("a", "c"), 1, 1), (("c",), 0, 1)]


def test_rare_ngrams_are_left_out_and_frequent_ones_have_an_error():
    (gram,) = rank_ngrams(ROWS, longest=2, min_count=2)
    assert gram.texts == ("a",)
    assert gram.error == pytest.approx(0.5)  # deviation sqrt(0.5) over the root of 2
    assert math.isnan(rank_ngrams(ROWS, min_count=1)[0].error)


def test_ngrams_stay_within_an_utterance():
    row = [act("a", 1.0, 0), act("b", 1.0, 1)]
    assert {g.texts for g in rank_ngrams([row], longest=2, min_count=1)} == {("a",), ("b",)}


def test_both_ends_of_the_ranking_are_listed():
    lines = format_ngrams(rank_ngrams(ROWS, longest=1, min_count=1), k=1).splitlines()
    assert lines[1].endswith("'b'")
    assert lines[3].endswith("'c'")


@pytest.mark.parametrize(("options", "message"), [({"min_count": 9}, "9 times"), ({"longest": 0}, "at least 1")])
def test_a_ranking_of_nothing_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        rank_ngrams(ROWS, **options)


def test_the_page_escapes_texts_and_loads_nothing():
    page = render_heatmap([[act("<script>alert(1)</script>", 1.0)]], titles=["<b>&"])
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "&lt;b&gt;&amp;" in page
    assert "default-src 'none'" in page
    assert not re.search(r'(?:src|href)=(?!"data:,")|url[(]|@import', page)


def test_colours_are_white_at_zero_and_full_at_four_medians():
    row = [act("a", 0.0), act("b", 2.0), act("c", -9.0), act("d", 0.5), act("e", 0.5)]  # the median size is 0.5
    page = render_heatmap([row], titles=["t"])
    colours = re.findall(r'style="background:rgb\(([\d,]+)\)', page)
    assert colours == ["255,255,255", "33,102,172", "178,24,43", "200,217,234", "200,217,234"]


def test_the_table_has_a_line_for_each_action():
    assert len(format_table(ROWS[0]).splitlines()) == 3


# The program.

SCRIPT = Path(__file__).parents[1] / "scripts" / "inspect_critic.py"


@pytest.fixture
def inspect(tmp_path, monkeypatch):
    """Run the script on the critic of a level; return what it writes into."""

    def run(level, *options):
        model, params, target = make_networks(level)
        learner = SimpleNamespace(model=model, value_range=(-np.inf, np.inf))
        trained = SimpleNamespace(learner=learner, params=params, target=target)
        run = SimpleNamespace(select_policy=lambda: trained, built=SimpleNamespace(tokenizer=TOKENIZER))
        monkeypatch.setattr(evaluate, "open_run", lambda folder, **_: run)
        monkeypatch.setattr(evaluate, "build_rows", lambda run, section, split: DATASET)
        out = tmp_path / "inspected"
        monkeypatch.setattr("sys.argv", ["inspect_critic", "--run", "r", "--out", str(out), *options])
        runpy.run_path(str(SCRIPT), run_name="__main__")
        return out

    return run


def test_an_utterance_critic_ranks_texts_that_occur_once(inspect):
    assert "'cd'" in (inspect("utterance") / "ngrams.txt").read_text()


def test_own_texts_are_ranked_though_they_occur_once(inspect, tmp_path):
    (tmp_path / "mine.jsonl").write_text('{"prompt": "ab", "text": "cd", "reward": null}')
    out = inspect("token", "--texts", str(tmp_path / "mine.jsonl"))
    assert "'c'" in (out / "ngrams.txt").read_text()


def test_a_ranking_of_nothing_writes_nothing(inspect, tmp_path, capsys):
    with pytest.raises(SystemExit):
        inspect("token", "--min_count", "9")
    assert "No n-gram occurs 9 times" in capsys.readouterr().err
    assert not (tmp_path / "inspected").exists()


def test_an_out_that_is_a_file_is_refused_before_the_run_is_opened(tmp_path, monkeypatch, capsys):
    (tmp_path / "inspected").write_text("kept")
    monkeypatch.setattr(evaluate, "open_run", lambda folder, **_: pytest.fail("opened"))
    monkeypatch.setattr("sys.argv", ["inspect_critic", "--run", "r", "--out", str(tmp_path / "inspected")])
    with pytest.raises(SystemExit):
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert "inspected: cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize("reward", ["true", '"high"', "NaN", "[1]"])
def test_a_reward_that_is_not_a_number_is_refused_with_its_line(inspect, tmp_path, capsys, reward):
    (tmp_path / "mine.jsonl").write_text(f'{{"prompt": "ab", "text": "cd", "reward": {reward}}}')
    with pytest.raises(SystemExit):
        inspect("token", "--texts", str(tmp_path / "mine.jsonl"))
    assert "mine.jsonl:1: the field 'reward' must be a finite number" in capsys.readouterr().err
