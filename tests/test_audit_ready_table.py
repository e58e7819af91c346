"""Ready tables: the law's examples end to end, Local Law 144's CSV form, and what is refused."""

import gzip
import json

import numpy as np
import pytest
from ready_tables import RACE, SEX, audit, write_table

from ilqljax.errors import UserError
from ilqljax.hiring.audit.ready_table import load_ready_table
from ilqljax.hiring.audit.tables import format_json, list_tables, state_findings


@pytest.mark.parametrize("kind", ["score", "selected"])
def test_the_laws_example_of_sex(tmp_path, kind):
    """DOMAIN 3: Male 92, 54.3 %, 1.00; Female 76, 44.7 %, 0.82. Half of the scores are above the median of 0."""
    result = audit(write_table(tmp_path / "t.csv", SEX, kind=kind))
    measure = "scoring" if kind == "score" else "selection"
    text = list_tables(result)[f"{measure}_sex_before.csv"]
    assert text.splitlines()[1:] == [
        "Female,76,34,44.7%,0.82,76,0.8 or more",
        "Male,92,50,54.3%,1.00,92,highest rate",
        "Unknown,0,0,,,0,not in the calculation",
        "Total,168,84,50.0%,,168,unknown included",
    ]


def test_the_laws_example_of_race(tmp_path):
    """DOMAIN 3. The published 64.2 % is 18 / 28 = 64.29 % cut off; small groups are not judged, nor a reference."""
    result = audit(write_table(tmp_path / "t.csv", RACE, kind="selected", name="race"))
    text = list_tables(result)["selection_race_before.csv"]
    assert text.splitlines() == [
        "race,# of Applicants,# Selected,Selection Rate,Impact Ratio,Different people,Note",
        "Asian,24,10,41.7%,0.65,24,insufficient data",
        "Black,32,16,50.0%,0.78,32,highest rate of 30 people or more",
        "Hispanic,28,18,64.3%,1.00,28,insufficient data",
        "Native Hawaiian or Pacific Islander,8,5,62.5%,0.97,8,insufficient data",
        "White,40,15,37.5%,0.58,40,0.75 of Black: below 0.8",
        "Unknown,0,0,,,0,not in the calculation",
        "Total,132,64,48.5%,,132,unknown included",
    ]


def test_category_under_two_percent_is_listed_with_its_rate_and_has_no_ratio(tmp_path):
    result = audit(write_table(tmp_path / "t.csv", [("a", 100, 50), ("b", 100, 40), ("c", 3, 3)], kind="selected"))
    rows = {row["category"]: row for row in result["attributes"][0]["rates"]["before"]["selection"]["rows"]}
    assert rows["c"]["rate"] == 1.0 and np.isnan(rows["c"]["impact_ratio"]) and rows["c"]["mark"].startswith("excluded")
    assert rows["a"]["impact_ratio"] == 1.0


def test_p_value_of_the_finding_is_of_the_category_that_it_names(tmp_path):
    """B's 98 of 200 beside A's 100 of 200 are nothing; the 0 of 14 of C, which is too small to judge, are no part."""
    result = audit(write_table(tmp_path / "t.csv", [("A", 200, 100), ("B", 200, 98), ("C", 14, 0)], kind="selected"))
    table = result["attributes"][0]["rates"]["before"]["selection"]
    assert table["smallest_ratio"] == pytest.approx(0.98) and table["p_smallest"] > 0.5
    assert table["null_smallest_low"] > 0.7
    (sentence,) = state_findings(result)["sex"]
    assert "of B; not clearly lower than by chance" in sentence
    assert "Not compared, with fewer than 30 people: C (14). With every category included the lowest" in sentence


def test_exactly_four_fifths_is_not_below_in_the_finding_or_the_table(tmp_path):
    result = audit(write_table(tmp_path / "t.csv", [("A", 30, 25), ("B", 30, 20)], kind="selected"))
    assert "below" not in state_findings(result)["sex"][0]
    assert "B,30,20,66.7%,0.80,30,0.8 or more" in list_tables(result)["selection_sex_before.csv"]


def test_unknown_is_counted_and_in_no_rate(tmp_path):
    path = write_table(tmp_path / "t.csv", SEX, kind="selected", extra=["u1,,1", "u2, ,0"])
    table = audit(path)["attributes"][0]["rates"]["before"]["selection"]
    assert (table["unknown"]["n_assessed"], table["unknown"]["n_selected"]) == (2, 1)
    assert [row["n_assessed"] for row in table["rows"]] == [76, 92]


def test_json_has_null_for_what_is_undefined(tmp_path):
    result = json.loads(format_json(audit(write_table(tmp_path / "t.csv", SEX, kind="selected"))))
    rows = result["attributes"][0]["rates"]["before"]["selection"]["rows"]
    assert rows[1]["ratio_low"] is None and rows[0]["ratio_low"] < 0.82 < rows[0]["ratio_high"]


def test_category_that_looks_like_a_formula_is_not_a_formula_in_the_table(tmp_path):
    text = list_tables(audit(write_table(tmp_path / "t.csv", [("=1+1", 40, 20), ("b", 40, 10)], kind="selected")))
    assert "\n'=1+1,40," in text["selection_sex_before.csv"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"sex,score\nf,1\n", "holds 1 candidates"),
        (
            b"sex,grade\nf,1\n",
            r"exactly one of the columns 'score' \(numbers\) and 'selected' \(yes or no\), got \['sex'.*--score_column",
        ),
        (b"sex,score,selected\nf,1,1\n", "exactly one"),
        (b"PK\x03\x04\x00", "cannot be read .*save it as CSV"),
        (b"PAR1\x00", "cannot be read .*save it as CSV"),
        (b"\xd0\xcf\x11\xe0\x00", "Excel before 2007"),
        (b"sex,score\nf,1_0\nm,2\n", r"t\.csv:2: score='1_0' is not a finite number"),
        ("sex,score\nf,\u0663\nm,2\n".encode(), "is not a finite number"),
        (b"sex,score\nf,1e999\nm,2\n", "is not a finite number"),
        (b'sex,score\nf,"0,5"\nm,2\n', "decimal comma"),
        (b'id,sex,score\n1,f,1\n2,"m,2\n3,f,1\n4,m",2\n', r"t\.csv:3: a quote that begins here"),
        (b"sex,applicants,selected\nf,10,11\n", "selected=11 of applicants=10"),
        (b"sex,applicants,selected\nf,3000000,11\n", "2,000,000 in the table"),
        (b"sex,applicants,selected\nf,1_0,1\n", "applicants='1_0' is not a whole number"),
        (b"sex,applicants,score\nf,10,1\n", "a table of counts needs 'selected'"),
        (
            b"name,score\n" + b"".join(b"p%d,1\n" % i for i in range(51)),
            "no column of an attribute; left out are 'name'",
        ),
        (b"score\n1\n2\n", "no column of an attribute"),
        (b"sex,sex,score\nf,m,1\n", "occurs twice"),
        (b"sex,score\nf,1\nm\n", r"t\.csv:3: 1 cells, but the header has 2"),
        (b"sex,score\nf,1\nm,nan\n", r"t\.csv:3: score='nan' is not a finite number"),
        (b"sex,score\nf,1\nm,\n", r"t\.csv:3: score='' is not a finite number"),
        (b"sex,score\nf,1\nm,inf\n", "not a finite number"),
        (b"sex,score\nf,1\nm,-1\n", r"t\.csv:3: score=-1 is negative.*--allow_negative"),
        (b"sex,selected\nf,1\nm,2\n", r"t\.csv:3: selected='2' is neither yes nor no"),
        (b"sex,score\nf,1\n\x81,1\n", r"t\.csv:3: not cp1252 text"),
        (b'sex,score\nf,1\n"m,1\n' + b"x" * 200_000, "not CSV"),
    ],
)
def test_bad_table_names_file_line_and_fix(tmp_path, content, message):
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        load_ready_table(path)


def test_negative_scores_are_taken_when_allowed(tmp_path):
    (tmp_path / "t.csv").write_text("sex,score\nf,-1\nm,1\n")
    assert load_ready_table(tmp_path / "t.csv", allow_negative=True).values.tolist() == [-1.0, 1.0]


def test_unknown_column_and_missing_file_are_refused(tmp_path):
    path = write_table(tmp_path / "t.csv", SEX, kind="score")
    with pytest.raises(UserError, match=r"no column 'race'; the columns are id, sex, score"):
        load_ready_table(path, attributes=["race"])
    with pytest.raises(UserError, match=r"no column 'Sex'; .* Did you mean 'sex'\?"):
        load_ready_table(path, attributes=["Sex"])
    with pytest.raises(UserError, match="no such file"):
        load_ready_table(tmp_path / "other.csv")


def test_large_tables_are_audited_without_a_row_by_row_bootstrap(tmp_path):
    rng = np.random.default_rng(0)
    lines = [f"{'fm'[s]},{v}" for s, v in zip(rng.integers(0, 2, 50_000), rng.integers(0, 2, 50_000), strict=True)]
    (tmp_path / "t.csv").write_text("sex,selected\n" + "\n".join(lines))
    rows = audit(tmp_path / "t.csv")["attributes"][0]["rates"]["before"]["selection"]["rows"]
    assert sum(row["n_assessed"] for row in rows) == 50_000


TEXT = "id,Geschlecht,score\n1,männlich,0.5\n2,weiblich,0.25\n"


FORMS = {
    "gzip": gzip.compress(TEXT.encode()),
    "UTF-8 with its mark": TEXT.encode("utf-8-sig"),
    "UTF-16": TEXT.encode("utf-16"),
    "Windows-1252": TEXT.encode("cp1252"),
    "semicolons": TEXT.replace(",", ";").encode(),
    "tabs": TEXT.replace(",", "\t").encode(),
    "bars": TEXT.replace(",", "|").replace("\n", "\r\n").encode(),
    "sep": b"sep=;\r\n" + TEXT.replace(",", ";").encode("cp1252"),
}


@pytest.mark.parametrize("content", FORMS.values(), ids=FORMS)
def test_text_is_read_however_it_is_encoded_and_separated(tmp_path, content):
    path = tmp_path / "table"
    path.write_bytes(content)
    ready = load_ready_table(path)
    assert ready.values.tolist() == [0.5, 0.25]
    assert ready.table.attribute("Geschlecht").categories == ("männlich", "weiblich")


def test_a_cut_gzip_file_is_refused(tmp_path):
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(TEXT.encode() * 50)[:-12])
    with pytest.raises(UserError, match="cannot be read"):
        load_ready_table(tmp_path / "t.csv.gz")


@pytest.mark.parametrize("kind", ["excel", "parquet"])
def test_workbooks_and_parquet_files_are_read(tmp_path, kind):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("openpyxl" if kind == "excel" else "pyarrow")
    frame = pandas.DataFrame({"sex": ["f", None, "m"], "score": [0.5, 1.25, 3]})
    if kind == "excel":
        frame.to_excel(tmp_path / "t", engine="openpyxl", index=False)
    else:
        frame.to_parquet(tmp_path / "t")
    ready = load_ready_table(tmp_path / "t")
    assert ready.values.tolist() == [0.5, 1.25, 3.0]
    assert ready.table.attribute("sex").codes.tolist() == [0, -1, 1]


def test_columns_may_have_other_names_and_selections_be_words(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("Person,sex,Outcome,ID\n7,f,Hired,x\n8,m,not  hired,y\n9,m,TRUE,z\n")
    names = {"id": "Person", "selected": "Outcome"}
    ready = load_ready_table(path, attributes=["sex"], names=names)
    assert ready.table.ids == ("7", "8", "9") and ready.values.tolist() == [1.0, 0.0, 1.0]
    with pytest.raises(UserError, match=r"no column 'Outcom'.*Did you mean 'Outcome'\?"):
        load_ready_table(path, attributes=["sex"], names={"selected": "Outcom"})
    path.write_text("ID,Sex,Score\n7,f,1\n8,m,2\n")
    assert load_ready_table(path).has_ids and load_ready_table(path).table.names == ("Sex",)


def test_a_table_of_counts_is_that_of_its_applicants(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("sex,Applicants,Selected\nf,120,31\nm,140,52\nf,5,0\n")
    rows = {row["category"]: row for row in audit(path)["attributes"][0]["rates"]["before"]["selection"]["rows"]}
    assert [(rows[c]["n_assessed"], rows[c]["n_selected"]) for c in "fm"] == [(125, 31), (140, 52)]


def test_a_damaged_table_is_read_or_refused_whatever_the_damage(tmp_path):
    rng = np.random.default_rng(0)
    pieces = [
        b'"',
        b",",
        b";",
        b"\n",
        b"\r",
        b"\0",
        b"\xff",
        b"\xfe\xff",
        b"PK\x03\x04",
        b"\x1f\x8b",
        b"9" * 20,
        b"sep=;\n",
    ]
    originals = [TEXT.encode(), TEXT.encode("utf-16"), TEXT.replace(",", ";").encode("cp1252")]
    originals.append(b"sex,applicants,selected\nf,10,3\nm,20,9\n")
    n_read = 0
    for number in range(600):
        content = bytearray(originals[number % 4])
        for _ in range(rng.integers(1, 4)):
            at = int(rng.integers(len(content) + 1))
            if rng.random() < 0.5:
                content[at:at] = pieces[rng.integers(len(pieces))]
            else:
                content[at : at + int(rng.integers(6))] = bytes([rng.integers(256)])
        (tmp_path / "t").write_bytes(content)
        try:
            load_ready_table(tmp_path / "t")
            n_read += 1
        except UserError as error:
            assert "\n" not in str(error)
    assert 20 < n_read < 400
