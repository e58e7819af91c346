"""The schema of audit.json: it names every key with a meaning, fits every kind of audit, and refuses a damaged one."""

import copy
import importlib.resources
import json

import pytest

from ilqljax.cli import run_command
from ilqljax.data.json_lines import save_json_lines
from ilqljax.hiring.audit.program import SCHEMA, VERSION
from ilqljax.hiring.market.sample import make_market
from ilqljax.hiring.postings.posting import save_candidates, save_postings

SCHEMA_TEXT = (importlib.resources.files("ilqljax.hiring.audit") / "audit.schema.json").read_text(encoding="utf-8")
KINDS = {  # options of the command, by kind of audit
    "decisions": ["--attributes", "sex,race"],
    "scores": ["--attributes", "sex", "--score_column", "points"],
    "changes": ["--attributes", "sex", "--score_column", "points", "--scores_after", "after.csv"],
    "counts": ["--attributes", "sex"],
    "strata": ["--attributes", "sex", "--within", "job"],
    "jobs": ["--attributes", "sex", "--job_column", "job"],
    "weights": ["--attributes", "sex", "--weight_column", "weight"],
    "hidden": ["--attributes", "sex,race", "--min_count", "25"],
    "shortlists": ["--attributes", "gender", "--top", "10", "--selected", "4"],
    "rewrites": ["--attributes", "gender", "--top", "10", "--selected", "4", "--rewrites", "rewrites.jsonl"],
}


@pytest.fixture(scope="module")
def validator():
    """Return what checks a value against the schema."""
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema, of the extra 'test', is not installed")
    schema = json.loads(SCHEMA_TEXT)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def write_inputs(folder, kind):
    """Write what an audit of a kind reads, and return the options that name it."""
    if kind in ("shortlists", "rewrites"):
        postings, candidates = make_market(seed=0, n_postings=3, n_candidates=60)
        save_postings(folder / "jobs.jsonl", postings)
        save_candidates(folder / "people.jsonl", candidates)
        rows = [{"id": postings[0].id, "text": postings[0].description}, {"id": postings[1].id, "text": "A nurse."}]
        save_json_lines(folder / "rewrites.jsonl", rows)
        return ["--jobs", str(folder / "jobs.jsonl"), "--candidates", str(folder / "people.jsonl")]
    if kind == "counts":
        (folder / "t.csv").write_text("sex,applicants,selected\nf,60,20\nm,70,40\n,5,1\n")
        return ["--scores", str(folder / "t.csv")]
    outcome = "points" if kind in ("scores", "changes") else "selected"
    for name, shift in (("t.csv", 0), ("after.csv", 3)):
        lines = [f"id,sex,race,job,weight,{outcome}"]
        for i in range(180):
            value = (i * 7 + shift) % 31 if outcome == "points" else int((i + shift) % 3 == 0)
            lines.append(f"p{i},{'fm'[i % 2] if i % 9 else 'n/a'},{'abbcccc'[i % 7]},j{i % 5},{1 + i % 4},{value}")
        (folder / name).write_text("\n".join(lines) + "\n")
    return ["--scores", str(folder / "t.csv")]


def audit(folder, kind):
    arguments = [str(folder / part) if part.endswith(("after.csv", ".jsonl")) else part for part in KINDS[kind]]
    run_command(["audit", *write_inputs(folder, kind), *arguments, "--out", str(folder / "out")])
    return json.loads((folder / "out" / "audit.json").read_text())


@pytest.mark.parametrize("kind", [pytest.param(k, marks=[pytest.mark.slow] * (k == "rewrites")) for k in KINDS])
def test_twin_of_every_kind_of_audit_fits_the_schema(tmp_path, kind, validator):
    found = audit(tmp_path, kind)
    assert [f"{list(error.absolute_path)}: {error.message}" for error in validator.iter_errors(found)] == []
    assert (found["$schema"], found["version"]) == (SCHEMA, VERSION)


def test_damaged_twin_is_refused(tmp_path, validator):
    found = audit(tmp_path, "strata")
    assert validator.is_valid(found)

    def spoil(path, value):
        damaged = copy.deepcopy(found)
        at = damaged
        for key in path[:-1]:
            at = at[key]
        if value is None:
            del at[path[-1]]
        else:
            at[path[-1]] = value
        return damaged

    table = ["attributes", 0, "rates", "before", "selection"]
    within = ["attributes", 0, "within", "before", "selection"]
    for path, value in (
        ([*table, "rows", 0, "n_asessed"], 3),  # an unknown key, at every depth
        ([*within, "rows", 0, "note"], "x"),
        (["extra"], 1),
        ([*table, "rows", 0, "rate"], None),  # a key that is missing
        (["attributes", 0, "pool"], None),
        (["version"], None),
        ([*table, "rows", 0, "rate"], 1.2),  # out of its range
        ([*table, "rows", 0, "n_people"], -1),
        ([*table, "p_smallest"], "0.03"),  # of another type
        ([*table, "rows", 0, "mark"], "fair"),
        ([*within, "strata", 0, "n_people"], 2.5),
        ([*table, "total"], {"n_people": 3}),
        (["phases"], ["later"]),
        (["$schema"], "urn:ilqljax:audit:0"),
    ):
        assert not validator.is_valid(spoil(path, value)), path


def list_keys(schema, path="audit.json"):
    """Yield every key of a schema with where it stands and what describes it."""
    for name, of in (*schema.get("properties", {}).items(), *schema.get("patternProperties", {}).items()):
        yield f"{path}.{name}", of
        yield from list_keys(of, f"{path}.{name}")
    for inner in (*schema.get("anyOf", ()), schema.get("items"), schema.get("additionalProperties")):
        if isinstance(inner, dict):
            yield from list_keys(inner, path)
    for name, of in schema.get("$defs", {}).items():
        yield from list_keys(of, name)


def test_schema_says_what_every_key_means():
    schema = json.loads(SCHEMA_TEXT)
    keys = dict(list_keys(schema))
    by_name = ("before", "after", "shortlisting", "selection", "scoring")  # of phases and measures
    assert len(keys) > 150
    assert [
        where for where, of in keys.items() if not of.get("description") and where.split(".")[-1] not in by_name
    ] == []
    assert schema["$id"] == SCHEMA and schema["properties"]["version"]["const"] == VERSION
