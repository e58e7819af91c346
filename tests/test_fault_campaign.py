"""The campaign that kills trainings: its short form, and what it finds where an end differs."""

import json

import pytest

from benchmarks import fault_campaign
from benchmarks.fault_campaign import Attempt, format_table, read_records, run_campaign


@pytest.mark.slow
def test_a_run_that_is_killed_at_the_worst_moments_ends_as_if_it_had_not_been(tmp_path):
    kills = [("SIGKILL", "a save begins"), ("SIGTERM", "a step is taken"), ("SIGKILL", "an old step is deleted")]
    attempts, differing = run_campaign(tmp_path, iter(kills), say=lambda _: None)
    assert [(one.signal, one.moment, one.status) for one in attempts] == [
        (*kill, status) for kill, status in zip(kills, (-9, 143, -9), strict=True)
    ]
    assert attempts[1].lost == 0 and set(differing) == {""}


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
    attempts = [Attempt("SIGKILL", "random", -9, "bc 5", lost, run) for lost, run in ((1, 1), (3, 2))]
    attempts.append(Attempt("SIGTERM", "random", 143, "bc 5", 0, 1))
    assert format_table(attempts, ["", "bc"]).splitlines()[2:] == [
        "| SIGKILL | random | 2 | 1 | 3 |",
        "| SIGTERM | random | 1 | 1 | 0 |",
    ]
