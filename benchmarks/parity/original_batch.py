"""What the original does to a batch that we do not: cutting rows at their end, and counting padding as transitions."""

from dataclasses import replace

import numpy as np

from ilqljax.data.datapoint import DataPoint
from ilqljax.data.types import Transitions


def cut_end(point: DataPoint, max_length: int) -> DataPoint:
    """Cut a row to its first `max_length` tokens, as the original does (DOMAIN 2.2); 0 leaves it alone.

    Actions and rewards past the end are lost and the row is no longer terminal. With max_length=5:

        index       0     1     2     3     4     5     6
        token       <s>   a     </s>  c     d     </a>  </eod>
        action                  x     x     x
        cut action              x     x
        cut state               x     x     x

    An utterance keeps its place only if its closing token is inside.
    """
    if not 0 < max_length < len(point.tokens):
        return point
    n_states = int((point.state_idxs < max_length).sum())
    n = count_kept(point.action_idxs, n_states, max_length)
    # The original bounds the utterances' states by the number of token states it kept.
    n_utterances = count_kept(point.utterance_action_idxs, min(n_states, len(point.utterance_state_idxs)), max_length)
    return replace(
        point,
        tokens=point.tokens[:max_length],
        action_idxs=point.action_idxs[:n],
        state_idxs=point.state_idxs[: n + 1],
        rewards=point.rewards[:n],
        terminals=point.terminals[: n + 1],
        utterance_action_idxs=point.utterance_action_idxs[:n_utterances],
        utterance_state_idxs=point.utterance_state_idxs[: n_utterances + 1],
        utterance_rewards=point.utterance_rewards[:n_utterances],
        utterance_terminals=point.utterance_terminals[: n_utterances + 1],
    )


def count_kept(action_idxs: np.ndarray, n_states: int, max_length: int) -> int:
    """Count the actions that a cut row keeps: each needs its next token, and a state after it."""
    return max(min(int((action_idxs < max_length - 1).sum()), n_states - 1), 0)


def count_padding(moves: Transitions) -> Transitions:
    """Mark valid what the original counts as transitions (DOMAIN 2.3): every state whose terminal flag is 0.

    A padded row that is not over has one too many, from its last state to a terminal nowhere:

        terminals      0  0  0  1  1
        action_mask    1  1  0  0
        original's     1  1  1  0
    """
    return moves._replace(action_mask=np.asarray(moves.terminals[:, :-1] == 0))
