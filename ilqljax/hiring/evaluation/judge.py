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

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from markupsafe import Markup

from ilqljax.data.files import hash_text
from ilqljax.decoding.policy import Generation, TextPolicy
from ilqljax.errors import check_known, check_range
from ilqljax.hiring.data.splits import SPLIT_NAMES
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
from ilqljax.hiring.matching.matcher import check_selected
from ilqljax.hiring.postings.posting import Posting, build_prompt
from ilqljax.hiring.reward.reward import DiversityReward
from ilqljax.training.judgement import keep_made

IMPACT_FILE = "impact_ratios.csv"


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
    """

    split: str = "test"
    best_of: int = 4
    n_selected: int = 10
    max_postings: int = 0
    seed: int = 0
    fluency: str = ""

    def __post_init__(self) -> None:
        check_known(SPLIT_NAMES, split=self.split)
        check_range(self, "[0, inf)", "best_of", "max_postings")
        check_range(self, "[1, inf)", "n_selected")


@dataclass(frozen=True, eq=False)
class HiringJudge:
    """Judge rewriting policies on postings that none of them was trained on.

    Attributes:
        config: the options; its `n_selected` must suit the reward's shortlists, or a `UserError` is raised.
        postings: each is judged once.
        reward: of training: the matcher and its score.
        data_mean: mean reward of the offline data's rewrites of these postings, near which a clone should score.
        held_out: the reward under a matcher that training never asked, where there is one.
        held_out_matcher: that matcher's name, "" where there is none.
        make_fluency: makes the fluency check from the run's clone, or from None where it has none.
    """

    config: JudgeConfig
    postings: Sequence[Posting]
    reward: DiversityReward
    data_mean: float
    held_out: DiversityReward | None
    held_out_matcher: str
    make_fluency: Callable[[TextPolicy | None], Fluency | None]

    def __post_init__(self) -> None:
        where = "config.evaluator.n_selected and config.reward.k"
        check_selected(self.config.n_selected, self.reward.config.k, where=where)

    def __call__(
        self, names: Sequence[str], make: Callable[..., TextPolicy], *, out_dir: Path
    ) -> tuple[list[dict], str]:
        """Act with every policy, write `evaluation.jsonl` and `impact_ratios.csv`, and return rows and a table."""
        config = self.config
        fluency = self.make_fluency(make(CLONE) if CLONE in names else None)
        written = self.collect_texts(names, make, out_dir=out_dir)
        policies = {name: self.make_rewrites(name, texts, fluency) for name, texts in written.items()}
        save_evaluations(out_dir / EVALUATION_FILE, policies)
        ratios = tabulate_impact_ratios(policies, n_selected=config.n_selected, seed=config.seed)
        save_rows(out_dir / IMPACT_FILE, ratios)
        rows = summarize_evaluations(policies, held_out_matcher=self.held_out_matcher, seed=config.seed)
        floor = self.reward.estimate_noise_floor(seed=config.seed).value
        table = format_table(rows, floor=floor, data_mean=self.data_mean, attribute=self.reward.config.attribute)
        return rows, "\n".join([table, fluency.describe() if fluency else "fluency: not checked."])

    def collect_texts(
        self, names: Sequence[str], make: Callable[..., TextPolicy], *, out_dir: Path
    ) -> dict[str, list[Generation]]:
        """Let every policy write, and return a text a posting; what one wrote is kept until the judgement is done."""
        n, observations = self.config.best_of, [PostingObservation(build_prompt(p), posting=p) for p in self.postings]
        given = hash_text(json.dumps([[obs.posting.id, obs.prompt, obs.posting.description] for obs in observations]))

        def choose(name: str) -> list[list[Generation]]:
            return [[chosen] for chosen in make(name).choose_batch(observations)]

        def sample(name: str) -> list[list[Generation]]:
            return make(name, n_generations=n, beam_width=0).generate_batch(observations)  # samples, not beams

        def keep(row: str, act: Callable[[str], list[list[Generation]]], name: str) -> list[list[Generation]]:
            made = keep_made(out_dir, row, lambda: [list(map(asdict, found)) for found in act(name)], given=given)
            return [[Generation(**one) for one in found] for found in made]

        written = {"echo": [Generation(p.description, float("nan"), 0.0, 0.0, True) for p in self.postings]}
        for name in names:
            written[name] = [chosen for (chosen,) in keep(name, choose, name)]
            if name == CLONE and n > 1:
                row = f"{name} best of {n}"
                written[row] = list(map(self.choose_best, observations, keep(row, sample, name)))
        return written

    def report_sections(self, rows: Sequence[dict], *, out_dir: Path) -> Markup:
        """Return what the run's page shows of the judgement in a folder: gains, and rewrites of the last policy."""
        from ilqljax.hiring.evaluation.page import render_sections  # here: matplotlib takes a second

        return render_sections(load_evaluations(out_dir), rows)

    def choose_best(self, observation: PostingObservation, samples: Sequence[Generation]) -> Generation:
        """Choose the sample of a posting with the best reward."""
        scores = self.reward.score([observation.prompt] * len(samples), [g.text for g in samples])
        return samples[int(np.argmax(scores))]

    def make_rewrites(self, name: str, generations: Sequence[Generation], fluency: Fluency | None) -> list[Rewrite]:
        """Return the records of what one policy wrote, with both shortlists."""
        samples = [(g.text, g.advantage, g.log_probability) for g in generations]
        rewards = {TRAINING: self.reward} | ({HELD_OUT: self.held_out} if self.held_out else {})
        rewrites = make_rewrites(
            self.postings, samples, policy=name, rewards=rewards, fluency=fluency, guardrails=self.reward.guardrails
        )
        before = self.reward.shortlists([r.original for r in rewrites])
        after = self.reward.shortlists([r.text for r in rewrites])
        return [
            replace(rewrite, before=self.show_shortlist(old), after=self.show_shortlist(new))
            for rewrite, old, new in zip(rewrites, before, after, strict=True)
        ]

    def show_shortlist(self, rows: np.ndarray) -> Shortlist:
        """Name a shortlist's members and their declared attributes, "" where unknown; an empty text has none."""
        table, attributes = self.reward.table, {}
        members = [int(row) for row in rows if row >= 0]
        for name in table.names:
            attribute = table.attribute(name)
            attributes[name] = tuple(attribute.categories[c] if c >= 0 else "" for c in attribute.codes[members])
        return Shortlist(tuple(table.ids[row] for row in members), attributes)
