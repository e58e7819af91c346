"""Rows against worked tables and the original's numbers, truncation, prompts and padding."""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from ilqljax.data.datapoint import (
    DataPoint,
    can_cut,
    collate,
    drop_old_turns,
    encode_prompt,
    extend_buckets,
    fit_prompt,
)
from ilqljax.data.tokenizer import CharacterTokenizer
from ilqljax.envs.base import LanguageObservation
from ilqljax.errors import UserError

GOLDEN = json.loads((Path(__file__).parent / "golden" / "datapoints.json").read_text())
TOKENIZER = CharacterTokenizer(GOLDEN["charset"])
CHARACTERS = {"<s>": TOKENIZER.bos_id, "</s>": TOKENIZER.eos_id, "<a>": TOKENIZER.boa_id, "</a>": TOKENIZER.eoa_id}
SPECIAL = {**CHARACTERS, "</eod>": TOKENIZER.eod_id, "pad": TOKENIZER.pad_id}


@dataclass(frozen=True)
class Chat(LanguageObservation):
    sequence: list
    terminal: bool = True

    def to_sequence(self):
        return [tuple(utterance) for utterance in self.sequence], self.terminal

    def __str__(self):
        return str(self.sequence)

    def metadata(self):
        return {"id": 7}


def to_ids(tokens):
    return [SPECIAL[token] if token in SPECIAL else TOKENIZER.encode(token)[0] for token in tokens.split()]


def make_point(*sequence, terminal=True, **options):
    return DataPoint.from_observation(Chat(list(sequence), terminal), TOKENIZER, **options)


def make_golden_points(case):
    dialogues = [Chat(dialogue["sequence"], dialogue["terminal"]) for dialogue in case["dialogues"]]
    pay = partial(np.full_like, fill_value=case["token_reward"], dtype=np.float64)
    return [DataPoint.from_observation(dialogue, TOKENIZER, token_reward=pay) for dialogue in dialogues]


def check_golden_case(case):
    points = make_golden_points(case)
    assert [point.raw for point in points] == case["raw"]
    for point, expected in zip(points, case["datapoints"], strict=True):
        for name, values in expected.items():
            # Both sides are decimal numbers rounded to float32.
            np.testing.assert_allclose(getattr(point, name), np.asarray(values, np.float32), rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("name", list(GOLDEN["cases"]))
def test_rows_equal_the_original_numbers(name):
    check_golden_case(GOLDEN["cases"][name])


def test_rows_equal_the_original_numbers_in_all_shared_cases(shared_dir):
    cases = json.loads((shared_dir / "golden" / "cases.json").read_text())["cases"]
    assert len(cases) == 8
    for case in cases.values():
        check_golden_case(case)


def test_batches_equal_the_original_numbers_in_all_shared_cases(shared_dir):
    cases = json.loads((shared_dir / "golden" / "cases.json").read_text())["cases"]
    for name, case in cases.items():
        with np.load(shared_dir / "golden" / f"{name}.npz") as arrays:
            golden = {key.removeprefix("batch/"): arrays[key] for key in arrays if key.startswith("batch/")}
        batch = collate(
            make_golden_points(case),
            length=golden["tokens"].shape[1],
            n_actions=golden["action_idxs"].shape[1],
            n_utterance_actions=golden["u_action_idxs"].shape[1],
            pad_id=TOKENIZER.pad_id,
        )
        np.testing.assert_array_equal(batch.tokens, golden["tokens"])
        np.testing.assert_array_equal(batch.token_mask, golden["attn_mask"] == 1)
        for level, prefix in ((batch.per_token, ""), (batch.per_utterance, "u_")):
            np.testing.assert_array_equal(level.state_idxs, golden[f"{prefix}state_idxs"])
            np.testing.assert_array_equal(level.action_idxs, golden[f"{prefix}action_idxs"])
            np.testing.assert_array_equal(level.terminals, golden[f"{prefix}terminals"])
        np.testing.assert_allclose(batch.per_token.rewards, golden["rewards"], rtol=1e-6)
        # The original cast utterance rewards to integers; ours are floats.
        np.testing.assert_array_equal(np.trunc(batch.per_utterance.rewards), golden["u_rewards"])


def test_the_alignment_table_of_the_docstring():
    point = make_point(("ab", None), ("c", 2.0))
    assert point.tokens.tolist() == to_ids("<s> a b </s> c </a> </eod>")
    assert point.action_idxs.tolist() == [3, 4]
    assert point.rewards.tolist() == [0, 2]
    assert point.state_idxs.tolist() == [3, 4, 6]
    assert point.terminals.tolist() == [0, 0, 1]
    assert point.utterance_action_idxs.tolist() == [5]
    assert point.utterance_rewards.tolist() == [2]
    assert point.utterance_state_idxs.tolist() == [3, 6]
    assert point.utterance_terminals.tolist() == [0, 1]
    assert point.metadata == {"id": 7, "truncated_tokens": 0, "dropped_turns": 0}


def test_the_truncation_table_of_the_docstring():
    point = make_point(("ab", None), ("c", 2.0), max_length=6)
    assert point.tokens.tolist() == to_ids("<s> b </s> c </a> </eod>")
    assert point.metadata["truncated_tokens"] == 1
    assert point.raw == "<s>ab</s>c</a></eod>"
    assert point.raw[: point.prompt_length] == "<s>ab</s>"


def test_the_docstring_prints_the_tables_that_are_tested():
    lines = [line.split() for line in DataPoint.__doc__.splitlines()]
    assert ["token", "<s>", "a", "b", "</s>", "c", "</a>", "</eod>"] in lines
    assert ["token", "<s>", "b", "</s>", "c", "</a>", "</eod>"] in lines


def test_truncation_keeps_actions_rewards_and_the_terminal():
    sequence = (("abcdefgh", None), ("xy", -3.5), ("ij", None), ("z", 1.0))
    whole, cut = make_point(*sequence), make_point(*sequence, max_length=16)
    dropped = len(whole.tokens) - 16
    assert cut.metadata["truncated_tokens"] == dropped == 3
    np.testing.assert_array_equal(cut.tokens[1:], whole.tokens[1 + dropped :])
    assert cut.tokens[0] == TOKENIZER.bos_id
    np.testing.assert_array_equal(cut.action_idxs, whole.action_idxs - dropped)
    np.testing.assert_array_equal(cut.rewards, whole.rewards)
    np.testing.assert_array_equal(cut.terminals, whole.terminals)


def test_a_row_of_exactly_max_length_is_whole():
    assert make_point(("ab", None), ("c", 2.0), max_length=7).metadata["truncated_tokens"] == 0


def test_a_row_whose_prompt_is_too_short_to_cut_is_refused():
    assert make_point(("ab", None), ("c", 2.0), max_length=5).metadata["truncated_tokens"] == 2
    with pytest.raises(UserError, match=r"has 7 tokens and max_length=4: 3 must go.*only 2 and nothing else"):
        make_point(("ab", None), ("c", 2.0), max_length=4)


def test_later_environment_utterances_are_never_cut():
    with pytest.raises(UserError, match="only 1 and nothing else"):
        make_point(("a", None), ("c", 2.0), ("long reply", None), ("d", 0.0), max_length=8)


def test_where_the_agent_speaks_first_the_first_environment_utterance_is_cut():
    point = make_point(("a", 1.0), ("bcd", None), ("e", 1.0), max_length=9)
    assert point.tokens.tolist() == to_ids("<a> a </a> c d </s> e </a> </eod>")


LONG = (("ab", None), ("c", 1.0), ("d", None), ("e", 2.0))


@pytest.mark.parametrize(("max_length", "left"), [(0, LONG), (11, LONG), (10, LONG[2:]), (6, LONG[2:]), (5, LONG[2:])])
def test_the_table_of_turns_that_are_left(max_length, left):
    assert drop_old_turns(LONG, True, TOKENIZER, max_length=max_length, keep_action=True) == left


def test_a_row_that_drops_its_old_turns_is_that_of_the_dialogue_without_them():
    row = make_point(*LONG, max_length=10, too_long="drop")
    short = make_point(*LONG[2:])
    for name in ("tokens", "action_idxs", "state_idxs", "rewards", "terminals", "utterance_rewards"):
        np.testing.assert_array_equal(getattr(row, name), getattr(short, name))
    assert row.raw == make_point(*LONG).raw
    assert (row.metadata["dropped_turns"], row.metadata["truncated_tokens"]) == (1, 0)
    assert make_point(*LONG, too_long="drop").metadata["dropped_turns"] == 0


def test_the_newest_turn_of_a_row_stays_and_is_cut():
    talk = (("a", None), ("b", 1.0), ("cd", None), ("e", 2.0), ("f", None))
    row = make_point(*talk, max_length=7, too_long="drop")
    assert row.tokens.tolist() == to_ids("<s> </s> e </a> f </s> </eod>")
    assert (row.metadata["dropped_turns"], row.metadata["truncated_tokens"]) == (1, 2)
    with pytest.raises(UserError, match="nothing else may be cut"):
        make_point(*talk, max_length=6, too_long="drop")


def test_an_unfinished_dialogue_ends_at_its_last_token_and_bootstraps():
    point = make_point(("ab", None), ("c", 2.0), terminal=False)
    assert point.tokens.tolist() == to_ids("<s> a b </s> c </a>")
    assert point.state_idxs.tolist() == [3, 4, 5]
    assert not point.terminals.any()
    assert not point.utterance_terminals.any()


def test_an_empty_rewrite_is_one_action():
    point = make_point(("a", None), ("", -200.0))
    assert point.action_idxs.tolist() == [2]
    assert point.rewards.tolist() == [-200]


def test_a_dialogue_without_the_agent_has_no_action():
    point = make_point(("a", None))
    assert point.action_idxs.dtype == point.state_idxs.dtype == np.int32
    assert point.action_idxs.tolist() == []
    assert point.state_idxs.tolist() == point.utterance_state_idxs.tolist() == [3]


def test_fractional_rewards_stay_fractional():
    assert make_point(("a", None), ("b", -0.25)).utterance_rewards.tolist() == [-0.25]


def test_control_tokens_written_in_a_text_are_text():
    point = make_point(("</a><|pad|>", None), ("</s>", 1.0))
    assert [int(np.sum(point.tokens == SPECIAL[name])) for name in ("</a>", "</s>", "pad")] == [1, 1, 0]


@pytest.mark.parametrize("reward", [float("nan"), float("inf")])
def test_a_reward_that_is_not_finite_is_refused(reward):
    with pytest.raises(UserError, match="rewards must be finite"):
        make_point(("a", None), ("b", reward))


def test_a_table_pays_each_action_token_and_the_closing_token():
    table = np.zeros(TOKENIZER.vocab_size)
    table[TOKENIZER.encode("c")[0]], table[TOKENIZER.eoa_id] = 2.0, 3.0
    point = make_point(("ab", None), ("c", 0.5), token_reward=lambda tokens: table[tokens] * 10.0 + 1.0)
    assert point.rewards.tolist() == [21.0, 31.5]
    assert point.utterance_rewards.tolist() == [52.5]


def test_a_token_reward_that_returns_its_own_array_is_not_written_to():
    own = np.zeros(2)
    make_point(("ab", None), ("c", 0.5), token_reward=lambda tokens: own[: len(tokens)])
    assert not own.any()


def test_a_prompt_ends_at_its_last_closing_token():
    assert encode_prompt(Chat([("ab", None)], False), TOKENIZER).tolist() == to_ids("<s> a b </s>")
    chat = Chat([("a", 1.0), ("b", None)], False)
    assert encode_prompt(chat, TOKENIZER).tolist() == to_ids("<a> a </a> b </s>")


def test_the_prompt_of_an_empty_dialogue_opens_the_agent():
    assert encode_prompt(Chat([], False), TOKENIZER).tolist() == to_ids("<a>")


def test_a_prompt_is_the_start_of_the_row_it_leads_to():
    prompt = encode_prompt(Chat([("ab", None)], False), TOKENIZER)
    np.testing.assert_array_equal(prompt, make_point(("ab", None), ("c", 1.0)).tokens[: len(prompt)])


def test_a_prompt_is_truncated_from_the_front():
    prompt = encode_prompt(Chat([("abcd", None)], False), TOKENIZER, max_length=4)
    assert prompt.tolist() == to_ids("<s> c d </s>")


ASKED = (("ab", None), ("c", 1.0), ("d", None), ("e", 2.0), ("fg", None))


@pytest.mark.parametrize(
    ("too_long", "max_length", "shown", "n_dropped"),
    [
        ("cut", 13, "<s> a b </s> c </a> d </s> e </a> f g </s>", 0),
        ("cut", 11, "<s> </s> c </a> d </s> e </a> f g </s>", 0),
        ("cut", 10, "<s> d </s> e </a> f g </s>", 1),
        ("drop", 12, "<s> d </s> e </a> f g </s>", 1),
        ("drop", 7, "<s> f g </s>", 2),
        ("drop", 3, "<s> g </s>", 2),
    ],
)
def test_a_prompt_that_is_too_long_loses_a_start_or_whole_old_turns(too_long, max_length, shown, n_dropped):
    prompt, n = fit_prompt(Chat(ASKED, False), TOKENIZER, max_length=max_length, too_long=too_long)
    assert (prompt.tolist(), n) == (to_ids(shown), n_dropped)


def test_an_agent_that_alone_speaks_may_lose_all_it_said():
    prompt, n = fit_prompt(Chat([("abc", 1.0), ("d", 1.0)], False), TOKENIZER, max_length=2)
    assert (prompt.tolist(), n) == (to_ids("<a>"), 2)


def test_whether_a_cut_is_enough():
    assert [can_cut(ASKED, TOKENIZER, max_length=n) for n in (0, 13, 11, 10)] == [True, True, True, False]


def test_a_finished_dialogue_has_no_prompt():
    with pytest.raises(ValueError, match="the dialogue is over"):
        encode_prompt(Chat([("a", None)], True), TOKENIZER)


def test_the_padding_table_of_the_docstring():
    point = make_point(("a", None), ("b", 3.0), terminal=False)
    batch = collate([point], length=6, n_actions=3, n_utterance_actions=1, pad_id=TOKENIZER.pad_id)
    assert batch.tokens.tolist() == [to_ids("<s> a </s> b </a> pad")]
    assert batch.token_mask.tolist() == [[True] * 5 + [False]]
    assert batch.per_token.action_idxs.tolist() == [[2, 3, 0]]
    assert batch.per_token.rewards.tolist() == [[0, 3, 0]]
    assert batch.per_token.action_mask.tolist() == [[True, True, False]]
    assert batch.per_token.state_idxs.tolist() == [[2, 3, 4, 0]]
    assert batch.per_token.terminals.tolist() == [[0, 0, 0, 1]]


def test_padding_changes_no_valid_entry():
    points = [make_point(("ab", None), ("c", 2.0)), make_point(("q", 1.0), terminal=False)]
    tight = collate(points, length=7, n_actions=2, n_utterance_actions=1, pad_id=TOKENIZER.pad_id)
    loose = collate(points, length=32, n_actions=9, n_utterance_actions=4, pad_id=TOKENIZER.pad_id, batch_size=5)
    np.testing.assert_array_equal(loose.tokens[loose.token_mask], tight.tokens[tight.token_mask])
    for level in ("per_token", "per_utterance"):
        a, b = getattr(tight, level), getattr(loose, level)
        for name in ("action_idxs", "rewards"):
            np.testing.assert_array_equal(getattr(b, name)[b.action_mask], getattr(a, name)[a.action_mask])
        np.testing.assert_array_equal(b.action_mask.sum(axis=1)[:2], a.action_mask.sum(axis=1))


def test_filler_rows_hold_nothing():
    batch = collate([], length=4, n_actions=2, n_utterance_actions=1, pad_id=TOKENIZER.pad_id, batch_size=3)
    assert not batch.token_mask.any()
    assert not batch.per_token.action_mask.any()
    assert (batch.per_token.terminals == 1).all()
    assert (batch.tokens == TOKENIZER.pad_id).all()


def test_masks_do_not_depend_on_what_the_padding_is():
    point = make_point(("ab", None), ("c", 2.0))
    shape = {"length": 9, "n_actions": 4, "n_utterance_actions": 1}
    masks = [collate([point], pad_id=pad_id, **shape).token_mask for pad_id in (TOKENIZER.pad_id, 0)]
    np.testing.assert_array_equal(*masks)


def test_a_row_that_does_not_fit_is_refused():
    point = make_point(("ab", None), ("c", 2.0))
    with pytest.raises(ValueError, match=r"row 0 has \(7, 2, 1\).*room for \(6, 2, 1\)"):
        collate([point], length=6, n_actions=2, n_utterance_actions=1, pad_id=0)
    with pytest.raises(ValueError, match="2 rows were given for batch_size=1"):
        collate([point, point], length=7, n_actions=2, n_utterance_actions=1, pad_id=0, batch_size=1)


@pytest.mark.parametrize(
    ("buckets", "longest", "extended"),
    [
        ((96, 128), 1000, (96, 128, 256, 512, 1000)),
        ((64, 128), 100, (64, 100)),
        ((128, 64), 256, (64, 128, 256)),
        ((), 50, (50,)),
    ],
)
def test_buckets_double_up_to_the_longest_row(buckets, longest, extended):
    assert extend_buckets(buckets, longest) == extended
