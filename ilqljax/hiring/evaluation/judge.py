"""The hiring task's final judgement: every held-out posting once, every policy, and what changed.

Rows of the table:

| policy        | writes                                                                                        |
|---------------|-----------------------------------------------------------------------------------------------|
| echo          | the original posting again                                                                    |
| bc            | one sample of the cloned behaviour                                                            |
| bc best of n  | of n such samples the one with the best reward: it asks the engine n times for each posting   |
| ilql          | one sample with the critic's advantage; the engine is not asked                               |

With a held-out engine, which training never asked, every rewrite is scored by it too. A gain under the training engine
alone may be a weakness of that engine, found. Guardrails judge every rewrite, `fluency` among them where the run has a
clone or names a language model.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ilqljax.data.files import save_with_checksum
from ilqljax.decoding.policy import Generation, TextPolicy
from ilqljax.errors import UserError
from ilqljax.hiring.attributes import AttributeTable
from ilqljax.hiring.environment import PostingObservation
from ilqljax.hiring.evaluation.report import (
    Evaluation,
    distill_evaluations,
    load_evaluations,
    save_rows,
    tabulate_impact_ratios,
)
from ilqljax.hiring.guardrails import check_rewrite
from ilqljax.hiring.guardrails.fluency import Fluency
from ilqljax.hiring.guardrails.language_model import CLONE
from ilqljax.hiring.postings.posting import Posting, normalize_spaces
from ilqljax.hiring.postings.prompts import build_prompt
from ilqljax.hiring.reward.reward import DiversityReward
from ilqljax.hiring.statistics import bootstrap_mean

EVALUATION_FILE, IMPACT_FILE = "evaluation.jsonl", "impact_ratios.csv"
# What a results row says of the held-out engine, under names that begin with "held_out_".
HELD_OUT_KEYS = ("reward_", "difference", "guarded_difference", "over_bc")


class HeldOut(NamedTuple):
    """An engine that training never asked: its name, and the reward under it."""

    name: str
    reward: DiversityReward


class HiringJudge:
    """Judge rewriting policies on postings that none of them was trained on."""

    def __init__(
        self,
        postings: Sequence[Posting],
        reward: DiversityReward,
        table: AttributeTable,
        *,
        data_mean: float,
        best_of: int = 4,
        n_selected: int = 10,
        seed: int = 0,
        held_out: HeldOut | None = None,
        make_fluency: Callable[[TextPolicy | None], Fluency | None] = lambda clone: None,
    ) -> None:
        """Hold the held-out postings and the engine.

        Args:
            postings: each is judged once.
            reward: the engine and its score.
            table: the candidates' attributes.
            data_mean: mean reward of the offline data's rewrites of these postings, near which a clone should score.
            best_of: the n of "bc best of n"; below 2 it is left out.
            n_selected: how many of a shortlist count as selected in the impact ratios.
            seed: of the bootstrap and the permutations.
            held_out: judges too, where there is one.
            make_fluency: makes the fluency check from the run's clone, or from None where it has none.

        Raises:
            UserError: `n_selected` does not suit the length of the reward's shortlists.
        """
        if not 1 <= n_selected < reward.config.k:
            raise UserError(
                f"n_selected={n_selected} are to be selected of a shortlist of reward.k={reward.config.k}. Set "
                "--config.evaluator.n_selected to a number from 1 on that is below --config.reward.k."
            )
        self.postings = tuple(postings)
        self.observations = [PostingObservation(build_prompt(p), posting=p) for p in postings]
        self.reward, self.table = reward, table
        self.data_mean, self.held_out = data_mean, held_out
        self.make_fluency, self.fluency = make_fluency, None
        self.best_of, self.n_selected, self.seed = best_of, n_selected, seed

    def __call__(
        self, names: Sequence[str], make: Callable[..., TextPolicy], *, out_dir: Path
    ) -> tuple[list[dict], str]:
        """Act with every policy, write `evaluation.jsonl` and `impact_ratios.csv`, and return rows and a table."""
        self.fluency = self.make_fluency(make(CLONE) if CLONE in names else None)
        rewrites = {"echo": [Generation(self.original(p), float("nan"), 0.0, 0.0, True) for p in self.postings]}
        for name in names:
            policy = make(name)
            rewrites[name] = policy.choose_batch(self.observations)
            if name == "bc" and self.best_of > 1:
                policy = make(name, n_generations=self.best_of, beam_width=0)  # samples, not beams
                rewrites[f"bc best of {self.best_of}"] = self.choose_best(policy.generate_batch(self.observations))
        path = out_dir / EVALUATION_FILE
        lines = [line for name, chosen in rewrites.items() for line in self.describe(name, chosen)]
        save_with_checksum(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
        policies = load_evaluations(path)
        save_rows(out_dir / IMPACT_FILE, tabulate_impact_ratios(policies, n_selected=self.n_selected, seed=self.seed))
        return self.tabulate(policies, take_held_out(policies, lines) if self.held_out else {})

    def choose_best(self, samples: Sequence[Sequence[Generation]]) -> list[Generation]:
        """Choose each posting's sample with the best reward."""
        chosen = []
        for observation, generations in zip(self.observations, samples, strict=True):
            scores = self.reward.score([observation.prompt] * len(generations), [g.text for g in generations])
            chosen.append(generations[int(np.argmax(scores))])
        return chosen

    def describe(self, name: str, generations: Sequence[Generation]) -> list[dict[str, Any]]:
        """Return one policy's lines of the evaluation file (format: `ilqljax.hiring.evaluation.report`)."""
        prompts = [o.prompt for o in self.observations]
        originals = [self.original(p) for p in self.postings]
        texts = [normalize_spaces(g.text) for g in generations]
        before, after = self.reward.shortlists(originals), self.reward.shortlists(texts)
        rewards = [
            (prefix, reward.score(prompts, originals), reward.score(prompts, texts))
            for prefix, reward in (("", self.reward), *([("held_out_", self.held_out.reward)] if self.held_out else []))
        ]
        fluent = self.fluency.compare(prompts, originals, texts).tolist() if self.fluency else [None] * len(texts)
        lines = []
        for i, (posting, generation) in enumerate(zip(self.postings, generations, strict=True)):
            failures = check_rewrite(posting, texts[i], prompts[i])
            failures += self.fluency.judge(fluent[i]) if self.fluency else []
            logp = generation.log_probability
            lines.append(
                {
                    "policy": name,
                    "posting_id": posting.id,
                    "company": posting.company,
                    "prompt": prompts[i],
                    "original": originals[i],
                    "rewrite": texts[i],
                    **{f"{prefix}reward_original": float(scores[i]) for prefix, scores, _ in rewards},
                    **{f"{prefix}reward": float(scores[i]) for prefix, _, scores in rewards},
                    "log_probability": None if np.isnan(logp) else logp,
                    "advantage": generation.advantage,
                    "fluency": fluent[i],
                    "guardrail_failures": sorted({f.check for f in failures}),
                    "guardrail_reasons": [f.reason for f in failures],
                    "shortlist_before": self.show_shortlist(before[i]),
                    "shortlist_after": self.show_shortlist(after[i]),
                }
            )
        return lines

    def show_shortlist(self, rows: np.ndarray) -> dict[str, Any]:
        """Name a shortlist's members and their declared attributes, "" where unknown; an empty text has none."""
        members = [int(row) for row in rows if row >= 0]
        attributes = {}
        for name in self.table.names:
            attribute = self.table.attribute(name)
            codes = attribute.codes[members]
            attributes[name] = [attribute.categories[code] if code >= 0 else "" for code in codes]
        return {"ids": [self.table.ids[row] for row in members], "attributes": attributes}

    def original(self, posting: Posting) -> str:
        """Return the posting's own text, with white space folded as in the prompt."""
        return normalize_spaces(posting.description)

    def tabulate(
        self, policies: Mapping[str, Sequence[Evaluation]], held_out: Mapping[str, Sequence[Evaluation]]
    ) -> tuple[list[dict], str]:
        """Summarise evaluations, with paired differences from BC where BC is there.

        Args:
            policies: under the training engine.
            held_out: the same under the held-out engine (`take_held_out`); empty where there is none.
        """
        rows = self.summarize(policies)
        if self.held_out is not None:
            for row, theirs in zip(rows, self.summarize(held_out), strict=True):
                row |= {f"held_out_{key}": theirs[key] for key in theirs if key.startswith(HELD_OUT_KEYS)}
                row["held_out_matcher"] = self.held_out.name
        floor = self.reward.estimate_noise_floor(seed=self.seed)
        attribute = self.reward.config.attribute
        table = format_table(rows, floor=floor.value, data_mean=self.data_mean, attribute=attribute)
        return rows, "\n".join([table, self.fluency.describe() if self.fluency else "fluency: not checked."])

    def summarize(self, policies: Mapping[str, Sequence[Evaluation]]) -> list[dict]:
        """Summarise evaluations under one engine, one row a policy."""
        rows = distill_evaluations(policies, seed=self.seed)
        reference = policies.get("bc")
        for row in rows:
            if reference is not None and not row["policy"].startswith(("bc", "echo")):
                gains = [a.reward - b.reward for a, b in zip(policies[row["policy"]], reference, strict=True)]
                estimate = bootstrap_mean(np.array(gains), seed=self.seed)
                row |= {"over_bc": estimate.value, "over_bc_low": estimate.low, "over_bc_high": estimate.high}
        return rows


def take_held_out(
    policies: Mapping[str, Sequence[Evaluation]], lines: Sequence[Mapping[str, Any]]
) -> dict[str, list[Evaluation]]:
    """Return the evaluations with the held-out engine's rewards, from the lines that were written, in their place."""
    line_of = {(line["policy"], line["posting_id"]): line for line in lines}
    return {
        name: [
            replace(e, reward_original=line["held_out_reward_original"], reward=line["held_out_reward"])
            for e in evaluations
            for line in [line_of[name, e.posting_id]]
        ]
        for name, evaluations in policies.items()
    }


def format_table(rows: Sequence[dict], *, floor: float, data_mean: float, attribute: str) -> str:
    """Lay the rows out as a plain-text table that says what its numbers mean."""
    header = ("policy", "score", "gain over echo [95 %]", "guarded gain [95 %]", "pass", "copies", "words")
    body = [(*show_scores(row, prefix=""), *show_texts(row)) for row in rows]
    lines = align([header, *body])
    held_out = rows[0].get("held_out_matcher", "")
    if held_out:
        lines += ["", f"The same rewrites under the held-out matcher {held_out}, which training never asked:", ""]
        lines += align([header[:4], *(show_scores(row, prefix="held_out_") for row in rows)])
        lines.append("")
    for row in rows:
        if "over_bc" in row:
            also = f"; held out: {show_interval(row, 'held_out_over_bc')}" if held_out else ""
            lines.append(f"{row['policy']} over bc, paired by posting: {show_interval(row, 'over_bc')}{also}")
    lines.append(
        f"score: -100 x distance of the shortlist's {attribute} distribution from the target, over "
        f"{rows[0]['n_postings']} postings never trained on; random shortlists score {floor:.2f}, "
        f"the offline data's rewrites of these postings {data_mean:.2f}."
    )
    lines.append(
        "guarded: a rewrite that fails a guardrail never counts as an improvement. pass: share that fails none."
    )
    return "\n".join(lines)


def show_scores(row: Mapping[str, Any], *, prefix: str) -> tuple[str, ...]:
    """Write a policy's name, score and gains under one engine."""
    return (
        row["policy"],
        f"{row[f'{prefix}reward_rewrite']:.2f} +- {row[f'{prefix}reward_rewrite_error']:.2f}",
        show_interval(row, f"{prefix}difference"),
        show_interval(row, f"{prefix}guarded_difference"),
    )


def show_texts(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Write what a policy's texts are like."""
    return (
        f"{100 * row['guardrail_pass_rate']:.0f} %",
        f"{100 * row['copy_rate']:.0f} %",
        f"{row['words_rewrite']:.1f}",
    )


def align(body: Sequence[Sequence[str]]) -> list[str]:
    """Lay rows of cells out in columns, with a rule below the first."""
    widths = [max(len(line[i]) for line in body) for i in range(len(body[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in body]
    lines.insert(1, "-" * max(map(len, lines)))
    return lines


def show_interval(row: Mapping[str, Any], name: str) -> str:
    """Write an estimate with its interval."""
    return f"{row[name]:+.2f} [{row[name + '_low']:+.2f}, {row[name + '_high']:+.2f}]"
