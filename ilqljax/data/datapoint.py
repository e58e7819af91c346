"""Turn a dialogue into tokens, states, actions and rewards, and rows into a batch.

A row is `<s>` (`<a>` when the agent speaks first), then the utterances, each closed by `</s>` (environment) or `</a>`
(agent), then `</eod>` when the dialogue is over. Index j means the hidden state at token j, which predicts token j + 1.
A tokenizer that speaks a model's chat format has other tokens around utterances (`ilqljax.data.tokenizer.Frame`).
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int

from ilqljax.data.step_rewards import StepRewards
from ilqljax.data.tokenizer import AGENT_END, AGENT_START, DIALOGUE_END, ENV_END, ENV_START, Tokenizer
from ilqljax.data.types import Array, Batch, Transitions
from ilqljax.errors import UserError

EXCERPT = 60  # characters of an offending text that an error message shows


@runtime_checkable
class Dialogue(Protocol):
    """Describe what a row is made from; every `ilqljax.envs.base.LanguageObservation` is one."""

    def to_sequence(self) -> tuple[list[tuple[str, float | None]], bool]:
        """Return (utterance, reward) pairs, the environment's with reward None, and whether the dialogue is over."""

    def metadata(self) -> dict[str, Any]:
        """Return what reports want to know about the dialogue."""


# From an utterance's tokens, the closing `</a>` included, to what each earns on top of the utterances' rewards.
TokenReward = Callable[[Int[Array, " A"]], Float[np.ndarray, " A"]]


def pay_nothing(tokens: Int[Array, " A"]) -> Float[np.ndarray, " A"]:
    """Return a token reward of 0 for every token."""
    return np.zeros(len(tokens))


Sequenced = Sequence[tuple[str, float | None]]  # utterances with the agent's rewards, None for the environment's


class _Frame(NamedTuple):
    """The control tokens of a dialogue: before each utterance, after each, and at the end."""

    leads: list[tuple[int, ...]]
    closings: list[tuple[int, ...]]
    ending: tuple[int, ...]

    def count_tokens(self) -> int:
        return sum(map(len, (*self.leads, *self.closings, self.ending)))


def _frame_dialogue(sequence: Sequenced, terminal: bool, tokenizer: Tokenizer) -> _Frame:
    frame = tokenizer.frame
    leads = [tuple(frame.lead(*speakers)) for speakers in itertools.pairwise(_list_speakers(sequence))]
    closings = [(tokenizer.eoa_id,) if reward is not None else tuple(frame.env_end) for _, reward in sequence]
    ending: tuple[int, ...] = (tokenizer.eod_id,) if terminal else ()
    if not sequence:
        ending = (*frame.lead("", "agent"), *ending)
    elif not terminal and sequence[-1][1] is None:
        ending = tuple(frame.lead("env", "agent"))
    return _Frame(leads, closings, ending)


def drop_old_turns(
    sequence: Sequenced, terminal: bool, tokenizer: Tokenizer, *, max_length: int, keep_action: bool
) -> Sequenced:
    """Leave out whole turns of a dialogue, oldest first, until at most `max_length` tokens are left (0: no limit).

    A turn ends with an utterance of the agent. The newest stays whatever its length: what is to be answered, or, with
    `keep_action`, the last turn in which the agent speaks, and what followed it.

    | max_length | left of `<s>` ab `</s>` c `</a>` d `</s>` e `</a>` `</eod>` |
    |------------|-------------------------------------------------------------|
    | 11         | all 11 tokens                                               |
    | 10 to 6    | `<s>` d `</s>` e `</a>` `</eod>`: 6                         |
    | 5          | the same, which is for others to cut or refuse              |
    """
    sizes = [len(tokenizer.encode(text)) for text, _ in sequence]

    def fits(start: int) -> bool:
        rest = sequence[start:]
        return sum(sizes[start:]) + _frame_dialogue(rest, terminal, tokenizer).count_tokens() <= max_length

    ends = [i + 1 for i, (_, reward) in enumerate(sequence) if reward is not None]
    starts = [0, *(ends[:-1] if keep_action else ends)]
    start = next(filter(fits, starts), starts[-1]) if max_length > 0 else 0
    return sequence[start:]


def _lay_out_dialogue(
    sequence: Sequenced, terminal: bool, tokenizer: Tokenizer, *, max_length: int
) -> tuple[list[int], list[tuple[int, int]], int]:
    """Tokenize the utterances, shorten the first of the environment where needed, and join them.

    Returns the tokens; for each utterance of the agent the token before it and its closing one; how many were cut.
    """
    encoded = [list(tokenizer.encode(text)) for text, _ in sequence]
    frame = _frame_dialogue(sequence, terminal, tokenizer)
    length = sum(map(len, encoded)) + frame.count_tokens()
    truncated = max(0, length - max_length) if max_length > 0 else 0
    prompt = next((ids for ids, (_, reward) in zip(encoded, sequence, strict=True) if reward is None), [])
    if len(prompt) < truncated:
        raise UserError(
            f"the dialogue has {length} tokens and max_length={max_length}: {truncated} must go, but its first "
            f"environment utterance has only {len(prompt)} and nothing else may be cut. Raise max_length, "
            f"shorten the texts of {''.join(text for text, _ in sequence)[:EXCERPT]!r}..., or leave whole old turns "
            "out (too_long='drop')."
        )
    del prompt[:truncated]
    tokens: list[int] = []
    agent_spans = []
    for lead, ids, closing, (_, reward) in zip(frame.leads, encoded, frame.closings, sequence, strict=True):
        tokens += lead
        last_closing = len(tokens) - 1
        tokens += [*ids, *closing]
        if reward is not None:
            agent_spans.append((last_closing, len(tokens) - 1))
    return [*tokens, *frame.ending], agent_spans, truncated


def _list_speakers(sequence: Sequenced) -> list[str]:
    return ["", *("env" if reward is None else "agent" for _, reward in sequence)]


def _agent_opens(sequence: Sequenced) -> bool:
    return not sequence or sequence[0][1] is not None


def _format_raw(sequence: Sequenced, terminal: bool) -> str:
    """Write the dialogue with its control tokens spelled out, for people to read."""
    utterances = (text + (ENV_END if reward is None else AGENT_END) for text, reward in sequence)
    opening = AGENT_START if _agent_opens(sequence) else ENV_START
    return opening + "".join(utterances) + (DIALOGUE_END if terminal else "")


@dataclass(frozen=True, eq=False)
class DataPoint:
    """Hold one dialogue as a training row, at the level of tokens and of utterances.

    For an agent utterance that closes at token i and starts after the closing token c (index 0 for the first), the
    actions and their states are c..i-1, so the closing `</a>` is itself an action. One more state, the row's last
    token, ends the list. The utterance's reward belongs to its last action, and every action earns a token reward. Take
    the environment saying "ab", the agent answering "c" for a reward of 2, and the dialogue being over:

        index       0     1     2     3     4     5     6
        token       <s>   a     b     </s>  c     </a>  </eod>
        predicts    a     b     </s>  c     </a>  </eod>
        action                        x     x
        reward                        0     2
        state                         x     x           x
        terminal                      0     0           1
        utterance action                          x
        utterance reward                          2
        utterance state               x                 x
        utterance terminal            0                 1

    An utterance's action is its `</a>` and its reward includes its token rewards. An unfinished dialogue has no
    `</eod>`, its last state is its last token, and all terminals are 0, so that its value is bootstrapped.

    A row longer than `max_length` loses tokens from the front of its first environment utterance, never control tokens,
    actions, rewards or the terminal flag. With max_length=6 the row above becomes

        index       0     1     2     3     4     5
        token       <s>   b     </s>  c     </a>  </eod>

    With too_long="drop" it loses whole old turns first, their actions and rewards with them (`drop_old_turns`): what is
    left is worth what it was, because values are of what follows.

    Attributes:
        raw: the whole dialogue as text, before truncation.
        prompt_length: how many characters of `raw` come before the first utterance that is an action, with their ends.
        metadata: the observation's own; `truncated_tokens`: how many tokens its first environment utterance lost; and
            `dropped_turns`: how many turns went whole.
        hidden: what value heads read of a frozen trunk at each token, or None where that is not known.
    """

    raw: str
    prompt_length: int
    tokens: Int[np.ndarray, " T"]
    action_idxs: Int[np.ndarray, " A"]
    state_idxs: Int[np.ndarray, " A+1"]
    rewards: Float[np.ndarray, " A"]
    terminals: Float[np.ndarray, " A+1"]
    utterance_action_idxs: Int[np.ndarray, " U"]
    utterance_state_idxs: Int[np.ndarray, " U+1"]
    utterance_rewards: Float[np.ndarray, " U"]
    utterance_terminals: Float[np.ndarray, " U+1"]
    metadata: dict[str, Any]
    hidden: Float[np.ndarray, "T D"] | None = None

    @classmethod
    def from_observation(
        cls,
        obs: Dialogue,
        tokenizer: Tokenizer,
        *,
        token_reward: TokenReward = pay_nothing,
        max_length: int = 0,
        too_long: str = "cut",
        reward_shift: float = 0.0,
        reward_scale: float = 1.0,
    ) -> "DataPoint":
        """Tokenize a dialogue and mark its states, actions and rewards.

        `token_reward` is paid for every action token; an utterance's reward r becomes (r - reward_shift) *
        reward_scale, and `StepRewards` are paid at their tokens, the shift where the utterance ends. `max_length` is
        the most tokens that a row may have, 0 for no limit, and `too_long` says what a longer one loses: "cut" or
        "drop". It is a `UserError` if a reward is not finite, or the dialogue cannot be cut down.
        """
        said, terminal = obs.to_sequence()
        sequence: Sequenced = [(text, None if r is None else (r - reward_shift) * reward_scale) for text, r in said]
        for text, reward in sequence:
            if reward is not None and not math.isfinite(reward):
                raise UserError(f"the reward of {text[:EXCERPT]!r} is {reward}: rewards must be finite numbers")
        prompt = list(itertools.takewhile(lambda utterance: utterance[1] is None, sequence))
        raw, n_turns = _format_raw(sequence, terminal), count_turns(sequence)
        if too_long == "drop":
            sequence = drop_old_turns(sequence, terminal, tokenizer, max_length=max_length, keep_action=True)
        row, agent_spans, truncated = _lay_out_dialogue(sequence, terminal, tokenizer, max_length=max_length)
        tokens = np.asarray(row, np.int32)
        starts, ends = np.asarray(agent_spans, np.int32).reshape(-1, 2).T
        positions = [np.arange(start, end, dtype=np.int32) for start, end in agent_spans]
        # Copies in double precision: the utterance rewards are added to them.
        earned = [np.array(token_reward(tokens[span + 1]), np.float64) for span in positions]
        spoken = [(text, given) for text, given in said if given is not None][n_turns - len(earned) :]
        for rewards, (text, given) in zip(earned, spoken, strict=True):
            if isinstance(given, StepRewards):
                rewards += given.place(text, tokenizer) * reward_scale
                rewards[-1] -= reward_shift * reward_scale
            else:
                rewards[-1] += (given - reward_shift) * reward_scale
        action_idxs = np.concatenate([np.zeros(0, np.int32), *positions])
        last = np.asarray([len(tokens) - 1], np.int32)
        return cls(
            raw=raw,
            prompt_length=len(_format_raw(prompt, False)),
            tokens=tokens,
            state_idxs=np.concatenate([action_idxs, last]),
            action_idxs=action_idxs,
            rewards=np.concatenate([np.zeros(0), *earned]).astype(np.float32),
            terminals=np.append(np.zeros(len(action_idxs)), terminal).astype(np.float32),
            utterance_state_idxs=np.concatenate([starts, last]),
            utterance_action_idxs=ends,
            utterance_rewards=np.asarray([rewards.sum() for rewards in earned], np.float32),
            utterance_terminals=np.append(np.zeros(len(starts)), terminal).astype(np.float32),
            metadata={
                **obs.metadata(),
                "truncated_tokens": truncated,
                "dropped_turns": n_turns - count_turns(sequence),
            },
        )

    @property
    def sizes(self) -> tuple[int, int, int]:
        """The row's numbers of tokens, actions and utterance actions."""
        return len(self.tokens), len(self.action_idxs), len(self.utterance_action_idxs)


def count_turns(sequence: Sequenced) -> int:
    """Return how often the agent speaks."""
    return sum(reward is not None for _, reward in sequence)


def encode_prompt(obs: Dialogue, tokenizer: Tokenizer, *, max_length: int = 0) -> Int[np.ndarray, " T"]:
    """Encode what the agent sees before it acts: the dialogue so far, up to its last closing token.

    Before anyone has spoken that is `<a>`. What does not fit is left out as `fit_prompt` says.
    """
    return fit_prompt(obs, tokenizer, max_length=max_length)[0]


def fit_prompt(
    obs: Dialogue, tokenizer: Tokenizer, *, max_length: int = 0, too_long: str = "cut"
) -> tuple[Int[np.ndarray, " T"], int]:
    """Encode what the agent sees before it acts, and count the old turns that are left out because they do not fit.

    Truncation is that of `DataPoint`, so training and acting see the same prompt when both leave it the same room; but
    where "cut" cannot cut enough, whole old turns go as with "drop". A dialogue that is over is a `ValueError`, one
    whose newest turn does not fit a `UserError`.
    """
    sequence, terminal = obs.to_sequence()
    if terminal:
        raise ValueError("the dialogue is over: act on an observation that is not terminal")
    kept: Sequenced = sequence
    if too_long == "drop" or not can_cut(sequence, tokenizer, max_length=max_length):
        kept = drop_old_turns(sequence, False, tokenizer, max_length=max_length, keep_action=False)
    tokens, _, _ = _lay_out_dialogue(kept, False, tokenizer, max_length=max_length)
    return np.asarray(tokens, np.int32), count_turns(sequence) - count_turns(kept)


def can_cut(sequence: Sequenced, tokenizer: Tokenizer, *, max_length: int) -> bool:
    """Say whether a dialogue that goes on fits, or does once its first environment utterance has lost its start."""
    sizes = [len(tokenizer.encode(text)) for text, _ in sequence]
    prompt = next((size for size, (_, reward) in zip(sizes, sequence, strict=True) if reward is None), 0)
    return (
        not max_length or sum(sizes) - prompt + _frame_dialogue(sequence, False, tokenizer).count_tokens() <= max_length
    )


def collate(
    datapoints: Sequence[DataPoint],
    *,
    length: int,
    n_actions: int,
    n_utterance_actions: int,
    pad_id: int,
    batch_size: int = 0,
) -> Batch:
    """Pad rows to one shape and stack them; masks come from the rows' lengths, never from padding values.

    A row `<s> a </s> b </a>` (an unfinished dialogue, reward 3) padded to length=6 and n_actions=3:

        tokens        <s>   a     </s>  b     </a>  pad
        token_mask    1     1     1     1     1     0
        action_idxs   2     3     0
        rewards       0     3     0
        action_mask   1     1     0
        state_idxs    2     3     4     0
        terminals     0     0     0     1

    Empty rows fill the batch up to `batch_size`; 0 takes as many as are given. Rows that do not fit are a `ValueError`.
    """
    batch_size = batch_size or len(datapoints)
    if len(datapoints) > batch_size:
        raise ValueError(f"{len(datapoints)} rows were given for batch_size={batch_size}: give fewer or raise it")
    shape = (length, n_actions, n_utterance_actions)
    for row, point in enumerate(datapoints):
        if any(need > room for need, room in zip(point.sizes, shape, strict=True)):
            raise ValueError(f"row {row} has {point.sizes} tokens, actions and utterances, and room for {shape}")

    def pad(name: str, width: int, fill: int = 0, dtype: type = np.int32) -> np.ndarray:
        padded: np.ndarray = np.full((batch_size, width), fill, dtype)
        for row, point in enumerate(datapoints):
            values = getattr(point, name)
            padded[row, : len(values)] = values
        return padded

    def mark(column: int, width: int) -> Bool[np.ndarray, "B {width}"]:
        sizes = [point.sizes[column] for point in datapoints] + [0] * (batch_size - len(datapoints))
        return np.arange(width) < np.array(sizes)[:, None]

    def pad_transitions(level: str, column: int, width: int) -> Transitions:
        return Transitions(
            state_idxs=pad(f"{level}state_idxs", width + 1),
            action_idxs=pad(f"{level}action_idxs", width),
            rewards=pad(f"{level}rewards", width, dtype=np.float32),
            terminals=pad(f"{level}terminals", width + 1, fill=1, dtype=np.float32),
            action_mask=mark(column, width),
        )

    hidden = None
    if datapoints and datapoints[0].hidden is not None:
        first = datapoints[0].hidden
        hidden = np.zeros((batch_size, length, first.shape[1]), first.dtype)
        for row, point in enumerate(datapoints):
            hidden[row, : len(point.tokens)] = point.hidden
    return Batch(
        tokens=pad("tokens", length, fill=pad_id),
        token_mask=mark(0, length),
        per_token=pad_transitions("", 1, n_actions),
        per_utterance=pad_transitions("utterance_", 2, n_utterance_actions),
        hidden=hidden,
    )


def extend_buckets(buckets: Sequence[int], longest: int) -> tuple[int, ...]:
    """Return the buckets below the longest row, more of them by doubling, and the longest row's own.

    A pretrained model may have room for a hundred times what rows need, and attention over padding costs its square.

    | buckets, longest | result |
    |------------------|--------|
    | (96, 128), 1000  | (96, 128, 256, 512, 1000) |
    | (64, 128), 100   | (64, 100) |
    """
    extended = sorted(bucket for bucket in buckets if bucket < longest)
    while extended and 2 * extended[-1] < longest:
        extended.append(2 * extended[-1])
    return (*extended, longest)
