"""Measure how often the audit's 95 % intervals cover "no effect" on sample markets without one, and find it with one.

    python -m benchmarks.audit_coverage --samples 200                # no plant: what the README quotes; about a minute
    python -m benchmarks.audit_coverage --samples 20 --plant 0.8     # with the plant, intervals should miss 1 often
    python -m benchmarks.audit_coverage --people 40 400 --rates .95 .98 1    # of ready tables, exactly: half a minute

Every sample is a market of its own seed. "No effect" is a ratio of 1. Three intervals of each impact ratio are counted:
over postings and candidates (the audit's), over postings only, and the audit's for a category against everyone else,
which knows no choice of a reference; and how often the p-values are above 0.05. Categories of one sample are not
independent, so the standard error printed is that of the samples' means.

With `--people` nothing is drawn: for each two of the rates, the probabilities of all pairs of counts whose interval
holds the true ratio of the rates are added up.
"""

import argparse
import functools
import itertools
from collections import defaultdict

import numpy as np
import scipy.stats

from ilqljax.cli import run_main
from ilqljax.hiring.attributes import AttributeTable
from ilqljax.hiring.audit.crossed import pair_measures
from ilqljax.hiring.audit.program import make_matcher
from ilqljax.hiring.audit.rates import tabulate_rates
from ilqljax.hiring.market.sample import make_market
from ilqljax.hiring.matching.matcher import match_texts
from ilqljax.hiring.proportions import ratio_interval

INTERVALS = {
    "ratio, postings and candidates": ("ratio_low", "ratio_high"),
    "ratio, postings only": ("postings_low", "postings_high"),
    "everyone else, postings and candidates": ("versus_rest_low", "versus_rest_high"),
}
TAIL = 1e-6  # probability of the counts that are not added up, at each end
RATES = (0.95, 0.96, 0.97, 0.98, 0.985, 0.99, 0.995, 0.998, 1.0)
P_VALUES = {"p, shuffled labels": "p_shuffled", "p, independent trials": "p_independent"}


def count_sample(args: argparse.Namespace, seed: int) -> dict[tuple[str, str, str], float]:
    """Return, by measure, attribute and interval, the share of one sample's categories that show no effect."""
    postings, candidates = make_market(
        seed=seed, n_postings=args.postings, n_candidates=args.candidates, plant=args.plant
    )
    table = AttributeTable.from_candidates(candidates)
    matches = match_texts(make_matcher("tfidf", candidates), [p.description for p in postings], args.top)
    shares = {}
    for measure, pairs in pair_measures(matches, n_candidates=len(candidates), n_selected=args.selected).items():
        for name in table.names:
            rows = tabulate_rates(pairs, table.attribute(name), seed=seed)["rows"]
            for kind, (low, high) in INTERVALS.items():
                covered = [row[low] <= 1.0 <= row[high] for row in rows if np.isfinite(row[low])]
                shares[measure, name, kind] = np.mean(covered) if covered else np.nan
            for kind, column in P_VALUES.items():
                shares[measure, name, kind] = np.mean([r[column] > 0.05 for r in rows if np.isfinite(r[column])])
    return shares


def show_coverage(people: tuple[int, int], rates: list[float]) -> None:
    """Print how often the interval of a ratio of two rates covers it: a line a rate of the first group."""
    find_interval = functools.cache(lambda x, y: ratio_interval(x, people[0], y, people[1]))
    laws = [[scipy.stats.binom(n, rate) for rate in rates] for n in people]
    print(f"coverage in %, {people[0]} (lines) against {people[1]} (columns) people")
    print("      ", *(f"{rate:6g}" for rate in rates))
    for rate_a, a in zip(rates, laws[0], strict=True):
        covered = []
        for rate_b, b in zip(rates, laws[1], strict=True):
            counts = itertools.product(*(range(int(law.ppf(TAIL)), int(law.isf(TAIL)) + 1) for law in (a, b)))
            held = [(x, y) for x, y in counts if (end := find_interval(x, y)).low <= rate_a / rate_b <= end.high]
            covered.append(sum(a.pmf(x) * b.pmf(y) for x, y in held))
        print(f"{rate_a:6g}", *(f"{100 * share:6.1f}" for share in covered), flush=True)


def main() -> None:
    """Count the samples and print a line a measure, attribute and interval."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=200, help="number of markets, seeds 0, 1, ...")
    parser.add_argument("--plant", type=float, default=0.0, help="strength of the effect; 0 is none")
    parser.add_argument("--postings", type=int, default=60)
    parser.add_argument("--candidates", type=int, default=600)
    parser.add_argument("--top", type=int, default=50)
    parser.add_argument("--selected", type=int, default=10)
    parser.add_argument("--people", type=int, nargs=2, default=(), help="two groups of a ready table instead")
    parser.add_argument("--rates", type=float, nargs="+", default=RATES, help="true rates of these groups")
    args = parser.parse_args()
    if args.people:
        return show_coverage(tuple(args.people), args.rates)
    found = defaultdict(list)
    for seed in range(args.samples):
        for key, share in count_sample(args, seed).items():
            found[key].append(share)
    print(f"{args.samples} samples, {args.postings} postings, {args.candidates} candidates, plant {args.plant:g}")
    for (measure, name, kind), shares in found.items():
        values = np.array(shares)[np.isfinite(shares)]
        error = values.std() / np.sqrt(max(1, len(values)))
        print(f"{measure:<13} {name:<7} {kind:<39} no effect in {100 * values.mean():5.1f} % +- {100 * error:.1f}")


if __name__ == "__main__":
    run_main(main)
