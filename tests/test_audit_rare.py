"""Groups that are nearly always or hardly ever shortlisted: no interval without width, none surer than of 0 or 1."""

import math

import numpy as np
import pytest
import scipy.stats
from fixed_shortlists import FixedMatcher
from scipy.sparse import csr_array

from ilqljax.hiring.audit.crossed import Pairs, crossed_ratio, find_influence, tally_pairs
from ilqljax.hiring.audit.market import AuditConfig, audit_market
from ilqljax.hiring.evaluation.record import Rewrite
from ilqljax.hiring.postings.posting import Candidate, Posting
from ilqljax.hiring.proportions import ratio_interval, ratio_test


def compare(selected, n_first):
    """Return the crossed ratio of the first people's rate to the others', of a matrix of postings by people."""
    codes = (np.arange(selected.shape[1]) >= n_first).astype(int)
    tally = tally_pairs(Pairs(csr_array(selected.astype(np.int64)), None), codes, n_categories=2)
    return crossed_ratio(*(find_influence(tally, np.arange(2) == c) for c in range(2)))


def draw_selected(rng, n_people, rates, *, n_postings=20, alike=0.5):
    """Draw who is selected: a person's chance is a beta's, whose spread is that of correlated pairs."""
    spread = (1 - alike) / alike
    chances = [rng.beta(r * spread, (1 - r) * spread, n) for r, n in zip(rates, n_people, strict=True)]
    return rng.random((n_postings, sum(n_people))) < np.concatenate(chances)


def fill(n_first, n_other, n_postings, *, first, other):
    """Return a matrix in which so many pairs of the first people and every other pair of the others are selected."""
    selected = np.zeros((n_postings, n_first + n_other), bool)
    selected[:, :n_first].flat[:first] = True
    selected[:, n_first:] = (np.add.outer(np.arange(n_postings), np.arange(n_other)) % other) == 0
    return selected


def test_one_selected_pair_is_no_surer_than_none():
    """Of 600 pairs one was taken for a rate of at most 1.4 %, and none for one of at most 18 %."""
    none, p_none = compare(fill(30, 60, 20, first=0, other=2), 30)
    one, p_one = compare(fill(30, 60, 20, first=1, other=2), 30)
    assert one.value > none.value == 0.0 and one.high >= none.high - 1e-6 and p_one >= p_none - 1e-9
    assert one.low > 0.0


def test_one_pair_that_is_not_selected_is_no_surer_than_all():
    everybody, _ = compare(fill(30, 60, 20, first=600, other=2), 30)
    but_one, _ = compare(fill(30, 60, 20, first=599, other=2), 30)
    assert but_one.value < everybody.value and but_one.low <= everybody.low + 1e-6


def test_ends_of_the_inverse_ratio_are_the_inverse_ends():
    for first in (1, 3, 599, 250):
        selected = fill(30, 60, 20, first=first, other=2)
        (ratio, p_value), (inverse, p_inverse) = compare(selected, 30), compare(np.roll(selected, 60, axis=1), 60)
        assert (1 / inverse.low, 1 / inverse.high) == pytest.approx((ratio.high, ratio.low))
        assert p_value == pytest.approx(p_inverse)


def estimate_slowly(selected, n_first):
    """Return the ends of the ratio's interval by loops: the crossed error, and what is said of too few people."""
    n_postings, parts = len(selected), [selected[:, :n_first].astype(float), selected[:, n_first:].astype(float)]
    rates, variances, sizes = [of.mean() for of in parts], np.zeros(3), []
    terms = [(of - rate) / of.sum() for of, rate in zip(parts, rates, strict=True)]
    n = min(of.shape[1] for of in parts)
    variances[0] = ((terms[0].sum(axis=1) - terms[1].sum(axis=1)) ** 2).sum() * n_postings / (n_postings - 1)
    variances[1] = sum((of.sum(axis=0) ** 2).sum() for of in terms) * n / (n - 1)
    variances[2] = variances[0] + variances[1] - sum((of**2).sum() for of in terms)
    half = scipy.stats.t.ppf(0.975, min(n_postings, n) - 1) * math.sqrt(max(variances))
    low, high = (rates[0] / rates[1] * math.exp(sign * half) for sign in (-1, 1))
    for of, rate, term in zip(parts, rates, terms, strict=True):
        own = [(term.sum(axis=1) ** 2).sum() * n_postings / (n_postings - 1)]
        own.append((term.sum(axis=0) ** 2).sum() * of.shape[1] / (of.shape[1] - 1))
        error = max(*own, sum(own) - (term**2).sum())
        sizes.append(min(of.size, (1 - rate) / (rate * error)))
    few = [[min(x.any(axis=0).sum(), x.any(axis=1).sum()) < 5 for x in (of > 0, of < 1)] for of in parts]
    least = [float(min(n_postings, of.shape[1])) for of in parts]
    effective = [(rate * size, size) for rate, size in zip(rates, sizes, strict=True)]
    for i, j in ((0, 1), (1, 0)):
        end = high if i == 0 else 1 / low
        for is_few, counts in (
            (few[i][0], (0.0, least[i], *effective[j])),
            (few[j][1], (*effective[i], least[j], least[j])),
        ):
            if is_few and ratio_test(*counts, ratio=end)[0] >= 0.05:
                end = ratio_interval(*counts).high
        low, high = (low, end) if i == 0 else (1 / end, high)
    return low, high


@pytest.mark.parametrize("rates", [(0.02, 0.5), (0.99, 0.5), (0.3, 0.98), (0.4, 0.6)])
def test_interval_is_a_slow_twins(rates):
    selected = draw_selected(np.random.default_rng(2), (12, 25), rates, alike=0.2)
    ratio, _ = compare(selected, 12)
    assert (ratio.low, ratio.high) == pytest.approx(estimate_slowly(selected, 12), rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("rates", [(0.02, 0.5), (0.05, 0.05), (0.97, 0.5), (0.5, 0.5)])
def test_intervals_cover_near_0_and_1(rates):
    """Of 300 samples with a coverage of .95, 2 standard errors are .025; it was .89 and .92 at .02 and .05."""
    rng, covered = np.random.default_rng(0), []
    for _ in range(300):
        ratio, _ = compare(draw_selected(rng, (30, 60), rates), 30)
        covered.append(ratio.low <= rates[0] / rates[1] <= ratio.high)
    assert np.mean(covered) >= 0.925


def list_intervals(value, path=""):
    """Yield every interval of an audit: where it is, and its two ends."""
    if isinstance(value, dict):
        for name in value:
            if name.endswith("_low"):
                yield f"{path}.{name}", value[name], value[f"{name[:-4]}_high"]
            yield from list_intervals(value[name], f"{path}.{name}")
    for i, of in enumerate(value) if isinstance(value, list) else ():
        yield from list_intervals(of, f"{path}[{i}]")


@pytest.mark.slow
@pytest.mark.parametrize("always", ["b", "a"])
def test_no_interval_of_shortlists_lacks_a_width_where_a_group_is_never_or_always_on_them(always, monkeypatch):
    """Skew, NDKL, the mean score and changes had one: [-1.79, -1.79]."""
    monkeypatch.setattr("ilqljax.hiring.audit.rates.N_RESAMPLES", 200)
    sex = np.repeat(["a", "b"], [30, 30])
    postings = [Posting(id=f"j{i}", title="t", description=f"text {i}") for i in range(4)]
    same = {"policy": "r", "company": "", "failed_checks": (), "reasons": (), "where": ""}
    rewrites = [
        Rewrite(posting_id=p.id, prompt=p.description, original=p.description, text=f"{p.description} after", **same)
        for p in postings
    ]

    def score(text):
        luck = np.random.default_rng(len(text) + int(text.split()[1])).random(60)
        return luck + (sex == always) + (text.endswith("after") and (sex == "a"))

    people = [Candidate(f"c{i}", "x", {"sex": of}) for i, of in enumerate(sex)]
    config = AuditConfig(("sex",), top=12, n_selected=4)
    found = audit_market(postings, people, config, matcher=FixedMatcher(60, score), rewrites=rewrites)
    (section,) = found["attributes"]
    gains = [section["scores"].pop(name) for name in list(section["scores"]) if "gain" in name or "null" in name]
    intervals = {where: ends for where, *ends in list_intervals(section)}
    assert len(gains) == 12 and len(intervals) > 20
    assert not {w: e for w, e in intervals.items() if e[1] - e[0] < 1e-9 and "null" not in w and "bound" not in w}
    assert math.isnan(section["lists"]["before"]["min_skew_low"])
    rows = section["rates"]["before"]["shortlisting"]["rows"]
    assert {row["rate"] for row in rows} == {0.0, 0.4}
