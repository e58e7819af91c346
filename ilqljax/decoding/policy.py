"""A policy that acts in text: observations in, utterances out, batched and compiled."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from ilqljax.data.datapoint import EXCERPT, Dialogue, can_cut, extend_buckets, fit_prompt
from ilqljax.data.dataset import View
from ilqljax.data.tokenizer import Tokenizer
from ilqljax.data.types import UNCLIPPED, Array
from ilqljax.decoding.beam import make_beam_search
from ilqljax.decoding.generate import Samples, make_generate
from ilqljax.decoding.options import DecodeConfig
from ilqljax.decoding.sampling import prepare_for_decoding
from ilqljax.envs.base import LanguageObservation, ListDialogue, Policy
from ilqljax.errors import UserError, check_known, check_type
from ilqljax.models.value_lm import ValueLM


@dataclass(frozen=True)
class ActingConfig:
    """In what batches to act.

    Attributes:
        batch_size: rows per compiled call; the last call of a batch is filled up with repeated rows.
        length_buckets: prompt lengths to compile for; these doubled, and what the model has room for, are too.
        too_long: what becomes of a dialogue that has grown longer than the model: "cut", its first environment
            utterance loses its start, and where that is not enough whole old turns are left out; "drop", whole old
            turns are left out at once, as in rows of a dataset with too_long="drop"; "end", the dialogue ends where
            the cut is not enough. Evaluations count what was dropped and ended.
    """

    batch_size: int = 32
    length_buckets: tuple[int, ...] = (64, 128, 256, 512, 768, 1024)
    too_long: str = "cut"

    def __post_init__(self) -> None:
        check_known(("cut", "drop", "end"), too_long=self.too_long)
        if self.batch_size < 1:
            raise UserError(f"acting.batch_size={self.batch_size} is not positive. Use 1 or more rows per call.")


@dataclass(frozen=True)
class Generation:
    """One sampled utterance.

    Attributes:
        text: the utterance, without its closing token.
        log_probability: of the utterance under the unfiltered policy, summed over tokens (natural logarithm); of a
            beam, under what the search maximised: the filtered policy, with the advantage of a token critic.
        advantage: the critic's min Q - V, summed over tokens or, of an utterance critic, of the whole; 0 where no
            critic ran, and of a beam: a token critic's is in its log-probability, an utterance critic judges none.
        value: min target Q where it ends, of tokens or of an utterance critic; 0 where no critic ran, and of a beam.
        finished: whether it closed itself before `max_new_tokens`.
    """

    text: str
    log_probability: float
    advantage: float
    value: float
    finished: bool


def identity_view(dialogue: Dialogue) -> Dialogue:
    """Show the model what the environment says, and nothing else."""
    return dialogue


class TextPolicy(Policy):
    """Act with a language model and its critic: of tokens where beta is not 0, of utterances where samples are chosen.

    Every observation acted on gets the next number of a running count, and its random numbers depend on that number
    and the seed alone: how observations are grouped into batches changes nothing.

    Attributes:
        n_dropped_turns: old turns that it did not see, because their dialogues had grown longer than the model.
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
        batch_size: int = ActingConfig.batch_size,
        length_buckets: Sequence[int] = ActingConfig.length_buckets,
        too_long: str = ActingConfig.too_long,
        view: View = identity_view,
        value_range: tuple[float, float] = UNCLIPPED,
    ) -> None:
        """Create a policy of a model's networks (`target` is {} for a BC model), as `ActingConfig` says of batches.

        The tokenizer is the one the model was trained with; `view` says what the model is shown of an observation
        (`ilqljax.data.transforms.Transform.view`), and the target Q is clipped to `value_range`
        (`ilqljax.rl.algorithms.Learner.value_range`).

        Raises:
            UserError: the model has no room for a prompt beside `max_new_tokens`, or `batch_size` is below 1.
        """
        ActingConfig(batch_size, tuple(length_buckets), too_long)
        n, room = config.max_new_tokens, model.backbone.config.n_positions
        capacity = room - n
        if capacity < 1:
            raise UserError(f"max_new_tokens={n} leaves a prompt no room in a model of {room} positions. Lower it.")
        self.model, self.config, self.tokenizer, self.view = model, config, tokenizer, view
        self.params, self.target = params, target
        self.max_prompt, self.batch_size, self.too_long = capacity, batch_size, too_long
        self.n_dropped_turns = 0
        self.length_buckets = extend_buckets(length_buckets, capacity)
        self.key = jax.random.key(seed)
        self.n_acted = 0
        ids = {
            "end_ids": (tokenizer.eoa_id, tokenizer.eod_id),
            "pad_id": tokenizer.pad_id,
            "suppress_ids": tokenizer.suppressed_ids,
            "value_range": value_range,
        }
        self.judge: Callable | None = None
        token_config = config
        if model.config.level == "utterance":
            # Its critic has no say in which token comes next, only in which utterance is best.
            token_config = dataclasses.replace(config, beta=0.0)
            self.judge = make_shared_scores(model, value_range=value_range) if "v" in params else None
        self.networks = prepare_for_decoding(model, params, target, critic=token_config.beta != 0.0)
        self.generate = make_shared_generate(model, token_config, **ids)
        if config.beam_width:
            self.search = make_shared_search(model, token_config, width=config.beam_width, **ids)

    def act(self, obs: LanguageObservation | str) -> str:
        """Return one utterance; errors are those of `choose_batch`."""
        return self.act_batch([obs])[0]

    def act_batch(self, observations: Sequence[LanguageObservation | str]) -> list[str]:
        """Return the text of what `choose_batch` chooses for each observation; errors are the same."""
        return [chosen.text for chosen in self.choose_batch(observations)]

    def has_room(self, obs: LanguageObservation | str) -> bool:
        """Return whether a dialogue fits without its old turns; where these may be left out it always does."""
        if self.too_long != "end":
            return True
        (shown,) = map(self.view, read_observations([obs]))
        return can_cut(shown.to_sequence()[0], self.tokenizer, max_length=self.max_prompt)

    def choose_batch(self, observations: Sequence[LanguageObservation | str]) -> list[Generation]:
        """Return the best of `n_generations` utterances, or of `beam_width` beams, for each observation.

        Raises:
            UserError: nothing tells samples apart (`check_choice`), or `generate_batch` refuses an observation.
        """
        check_choice(self.config, level="token" if self.judge is None else "utterance")
        return [self.rank(generations)[0] for generations in self.generate_batch(observations)]

    def rank(self, generations: Sequence[Generation]) -> list[Generation]:
        """Sort best first by the configured criterion; earlier samples win ties."""
        scores = {
            "advantage": lambda g: g.advantage,
            "value": lambda g: g.value,
            "log_probability": lambda g: g.log_probability,
            "policy+advantage": lambda g: g.log_probability + self.config.beta * g.advantage,
            "policy+value": lambda g: g.log_probability + self.config.beta * g.value,
        }
        by = "log_probability" if self.config.beam_width else self.config.rank_by
        return sorted(generations, key=scores[by], reverse=True)

    def generate_batch(self, observations: Sequence[LanguageObservation | str]) -> list[list[Generation]]:
        """Find utterances for each observation; what is too long for the model is shortened (`ActingConfig.too_long`).

        A text alone is a dialogue in which nothing else has been said.

        Raises:
            UserError: the observations are no list, one is neither a text nor a dialogue or is over, or a network
                gave NaN.
        """
        views = [self.view(observation) for observation in read_observations(observations)]
        limits = {"max_length": self.max_prompt, "too_long": self.too_long}
        fitted = [fit_prompt(shown, self.tokenizer, **limits) for shown in views]
        prompts = [prompt for prompt, _ in fitted]
        self.n_dropped_turns += sum(n_dropped for _, n_dropped in fitted)
        numbers = np.arange(self.n_acted, self.n_acted + len(prompts))
        self.n_acted += len(prompts)
        # Prompts of like length share a call, so that short ones are not padded to the longest.
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        calls = [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]
        found = self.run_calls([([prompts[i] for i in call], numbers[call]) for call in calls])
        results = dict(zip(order, itertools.chain.from_iterable(found), strict=True))
        return [results[i] for i in range(len(prompts))]

    def run_calls(self, calls: Sequence[tuple[list[np.ndarray], np.ndarray]]) -> list[list[list[Generation]]]:
        """Call `run` with each of the arguments, which `ilqljax.training.shared_acting` does on several processes."""
        return [self.run(prompts, numbers) for prompts, numbers in calls]

    def run(self, prompts: Sequence[np.ndarray], numbers: Int[np.ndarray, " B"]) -> list[list[Generation]]:
        """Sample for one compiled batch of prompts, with the random numbers of `numbers`."""
        n_rows = min(self.batch_size, 1 << (len(prompts) - 1).bit_length())  # the next power of two
        rows = [i % len(prompts) for i in range(n_rows)]
        lengths = np.array([len(prompts[i]) for i in rows], np.int32)
        width = next(b for b in self.length_buckets if b >= lengths.max())
        tokens = np.full((n_rows, width), self.tokenizer.pad_id, np.int32)
        for row, i in enumerate(rows):
            tokens[row, : lengths[row]] = prompts[i]
        if self.config.beam_width:
            return self.decode(self.search_beams(tokens, lengths))[: len(prompts)]
        keys = jax.vmap(lambda number: jax.random.fold_in(self.key, number))(numbers[rows])
        samples = jax.device_get(self.generate(self.networks, tokens, lengths, keys))
        if self.judge is not None:
            advantage, value = self.judge_utterances(self.judge, tokens, lengths, samples)
            samples = samples._replace(advantage=advantage, value=value)
        return self.decode(samples)[: len(prompts)]

    def search_beams(self, tokens: Int[np.ndarray, "B P"], lengths: Int[np.ndarray, " B"]) -> Samples:
        """Search instead of sampling: a row's beams, best first; places for which there was no candidate are empty."""
        beams = jax.device_get(self.search(self.networks, tokens, lengths))
        n = beams.scores.size
        found = np.isfinite(beams.scores.reshape(n))
        found_lengths = np.where(found, beams.lengths.reshape(n), 0)
        tokens, scores = beams.tokens.reshape(n, -1), beams.scores.reshape(n)
        return Samples(tokens, found_lengths, scores, np.zeros(n), np.zeros(n), found_lengths)

    def judge_utterances(
        self, judge: Callable, tokens: Int[np.ndarray, "B P"], lengths: Int[np.ndarray, " B"], samples: Samples
    ) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, " N"]]:
        """Return advantages and values under an utterance critic; a cut-off sample is closed at its last token."""
        n = self.config.n_generations
        starts = np.repeat(lengths, n) - 1
        ends = starts + samples.lengths
        rows = np.pad(np.repeat(tokens, n, axis=0), [(0, 0), (0, samples.tokens.shape[1])])
        for row, start, end, utterance in zip(rows, starts, ends, samples.tokens, strict=True):
            row[start + 1 : end] = utterance[: end - start - 1]
            row[end] = self.tokenizer.eoa_id
        return jax.device_get(judge(self.params, self.target, rows, starts, ends))

    def decode(self, samples: Samples) -> list[list[Generation]]:
        """Turn sampled tokens into text, grouped by prompt.

        Raises:
            UserError: a log-probability, an advantage or a value is NaN.
        """
        if np.isnan([samples.log_probability, samples.advantage, samples.value]).any():
            raise UserError(
                "The networks gave NaN instead of a log-probability, an advantage or a value: their parameters are not "
                "finite, or too large. Act with an earlier checkpoint, or train with a smaller learning rate."
            )
        ends = (self.tokenizer.eoa_id, self.tokenizer.eod_id)
        generations = []
        for tokens, length, log_probability, advantage, value, _ in zip(*samples, strict=True):
            utterance = [int(token) for token in tokens[:length]]
            finished = bool(utterance) and utterance[-1] in ends
            text = self.tokenizer.decode(utterance[:-1] if finished else utterance)
            generations.append(Generation(text, float(log_probability), float(advantage), float(value), finished))
        n = self.config.beam_width or self.config.n_generations
        return [generations[i : i + n] for i in range(0, len(generations), n)]


def read_observations(given: Iterable[LanguageObservation | str]) -> list[Dialogue]:
    """Return what a policy is to answer as dialogues; raise a `UserError` at what is none."""
    if isinstance(given, str):
        raise UserError(f"observations={given[:EXCERPT]!r} is one text. Give a list of texts, or use act.")
    check_type(Iterable, "Give a list of texts or dialogues.", observations=given)
    found: list[Dialogue] = []
    for one in given:
        said = ListDialogue([(one, None)], over=False) if isinstance(one, str) else one
        check_type(Dialogue, "Give a text, or ListDialogue([(text, None), ...], over=False).", observation=said)
        if said.to_sequence()[1]:
            raise UserError(f"The dialogue {str(said)[:EXCERPT]!r} is over. Give one that is not (over=False).")
        found.append(said)
    return found


def check_choice(config: DecodeConfig, *, level: str, frozen: bool = False) -> None:
    """Refuse, with a `UserError`, to choose by a critic that has nothing to choose from or does not run.

    A critic of utterances (`level` "utterance") judges samples whatever `beta`. `frozen` says that the policy was only
    cloned, so that one sample shows nothing of such a critic.
    """
    n = config.n_generations
    if level == "token" and n > 1 and config.rank_by in ("advantage", "value") and not config.beta:
        raise UserError(
            f"rank_by={config.rank_by!r} with beta=0: no critic runs, so nothing tells the {n} samples apart. Set "
            "beta, or rank_by='log_probability'."
        )
    if level == "utterance" and n < 2 and frozen:
        raise UserError(
            f"decode.n_generations={n}: a critic that judges whole utterances acts by choosing among samples, and has "
            "no say in one, nor in beams. Set decode.n_generations=8, for instance, and decode.beam_width=0."
        )
    if level == "utterance" and n > 1 and not config.temperature:
        raise UserError(f"decode.temperature=0 makes all {n} samples equal: a critic has no choice. Set it above 0.")


def make_utterance_scores(
    model: ValueLM, *, value_range: tuple[float, float] = UNCLIPPED
) -> Callable[[dict, dict, Array, Array, Array], tuple[Array, Array]]:
    """Make the compiled `score(params, target, tokens [N T], starts [N], ends [N]) -> (advantages [N], values [N])`.

    An utterance's value is min target Q where it ends, clipped to `value_range`, its advantage that minus V where it
    starts, as the critic was trained (`ilqljax.data.datapoint.DataPoint`):

    | position    | 0     | 1 | 2      | 3 | 4      |
    |-------------|-------|---|--------|---|--------|
    | token       | `<s>` | q | `</s>` | a | `</a>` |
    | is read     |       |   | V: `starts` |  | Q: `ends` |
    """

    def take(values: Float[Array, "N T D"], positions: Int[Array, " N"]) -> Float[Array, "N D"]:
        return jnp.take_along_axis(values, positions[:, None, None], axis=1, mode="clip")[:, 0]

    def score(params: dict, target: dict, tokens: Array, starts: Int[Array, " N"], ends: Int[Array, " N"]):
        hidden = model.compute_hidden(params, target, tokens, policy=False)
        v = model.compute_v(params, take(hidden.value, starts))
        q = jnp.clip(model.compute_target_q(target, take(hidden.target, ends), None), *value_range)
        return q - v, q

    return jax.jit(score)


# A policy is made again at every evaluation; what it compiles depends on these arguments only.
make_shared_generate = lru_cache(maxsize=32)(make_generate)
make_shared_search = lru_cache(maxsize=32)(make_beam_search)
make_shared_scores = lru_cache(maxsize=8)(make_utterance_scores)
