"""A policy that acts in text: observations in, utterances out, batched and compiled."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import jax
import numpy as np

from ilqljax.data.datapoint import encode_prompt
from ilqljax.data.tokenizer import Tokenizer
from ilqljax.decoding.generate import DecodeConfig, Samples, make_generate
from ilqljax.envs.base import LanguageObservation, Policy
from ilqljax.errors import UserError
from ilqljax.models.value_lm import ValueLM


@dataclass(frozen=True)
class Generation:
    """One sampled utterance.

    Attributes:
        text: the utterance, without its closing token.
        log_probability: of the utterance under the unfiltered policy, summed over tokens (natural logarithm).
        advantage: the critic's min Q - V summed over tokens; 0 without a critic.
        finished: whether it closed itself before `max_new_tokens`.
    """

    text: str
    log_probability: float
    advantage: float
    finished: bool


class TextPolicy(Policy):
    """Act with a language model and, where beta is not 0, its critic.

    Every observation acted on gets the next number of a running count, and its random numbers depend on that number
    and the seed alone: how observations are grouped into batches changes nothing.
    """

    def __init__(
        self,
        model: ValueLM,
        config: DecodeConfig,
        tokenizer: Tokenizer,
        *,
        params: dict,
        target: dict,
        seed: int = 0,
        batch_size: int = 32,
        length_buckets: Sequence[int] = (64, 128, 256, 512, 768, 1024),
    ) -> None:
        """Create a policy.

        Args:
            model: the networks.
            config: how to act.
            tokenizer: the one the model was trained with.
            params: online parameters.
            target: target parameters; {} for a BC model.
            seed: of all sampling.
            batch_size: rows per compiled call; the last call of a batch is filled up with repeated rows.
            length_buckets: prompt lengths to compile for.
        """
        capacity = model.backbone.config.n_positions - config.max_new_tokens
        if capacity < 1:
            raise UserError(
                f"max_new_tokens={config.max_new_tokens} leaves no room for a prompt in a model of "
                f"{model.backbone.config.n_positions} positions. Lower max_new_tokens."
            )
        self.tokenizer = tokenizer
        self.config = config
        self.params, self.target = params, target
        self.max_prompt = capacity
        self.batch_size = batch_size
        self.length_buckets = (*sorted(b for b in length_buckets if b < capacity), capacity)
        self.key = jax.random.key(seed)
        self.n_acted = 0
        t = tokenizer
        self.generate = make_shared_generate(
            model,
            config,
            end_ids=(t.eoa_id, t.eod_id),
            pad_id=t.pad_id,
            suppress_ids=(t.pad_id, t.bos_id, t.boa_id, t.eos_id),
        )

    def act(self, obs: LanguageObservation) -> str:
        """Return one utterance."""
        return self.act_batch([obs])[0]

    def act_batch(self, observations: Sequence[LanguageObservation]) -> list[str]:
        """Return the best of `n_generations` utterances for each observation."""
        return [self.rank(generations)[0].text for generations in self.generate_batch(observations)]

    def rank(self, generations: Sequence[Generation]) -> list[Generation]:
        """Sort best first by the configured criterion; earlier samples win ties."""
        scores = {
            "advantage": lambda g: g.advantage,
            "log_probability": lambda g: g.log_probability,
            "both": lambda g: g.log_probability + self.config.beta * g.advantage,
        }
        return sorted(generations, key=scores[self.config.rank_by], reverse=True)

    def generate_batch(self, observations: Sequence[LanguageObservation]) -> list[list[Generation]]:
        """Sample `n_generations` utterances for each observation; prompts too long for the model lose their start."""
        prompts = [encode_prompt(obs, self.tokenizer, max_length=self.max_prompt) for obs in observations]
        numbers = np.arange(self.n_acted, self.n_acted + len(prompts))
        self.n_acted += len(prompts)
        # Prompts of like length share a call, so that short ones are not padded to the longest.
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        results: list[list[Generation]] = [[] for _ in prompts]
        for start in range(0, len(order), self.batch_size):
            chosen = order[start : start + self.batch_size]
            for i, generations in zip(chosen, self.run(chosen, prompts, numbers), strict=True):
                results[i] = generations
        return results

    def run(self, chosen: Sequence[int], prompts: Sequence[np.ndarray], numbers: np.ndarray) -> list[list[Generation]]:
        """Sample for one compiled batch of prompts."""
        n_rows = next_power_of_two(len(chosen)) if len(chosen) < self.batch_size else self.batch_size
        rows = [chosen[i % len(chosen)] for i in range(n_rows)]
        lengths = np.array([len(prompts[i]) for i in rows], np.int32)
        width = next(b for b in self.length_buckets if b >= lengths.max())
        tokens = np.full((n_rows, width), self.tokenizer.pad_id, np.int32)
        for row, i in enumerate(rows):
            tokens[row, : lengths[row]] = prompts[i]
        keys = jax.vmap(lambda number: jax.random.fold_in(self.key, number))(numbers[rows])
        samples = jax.device_get(self.generate(self.params, self.target, tokens, lengths, keys))
        return self.decode(samples)[: len(chosen)]

    def decode(self, samples: Samples) -> list[list[Generation]]:
        """Turn sampled tokens into text, grouped by prompt."""
        ends = (self.tokenizer.eoa_id, self.tokenizer.eod_id)
        generations = []
        for tokens, length, log_probability, advantage in zip(*samples, strict=True):
            utterance = [int(token) for token in tokens[:length]]
            finished = bool(utterance) and utterance[-1] in ends
            text = self.tokenizer.decode(utterance[:-1] if finished else utterance)
            generations.append(Generation(text, float(log_probability), float(advantage), finished))
        n = self.config.n_generations
        return [generations[i : i + n] for i in range(0, len(generations), n)]


# A policy is made anew at every evaluation; what it compiles depends on these arguments only.
make_shared_generate = lru_cache(maxsize=32)(make_generate)


def next_power_of_two(n: int) -> int:
    """Return the smallest power of two that is at least n."""
    return 1 << (n - 1).bit_length()
