"""Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290): a policy from pairs of answers."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Float

from ilqljax.errors import UserError
from ilqljax.models.value_lm import ValueLM
from ilqljax.rl import losses
from ilqljax.rl.objectives.likelihood import sum_log_probability
from ilqljax.types import Array, LossFn


@dataclass(frozen=True)
class DPOConfig:
    """Which pairs there are (`data.arrangement.PreferencePairs`), and how far the policy may leave the reference.

    Attributes:
        beta: weight of the divergence from the reference that the implied reward has.
        min_gap: least difference of the returns of a pair, in the task's unit.
        pairs_per_prompt: most pairs of one prompt; 0 takes all.
        seed: of the choice of pairs.
    """

    beta: float = 0.1
    min_gap: float = 0.0
    pairs_per_prompt: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.beta > 0.0 or not self.min_gap >= 0.0 or self.pairs_per_prompt < 0 or self.seed < 0:
            raise UserError(f"{self} is out of range: beta must be above 0, the others at least 0.")


def make_dpo_loss(model: ValueLM, config: DPOConfig) -> LossFn:
    """Make the DPO loss of batches whose rows 2 i and 2 i + 1 are the better and the worse answer to one prompt.

    `params` holds the policy and the frozen `reference`. The loss is a mean over pairs; `accuracy` is the share of
    pairs that the policy has moved the right way from the reference, `margin` by how many nats.
    """

    def loss(params, target, batch, counts, dropout_key):
        policy = sum_log_probability(model, params["policy"], batch, dropout_key=dropout_key)
        reference = sum_log_probability(model, jax.lax.stop_gradient(params["reference"]), batch)
        chosen, rejected = (policy - reference).reshape(-1, 2).T
        is_pair = batch.token_mask[::2, 0]

        def reduce(values: Float[Array, "P"]) -> Float[Array, ""]:
            return losses.masked_mean(values, is_pair, count=counts.rows / 2)

        value = reduce(losses.dpo_loss(chosen, rejected, beta=config.beta))
        accuracy = reduce((chosen > rejected).astype(jnp.float32))
        return value, {"loss": value, "accuracy": accuracy, "margin": reduce(chosen - rejected)}

    return loss
