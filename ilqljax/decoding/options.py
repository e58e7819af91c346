"""How to act: the options of decoding, in a module that needs no jax."""

import math
from dataclasses import dataclass

from ilqljax.errors import UserError, check_known, check_range

RANKINGS = ("advantage", "value", "log_probability", "policy+advantage", "policy+value")
SMALLEST_TEMPERATURE = 1e-6  # logits divided by less are no numbers of single precision
OLD_RANKINGS = {"both": "policy+advantage", "tilted": "policy+value"}  # of version 0.1


@dataclass(frozen=True)
class DecodeConfig:
    """How to act: sample from log pi + beta A, ILQL's policy (Snell et al. 2022, arXiv 2206.11871), after the filters.

    Attributes:
        max_new_tokens: longest utterance, its closing token included.
        temperature: of the policy; 0 is greedy, and so is what is below `SMALLEST_TEMPERATURE`. Greedy takes the best
            of log pi + beta A; a small temperature sharpens pi alone, so that beta A soon has no say.
        top_k: keep the k likeliest tokens of the policy (Fan et al. 2018, arXiv 1805.04833); 0 keeps all.
        top_p: nucleus filter of the policy (Holtzman et al. 2020, arXiv 1904.09751); 1 keeps all.
        beta: weight of the advantage min Q_target - V, not below 0; 0 decodes from the policy alone and never runs a
            critic of tokens. A critic of utterances judges finished samples whatever beta, which only counts in
            `rank_by` then.
        clip: upper clip of beta times the advantage; inf is off, and 0 only lowers what the critic finds worse.
        exp_weights: add beta A; else the logarithm of the sign weights, of which a beta of 1 leaves the tokens with a
            positive advantage alone, or, where no token that passes the filters has one, the policy.
        n_generations: utterances sampled per observation, of which one is chosen.
        rank_by: what chooses: "advantage" (sum over the utterance), "value" (min target Q of its last token, which
            says what the whole is worth without adding up each token's error), "log_probability" (of the policy,
            summed), "policy+advantage" (its sum with the advantage times beta), or "policy+value" (its sum with the
            value times beta: the likeliest of the samples under ILQL's policy pi exp(beta A), arXiv 2206.11871, of
            whole utterances; V of the prompt is the same for all). Version 0.1 called the last two "both" and "tilted".
        beam_width: find utterances by beam search of this width instead of sampling, the most probable one first; a
            critic of utterances has no say in that. 0 samples.
        draft_tokens: guess this many next tokens, copied from where the last few stand in the prompt or in what is
            written, and check them in one pass (prompt lookup, Saxena 2023; speculative decoding, Leviathan et al.
            2023, arXiv 2211.17192). What is written stays the same up to rounding, as each token is drawn as it would
            be without; where much is copied it takes fewer passes. 0 writes token by token.

    Raises:
        UserError: a number is none or out of its range, `rank_by` is unknown, or two options exclude each other.
    """

    max_new_tokens: int = 128
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    beta: float = 0.0
    clip: float = math.inf
    exp_weights: bool = True
    n_generations: int = 1
    rank_by: str = "policy+advantage"
    beam_width: int = 0
    draft_tokens: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "rank_by", OLD_RANKINGS.get(self.rank_by, self.rank_by))
        check_known(RANKINGS, rank_by=self.rank_by)
        check_range(self, "[1, inf)", "max_new_tokens", "n_generations")
        check_range(self, "[0, inf)", "temperature", "top_k", "beam_width", "draft_tokens")
        check_range(self, "[0, inf)", "beta")
        check_range(self, "[0, inf]", "clip")
        check_range(self, "(0, 1]", "top_p")
        if self.temperature < SMALLEST_TEMPERATURE:
            object.__setattr__(self, "temperature", 0.0)
        if self.beam_width and self.n_generations > 1:
            raise UserError(
                f"beam_width={self.beam_width} finds utterances by itself: set n_generations=1, or beam_width=0."
            )
        if self.beam_width and self.draft_tokens:
            raise UserError(
                f"draft_tokens={self.draft_tokens} speeds up sampling, and beam_width={self.beam_width} searches: set "
                "draft_tokens=0, or beam_width=0."
            )
        if not self.exp_weights and not 0.0 <= self.beta <= 1.0:
            raise UserError(f"beta={self.beta} with exp_weights=False adds log(beta) or log(1 - beta): use 0 to 1.")
