"""The page of a run: what it shows, that every text is escaped, and that it needs nothing from elsewhere."""

import dataclasses
import itertools
import json

import pytest
from lxml import html
from markupsafe import Markup

from ilqljax.config.files import save_config_json
from ilqljax.data.drawings import draw_curves, draw_intervals
from ilqljax.hiring.evaluation.page import choose_rewrites, count_members, render_sections
from ilqljax.hiring.evaluation.record import HELD_OUT, TRAINING, BeforeAfter, Rewrite, Shortlist
from ilqljax.hiring.evaluation.summary import summarize_evaluations
from ilqljax.training.evaluation import evaluate_policies
from ilqljax.training.report import read_curves, save_report
from ilqljax.training.run_config import load_run_config, read_run_config

ATTACK = "<script>document.title='owned'</script><img src=x onerror=alert(1)>\"'&"
TABLE = f"policy  score\necho    {ATTACK}"


def make_rewrite(number: int, gain: float, *, policy: str = "ilql", failed: bool = False, **changes) -> Rewrite:
    return Rewrite(
        **{
            "policy": policy,
            "posting_id": f"p{number}",
            "company": "Acme",
            "prompt": "",
            "original": "We need a strong nurse.",
            "text": "We need a kind nurse.",
            "rewards": {TRAINING: BeforeAfter(-30.0, -30.0 + gain)},
            "failed_checks": ("company_kept",) if failed else (),
            "before": Shortlist(("a", "b", "c"), {"gender": ("male", "male", "")}),
            "after": Shortlist(("a", "d"), {"gender": ("male", "female")}),
        }
        | changes
    )


def make_policies(*names: str, held_out: bool = False, **changes) -> dict[str, list[Rewrite]]:
    """Make a policy's six rewrites of gains 0 to 5, of which that of gain 3 fails a guardrail; echo gains nothing."""
    rewards = {HELD_OUT: BeforeAfter(-9.0, -8.0)} if held_out else {}
    policies = {}
    for name in names:
        gains = [0.0] * 6 if name == "echo" else [2.0, 0.0, 5.0, 3.0, 1.0, 4.0]
        made = [make_rewrite(i, gain, policy=name, failed=gain == 3.0, **changes) for i, gain in enumerate(gains)]
        policies[name] = [dataclasses.replace(rewrite, rewards=rewrite.rewards | rewards) for rewrite in made]
    return policies


def make_sections(policies: dict[str, list[Rewrite]], *, held_out: str = "") -> Markup:
    return render_sections(policies, summarize_evaluations(policies, held_out_matcher=held_out))


@pytest.fixture
def run_dir(tmp_path):
    """A run's folder with what the page is made of: a config and the metrics of two stages."""
    folder = tmp_path / "my run"
    save = {"bc": {"train/loss": 2.0, "validation/loss": 1.5}, "ilql": {"train/loss": 3.0, "rollout/return": -9.5}}
    for name, metrics in save.items():
        (folder / "metrics" / name).mkdir(parents=True)
        lines = [{"step": step} | {key: value / step for key, value in metrics.items()} for step in (1, 2)]
        (folder / "metrics" / name / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    save_config_json(load_run_config("configs/workable.py"), folder / "config.json")
    return folder


def write_page(run_dir, sections="", *, out_dir=None, decode=None, policies=None) -> html.HtmlElement:
    config = read_run_config(load_run_config("configs/workable.py"))
    config = dataclasses.replace(config, decode=dataclasses.replace(config.decode, **decode or {}))
    policies = {"bc": False, "ilql": True} if policies is None else policies
    out_dir = out_dir or run_dir
    save_report(out_dir, config, run_dir=run_dir, policies=policies, table=TABLE, sections=Markup(sections))
    return html.fromstring((out_dir / "report.html").read_bytes())


def test_the_page_says_what_was_run_and_how_to_run_it_again(run_dir):
    (run_dir / "command.txt").write_text("ilqljax train --config 'workable:bc'\n")
    (run_dir / "overrides.json").write_text('{"train.lr": 0.5}')
    page = write_page(run_dir)
    facts = {row.findtext("th"): row.findtext("td") for row in page.xpath("//table[@class='facts']//tr")}
    assert (facts["Task"], facts["Algorithm"], facts["Stages"]) == ("workable", "ilql", "bc, then ilql")
    assert {"seed=0", "data.seed=0"} <= set(facts["Seeds"].strip().split(", "))
    assert facts["Changed from the config file"].strip() == "train.lr=0.5"
    assert "jax=" in facts["Versions, of the judgement"] and "matcher=tfidf" in facts["Parts"]
    shown = [pre.text for pre in page.iter("pre")]
    assert "ilqljax train --config 'workable:bc'" in shown and TABLE in shown
    assert not any(text.startswith("ilqljax evaluate") for text in shown)


def test_a_run_that_is_judged_again_elsewhere_names_the_command_and_its_training(run_dir, tmp_path):
    write_page(run_dir)
    again = tmp_path / "again"
    again.mkdir()
    page = write_page(run_dir, out_dir=again, decode={"beta": 4.5})
    assert f"ilqljax evaluate --run '{run_dir}' --out {again} --beta=4.5" in [pre.text for pre in page.iter("pre")]
    assert "not recorded" in page.text_content()  # no command.txt
    links = [a.get("href") for a in page.iter("a")]
    assert links == ["../my%20run/config.json", "../my%20run/report.html"]


def test_curves_of_each_stage_are_drawn_with_their_ends_in_words(run_dir):
    page = write_page(run_dir)
    names = [svg.get("aria-label") for svg in page.iter("svg")]
    assert names == [
        "bc: loss; train/loss 2 at step 1, 1 at step 2; validation/loss 1.5 at step 1, 0.75 at step 2",
        "ilql: loss; train/loss 3 at step 1, 1.5 at step 2",
        "ilql: return; rollout/return -9.5 at step 1, -4.75 at step 2",
    ]


def test_a_stage_without_metrics_says_so(run_dir):
    page = write_page(run_dir, policies={"dpo": False})
    assert "No losses are recorded." in page.text_content() and not list(page.iter("svg"))


def test_metrics_skip_what_is_not_finite_and_a_line_that_was_cut_off(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text(
        '{"step": 1, "train/loss": 2.0, "x": null}\n{"step": 2, "train/loss": null, "x": 1.0}\n{"step": 3, "tr'
    )
    assert read_curves(file) == {"train/loss": {1: 2.0}, "x": {2: 1.0}}
    assert read_curves(tmp_path / "none") == {}


def test_the_heat_map_is_linked_where_it_is_and_else_its_command_is_shown(run_dir):
    page = write_page(run_dir)
    command = f"ilqljax inspect --run '{run_dir}' --out '{run_dir}/inspected'"
    assert command in [pre.text for pre in page.iter("pre")]
    (run_dir / "inspected").mkdir()
    (run_dir / "inspected" / "heatmap.html").touch()
    page = write_page(run_dir)
    assert "inspected/heatmap.html" in [a.get("href") for a in page.iter("a")]
    assert "ilqljax inspect" not in page.text_content()


def test_a_run_without_a_critic_has_no_heat_map(run_dir):
    page = write_page(run_dir, policies={"bc": False})
    assert [h2.get("id") for h2 in page.iter("h2")] == ["run", "result", "training"]


def test_gains_are_shown_by_policy_and_by_matcher():
    policies = make_policies("echo", "bc", "bc best of 4", "ilql", held_out=True)
    page = html.fromstring(make_sections(policies, held_out="minilm"))
    table = page.xpath("//section[h2/@id='gains']//table")[0]
    header = ["Policy", "gain", "guarded gain", "held-out gain", "held-out guarded gain"]
    assert [th.text for th in table.iter("th")] == header
    rows = {tr[0].text: [td.text.split(" ")[0] for td in tr[1:]] for tr in table.find("tbody")}
    assert rows["echo"][0] == "+0.00" and list(rows) == list(policies)
    assert rows["ilql"] == ["+2.50", "+2.00", "+1.00", "+0.83"]  # 15 / 6, without the 3 that failed; 1, and five of six
    (drawing,) = page.iter("svg")
    assert "ilql, held-out gain: 1.00 [1.00, 1.00]" in drawing.get("aria-label")
    assert "echo" not in drawing.get("aria-label").partition(";")[2]
    assert "minilm" in page.text_content()


def test_without_a_held_out_matcher_the_page_says_so():
    page = html.fromstring(make_sections(make_policies("echo", "ilql")))
    assert "There is no held-out matcher" in page.text_content() and "held-out gain" not in page.text_content()


@pytest.mark.parametrize("names", [("echo", "bc"), ("bc",)])
def test_a_run_of_one_policy_shows_its_rewrites(names):
    text = html.fromstring(make_sections(make_policies(*names))).text_content()
    assert "Of the rewrites of bc, 1 of 6 fail a guardrail" in text


def test_rewrites_of_which_a_matcher_chose_the_best_are_not_the_ones_shown():
    text = html.fromstring(make_sections(make_policies("echo", "bc", "bc best of 4"))).text_content()
    assert "Of the rewrites of bc, 1 of 6" in text


def test_five_rewrites_are_chosen_by_their_gain():
    """Of gains 2, 0, 5, 3, 1, 4 the largest, median and smallest; the failed one; and the first of the other two."""
    chosen = choose_rewrites(make_policies("ilql")["ilql"])
    assert [(why, rewrite.posting_id) for why, rewrite in chosen] == [
        ("Largest gain", "p2"),
        ("Median gain", "p0"),
        ("Smallest gain", "p1"),
        ("Fails a guardrail", "p3"),
        ("First of the rest", "p4"),
    ]


def test_no_rewrite_is_chosen_twice_and_few_are_all_shown():
    rewrites = [make_rewrite(0, -1.0), make_rewrite(1, 1.0)]
    assert [rewrite.posting_id for _, rewrite in choose_rewrites(rewrites)] == ["p1", "p0"]
    assert [why for why, _ in choose_rewrites(rewrites[:1])] == ["Largest gain"]


def test_members_of_both_shortlists_are_counted_with_the_unknown_last():
    counts = list(count_members(make_rewrite(0, 1.0)))
    assert counts == [("gender", "female", 0, 1), ("gender", "male", 2, 1), ("gender", "", 1, 0)]
    cells = [td.text for td in html.fromstring(make_sections(make_policies("ilql"))).xpath("//article")[0].iter("td")]
    assert cells == ["gender: female", "0", "1", "gender: male", "2", "1", "gender: unknown", "1", "0"]


def test_a_rewrite_is_shown_word_by_word():
    page = html.fromstring(make_sections(make_policies("ilql")))
    words = page.xpath("//article[1]/p[@class='diff']")[0]
    assert [(each.tag, each.text) for each in words] == [
        ("span", "We need a "),
        ("del", "strong"),
        ("ins", "kind"),
        ("span", " nurse."),
    ]
    assert words.text_content() == "We need a strongkind nurse."


def test_an_empty_rewrite_reaches_nobody():
    rewrite = make_rewrite(0, -170.0, text="", after=Shortlist((), {"gender": ()}))
    assert [after for *_, after in count_members(rewrite)] == [0, 0]
    policies = {"ilql": [rewrite]}
    assert "We need a strong nurse." in html.fromstring(make_sections(policies)).text_content()


def test_text_of_postings_companies_and_categories_is_shown_and_not_run(run_dir):
    hostile = Shortlist(("a",), {f"gender{ATTACK}": (ATTACK,)})
    changes = {"original": f"a {ATTACK}", "text": f"b {ATTACK} \ud800\x00", "company": ATTACK, "reasons": (ATTACK,)}
    policies = make_policies("echo", ATTACK, **changes, before=hostile, after=hostile)
    page = write_page(run_dir, make_sections(policies, held_out=""))
    assert not page.xpath("//script | //img | //@onerror")
    article = page.xpath("//article")[0]
    assert ATTACK in article.findtext("h3") and ATTACK in article.findtext("ul/li")
    assert article.xpath("string(p[@class='diff'])").startswith(f"ab {ATTACK}")
    assert f"gender{ATTACK}: {ATTACK}" in [td.text for td in article.iter("td")]


def test_the_page_loads_nothing_and_is_laid_out_for_those_who_do_not_see_it(run_dir):
    page = write_page(run_dir, make_sections(make_policies("echo", "bc", "ilql")))
    assert "default-src 'none'" in page.xpath("//meta[@http-equiv]/@content")[0]
    assert not page.xpath(
        "//script | //iframe | //img | //link[@rel='stylesheet'] | //object | //use[not(starts-with(@*, '#'))]"
    )
    assert all(":" not in a.get("href") for a in page.iter("a"))
    ids = page.xpath("//@id")
    assert len(ids) == len(set(ids))
    levels = [int(heading.tag[1]) for heading in page.iter("h1", "h2", "h3", "h4")]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert all(svg.get("role") == "img" and svg.get("aria-label") for svg in page.iter("svg"))
    assert all(table.find("caption") is not None and list(table.iter("th")) for table in page.iter("table"))
    assert all(th.get("scope") in ("row", "col") for th in page.iter("th"))
    assert page.xpath("//html/@lang") == ["en"]


def test_drawings_hold_with_one_point_with_nothing_and_with_no_interval():
    assert "<svg" in draw_curves({"a": {1: 2.0}, "a_standard_error": {1: 0.5}}, ["a", "b"], title="t")
    assert draw_curves({"a": {}}, ["a"], title="t") == ""
    nan = float("nan")
    assert "<svg" in draw_intervals({"p": {"gain": (0.0, nan, nan)}, "q": {"gain": (nan, nan, nan)}}, title="t")


class FailingPage:
    """A judge whose part of the page cannot be drawn."""

    def __call__(self, names, make, *, out_dir):
        return [{"policy": "echo", "score": 1.0}], "the table"

    def report_sections(self, rows, *, out_dir):
        raise ZeroDivisionError


def judge(run_dir, judge):
    config = read_run_config(load_run_config("configs/workable.py"))
    evaluate_policies(config, None, {}, judge=judge, run_dir=run_dir, out_dir=run_dir)


def test_a_page_that_cannot_be_drawn_loses_no_result(run_dir, capsys):
    with pytest.raises(ZeroDivisionError):
        judge(run_dir, FailingPage())
    assert json.loads((run_dir / "results.json").read_text()) == [{"policy": "echo", "score": 1.0}]
    assert (run_dir / "results.txt").read_text() == capsys.readouterr().out == "the table\n"
    assert not (run_dir / "report.html").exists()


def test_a_judge_that_is_a_plain_function_gets_a_page_too(run_dir):
    judge(run_dir, lambda names, make, *, out_dir: ([], "a table of mine"))
    assert "<pre>a table of mine</pre>" in (run_dir / "report.html").read_text()
