"""The arrays that travel through ilqljax, and the legend of their axis letters.

Letters used in every shape annotation of the library:

| letter | axis                                       | letter | axis                                              |
|--------|--------------------------------------------|--------|---------------------------------------------------|
| B      | rows of a batch                            | D      | width of the model                                |
| T      | tokens of a row                            | F, O   | what a dense layer takes and gives                |
| P      | tokens of a prompt                         | H      | attention heads                                   |
| G      | new tokens of an utterance                 | K      | size of one head                                  |
| A      | actions of a row                           | L      | layers                                            |
| U      | utterances of the agent in a row           | BH, NH | rows times heads                                  |
| V      | vocabulary                                 | W      | beams                                             |
| S      | slots of a key/value cache                 | N      | any flat list: samples, positions, dataset rows   |

The tasks add N for candidates, G for postings, C for categories of an attribute, k for places of a shortlist, R for
resamples and F for a statistic's sums (`hiring`); W for words and G for guesses (`wordle`). A lower-case word, such as
`heads` or `pairs`, is its own legend.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from jaxtyping import Bool, Float, Int

# `jax.Array | np.ndarray`, without importing jax, which NumPy-level code does without. `Float[Array, "B T"]` still asks
# for a shape and a dtype, and tests check both (`tests/shapes.py`).
Array: TypeAlias = Any

# Axes of a device mesh (`ilqljax.training.mesh`) that a batch's rows are dealt out over.
BATCH_AXES = ("data", "fsdp")
# A range that clips no value.
UNCLIPPED = (-math.inf, math.inf)


class Transitions(NamedTuple):
    """Where a row decides, and what followed, at one level (tokens or utterances).

    Index j stands for the hidden state at token j, which predicts token j + 1. `state_idxs` lists a row's action
    positions followed by one more state, the one the last action leads to. Columns past a row's own actions are
    padding: index 0, reward 0, terminal 1, and `action_mask` false. Only `action_mask` says what is valid.
    """

    state_idxs: Int[Array, "B A+1"]
    action_idxs: Int[Array, "B A"]
    rewards: Float[Array, "B A"]
    terminals: Float[Array, "B A+1"]
    action_mask: Bool[Array, "B A"]


class Batch(NamedTuple):
    """A fixed-shape batch of dialogues (conventions: `ilqljax.data.datapoint`).

    `token_mask` is true for the first `len(row)` tokens; padding is at the end. A row with no token at all is filler
    (it completes the last batch of an evaluation) and contributes nothing to any loss. `hidden` are what is
    read of a frozen trunk, where they are known (`ilqljax.training.hidden_states`).
    """

    tokens: Int[Array, "B T"]
    token_mask: Bool[Array, "B T"]
    per_token: Transitions
    per_utterance: Transitions
    hidden: Float[Array, "B T D"] | None = None


class Counts(NamedTuple):
    """What the means of a batch divide by; of the whole batch, also while its microbatches are summed.

    Losses over utterances or rows are NaN where nobody counted them.
    """

    actions: Float[Array, ""]
    tokens: Float[Array, ""]
    utterances: Float[Array, ""] | float = float("nan")
    rows: Float[Array, ""] | float = float("nan")


# What an algorithm is to the train step: loss(params, target, batch, counts, dropout_key) -> (loss, metrics). Both are
# shares, sums over the batch divided by `counts`: those of microbatches, and of an evaluation's batches, are added up.
LossFn = Callable[[dict, dict, Batch, Counts, Array | None], tuple[Array, dict]]
