"""The language model behind the fluency guardrail: the run's clone or a directory, as likelihoods of texts."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ilqljax.config import resolve_path
from ilqljax.data.datapoint import Dialogue, extend_buckets
from ilqljax.data.dataset import ObservationDataset, View
from ilqljax.data.loader import eval_batches
from ilqljax.data.tokenizer import Tokenizer, load_tokenizer
from ilqljax.data.types import Array, Batch
from ilqljax.decoding.policy import TextPolicy, identity_view
from ilqljax.errors import UserError
from ilqljax.hiring.data.prepared import PreparedData
from ilqljax.hiring.guardrails.fluency import Fluency, calibrate_fluency, select_edits
from ilqljax.models.builders import build_gpt2
from ilqljax.models.value_lm import ValueLM, policy_trunk
from ilqljax.rl.objectives.likelihood import sum_log_probability

CLONE = "bc"


def score_texts(
    dialogues: Sequence[Dialogue],
    *,
    model: ValueLM,  # whose backbone the language model is
    trunk: dict,  # its parameters
    tokenizer: Tokenizer,  # the one it was trained with
    batch_size: int = 32,  # rows of a compiled call
    length_buckets: Sequence[int] = (128, 256, 512),  # row lengths to compile for
    view: View = identity_view,  # what the model is shown of a dialogue
) -> Float[Array, " B"]:
    """Return each dialogue's mean log-probability (nats) per token that the agent said, closing tokens included.

    Prompts too long for the model lose their start, as in training; what was said must fit (else a `UserError`).
    """
    if not dialogues:
        return np.zeros(0)
    most = model.backbone.config.n_positions
    rows = ObservationDataset([view(dialogue) for dialogue in dialogues], tokenizer, max_length=most)
    batches = eval_batches(rows, batch_size=batch_size, length_buckets=extend_buckets(length_buckets, most))
    means = [jax.device_get(mean_log_probability(model, trunk, batch)) for batch in batches]
    return np.concatenate(means)[: len(dialogues)]


@partial(jax.jit, static_argnums=0)
def mean_log_probability(model: ValueLM, trunk: dict, batch: Batch) -> Float[Array, " B"]:
    """Return the mean log-probability of each row's action tokens."""
    n_actions = jnp.maximum(batch.per_token.action_mask.sum(-1), 1)
    return sum_log_probability(model, trunk, batch) / n_actions


def make_fluency(source: str, data: PreparedData, *, clone: TextPolicy | None) -> Fluency | None:
    """Make the check that a config names: "" for none, "bc" for the run's clone, or a language model's directory.

    A run that cloned nothing has none for "bc". A directory that does not exist, and data with nothing to calibrate on,
    raise a `UserError`.
    """
    if not source or (source == CLONE and clone is None):
        return None
    if source == CLONE:
        parts = ("model", "tokenizer", "batch_size", "length_buckets", "view")
        acting = {"trunk": policy_trunk(clone.params)} | {name: getattr(clone, name) for name in parts}
        return calibrate_fluency("the clone", partial(score_texts, **acting), data)
    require_source(source, data)
    directory = resolve_path(source)  # of transformers, or a run's `export/policy`
    built = build_gpt2(load_tokenizer(directory), path=str(directory))
    likelihood = partial(score_texts, model=built.model, trunk=built.pretrained, tokenizer=built.tokenizer)
    return calibrate_fluency(source, likelihood, data)


def require_source(source: str, data: PreparedData) -> None:
    """Refuse what `make_fluency` could not use, before anything is trained; arguments and errors are its own."""
    if source:
        select_edits(data)
    if source not in ("", CLONE) and not (resolve_path(source) / "config.json").is_file():
        raise UserError(
            f"fluency={source!r} is not a language model's directory (config.json, model.safetensors and a tokenizer), "
            f"nor {CLONE!r} for the run's clone, nor '' for no check."
        )
