"""The hiring task's final judgement: every held-out posting once, every policy, and what changed.

Rows of the table:

| policy        | writes                                                                                        |
|---------------|-----------------------------------------------------------------------------------------------|
| echo          | the original posting again                                                                    |
| bc            | one sample of the cloned behaviour                                                            |
| bc best of n  | of n such samples the one with the best reward: it asks the matcher n times for each posting  |
| ilql          | one sample with the critic's advantage; the matcher is not asked                              |

With a held-out matcher, which training never asked, every rewrite is rewarded under it too. A gain under the matcher of
training alone may be a weakness of that matcher, found. Guardrails check every rewrite, `fluency` among them where the
run has a clone or names a language model.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from ilqljax.decoding.policy import Generation, TextPolicy
from ilqljax.errors import UserError
from ilqljax.hiring.environment import PostingObservation
from ilqljax.hiring.evaluation.impact import tabulate_impact_ratios
from ilqljax.hiring.evaluation.record import (
    EVALUATION_FILE,
    HELD_OUT,
    TRAINING,
    Rewrite,
    Shortlist,
    load_evaluations,
    make_rewrites,
    save_evaluations,
)
from ilqljax.hiring.evaluation.summary import format_table, save_rows, summarize_evaluations
from ilqljax.hiring.guardrails.fluency import Fluency
from ilqljax.hiring.guardrails.language_model import CLONE
from ilqljax.hiring.postings.posting import Posting
from ilqljax.hiring.postings.prompts import build_prompt
from ilqljax.hiring.reward.reward import DiversityReward

IMPACT_FILE = "impact_ratios.csv"


class HeldOut(NamedTuple):
    """A matcher that training never asked: its name, and the reward under it."""

    name: str
    reward: DiversityReward


@dataclass(frozen=True)
class JudgeConfig:
    """Say what is judged.

    Attributes:
        split: whose postings.
        best_of: the n of "bc best of n"; below 2 it is left out.
        n_selected: how many of a shortlist count as selected in the impact ratios, below the reward's k.
        max_postings: judge a seeded choice of at most so many, in their order; 0 takes all.
        seed: of the choice, the bootstrap and the permutations.
        fluency: whose language model checks fluency (`language_model.make_fluency`): "bc", a directory, or "" for no
            check.

    Raises:
        UserError: `max_postings` is negative.
    """

    split: str = "test"
    best_of: int = 4
    n_selected: int = 10
    max_postings: int = 0
    seed: int = 0
    fluency: str = ""

    def __post_init__(self) -> None:
        if self.max_postings < 0:
            raise UserError(f"max_postings={self.max_postings}: use a number from 1 on, or 0 for all postings.")


class HiringJudge:
    """Judge rewriting policies on postings that none of them was trained on."""

    def __init__(
        self,
        config: JudgeConfig,
        postings: Sequence[Posting],
        reward: DiversityReward,
        *,
        data_mean: float,
        held_out: HeldOut | None,
        make_fluency: Callable[[TextPolicy | None], Fluency | None],
    ) -> None:
        """Hold the held-out postings and the matcher.

        Args:
            config: the options.
            postings: each is judged once.
            reward: of training: the matcher and its score.
            data_mean: mean reward of the offline data's rewrites of these postings, near which a clone should score.
            held_out: rewards too, where there is one.
            make_fluency: makes the fluency check from the run's clone, or from None where it has none.

        Raises:
            UserError: `n_selected` does not suit the length of the reward's shortlists.
        """
        self.best_of, self.n_selected, self.seed = config.best_of, config.n_selected, config.seed
        if not 1 <= self.n_selected < reward.config.k:
            raise UserError(
                f"n_selected={self.n_selected} are to be selected of a shortlist of reward.k={reward.config.k}. Set "
                "--config.evaluator.n_selected to a number from 1 on that is below --config.reward.k."
            )
        self.postings = tuple(postings)
        self.observations = [PostingObservation(build_prompt(p), posting=p) for p in postings]
        self.reward, self.table = reward, reward.table
        self.data_mean, self.held_out = data_mean, held_out
        self.make_fluency, self.fluency = make_fluency, None

    def __call__(
        self, names: Sequence[str], make: Callable[..., TextPolicy], *, out_dir: Path
    ) -> tuple[list[dict], str]:
        """Act with every policy, write `evaluation.jsonl` and `impact_ratios.csv`, and return rows and a table."""
        self.fluency = self.make_fluency(make(CLONE) if CLONE in names else None)
        copies = [Generation(p.description, float("nan"), 0.0, 0.0, True) for p in self.postings]
        policies = {"echo": self.make_rewrites("echo", copies)}
        for name in names:
            policy = make(name)
            policies[name] = self.make_rewrites(name, policy.choose_batch(self.observations))
            if name == "bc" and self.best_of > 1:
                policy = make(name, n_generations=self.best_of, beam_width=0)  # samples, not beams
                best = f"bc best of {self.best_of}"
                policies[best] = self.make_rewrites(best, self.choose_best(policy.generate_batch(self.observations)))
        save_evaluations(out_dir / EVALUATION_FILE, policies)
        save_rows(out_dir / IMPACT_FILE, tabulate_impact_ratios(policies, n_selected=self.n_selected, seed=self.seed))
        return self.tabulate(policies)

    def report_sections(self, rows: Sequence[dict], *, out_dir: Path) -> Markup:
        """Return what the run's page shows of the judgement in a folder: gains, and rewrites of the last policy."""
        from ilqljax.hiring.evaluation.page import render_sections  # here: matplotlib takes a second

        return render_sections(load_evaluations(out_dir), rows)

    def choose_best(self, samples: Sequence[Sequence[Generation]]) -> list[Generation]:
        """Choose each posting's sample with the best reward."""
        chosen = []
        for observation, generations in zip(self.observations, samples, strict=True):
            scores = self.reward.score([observation.prompt] * len(generations), [g.text for g in generations])
            chosen.append(generations[int(np.argmax(scores))])
        return chosen

    def make_rewrites(self, name: str, generations: Sequence[Generation]) -> list[Rewrite]:
        """Return the records of what one policy wrote, with both shortlists."""
        samples = [(g.text, g.advantage, g.log_probability) for g in generations]
        rewards = {TRAINING: self.reward} | ({HELD_OUT: self.held_out.reward} if self.held_out else {})
        rewrites = make_rewrites(self.postings, samples, policy=name, rewards=rewards, fluency=self.fluency)
        before = self.reward.shortlists([r.original for r in rewrites])
        after = self.reward.shortlists([r.text for r in rewrites])
        return [
            replace(rewrite, before=self.show_shortlist(old), after=self.show_shortlist(new))
            for rewrite, old, new in zip(rewrites, before, after, strict=True)
        ]

    def show_shortlist(self, rows: np.ndarray) -> Shortlist:
        """Name a shortlist's members and their declared attributes, "" where unknown; an empty text has none."""
        members = [int(row) for row in rows if row >= 0]
        attributes = {}
        for name in self.table.names:
            _, categories, codes = self.table.attribute(name)
            attributes[name] = tuple(categories[code] if code >= 0 else "" for code in codes[members])
        return Shortlist(tuple(self.table.ids[row] for row in members), attributes)

    def tabulate(self, policies: Mapping[str, Sequence[Rewrite]]) -> tuple[list[dict], str]:
        """Return the rows and the table of the final judgement."""
        held_out = self.held_out.name if self.held_out else ""
        rows = summarize_evaluations(policies, held_out_matcher=held_out, seed=self.seed)
        floor, attribute = self.reward.estimate_noise_floor(seed=self.seed).value, self.reward.config.attribute
        table = format_table(rows, floor=floor, data_mean=self.data_mean, attribute=attribute)
        return rows, "\n".join([table, self.fluency.describe() if self.fluency else "fluency: not checked."])
