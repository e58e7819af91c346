"""The campaign that kills trainings: its short form, and what it finds where an end differs."""

import json
from itertools import islice, product

import numpy as np
import pytest

from benchmarks import fault_campaign
from benchmarks.fault_campaign import (
    MOMENTS,
    SIGNALS,
    STAGES,
    Attempt,
    find_differing,
    format_table,
    plan_kills,
    read_records,
    run_campaign,
)


@pytest.mark.slow
def test_a_run_that_is_killed_at_the_worst_moments_ends_as_if_it_had_not_been(tmp_path):
    moments = [("SIGKILL", "a save begins"), ("SIGTERM", "a step is taken"), ("SIGKILL", "an old step is deleted")]
    kills = [(*each, "all") for each in moments]
    attempts, differing = run_campaign(tmp_path, iter(kills), say=lambda _: None)
    assert [(one.signal, one.moment, one.status) for one in attempts] == [
        (*each, (status,)) for each, status in zip(moments, (-9, 143, -9), strict=True)
    ]
    assert attempts[1].lost == 0 and set(differing) == {""}


def test_all_pairs_of_what_a_kill_is_are_met():
    one = set(islice(plan_kills(1), 21))
    assert len(one) == 21 and {who for *_, who in one} == {"all"}
    several = list(islice(plan_kills(2), 63))
    assert {(signal, who) for signal, _, who in several[:9]} == set(product(SIGNALS, ("0", "1", "all")))
    assert {(signal, moment) for signal, moment, _ in several[:21]} == set(product(SIGNALS, MOMENTS))
    assert set(several) == set(product(SIGNALS, MOMENTS, ("0", "1", "all")))


def test_ends_are_compared_bit_for_bit_or_but_for_rounding():
    def make_end(loss: float, weight: float) -> dict:
        end = {"rewrites": str(loss)}
        for stage in STAGES:
            end[stage] = ("24", {"w": weight}, {"row": 3}, [{"step": 1, "train/loss": loss, "rollout/return": weight}])
            end[f"{stage} networks"] = {"w": np.array([weight])}
        return end

    expected = make_end(1.0, 2.0)
    assert find_differing(make_end(1.0, 2.0), expected, rounds=False) == ""
    assert find_differing(make_end(1.0 + 1e-6, 2.0), expected, rounds=False) == "rewrites, bc, ilql"
    assert find_differing(make_end(1.0 + 1e-6, 2.0 - 1e-6), expected, rounds=True) == ""
    assert find_differing(make_end(1.01, 2.0), expected, rounds=True) == "bc, ilql"
    assert find_differing(make_end(1.0, 2.01), expected, rounds=True) == "bc networks, ilql networks"


def test_an_end_that_differs_is_named(tmp_path, monkeypatch):
    ends = iter([{"bc": 1, "rewrites": "a"}, {"bc": 2, "rewrites": "a"}])
    monkeypatch.setattr(fault_campaign, "start_training", lambda *_, **__: None)
    monkeypatch.setattr(fault_campaign, "finish", lambda *_: None)
    monkeypatch.setattr(fault_campaign, "read_end", lambda _: next(ends))
    assert run_campaign(tmp_path, iter([]), say=lambda _: None) == ([], ["bc"])


def test_records_are_compared_without_what_a_clock_says(tmp_path):
    folder = tmp_path / "metrics" / "bc"
    folder.mkdir(parents=True)
    record = {"step": 1, "train/loss": 2.0, "train/step_seconds": 0.1, "train/tokens_per_second": 9.0}
    (folder / "metrics.jsonl").write_text(json.dumps(record | {"train/compilations": 3.0}) + '\n{"step": 2')
    assert read_records(tmp_path, "bc") == [{"step": 1, "train/loss": 2.0}]
    assert read_records(tmp_path, "ilql") == []


def test_the_table_counts_the_kills_of_a_signal_and_moment_and_those_that_were_survived():
    attempts = [Attempt("SIGKILL", "random", (-9,), "bc 5", lost, run) for lost, run in ((1, 1), (3, 2))]
    attempts.append(Attempt("SIGTERM", "random", (143, 143), "bc 5", 0, 1, "0", 7.25))
    assert format_table(attempts, ["", "bc"]).splitlines()[2:] == [
        "| SIGKILL | all | random | 2 | 1 | 3 | 0.0 |",
        "| SIGTERM | 0 | random | 1 | 1 | 0 | 7.2 |",
    ]
