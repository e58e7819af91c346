"""The hiring task's objects by name, for configs: data, tokenizer, dataset, environment, evaluator."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from ilqljax.config import register, resolve_path
from ilqljax.data.dataset import ObservationDataset, infer_reward_scaling
from ilqljax.data.tokenizer import Tokenizer, train_bpe
from ilqljax.envs.base import LanguageEnvironment
from ilqljax.errors import UserError
from ilqljax.hiring.data.practice import make_practice
from ilqljax.hiring.data.prepare import DataConfig, PreparedData, choose_some, prepare_data
from ilqljax.hiring.environment import PostingEnvironment, PostingObservation
from ilqljax.hiring.evaluation.judge import HiringJudge, JudgeConfig
from ilqljax.hiring.guardrails.language_model import make_fluency, require_source
from ilqljax.hiring.matching import encoders, http, lexical, postgres  # noqa: F401  (registers the matchers)
from ilqljax.hiring.matching.matcher import MatcherSource, TfidfSource
from ilqljax.hiring.reward.combined import make_engines
from ilqljax.hiring.reward.reward import DiversityReward, RewardConfig

logger = logging.getLogger(__name__)
register("reward", "diversity")(RewardConfig)


@dataclass(eq=False)
class HiringData:
    """A prepared folder with its matcher and its practice postings, each made once."""

    prepared: PreparedData
    config: DataConfig
    n_practice: int
    matcher: MatcherSource = field(default_factory=TfidfSource)

    @cached_property
    def reward(self) -> DiversityReward:
        """The reward that scored the data."""
        return self.prepared.make_reward(self.matcher)

    @cached_property
    def practice(self) -> list[PostingObservation]:
        """Unscored dialogues for behavioural cloning."""
        return make_practice(self.prepared, self.config, n_postings=self.n_practice)


@register("data", "hiring", options=DataConfig)
def build_data(
    *,
    folder: str,
    n_practice: int = 0,
    reward: RewardConfig | None = None,
    matcher: MatcherSource | None = None,
    **options: Any,
) -> HiringData:
    """Prepare a data folder, or open it if it is current.

    Args:
        folder: where the prepared data goes.
        n_practice: unscored postings for behavioural cloning (`practice`).
        reward: how rewrites are scored; the defaults where there is no section.
        matcher: what training is rewarded by; TF-IDF where there is no section.
        **options: those of `DataConfig`.
    """
    for name in ("path", "candidates_path", "words_path", "rewrites_path"):
        if options.get(name):
            options[name] = str(resolve_path(options[name]))
    config = DataConfig(**options, reward=reward or RewardConfig())
    source = TfidfSource() if matcher is None else matcher
    out_dir = resolve_path(folder)
    logger.info("data folder: %s", out_dir)
    prepared = prepare_data(config, out_dir=out_dir, matcher=source)
    if headroom := prepared.summary.get("headroom"):
        logger.info("headroom, %s", headroom)
    return HiringData(prepared, config, n_practice, source)


@register("tokenizer", "trained_bpe")
def build_trained_bpe(data: HiringData, *, vocab_size: int = 1400) -> Tokenizer:
    """Train a byte-level BPE on each distinct text that training may read.

    Args:
        data: the prepared data.
        vocab_size: most ids.
    """
    observations = [*data.prepared.make_observations("train"), *data.practice]
    texts = dict.fromkeys(text for o in observations for text in (o.prompt, o.rewrite))
    return train_bpe(texts, vocab_size=vocab_size)


@register("dataset", "hiring_rewrites")
def build_dataset(
    data: HiringData,
    tokenizer: Tokenizer,
    *,
    split: str = "train",
    practice: bool = False,
    max_length: int = 0,
    max_actions: int = 0,
    center: bool = False,
    keep: str = "all",
) -> ObservationDataset:
    """Make the rows of a split's scored rewrites, rewards standardised by the training split.

    Args:
        data: the prepared data.
        tokenizer: of the model.
        split: "train", "eval" or "test".
        practice: add the unscored practice rows, whose reward means nothing: for behavioural cloning only.
        max_length: longest row in tokens; longer prompts lose their start. 0 is no limit.
        max_actions: longest rewrite in tokens; rows with a longer one are left out, and how many is reported. 0 is no
            limit.
        center: subtract from each reward the mean of the same posting's rewrites, so that a critic learns which rewrite
            of a posting is better, and not which posting (a baseline; Williams 1992).
        keep: "all" rewrites; "passing", without those that a guardrail finds damaged; or "improving", of these the ones
            that score above their original. A clone writes what it was shown; a critic learns from good and bad.
    """
    prepare = center_rewards if center else list
    shift, scale = infer_reward_scaling(prepare(data.prepared.make_observations("train")))
    observations = [*prepare(data.prepared.make_observations(split, keep=keep)), *(data.practice if practice else ())]
    # The closing token is an action too.
    kept = [o for o in observations if not max_actions or len(tokenizer.encode(o.rewrite)) < max_actions]
    dataset = ObservationDataset(kept, tokenizer, max_length=max_length, reward_shift=shift, reward_scale=scale)
    dataset.as_paid = not (practice or center)
    notes = [f"{dataset.size()} rows"]
    if len(kept) < len(observations):
        notes.append(f"{len(observations) - len(kept)} left out with rewrites above {max_actions} tokens")
    if dataset.n_truncated:
        notes.append(f"{dataset.n_truncated} prompts cut at the start to fit {max_length} tokens")
    logger.info("%s: %s", f"{split} + practice" if practice else split, ", ".join(notes))
    return dataset


def center_rewards(observations: Sequence[PostingObservation]) -> list[PostingObservation]:
    """Return rewrites with their rewards less the mean of all rewrites of the same prompt."""
    rewards: dict[str, list[float]] = {}
    for o in observations:
        rewards.setdefault(o.prompt, []).append(o.reward)
    return [replace(o, reward=o.reward - float(np.mean(rewards[o.prompt]))) for o in observations]


@register("environment", "hiring")
def build_environment(data: HiringData, *, split: str = "eval") -> Callable[[int], LanguageEnvironment]:
    """Make the function from a number to the environment of the split's posting of that number (counted round).

    Args:
        data: the prepared data.
        split: "train", "eval" or "test".
    """
    postings = data.prepared.select_postings(split)
    if not postings:
        raise UserError(f"An environment needs at least one posting, and the split {split!r} is empty.")
    return lambda i: PostingEnvironment(postings[i % len(postings)], data.reward)


@register("evaluator", "hiring", options=JudgeConfig)
def build_judge(data: HiringData, *, held_out_matcher: MatcherSource | None = None, **options: Any) -> HiringJudge:
    """Make the final judge.

    Args:
        data: the prepared data.
        held_out_matcher: one that training never asked, under which everything is judged as well; none where there is
            no section.
        **options: those of `JudgeConfig`.

    Raises:
        UserError: the held-out matcher is the one that training is rewarded by, fluency could not be checked, or an
            option does not suit the data.
    """
    config, prepared = JudgeConfig(**options), data.prepared
    require_source(config.fluency, prepared)
    held_out, name = None, ""
    if held_out_matcher is not None:
        asked = make_engines(prepared.reward_config.engines, data.matcher)
        if held_out_matcher.fingerprint in [engine.fingerprint for engine in asked]:
            raise UserError(
                f"The held-out matcher ({held_out_matcher.name}) is the one that training is rewarded by, so it holds "
                "nothing out. Choose another, or leave evaluator.held_out_matcher away."
            )
        held_out, name = prepared.make_held_out_reward(held_out_matcher), held_out_matcher.name
    # Files are often in order of time: their first postings are not like the rest.
    postings = choose_some(prepared.select_postings(config.split), config.max_postings, seed=config.seed)
    judged = {posting.id for posting in postings}
    return HiringJudge(
        config,
        postings,
        data.reward,
        data_mean=float(np.mean([r.reward for r in prepared.select_rewrites(config.split) if r.posting_id in judged])),
        held_out=held_out,
        held_out_matcher=name,
        make_fluency=lambda clone: make_fluency(config.fluency, prepared, clone=clone),
    )
