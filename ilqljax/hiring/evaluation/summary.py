"""Summarise an evaluation, one row a policy: rewards before and after, gains, copies, guardrails and entropies."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ilqljax.errors import UserError
from ilqljax.hiring.evaluation.record import HELD_OUT, TRAINING, Rewrite
from ilqljax.hiring.reward.diversity import normalize_counts
from ilqljax.hiring.statistics import bootstrap_mean, entropy, mean_and_standard_error

Row = dict[str, Any]
Policies = Mapping[str, Sequence[Rewrite]]
PHASES = ("before", "after")
CLONE, COPIES = "bc", "echo"


def find_attributes(policies: Policies, names: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the attributes to report: the named ones, or all of the first record, in order; each must have them.

    Raises:
        UserError: a record lacks one of them.
    """
    rewrites = [rewrite for rows in policies.values() for rewrite in rows]
    names = tuple(dict.fromkeys(names)) or tuple(sorted(rewrites[0].before.attributes))
    for rewrite in rewrites:
        for shortlist in (rewrite.before, rewrite.after):
            for name in names:
                if name not in shortlist.attributes:
                    known = ", ".join(sorted(shortlist.attributes)) or "none"
                    raise UserError(f"{rewrite.where}: no attribute '{name}' in a shortlist; known there: {known}.")
    return names


def distill_evaluations(policies: Policies, *, seed: int = 0) -> list[Row]:
    """Summarise each policy in one row: rewards, entropies, copies, lengths, guardrails and paired differences.

    A *guarded* difference counts a rewrite that fails a guardrail as min(difference, 0): never an improvement.
    Intervals are 95 % bootstrap intervals over postings. Entropies are of the attribute's distribution pooled over
    shortlists, in bits, unknown left out.
    """
    rows = []
    for policy, rewrites in policies.items():
        row: Row = {"policy": policy, "n_postings": len(rewrites)}
        row |= _summarize_rewards(rewrites, role=TRAINING, seed=seed)
        row["copy_rate"] = float(np.mean([r.text.split() == r.original.split() for r in rewrites]))
        row["guardrail_pass_rate"] = float(np.mean([not r.failed_checks for r in rewrites]))
        row["words_original"] = float(np.mean([len(r.original.split()) for r in rewrites]))
        row["words_rewrite"] = float(np.mean([len(r.text.split()) for r in rewrites]))
        rows.append(row)
    for name in find_attributes(policies):
        entropies = _measure_entropies(policies, name)
        for row in rows:
            for phase, label in zip(PHASES, ("original", "rewrite"), strict=True):
                row[f"entropy_{name}_{label}"] = entropies[row["policy"], phase]
    return rows


def summarize_evaluations(policies: Policies, *, held_out_matcher: str = "", seed: int = 0) -> list[Row]:
    """Summarise each policy, with gains over the clone where there is one, under both matchers where there are two.

    Args:
        policies: each policy's rewrites, in one order of the postings.
        held_out_matcher: name of the held-out matcher; "" for none.
        seed: of the bootstrap.
    """
    rows = distill_evaluations(policies, seed=seed)
    for row in rows:
        rewrites = policies[row["policy"]]
        row |= _compare_with_clone(policies, row["policy"], role=TRAINING, seed=seed)
        if held_out_matcher:
            theirs = _summarize_rewards(rewrites, role=HELD_OUT, seed=seed)
            theirs |= _compare_with_clone(policies, row["policy"], role=HELD_OUT, seed=seed)
            row |= {f"held_out_{key}": value for key, value in theirs.items()}
            row["held_out_matcher"] = held_out_matcher
    return rows


def _summarize_rewards(rewrites: Sequence[Rewrite], *, role: str, seed: int) -> Row:
    before, after = (np.array(values) for values in zip(*(r.rewards[role] for r in rewrites), strict=True))
    row: Row = {}
    for label, values in (("original", before), ("rewrite", after)):
        row[f"reward_{label}"], row[f"reward_{label}_error"] = mean_and_standard_error(values)
    passed = np.array([not r.failed_checks for r in rewrites])
    difference = after - before
    guarded = np.where(passed, difference, np.minimum(difference, 0.0))
    for name, values in (("difference", difference), ("guarded_difference", guarded)):
        row |= bootstrap_mean(values, seed=seed).spread(name)
    return row


def _compare_with_clone(policies: Policies, policy: str, *, role: str, seed: int) -> Row:
    """Return a policy's mean gain over the clone, paired by posting; nothing for the clone itself and for copies."""
    if CLONE not in policies or policy.startswith((CLONE, COPIES)):
        return {}
    pairs = zip(policies[policy], policies[CLONE], strict=True)
    gains = np.array([ours.rewards[role].after - theirs.rewards[role].after for ours, theirs in pairs])
    return bootstrap_mean(gains, seed=seed).spread("over_bc")


def _measure_entropies(policies: Policies, name: str) -> dict[tuple[str, str], float]:
    """Return the entropy of an attribute over all shortlists of each (policy, phase); NaN where nobody is known."""
    values = {
        (policy, phase): [value.strip() for r in rewrites for value in getattr(r, phase).attributes[name]]
        for policy, rewrites in policies.items()
        for phase in PHASES
    }
    categories = sorted({value for part in values.values() for value in part} - {""})
    if not categories:
        return dict.fromkeys(values, math.nan)
    return {
        key: float(entropy(normalize_counts([part.count(category) for category in categories])))
        for key, part in values.items()
    }
