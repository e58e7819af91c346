"""A pretrained instruct model as a writer of paraphrases (`paraphrases.Writer`)."""

from collections.abc import Sequence

import numpy as np

from ilqljax.data.datapoint import encode_prompt
from ilqljax.decoding.options import DecodeConfig
from ilqljax.decoding.policy import Generation, TextPolicy
from ilqljax.envs.base import ListDialogue
from ilqljax.hiring.paraphrases import LEVELS, ParaphraseConfig
from ilqljax.models.builders import BuiltModel

LENGTH_BUCKETS = (96, 128, 192, 256, 384, 512, 768, 1024)


class ModelWriter:
    """Write with a model as it was loaded, in its own chat format (`models.builders.load_model(path, chat=True)`).

    Every level and temperature draws from its own stream, and every text has the next number in it, so that what is
    asked for together changes nothing.
    """

    def __init__(self, built: BuiltModel, config: ParaphraseConfig) -> None:
        """Make the policies; `built` has a language model to start from.

        Raises:
            UserError: the model has no room for a text beside its paraphrase.
        """
        self.tokenizer, self.policies = built.tokenizer, {}
        longest = {"posting": config.max_new_tokens, "sentence": config.max_sentence_tokens}
        for level in config.levels:
            for temperature in config.temperatures:
                decode = DecodeConfig(
                    max_new_tokens=longest[level], temperature=temperature, top_p=config.top_p, n_generations=config.n
                )
                stream = [config.seed, LEVELS.index(level), round(1e6 * temperature)]
                self.policies[level, temperature] = TextPolicy(
                    built.model,
                    decode,
                    built.tokenizer,
                    params={"policy": built.pretrained},
                    target={},
                    seed=int(np.random.SeedSequence(stream).generate_state(1)[0]),
                    length_buckets=LENGTH_BUCKETS,
                )
        self.max_prompt = {level: self.policies[level, config.temperatures[0]].max_prompt for level in config.levels}

    def has_room(self, text: str, level: str) -> bool:
        """Return whether the model can read the text and answer at its level's length."""
        prompt = encode_prompt(ListDialogue([(text, None)], over=False), self.tokenizer)
        return len(prompt) <= self.max_prompt[level]

    def write(self, texts: Sequence[str], level: str, temperature: float) -> list[list[Generation]]:
        """Return `n` answers to each text."""
        return self.policies[level, temperature].generate_batch(list(texts))

    def count_tokens(self, answer: Generation) -> int:
        """Return how many tokens an answer has, its closing one included."""
        return len(self.tokenizer.encode(answer.text)) + answer.finished
