"""The guardrail that needs a language model: a rewrite must be about as likely as the original.

`guardrails` knows words and pairs of words; this check knows sentences. A language model (the run's clone, or one that
the user names) reads the prompt and gives the rewrite and the original a mean log-probability per token. How far a
rewrite may fall below its original is calibrated on undamaged edits of postings that the model was not trained on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from ilqljax.data.types import Array
from ilqljax.errors import UserError
from ilqljax.hiring.data.prepared import PreparedData
from ilqljax.hiring.environment import PostingObservation
from ilqljax.hiring.guardrails import Failure

PASS_SHARE = 0.99

# The mean log-probability per token (nats) of each observation's rewrite, given its prompt.
Likelihood = Callable[[Sequence[PostingObservation]], Float[Array, " B"]]


@dataclass(frozen=True)
class Fluency:
    """Refuse rewrites that a language model finds much less likely than their originals."""

    name: str  # of the language model
    likelihood: Likelihood
    floor: float  # the lowest difference, rewrite less original, that passes
    n_calibration: int  # edits that the floor comes from

    def compare(self, prompts: Sequence[str], originals: Sequence[str], texts: Sequence[str]) -> Float[Array, " B"]:
        """Return how much more likely each text is than its original, in nats per token; equal pairs are asked once."""
        pairs = list(dict.fromkeys([*zip(prompts, texts, strict=True), *zip(prompts, originals, strict=True)]))
        values = self.likelihood([PostingObservation(prompt, text, 0.0) for prompt, text in pairs])
        value_of = dict(zip(pairs, values.tolist(), strict=True))
        return np.array([value_of[p, t] - value_of[p, o] for p, o, t in zip(prompts, originals, texts, strict=True)])

    def judge(self, difference: float) -> list[Failure]:
        """Return the failure of a difference that `compare` found, if it is one."""
        if difference >= self.floor:
            return []
        reason = f"{-difference:.2f} nats a token less likely than the original under {self.name}; {-self.floor:.2f} "
        return [Failure("fluency", reason + "are allowed.")]

    def describe(self) -> str:
        """Say what the check allows, for a report."""
        return (
            f"fluency: under {self.name} a rewrite may be {-self.floor:.2f} nats a token less likely than its "
            f"original, which {PASS_SHARE:.0%} of {self.n_calibration} undamaged edits of the split 'eval' keep to."
        )


def calibrate_fluency(name: str, likelihood: Likelihood, data: PreparedData) -> Fluency:
    """Set the floor so that `PASS_SHARE` of the undamaged edits of the split "eval" pass (`select_edits`)."""
    edits = select_edits(data)
    fluency = Fluency(name, likelihood, floor=-np.inf, n_calibration=len(edits))
    differences = fluency.compare(*zip(*edits, strict=True))
    return replace(fluency, floor=float(np.quantile(differences, 1.0 - PASS_SHARE)))


def select_edits(data: PreparedData) -> list[tuple[str, str, str]]:
    """Return prompt, original and text of each undamaged edit of the split "eval"; none is a `UserError`."""
    rows = data.select_rewrites("eval")
    originals = {row.posting_id: row.text for row in rows if row.operator == "original"}
    texts = [(row.prompt, originals[row.posting_id], row.text) for row in rows if not row.guardrail_failures]
    edits = [edit for edit in texts if edit[1] != edit[2]]
    if not edits:
        raise UserError(
            f"{data.folder}: the split 'eval' has no undamaged edit to calibrate the fluency check on. Prepare more "
            "postings or operators, or leave the check out (--config.evaluator.fluency='')."
        )
    return edits
