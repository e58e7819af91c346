"""The lines that a manager reads: which verdict, which numbers, in which order, and no p-value."""

import re

import pytest
from ready_tables import audit, write_table

from ilqljax.cli import run_command
from ilqljax.hiring.audit.market import AuditConfig
from ilqljax.hiring.audit.ready_table import audit_ready_table, load_ready_table
from ilqljax.hiring.audit.summary import summarize_audit
from ilqljax.hiring.audit.tables import show_frequency, state_findings, state_lowest


@pytest.mark.parametrize(
    ("groups", "verdict", "headline"),
    [
        ([("f", 400, 80), ("m", 400, 160)], "below", "sex: below four fifths, by more than chance explains."),
        ([("f", 40, 12), ("m", 40, 16)], "maybe", "sex: below four fifths, which chance could explain."),
        ([("f", 2000, 850), ("m", 2000, 1000)], "lower", "sex: not below four fifths, but lower than chance explains."),
        ([("f", 100, 48), ("m", 100, 50)], "nothing", "No impact ratio is below four fifths, and none is clearly"),
    ],
)
def test_verdict_is_of_four_fifths_and_of_chance(tmp_path, groups, verdict, headline):
    found = summarize_audit(audit(write_table(tmp_path / "t.csv", groups, kind="selected")))
    assert [line.verdict for line in found.lines] == [verdict]
    assert found.headline.startswith(headline)


def test_a_line_names_both_rates_the_interval_and_the_shortfall(tmp_path):
    result = audit(write_table(tmp_path / "t.csv", [("f", 400, 80), ("m", 400, 160)], kind="selected"))
    (line,) = summarize_audit(result).lines
    assert re.fullmatch(
        r"f: selected at 0\.50 times the rate of m \(20\.0 % against 40\.0 %\); with other people it could be 0\.40 to "
        r"0\.63\. Shortfall: 48 more to reach 0\.8, 80 more for equal rates\.",
        line.text,
    )


def test_nobody_to_compare_is_said(tmp_path):
    found = summarize_audit(audit(write_table(tmp_path / "t.csv", [("f", 20, 8), ("m", 20, 16)], kind="selected")))
    assert found.lines == [] and found.headline == "No two categories of 30 people or more could be compared."


def test_of_many_pairs_the_first_alone_has_a_line_and_all_are_in_the_headline(tmp_path):
    rows = [f"{'fm'[i % 2]},{'ab'[i // 2 % 2]},{'xy'[i // 4 % 2]},{int(i % 2 or i % 3 == 0)}" for i in range(960)]
    (tmp_path / "t.csv").write_text("\n".join(["sex,place,team,selected", *rows]))
    found = summarize_audit(audit(tmp_path / "t.csv"))
    assert sum(" x " in line.attribute for line in found.lines) == 1
    assert "place x sex" in found.headline and "sex x team" in found.headline


def test_a_hidden_reference_is_not_told_of(tmp_path):
    groups = [("A", 35, 4), ("B", 200, 20), ("C", 300, 10), ("D", 40, 2)]
    found = summarize_audit(audit(write_table(tmp_path / "t.csv", groups, kind="selected"), min_count=5))
    assert found.lines == []


def test_the_page_begins_with_it_and_it_has_no_p_value(tmp_path):
    table = write_table(tmp_path / "t.csv", [("f", 400, 80), ("m", 400, 160)], kind="selected")
    run_command(["audit", "--scores", str(table), "--out", str(tmp_path / "out")])
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    box = page[page.index('id="findings"') : page.index("</section>")]
    assert "sex: below four fifths, by more than chance explains." in box
    assert not re.search(r"\bp [=<]", box) and page.index('id="findings"') < page.index("What was audited")


def test_findings_say_how_often_chance_gives_it_with_the_numbers_behind(tmp_path):
    groups = [("f", 400, 80), ("m", 400, 160)]
    (sentence,) = state_findings(audit(write_table(tmp_path / "t.csv", groups, kind="selected")))["sex"]
    assert (
        "lower than chance gives. Shuffled labels give one this low in fewer than 1 of 1,000 shuffles (p <" in sentence
    )
    assert "6.17 standard deviations)." in sentence


def test_the_printed_line_and_the_diversity_sentence_have_no_bare_p_value(tmp_path):
    result = audit(write_table(tmp_path / "t.csv", [("f", 400, 80), ("m", 400, 160)], kind="selected"))
    assert state_lowest(result).endswith("(sex, selection rate): lower than chance gives.")
    scores = {"before": -18.6, "floor": -5.8, "before_p": 0.002}
    sentence = state_findings(result | {"attributes": [result["attributes"][0] | {"scores": scores}]})["sex"][-1]
    assert sentence.endswith("chance gives -5.8 (shuffled labels give one this low in 2 of 1,000 shuffles).")


def test_frequencies_of_p_values():
    shown = [show_frequency(p) for p in (0.0002, 0.004, 0.0099, 0.03, 1.0)]
    assert shown == [
        "fewer than 1 of 1,000 shuffles",
        "4 of 1,000 shuffles",
        "1 of 100 shuffles",
        "3 of 100 shuffles",
        "100 of 100 shuffles",
    ]


def test_what_strata_contradict_is_warned_of_in_the_summary(tmp_path):
    """Simpson: in each job f has the higher rate, and in total the lower one."""
    cells = {("f", "a"): (80, 24), ("m", "a"): (20, 5), ("f", "b"): (20, 16), ("m", "b"): (80, 60)}
    rows = [f"{sex},{job},{int(i < s)}" for (sex, job), (n, s) in cells.items() for i in range(n)]
    (tmp_path / "t.csv").write_text("\n".join(["sex,job,selected", *rows]))
    ready = load_ready_table(tmp_path / "t.csv", attributes=("sex",), within=("job",))
    found = summarize_audit(audit_ready_table(ready, AuditConfig(("sex",))))
    assert any("Warning (Simpson)" in text for text in found.warnings)
