"""`ilqljax audit` as a user meets it: the sample, own files, rewrites, and every mistake before the work."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ilqljax.cli import run_command
from ilqljax.data.files import MAX_LINE_BYTES, save_folder
from ilqljax.data.json_lines import save_json_lines
from ilqljax.errors import UserError
from ilqljax.hiring.audit.program import load_rewrites
from ilqljax.hiring.guardrails import MODES
from ilqljax.hiring.market.sample import make_market
from ilqljax.hiring.postings.posting import Posting, load_candidates, save_candidates, save_postings

ROOT = Path(__file__).resolve().parents[1]
SMALL = ["--top", "20", "--selected", "5"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Write a small market's two files."""
    folder = tmp_path_factory.mktemp("data")
    postings, candidates = make_market(seed=0, n_postings=15, n_candidates=300)
    save_postings(folder / "jobs.jsonl", postings)
    save_candidates(folder / "candidates.jsonl", candidates)
    return folder


def run(*arguments, out):
    run_command(["audit", *map(str, arguments), "--out", str(out)])
    return json.loads((out / "audit.json").read_text())


def jobs_arguments(data):
    return ["--jobs", data / "jobs.jsonl", "--candidates", data / "candidates.jsonl", *SMALL]


def test_own_files_give_a_page_numbers_and_tables(data, tmp_path):
    result = run(*jobs_arguments(data), "--attributes", "gender,region", out=tmp_path / "out")
    assert (result["n_postings"], result["n_candidates"]) == (15, 300)
    assert [section["name"] for section in result["attributes"]] == ["gender", "region", "gender x region"]
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names >= {"report.html", "audit.json", "selection_gender_before.csv", "scoring_gender_by_region_before.csv"}


@pytest.mark.slow
def test_same_seed_gives_the_same_bytes(data, tmp_path):
    for name in ("a", "b"):
        run(*jobs_arguments(data), "--attributes", "gender", out=tmp_path / name)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


@pytest.mark.slow
def test_rewrites_are_paired_by_posting_and_flagged(data, tmp_path):
    postings, _ = make_market(seed=0, n_postings=15, n_candidates=1)
    rows = [{"id": p.id, "text": p.description} for p in postings[:4]] + [{"id": postings[4].id, "text": "gibberish"}]
    save_json_lines(tmp_path / "r.jsonl", rows)
    result = run(*jobs_arguments(data), "--rewrites", tmp_path / "r.jsonl", out=tmp_path / "out")
    assert result["phases"] == ["before", "after"] and result["n_postings"] == 5
    assert [bool(row["guardrail_failures"]) for row in result["postings"]] == [False] * 4 + [True]
    scores = result["attributes"][0]["scores"]
    assert scores["guarded_gain"] <= max(0.0, scores["gain"])
    assert (tmp_path / "out" / "selection_gender_after.csv").is_file()


@pytest.mark.slow
def test_evaluation_file_of_a_run_is_read_with_its_own_flags(data, tmp_path):
    postings, _ = make_market(seed=0, n_postings=15, n_candidates=1)
    row = {"posting_id": postings[0].id, "rewrite": postings[0].description, "guardrail_failures": ["company_kept"]}
    save_json_lines(tmp_path / "e.jsonl", [row | {"policy": name} for name in ("bc", "ilql")])
    arguments = [*jobs_arguments(data), "--rewrites", tmp_path / "e.jsonl"]
    with pytest.raises(UserError, match=r"several policies. Name one with --policy: 'bc', 'ilql'"):
        run(*arguments, out=tmp_path / "out")
    result = run(*arguments, "--policy", "ilql", out=tmp_path / "out")
    assert result["postings"][0]["guardrail_failures"] == ["company_kept"]


def test_paraphrases_are_put_to_the_guardrails_of_free_text(data, tmp_path):
    text = "Oak needs a nurse. You draw up schedules and talk with families about the treatment."
    posting = Posting("p", "Nurse", text, company="Oak")
    honest = "Oak is looking for a nurse. You prepare schedules and speak with relatives about the treatment."
    save_json_lines(tmp_path / "r.jsonl", [{"id": "p", "text": honest}])
    failed = {
        mode: load_rewrites(tmp_path / "r.jsonl", known=[posting], guardrails=mode)["p"].failed_checks for mode in MODES
    }
    assert failed["edits"] and not failed["free_text"]
    with pytest.raises(UserError, match=r"--guardrails: invalid choice: 'none'"):
        run(*jobs_arguments(data), "--rewrites", tmp_path / "r.jsonl", "--guardrails", "none", out=tmp_path / "out")


@pytest.mark.slow
def test_gibberish_that_scores_better_is_no_improvement(tmp_path):
    """DOMAIN 2.12: the neutral words alone match a mixed shortlist; the guardrails fail them, so nothing is gained."""
    postings, _ = make_market(seed=0)
    rows = [{"id": p.id, "text": f"{p.requirements} versatile practical"} for p in postings[:40]]
    save_json_lines(tmp_path / "r.jsonl", rows)
    arguments = ["--sample", "--attributes", "gender", "--rewrites", tmp_path / "r.jsonl"]
    scores = run(*arguments, out=tmp_path / "out")["attributes"][0]["scores"]
    assert scores["gain_low"] > 0 and scores["guarded_gain"] <= 0


@pytest.mark.slow
def test_empty_rewrite_reaches_nobody(data, tmp_path):
    save_json_lines(tmp_path / "r.jsonl", [{"id": "job-0000", "text": " "}, {"id": "job-0001", "text": "A nurse."}])
    result = run(*jobs_arguments(data), "--rewrites", tmp_path / "r.jsonl", out=tmp_path / "out")
    assert result["postings"][0]["score_after"]["gender"] == -100.0
    tables = result["attributes"][0]["rates"]["after"]["selection"]
    assert sum(row["n_assessed"] for row in [*tables["rows"], tables["unknown"]]) == 20


def test_ready_table_is_audited(tmp_path):
    (tmp_path / "s.csv").write_text("sex,score\n" + "".join(f"{'fm'[i % 2]},{i}\n" for i in range(100)))
    result = run("--scores", tmp_path / "s.csv", out=tmp_path / "out")
    assert list(result["attributes"][0]["rates"]["before"]) == ["scoring"]
    assert "column &#39;score&#39;" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_finding_is_printed_in_a_sentence(tmp_path, capsys):
    rows = ["m,n,1"] * 60 + ["m,n,0"] * 40 + ["f,n,1"] * 30 + ["f,n,0"] * 70
    (tmp_path / "s.csv").write_text("\n".join(["sex,region,selected", *rows]))
    run("--scores", tmp_path / "s.csv", "--attributes", "sex", out=tmp_path / "out")
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(
        "The lowest impact ratio is 0.50 [0.35, 0.69], of f (below four fifths) (sex, selection rate)"
    )
    assert first.endswith(": lower than chance gives.") and "report.html" in second
    run("--scores", tmp_path / "s.csv", "--attributes", "region", out=tmp_path / "other")
    assert capsys.readouterr().out.startswith("No two categories of 30 people or more could be compared.\n")


def test_jobs_without_candidates_are_refused_and_the_samples_people_are_taken_when_named(data, tmp_path):
    (tmp_path / "jobs.jsonl").write_bytes((data / "jobs.jsonl").read_bytes())
    for name in ("jobs.jsonl", "."):
        with pytest.raises(UserError, match=r"brings no candidates\. Give --candidates candidates\.jsonl"):
            run("--jobs", tmp_path / name, *SMALL, out=tmp_path / "out")
    arguments = ["--jobs", tmp_path / "jobs.jsonl", "--candidates", "sample", "--max_postings", 2, *SMALL]
    assert run(*arguments, "--attributes", "gender", out=tmp_path / "out")["n_candidates"] == 2000


def test_real_posts_are_not_audited_against_made_people_unasked(shared_dir, tmp_path):
    with pytest.raises(UserError, match="brings no candidates"):
        run("--jobs", shared_dir / "data" / "hn_who_is_hiring.jsonl.gz", out=tmp_path / "out")


def test_misspelt_fields_are_refused_with_the_near_name(data, tmp_path):
    person, job = {"id": "1", "text": "nurse"}, {"id": "1", "title": "t", "description": "d"}
    for name, row, message in (
        ("c.jsonl", person | {"atributes": {"sex": "f"}}, r"c\.jsonl:1: the field 'atributes' .* 'attributes'\?"),
        ("c.jsonl", person | {"Attributes": {"sex": "f"}}, r"Did you mean 'attributes'\? Rename or remove it"),
        ("j.jsonl", job | {"compny": "x"}, r"j\.jsonl:1: the field 'compny' is unknown\. Did you mean 'company'\?"),
        ("r.jsonl", {"id": "job-0000", "text": "a", "guardrail_failure": []}, "mean 'guardrail_failures'"),
    ):
        files = {"j.jsonl": job, "c.jsonl": person, "r.jsonl": {"id": "1", "text": "a"}} | {name: row}
        for path, content in files.items():
            save_json_lines(tmp_path / path, [content])
        if name == "r.jsonl":
            arguments = [*jobs_arguments(data), "--rewrites", tmp_path / name]
        else:
            arguments = ["--jobs", tmp_path / "j.jsonl", "--candidates", tmp_path / "c.jsonl"]
        with pytest.raises(UserError, match=message):
            run(*arguments, out=tmp_path / "out")


def test_further_fields_of_other_names_are_ignored(tmp_path):
    save_json_lines(tmp_path / "c.jsonl", [{"id": "1", "text": "a", "salary": 1, "attributes": {}, "attribute": "x"}])
    assert load_candidates(tmp_path / "c.jsonl")[0].text == "a"


def test_small_cells_are_hidden_in_every_file(tmp_path):
    lines = ["sex,selected"] + ["f,1", "f,0"] * 50 + ["m,1", "m,0"] * 40 + ["rare-one,1"] * 3 + ["rare-two,0"] * 4
    (tmp_path / "s.csv").write_text("\n".join(lines))
    run("--scores", tmp_path / "s.csv", "--min_count", 10, out=tmp_path / "out")
    for path in (tmp_path / "out").iterdir():
        assert "rare-" not in path.read_text(encoding="utf-8"), path
    assert (tmp_path / "out" / "selection_sex_before.csv").read_text().endswith("Hidden,,,,,,3 cells of few people\n")


def test_page_is_written_where_the_unknown_are_hidden(tmp_path):
    """Its template looked for their number, and the program ended in a traceback."""
    lines = ["sex,selected"] + ["f,1", "f,0"] * 50 + ["m,1", "m,0"] * 40 + [",1", ",0"] * 2
    (tmp_path / "s.csv").write_text("\n".join(lines))
    run("--scores", tmp_path / "s.csv", "--min_count", 10, out=tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "a hidden number of 184 candidates" in page and "Whoever the unknown are" not in page.split("<h2")[1]


def test_groups_of_postings_have_their_own_target(data, tmp_path):
    shares = "; ".join(f"{group}: female=0.5, male=0.5" for group in ["*", "nursing"])
    arguments = [*jobs_arguments(data), "--attributes", "gender", "--target", "group", "--shares", shares]
    result = run(*arguments, out=tmp_path / "out")
    assert [row["target"] for row in result["attributes"][0]["composition"]] == [0.5, 0.5]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--attributes", "sex"], r"Unknown attribute 'sex'\. The candidates declare: gender, region"),
        (["--top", "301"], r"k=301 was asked for, but there are 300 candidates"),
        (["--selected", "20"], r"selected=20 of top=20"),
        (["--selected", "0"], r"selected=0"),
        (["--matcher", "magic"], r"matcher='magic' is unknown\. Known: tfidf"),
        (["--matcher_options", "path"], r"'path' is not an assignment"),
        (["--matcher_options", "depth=3"], r"--matcher_options\.depth is not an option of matcher 'tfidf'"),
        (["--matcher", "callable", "--matcher_options", "function=nowhere:f"], r"nowhere"),
        (["--distance", "far"], r"distance='far' is unknown"),
        (["--target", "half"], r"target='half' is unknown"),
        (["--target", "fixed", "--shares", "f=1"], r"categories are \['female', 'male'\]"),
        (["--min_count", "-1"], r"min_count=-1"),
        (["--max_postings", "-1"], r"max_postings=-1"),
        (["--scores", "x.csv"], r"one of --jobs .*, --scores and --sample; got jobs, scores"),
        (["--rewrites", "nowhere.jsonl"], r"nowhere\.jsonl: no such file"),
    ],
)
def test_mistake_is_refused_and_nothing_is_written(data, tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        run(*jobs_arguments(data), *change, out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['{"id": "nobody", "text": "a"}'], r"r\.jsonl:1: there is no posting 'nobody' in the jobs"),
        (['{"id": "job-0000", "text": "a"}'] * 2, r"r\.jsonl:2: the posting 'job-0000' was already rewritten at"),
        (['{"id": "job-0000"}'], r"r\.jsonl:1: the field 'text' is missing"),
        (["[1]"], r"r\.jsonl:1: expected a JSON object"),
        ([], r"holds no rewrite"),
    ],
)
def test_bad_rewrites_name_the_line(data, tmp_path, lines, message):
    (tmp_path / "r.jsonl").write_text("\n".join(lines))
    with pytest.raises(UserError, match=message):
        run(*jobs_arguments(data), "--rewrites", tmp_path / "r.jsonl", out=tmp_path / "out")


def test_jobs_that_are_missing_not_utf8_duplicate_or_endless_are_refused(data, tmp_path):
    job = b'{"id": "1", "title": "t", "description": "d"}\n'
    for name, content, message in (
        ("latin.jsonl", job + b'{"id": "2", "title": "caf\xe9", "description": "d"}\n', r"latin\.jsonl:2: .*not UTF-8"),
        ("twice.jsonl", job + job, r"twice\.jsonl:2: the id '1' was already used"),
        ("long.jsonl", job + b"x" * (MAX_LINE_BYTES + 1), r"long\.jsonl:2: the line is longer than 16 MiB"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=message):
            run("--jobs", tmp_path / name, "--candidates", data / "candidates.jsonl", *SMALL, out=tmp_path / "out")
    with pytest.raises(UserError, match="no such file"):
        run("--jobs", tmp_path / "no.jsonl", "--candidates", data / "candidates.jsonl", out=tmp_path / "out")


def test_attribute_that_nobody_declares_is_refused_by_name(data, tmp_path):
    rows = [{"id": str(i), "text": "nurse", "attributes": {"sex": "f", "age": " "}} for i in range(40)]
    save_json_lines(tmp_path / "c.jsonl", rows)
    arguments = ["--jobs", data / "jobs.jsonl", "--candidates", tmp_path / "c.jsonl", *SMALL, "--attributes", "sex,age"]
    with pytest.raises(UserError, match="No candidate declares 'age'"):
        run(*arguments, out=tmp_path / "out")


def test_pair_of_attributes_that_nobody_declares_together_is_named_and_left_out(data, tmp_path):
    rows = [{"id": str(i), "text": "nurse", "attributes": {"sex": "fm"[i % 2], "race": ""}} for i in range(40)]
    rows += [{"id": str(40 + i), "text": "nurse", "attributes": {"sex": "", "race": "ab"[i % 2]}} for i in range(40)]
    save_json_lines(tmp_path / "c.jsonl", rows)
    arguments = ["--jobs", data / "jobs.jsonl", "--candidates", tmp_path / "c.jsonl", *SMALL]
    result = run(*arguments, out=tmp_path / "out")
    assert [section["name"] for section in result["attributes"]] == ["race", "sex"]
    assert set(result["postings"][0]["score_before"]) == {"race", "sex"}
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "Not audited, for nobody declares both: race x sex." in page


@pytest.mark.slow
def test_rewrites_that_reach_nobody_have_no_skew(data, tmp_path):
    postings, _ = make_market(seed=0, n_postings=15, n_candidates=1)
    save_json_lines(tmp_path / "r.jsonl", [{"id": p.id, "text": ""} for p in postings])
    arguments = [*jobs_arguments(data), "--attributes", "gender", "--rewrites", tmp_path / "r.jsonl"]
    section = run(*arguments, out=tmp_path / "out")["attributes"][0]
    assert section["lists"]["after"]["min_skew"] is section["lists"]["after"]["max_skew"] is None
    assert section["ranking"][0]["skew_5_after"] is None and section["ranking"][0]["skew_5_before"] is not None


def test_one_posting_has_ratios_and_no_intervals(data, tmp_path):
    result = run(*jobs_arguments(data), "--max_postings", "1", "--attributes", "gender", out=tmp_path / "out")
    rows = result["attributes"][0]["rates"]["before"]["selection"]["rows"]
    assert all(row["ratio_low"] is None and row["n_assessed"] > 0 for row in rows)


def test_folder_that_holds_something_is_left_alone(data, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    with pytest.raises(UserError, match="is not an empty folder"):
        run(*jobs_arguments(data), out=tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_folder_is_written_whole_or_not_at_all(tmp_path):
    save_folder(tmp_path / "good", {"a.txt": "1", "b.txt": "2"})
    assert sorted(path.name for path in (tmp_path / "good").iterdir()) == ["a.txt", "b.txt"]
    with pytest.raises(UserError, match="cannot be written"):
        save_folder(tmp_path / "bad", {"a.txt": "1", "no/such/place.txt": "2"})
    assert [path.name for path in tmp_path.iterdir()] == ["good"]


def test_without_data_the_program_says_how_to_try_it(tmp_path):
    command = [sys.executable, "-m", "ilqljax.audit", "--out", str(tmp_path / "out")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "ilqljax audit --sample --out report" in done.stderr


@pytest.mark.slow
def test_sample_with_the_plant_finds_it_and_without_it_does_not(tmp_path):
    found = {}
    for plant in ("0.8", "0"):
        arguments = ["--sample", "--plant", plant, "--attributes", "gender"]
        section = run(*arguments, out=tmp_path / plant)["attributes"][0]
        found[plant] = (section["scores"]["before_p"], section["rates"]["before"]["shortlisting"]["p_smallest_holm"])
    assert max(found["0.8"]) < 0.01
    assert min(found["0"]) > 0.05


@pytest.mark.slow
def test_real_posts_are_audited(shared_dir, tmp_path):
    posts = shared_dir / "data" / "hn_who_is_hiring.jsonl.gz"
    arguments = ["--jobs", posts, "--candidates", "sample", "--max_postings", 30, "--attributes", "gender"]
    assert run(*arguments, out=tmp_path / "out")["n_postings"] == 30
