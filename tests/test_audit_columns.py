"""Which columns of a table are audited when nobody names any: no identifiers, no personal data, no guesses in bulk."""

import pytest

from ilqljax.cli import run_command
from ilqljax.data.json_lines import save_json_lines
from ilqljax.errors import UserError
from ilqljax.hiring.audit.columns import choose_attributes, find_reason
from ilqljax.hiring.audit.frame import audit_frame
from ilqljax.hiring.audit.ready_table import load_ready_table

SECRET = "zzq"  # in every value of a column that must not be shown


@pytest.mark.parametrize(
    ("name", "values", "reason"),
    [
        ("Name", ["a", "b"], "personal data"),
        ("first_name", ["a", "b"], "personal data"),
        ("lastName", ["a", "b"], "personal data"),
        ("Candidate ID", ["1", "2"], "personal data"),
        ("Unnamed: 0", ["0", "1"], "personal data"),
        ("", ["0", "1"], "personal data"),
        *((name, ["a", "b"], "personal data") for name in ("姓名", "Имя", "الاسم", "Prénom", "Vorname", "氏名", "PLZ")),
        ("Zip code", ["10001", "10002"], "personal data"),
        ("born", ["1990-01-31", "1971-12-01"], "dates"),
        ("geboren", ["31.1.1990", "01.12.71", ""], "dates"),
        ("contact", ["a@b.c", "a@b.c", ""], "e-mail"),
        ("who", [f"{i}x" for i in range(20)], "nearly all values differ"),
        ("number", list(map(str, range(20))), "nearly all values differ"),
        ("age", [str(20 + i % 40) for i in range(400)], "--bins age=0,40,200"),
        ("city", [f"city {i % 60}" for i in range(400)], "more than 50"),
    ],
)
def test_identifiers_and_measurements_are_known(name, values, reason):
    assert reason in find_reason(name, values)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("sex", ["f", "m"]),
        ("tournament", ["a", "b"]),  # has "name" in it
        ("valid", ["a", "b"]),
        ("economy", ["a", "b"]),  # "nom"
        ("性别", ["男", "女"]),
        ("age group", ["20-29", "30-39"]),
        ("race code", [str(i % 9) for i in range(100)]),
        ("region", [f"r{i % 12}" for i in range(100)]),
        ("sex", []),
    ],
)
def test_attributes_are_attributes(name, values):
    assert find_reason(name, values) == ""


def write(path, columns, n=60):
    rows = [",".join(values(i) for values in columns.values()) for i in range(n)]
    path.write_text("\n".join([",".join(columns), *rows]) + "\n")
    return path


def test_personal_data_are_on_no_page_unless_named(tmp_path, caplog):
    columns = {"sex": lambda i: "fm"[i % 2], "selected": lambda i: str(i // 2 % 2)}
    columns |= {"Full Name": lambda i: f"{SECRET}{i}", "mail": lambda i: f"{SECRET}{i}@x.org"}
    columns |= {"note": lambda i: f"{SECRET} {i}", "row": lambda i: str(i)}
    path = write(tmp_path / "t.csv", columns)
    run_command(["audit", "--scores", str(path), "--out", str(tmp_path / "out")])
    for file in (tmp_path / "out").iterdir():
        assert SECRET not in file.read_text(encoding="utf-8"), file
    assert "'Full Name' (" in caplog.text and "'mail' (" in caplog.text and SECRET not in caplog.text
    assert load_ready_table(path, attributes=["note"]).table.names == ("note",)


def test_names_of_people_with_several_rows_are_seen_as_such(tmp_path):
    columns = {"id": lambda i: str(i % 20), "who": lambda i: f"w{i % 20}", "sex": lambda i: "fm"[i % 2]}
    path = write(tmp_path / "t.csv", columns | {"selected": lambda i: "1"})
    assert load_ready_table(path).table.names == ("sex",)


def test_a_wide_table_is_answered_with_a_question(tmp_path):
    columns = {f"answer {c}": lambda i, c=c: f"{SECRET}{(i + c) % 3}" for c in range(30)}
    columns |= {"Gender": lambda i: "fm"[i % 2], "Race/Ethnicity": lambda i: "ab"[i % 2], "selected": lambda i: "1"}
    path = write(tmp_path / "t.csv", columns)
    with pytest.raises(UserError) as error:
        load_ready_table(path)
    text = str(error.value)
    assert (
        "which columns are attributes? 32 could be" in text
        and "Likely: Gender, Race/Ethnicity. Others: answer 0" in text
    )
    assert text.endswith("--attributes Gender,Race/Ethnicity") and SECRET not in text
    assert load_ready_table(path, attributes=["Gender"]).table.names == ("Gender",)


def test_a_wide_table_is_refused_without_reading_it_to_its_end(tmp_path, monkeypatch):
    path = write(tmp_path / "t.csv", {f"a{c}": lambda i: "xy"[i % 2] for c in range(9)} | {"selected": lambda i: "1"})
    monkeypatch.setattr("ilqljax.hiring.audit.ready_table.SAMPLE_ROWS", 10)
    with path.open("ab") as stream:
        stream.write(b"damaged\n")
    with pytest.raises(UserError, match="which columns are attributes"):
        load_ready_table(path)


def test_people_of_a_market_are_looked_at_too(tmp_path):
    rows = [{"id": str(i), "text": "nurse", "attributes": {"name": f"{SECRET}{i}"}} for i in range(60)]
    save_json_lines(tmp_path / "c.jsonl", rows)
    save_json_lines(tmp_path / "j.jsonl", [{"id": "1", "title": "nurse", "description": "A nurse."}])
    arguments = ["--jobs", str(tmp_path / "j.jsonl"), "--candidates", str(tmp_path / "c.jsonl")]
    with pytest.raises(UserError, match=r"no column of an attribute; left out are 'name'") as error:
        run_command(["audit", *arguments, "--out", str(tmp_path / "out")])
    assert SECRET not in str(error.value)


def test_no_column_at_all_is_left_to_others():
    assert choose_attributes({}, where="t.csv") == []


def test_identifiers_alone_and_thousands_of_titles_end_with_a_question(tmp_path):
    """5,000 titles took minutes, and then no two could be compared."""
    columns = {"who": lambda i: f"R{i * 7}", "token": lambda i: f"t{i * i}", "selected": lambda i: str(i % 2)}
    with pytest.raises(UserError, match=r"no column of an attribute; left out are 'who'.* Name some with --attributes"):
        load_ready_table(write(tmp_path / "ids.csv", columns))
    titles = {"title": lambda i: f"title {i % 1200}", "selected": lambda i: str(i % 2)}
    path = write(tmp_path / "titles.csv", titles, n=2400)
    with pytest.raises(
        UserError, match=r"Is 'title' an attribute\? It has 1,200 categories, 0 of them of 30 people or"
    ):
        run_command(["audit", "--scores", str(path), "--attributes", "title", "--out", str(tmp_path / "out")])
    frame = {"title": [f"title {i % 1200}" for i in range(2400)], "p": [i % 2 for i in range(2400)]}
    with pytest.raises(UserError, match="Is 'title' an attribute"):
        audit_frame(frame, attributes=["title"], selected="p")
