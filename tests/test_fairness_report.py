"""The evaluation file's reader, both summaries on hand-worked files, and the two scripts as a user runs them."""

import csv
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ilqljax.cli import run_main
from ilqljax.data.files import save_with_checksum
from ilqljax.errors import UserError
from ilqljax.hiring.attributes import Attribute
from ilqljax.hiring.audit.crossed import pair_selection
from ilqljax.hiring.audit.rates import tabulate_rates
from ilqljax.hiring.evaluation.impact import tabulate_impact_ratios
from ilqljax.hiring.evaluation.record import HELD_OUT, TRAINING, Rewrite, load_evaluations
from ilqljax.hiring.evaluation.summary import (
    distill_evaluations,
    format_distilled,
    format_impact_ratios,
    save_rows,
    summarize_evaluations,
)

ROOT = Path(__file__).resolve().parents[1]


def make_shortlist(values: str) -> dict:
    """Make a shortlist from letters: f, m, or - for unknown; the first f is always the same candidate."""
    names = {"f": "female", "m": "male", "-": ""}
    ids = [f"{value}{values[:i].count(value)}" for i, value in enumerate(values)]
    return {"ids": ids, "attributes": {"gender": [names[v] for v in values], "region": ["north"] * len(values)}}


def make_line(**changes) -> dict:
    return {
        "policy": "ilql",
        "posting_id": "p0",
        "company": "Acme",
        "prompt": "Rewrite this.",
        "original": "We need a strong nurse.",
        "rewrite": "We need a kind nurse.",
        "reward_original": -30.0,
        "reward": -10.0,
        "log_probability": -12.5,
        "guardrail_failures": [],
        "shortlist_before": make_shortlist("mmmmff--"),
        "shortlist_after": make_shortlist("mfmfmf--"),
    } | changes


@pytest.fixture
def eval_file(tmp_path):
    """Two policies on two postings; the second ILQL rewrite fails a guardrail, echo copies."""
    path = tmp_path / "evaluation.jsonl"
    same = {"policy": "echo", "rewrite": "We need  a strong\nnurse.", "reward": -30.0, "log_probability": None}
    same["shortlist_after"] = make_shortlist("mmmmff--")
    lines = [
        make_line(**same),
        make_line(**same, posting_id="p1"),
        make_line(),
        make_line(posting_id="p1", reward=0.0, guardrail_failures=["company_kept"], rewrite="nurse"),
    ]
    path.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    return path


def test_load_groups_lines_by_policy(eval_file):
    policies = load_evaluations(eval_file)
    assert {name: [e.posting_id for e in rows] for name, rows in policies.items()} == {
        "echo": ["p0", "p1"],
        "ilql": ["p0", "p1"],
    }
    assert policies["ilql"][0].before.attributes["gender"][4:] == ("female", "female", "", "")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"policy": ', "not JSON at column"),
        ("[1]", "expected a JSON object"),
        ("[" * 100_000, "not JSON that we can read"),
        (json.dumps({k: v for k, v in make_line().items() if k != "reward"}), "missing 'reward'"),
        (json.dumps(make_line(reward="-1")), "'reward' must be a finite number"),
        (json.dumps(make_line(reward=float("nan"))), "'reward' must be a finite number"),
        (json.dumps(make_line(rewrite=None)), "'rewrite' must be text"),
        (json.dumps(make_line(guardrail_failures="company_kept")), "'guardrail_failures' must be a list"),
        (json.dumps(make_line(shortlist_after={"ids": []})), "'shortlist_after': missing 'attributes'"),
        (
            json.dumps(make_line(shortlist_after={"ids": ["a"], "attributes": {"gender": []}})),
            "1 ids but 0 values of 'gender'",
        ),
        (json.dumps(make_line()), "already has posting 'p0' at .*:1"),
    ],
)
def test_bad_line_names_file_and_line(tmp_path, line, message):
    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps(make_line()) + "\n" + line + "\n")
    with pytest.raises(UserError, match=rf"bad\.jsonl:2: .*{message}"):
        load_evaluations(path)


def test_a_file_that_lost_its_last_line_is_refused(eval_file):
    eval_file.write_text("\n".join(eval_file.read_text().split("\n")[:3]) + "\n")
    with pytest.raises(UserError, match=r"'ilql' has 1 postings and 'echo' has 2.*complete"):
        load_evaluations(eval_file)


def test_a_file_that_is_not_the_one_its_checksum_is_of_is_refused(eval_file):
    save_with_checksum(eval_file, eval_file.read_text())
    load_evaluations(eval_file)
    eval_file.write_text(eval_file.read_text().replace("-30.0", "-20.0", 1))
    with pytest.raises(UserError, match=r"evaluation\.jsonl: is damaged or was changed"):
        load_evaluations(eval_file)


def test_a_byte_order_mark_is_skipped_and_half_a_character_is_replaced(tmp_path):
    path = tmp_path / "e.jsonl"
    lines = [make_line(posting_id=i, policy="a\ud83d", shortlist_after=make_shortlist("fm")) for i in "12"]
    lines[0]["shortlist_after"]["attributes"]["gender"][0] = "\ud83d"
    path.write_bytes(b"\xef\xbb\xbf" + "\n".join(map(json.dumps, lines)).encode())
    policies = load_evaluations(path)
    assert list(policies) == ["a\ufffd"]
    assert policies["a\ufffd"][0].after.attributes["gender"] == ("\ufffd", "male")
    save_rows(tmp_path / "rows.csv", distill_evaluations(policies))


def test_missing_empty_and_binary_files_are_refused(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        load_evaluations(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(UserError, match="no evaluation"):
        load_evaluations(tmp_path / "empty.jsonl")
    (tmp_path / "binary.jsonl").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(UserError, match=r":1: byte 7 is not UTF-8"):
        load_evaluations(tmp_path / "binary.jsonl")


def test_a_record_is_what_its_line_says():
    """A line of today's files, with all that older files may lack."""
    extra = {"held_out_reward_original": -3.0, "held_out_reward": -1.0, "advantage": 0.5, "fluency": None}
    line = make_line(**extra, guardrail_failures=["length"], guardrail_reasons=["too short", "far too short"])
    rewrite = Rewrite.from_json(line, where="f:1")
    assert rewrite.rewards == {TRAINING: (-30.0, -10.0), HELD_OUT: (-3.0, -1.0)}
    assert (rewrite.reward, rewrite.gain, rewrite.text) == (-10.0, 20.0, "We need a kind nurse.")
    assert (rewrite.failed_checks, rewrite.reasons) == (("length",), ("too short", "far too short"))
    assert rewrite.to_json() == line
    assert Rewrite.from_json(json.loads(json.dumps(rewrite.to_json())), where="elsewhere").to_json() == line


def test_a_line_of_an_older_file_has_no_held_out_reward_and_no_reasons():
    rewrite = Rewrite.from_json(make_line(log_probability=None), where="")
    assert set(rewrite.rewards) == {TRAINING} and rewrite.reasons == () and np.isnan(rewrite.fluency)
    assert rewrite.to_json()["log_probability"] is None


def test_held_out_rewards_come_both_or_not_at_all():
    with pytest.raises(UserError, match="f:1: missing 'held_out_reward';"):
        Rewrite.from_json(make_line(held_out_reward_original=-3.0), where="f:1")


def test_summary_under_both_matchers_pairs_each_policy_with_the_clone():
    """Two postings; over bc the gains are 5 and 15 under the matcher of training, 1 and -1 under the held-out one."""
    rewards = {"bc": [(-20.0, -8.0), (-20.0, -8.0)], "ilql": [(-15.0, -7.0), (-5.0, -9.0)]}
    policies = {
        policy: [
            Rewrite.from_json(
                make_line(posting_id=str(i), reward=a, held_out_reward_original=-9.0, held_out_reward=b), where=""
            )
            for i, (a, b) in enumerate(pairs)
        ]
        for policy, pairs in rewards.items()
    }
    clone, ilql = summarize_evaluations(policies, held_out_matcher="words")
    assert (ilql["over_bc"], ilql["held_out_over_bc"]) == (10.0, 0.0)
    assert (ilql["difference"], ilql["held_out_difference"], ilql["held_out_reward_rewrite"]) == (20.0, 1.0, -8.0)
    assert ilql["held_out_matcher"] == "words" and "over_bc" not in clone


def test_distilled_numbers_of_a_hand_worked_file(eval_file):
    echo, ilql = distill_evaluations(load_evaluations(eval_file))
    assert (echo["copy_rate"], ilql["copy_rate"]) == (1.0, 0.0)
    assert (echo["difference"], echo["difference_low"], echo["difference_high"]) == (0.0, 0.0, 0.0)
    assert (ilql["reward_original"], ilql["reward_rewrite"], ilql["reward_rewrite_error"]) == (-30.0, -5.0, 5.0)
    assert ilql["difference"] == 25.0
    assert ilql["guarded_difference"] == 10.0  # 20 for the rewrite that passes, 0 instead of 30 for the other
    assert ilql["guardrail_pass_rate"] == 0.5
    assert (ilql["words_original"], ilql["words_rewrite"]) == (5.0, 3.0)
    assert ilql["entropy_gender_original"] == pytest.approx(0.918296)  # (2/3, 1/3) of the known
    assert ilql["entropy_gender_rewrite"] == pytest.approx(1.0)
    assert ilql["entropy_region_rewrite"] == 0.0


def test_guardrail_failure_that_loses_reward_still_counts_its_loss(tmp_path):
    path = tmp_path / "e.jsonl"
    path.write_text(json.dumps(make_line(reward=-50.0, guardrail_failures=["length"])))
    (row,) = distill_evaluations(load_evaluations(path))
    assert row["guarded_difference"] == -20.0


def test_impact_ratio_rows_of_a_hand_worked_file(eval_file):
    rows = tabulate_impact_ratios(load_evaluations(eval_file), attributes=["gender"], n_selected=4)
    found = {(r["policy"], r["category"], r["phase"]): r for r in rows}
    assert len(rows) == 2 * 2 * 4  # policies, phases; two categories, unknown, smallest
    before, after = (found["ilql", "female", phase] for phase in ("before", "after"))
    assert (before["n_assessed"], before["n_selected"], before["impact_ratio"]) == (4, 0, 0.0)
    assert (after["n_assessed"], after["n_selected"], after["selection_rate"]) == (6, 4, pytest.approx(2 / 3))
    assert after["impact_ratio"] == 1.0
    assert after["mark"] == "insufficient data"
    assert (after["n_people"], after["n_people_selected"]) == (3, 2)  # the same ones in both postings
    unknown = found["ilql", "(unknown)", "after"]
    assert (unknown["n_assessed"], unknown["n_people"], unknown["n_selected"]) == (4, 2, 0)
    assert np.isnan(found["ilql", "(smallest ratio)", "before"]["impact_ratio"])  # nobody has enough people


def test_impact_ratio_rows_are_those_of_an_audit(tmp_path):
    """Twelve lists of 30 among 120 people, 40 of them men; the lists after rewriting are those before, shuffled."""
    rng = np.random.default_rng(0)
    codes = np.arange(120) % 3 - 1
    before = np.stack([rng.choice(120, 30, replace=False) for _ in range(12)])
    lists = {"shortlist_before": before, "shortlist_after": rng.permuted(before, axis=1)}
    names = np.array(["female", "male", ""])
    lines = [
        make_line(posting_id=f"p{g}")
        | {
            key: {"ids": [f"c{i}" for i in rows[g]], "attributes": {"gender": names[codes[rows[g]]].tolist()}}
            for key, rows in lists.items()
        }
        for g in range(12)
    ]
    path = tmp_path / "e.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    rows = tabulate_impact_ratios(load_evaluations(path), n_selected=10)
    found = {(r["category"], r["phase"]): r for r in rows}
    for phase, indices in zip(("before", "after"), lists.values(), strict=True):
        pairs = pair_selection(indices, n_candidates=120, n_selected=10)
        audit = tabulate_rates(pairs, Attribute("gender", ("female", "male"), codes), seed=0)
        for expected in audit["rows"]:
            row = found[expected["category"], phase]
            assert (row["n_people"], row["mark"]) == (expected["n_people"], expected["mark"])
            names = {"impact_ratio": "impact_ratio", "impact_ratio_low": "ratio_low", "impact_ratio_high": "ratio_high"}
            names |= {"selection_rate_low": "rate_low", "p_crossed": "p_crossed", "p_value": "p_independent"}
            for name, theirs in names.items():
                assert row[name] == pytest.approx(expected[theirs], nan_ok=True), name
            assert row["null_ratio"] == pytest.approx(expected["null_ratio"], abs=0.02)  # shuffled in another order
        smallest = found["(smallest ratio)", phase]
        assert smallest["impact_ratio"] == pytest.approx(audit["smallest_ratio"]) and smallest["impact_ratio"] < 1.0
        assert smallest["p_shuffled"] == pytest.approx(audit["p_smallest"], abs=0.05)


@pytest.mark.parametrize(
    ("values", "message"),
    [("mf", r":2: candidate 'a' has \{'gender': 'male'\}, but had \{'gender': 'female'\} at .*:1"), ("", "is twice")],
)
def test_a_candidate_is_one_person(tmp_path, values, message):
    lines = [make_line(posting_id=i) for i in "12"]
    for line, ids, letters in zip(lines, ("abc", "abc" if values else "aac"), ("fmm", values + "m"), strict=True):
        shortlist = make_shortlist((letters + "fff")[:3])
        line["shortlist_before"] = shortlist | {"ids": list(ids)}
        line["shortlist_after"] = {"ids": [], "attributes": {"gender": []}}
    path = tmp_path / "e.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(UserError, match=message):
        tabulate_impact_ratios(load_evaluations(path), attributes=["gender"], n_selected=1)


def test_empty_shortlist_of_an_empty_rewrite_counts_nobody(tmp_path):
    path = tmp_path / "e.jsonl"
    empty = {"ids": [], "attributes": {"gender": [], "region": []}}
    path.write_text(json.dumps(make_line(rewrite="", reward=-200.0, shortlist_after=empty)))
    policies = load_evaluations(path)
    rows = tabulate_impact_ratios(policies, n_selected=2)
    assert all(r["n_assessed"] == 0 for r in rows if r["phase"] == "after" and r["category"] == "male")
    assert "nan" not in (format_impact_ratios(rows) + format_distilled(distill_evaluations(policies)))


def test_unknown_attribute_and_too_many_selected_name_the_line(eval_file):
    policies = load_evaluations(eval_file)
    with pytest.raises(UserError, match=r":1: no attribute 'sex'.*gender, region"):
        tabulate_impact_ratios(policies, attributes=["sex"], n_selected=2)
    for n_selected in (0, 8):
        with pytest.raises(UserError, match=rf":1: {n_selected} are to be selected of a shortlist of 8.*1 to 7"):
            tabulate_impact_ratios(policies, n_selected=n_selected)


def test_saved_rows_read_back_with_undefined_as_empty(tmp_path, eval_file):
    rows = tabulate_impact_ratios(load_evaluations(eval_file), n_selected=4)
    save_rows(tmp_path / "r.json", rows)
    save_rows(tmp_path / "r.csv", rows)
    from_json = json.loads((tmp_path / "r.json").read_text())
    with (tmp_path / "r.csv").open(newline="") as lines:
        from_csv = list(csv.DictReader(lines))
    assert len(from_json) == len(from_csv) == len(rows)
    assert from_json[-1]["selection_rate"] is None and from_csv[-1]["selection_rate"] == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evaluation.jsonl", "r.csv", "r.json"]


def test_save_refuses_another_suffix_and_a_missing_folder(tmp_path):
    with pytest.raises(UserError, match=r"\.csv or \.json"):
        save_rows(tmp_path / "r.xlsx", [{"a": 1}])
    with pytest.raises(UserError, match="in a folder that exists"):
        save_rows(tmp_path / "none" / "r.csv", [{"a": 1}])


@pytest.fixture
def run_script(monkeypatch, capsys):
    """Return what runs a script in this process, and returns what it printed."""

    def run(name, *arguments):
        monkeypatch.setattr("sys.argv", [name, *map(str, arguments)])
        runpy.run_path(str(ROOT / "scripts" / name), run_name="__main__")
        return capsys.readouterr()

    return run


def test_distill_script_prints_and_saves(tmp_path, eval_file, run_script):
    out, err = run_script("distill_policy_eval.py", "--eval_file", eval_file, "--save_path", tmp_path / "d.csv")
    assert err == "" and "guarded difference [95 %]" in out and "echo" in out
    assert (tmp_path / "d.csv").read_text().startswith("policy,n_postings,")


def test_impact_ratio_script_prints_and_saves(tmp_path, eval_file, run_script):
    arguments = ("--eval_file", eval_file, "--save_path", tmp_path / "r.json", "--attributes", "gender")
    out, err = run_script("impact_ratio_calc.py", *arguments, "--selected", 4)
    assert err == "" and "ilql: gender" in out and "(smallest ratio)" in out
    assert {row["attribute"] for row in json.loads((tmp_path / "r.json").read_text())} == {"gender"}


def test_script_ends_a_mistake_with_one_line_and_writes_nothing(tmp_path, eval_file):
    eval_file.write_text(eval_file.read_text() + "{broken\n")
    command = [sys.executable, ROOT / "scripts" / "impact_ratio_calc.py", "--eval_file", eval_file]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, "--save_path", tmp_path / "r.csv"], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith(f"error: {eval_file}:6: not JSON") and done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["evaluation.jsonl"]


def test_run_main_names_the_path_of_an_operating_system_error(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        run_main(lambda: (tmp_path / "none").read_text())
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"error: {tmp_path / 'none'}: No such file or directory\n"


def test_run_main_ends_an_interruption_without_a_traceback(capsys):
    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        run_main(interrupt)
    assert (ended.value.code, capsys.readouterr().err) == (130, "interrupted\n")


def test_run_main_leaves_bugs_alone():
    with pytest.raises(ZeroDivisionError):
        run_main(lambda: 1 // 0)
