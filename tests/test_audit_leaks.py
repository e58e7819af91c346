"""Nothing that an audit says depends on how the sum of its hidden cells is split among them.

Whoever knows the program and the seed can run it again with every split, and compare what it says in sixteen digits:
so the files must be the same, letter for letter.
"""

import numpy as np
import pytest
from fixed_shortlists import FixedMatcher

from ilqljax.hiring.audit.frame import audit_frame
from ilqljax.hiring.audit.market import AuditConfig, audit_market
from ilqljax.hiring.audit.page import format_page
from ilqljax.hiring.audit.suppression import HIDDEN
from ilqljax.hiring.audit.tables import format_json, list_tables
from ilqljax.hiring.postings.posting import Candidate, Posting

MIN_COUNT = 8
slow = pytest.mark.slow


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    monkeypatch.setattr("ilqljax.hiring.audit.rates.N_RESAMPLES", 50)


def write_files(audit, **page):
    files = {**list_tables(audit), "audit.json": format_json(audit)}
    return files | ({"report.html": format_page(audit, facts=[], **page)} if page else {})


def find_hidden_labels(audit, name, labels):
    section = next(section for section in audit["attributes"] if section["name"] == name)
    hidden = {label for label in set(labels) - {""} if label not in section["pool"]}
    return hidden | ({""} if section["n_unknown"] is None else set())


def describe_hidden(audit):
    """Return what may be known of what is hidden: how much, and whether it is the reference."""
    tables = [t for s in audit["attributes"] for of in s["rates"].values() for t in of.values()]
    return (
        [(s["n_hidden"], s["n_unknown"], tuple(s["pool"])) for s in audit["attributes"]],
        [(table["reference"], table["compared_with"] == HIDDEN, bool(table["total"])) for table in tables],
    )


def split_again(rng, labels, hidden, others):
    """Return the labels with those of some people of hidden categories and the same other category dealt anew."""
    labels = np.array(labels, object)
    other = rng.choice(others)
    places = np.flatnonzero([a in hidden and b == other for a, b in zip(labels, others, strict=True)])
    some = rng.choice(places, min(4, len(places)), replace=False)
    labels[some] = rng.permutation(labels[some])
    return list(labels)


def draw_labels(rng, *, unknown):
    sizes = [90, 80, 70, *rng.integers(2, 12, 3), unknown]
    return list(np.repeat(np.array([*"abcxyz", ""], object), sizes))


@pytest.mark.parametrize(
    "form",
    ["one", "weights", *(pytest.param(f, marks=slow) for f in ("pair", "score", "repeats", "jobs", "within"))],
)
@pytest.mark.parametrize(
    ("unknown", "rate"),
    [(5, 0.4), pytest.param(30, 0.4, marks=slow), pytest.param(0, 0.02, marks=slow)],
)
def test_tables_say_nothing_of_the_split(form, unknown, rate):
    rng = np.random.default_rng(1)
    sex = draw_labels(rng, unknown=unknown)
    n = len(sex)
    race = list(rng.choice(["p", "q"], n)) if form == "pair" else ["p"] * n
    times = 3 if form in ("repeats", "jobs") else 1
    rows = np.repeat(np.arange(n), times)
    columns = {
        "who": [f"c{i}" for i in rows],
        "job": [f"j{i}" for i in np.tile(np.arange(times), n)] if times > 1 else list(rng.choice(["j", "k"], n)),
        "race": [race[i] for i in rows],
        "p": (rng.random(len(rows)) < rate).astype(int),
        "w": rng.choice([1.0, 2.5], len(rows)),
        "s": rng.random(len(rows)).round(3),
    }
    options = {"attributes": ["sex", "race"] if form == "pair" else ["sex"], "person": "who", "min_count": MIN_COUNT}
    options |= {"score": "s"} if form == "score" else {"selected": "p"}
    options |= {"posting": "job"} if form == "jobs" else {"weight": "w"} if form == "weights" else {}
    options |= {"within": ["job"]} if form == "within" else {}

    def audit(labels):
        return audit_frame({**columns, "sex": [labels[i] for i in rows]}, **options).audit

    first = audit(sex)
    hidden = find_hidden_labels(first, "sex", sex)
    assert len(hidden) > 1 and ("" in hidden or unknown != 5)
    for _ in range(20):
        second = split_again(rng, sex, hidden, race)
        if describe_hidden(first) == describe_hidden(again := audit(second)) and second != sex:
            assert write_files(first) == write_files(again)
            return
    raise AssertionError("no other split hides the same cells")


@slow
@pytest.mark.parametrize("unknown", [40, 5])
def test_shortlists_say_nothing_of_the_split(unknown):
    """A posting's diversity score was that of the hidden categories too: of two, their very shares of the pool."""
    rng = np.random.default_rng(2)
    sex = draw_labels(rng, unknown=unknown)
    n = len(sex)
    postings = [Posting(id=f"j{i}", title="t", description=f"text {i}") for i in range(6)]
    matcher = FixedMatcher(n, lambda text: np.random.default_rng(len(text) + 9 * int(text.split()[1])).random(n))

    def audit(labels):
        people = [Candidate(f"c{i}", "x", {"sex": label}) for i, label in enumerate(labels)]
        config = AuditConfig(("sex",), top=30, n_selected=12, min_count=MIN_COUNT)
        return audit_market(postings, people, config, matcher=matcher)

    first = audit(sex)
    hidden = find_hidden_labels(first, "sex", sex)
    (section,) = first["attributes"]
    assert len(hidden) > 1 and section["scores"] == section["lists"] == first["postings"][0]["score_before"] == {}
    assert bool(section["composition"]) == ("" not in hidden)  # whose sum is that of the unknown as well
    for _ in range(20):
        second = split_again(rng, sex, hidden, ["p"] * n)
        if describe_hidden(first) == describe_hidden(again := audit(second)) and second != sex:
            assert write_files(first, filing=[]) == write_files(again, filing=[])
            return
    raise AssertionError("no other split hides the same cells")
