"""The report page: everything escaped, nothing loaded, readable on a phone and a desk (in headless Chromium)."""

import json
import re
from html.parser import HTMLParser

import chromium
import matplotlib
import pytest

from ilqljax.cli import run_command
from ilqljax.data.json_lines import save_json_lines
from ilqljax.data.pages import clean_text
from ilqljax.hiring.audit.page import draw_composition, draw_gains, draw_ratios
from ilqljax.hiring.audit.tables import show_number, state_findings
from ilqljax.hiring.market.sample import make_market
from ilqljax.hiring.postings.posting import save_candidates, save_postings

ATTACK = "<script>document.title='owned'</script><img src=x onerror=alert(1)>\"'&"
LONG_WORD = "unbreakable" * 30


class Tags(HTMLParser):
    """Collect tags, attributes and text."""

    def __init__(self, page: str):
        super().__init__()
        self.tags, self.attributes, self.words = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return "".join(self.words)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Audit a small market in which postings, rewrites, ids, titles and categories hold scripts and long words."""
    folder = tmp_path_factory.mktemp("audit")
    postings, candidates = make_market(seed=0, n_postings=12, n_candidates=300)
    first = postings[0].__class__(
        **(vars(postings[0]) | {"id": ATTACK, "title": ATTACK, "description": postings[0].description + " " + ATTACK})
    )
    people = [
        c.__class__(c.id, c.text, {"gender": ATTACK if c.attributes["gender"] == "male" else c.attributes["gender"]})
        for c in candidates
    ]
    jobs = [first, *postings[1:]]
    save_postings(folder / "jobs.jsonl", jobs)
    save_candidates(folder / "candidates.jsonl", people)
    rewrites = [{"id": job.id, "text": f"{job.description} {ATTACK} {LONG_WORD} \ud800 \x00"} for job in jobs]
    (folder / "rewrites.jsonl").write_text("\n".join(map(json.dumps, rewrites)))
    arguments = ["--jobs", folder / "jobs.jsonl", "--candidates", folder / "candidates.jsonl"]
    arguments += ["--rewrites", folder / "rewrites.jsonl", "--top", 20, "--selected", 5, "--out", folder / "out"]
    run_command(["audit", *map(str, arguments)])
    return folder / "out" / "report.html"


def test_characters_that_no_page_can_hold_are_replaced():
    assert clean_text("a\x00b\ud800c\td\n") == "a\ufffdb\ufffdc\td\n"


def test_script_in_a_posting_is_shown_and_not_run(report):
    page = report.read_text(encoding="utf-8")
    tags = Tags(page)
    assert "script" not in tags.tags and "img" not in tags.tags
    assert not [name for name, _ in tags.attributes if name.startswith("on")]
    assert ATTACK in tags.text


def test_page_refers_to_nothing_outside_itself(report):
    tags = Tags(report.read_text(encoding="utf-8"))
    links = [value for name, value in tags.attributes if name in ("href", "src", "action", "data")]
    assert all(value.startswith("#") or value == "data:," for value in links)
    ids = {value for name, value in tags.attributes if name == "id"}
    assert {value[1:] for value in links if value.startswith("#")} <= ids
    assert any("default-src 'none'" in (value or "") for name, value in tags.attributes if name == "content")


def test_differences_say_removed_and_added_without_colour(report):
    tags = Tags(report.read_text(encoding="utf-8"))
    assert "ins" in tags.tags and "struck through" in tags.text


def test_every_drawing_has_a_name_for_those_who_do_not_see_it(report):
    page = report.read_text(encoding="utf-8")
    assert page.count("<svg") == page.count('role="img"') == page.count("<svg ") > 3


def test_numbers_show_minus_signs_and_dashes():
    assert show_number(-1.5) == "−1.50" and show_number(-0.001) == "0.00" and show_number(float("nan")) == "–"
    assert show_number(1.0, 0.5, 2.0) == "1.00 [0.50, 2.00]"


def test_no_id_is_given_twice(report):
    """A page with two elements of one id is not valid, and a link leads to the first."""
    page = report.read_text(encoding="utf-8")
    ids = re.findall(r' id="([^"]*)"', page)
    assert len(ids) == len(set(ids))


def draw_example(category: str) -> str:
    row = {"category": category, "impact_ratio": 0.5, "ratio_low": 0.25, "ratio_high": 2.5}
    share = {"category": category, "target": 0.5, "before": 0.25, "after": 0.75}
    phases = ("before", "after")
    drawings = (
        draw_ratios({phase: [row] for phase in phases}, title=category),
        draw_composition([share], phases=phases, title=category),
        draw_gains([1.0, -1.0], [False, True], title=category),
    )
    return "".join(drawings)


def test_names_in_plots_are_shown_as_they_are():
    """Neither HTML nor matplotlib's mathematics; and characters that it has no font for are left to the browser."""
    category = "$a_1$ <b>\"'& \u5317\u4eac"
    tags = Tags(draw_example(category))
    assert "b" not in tags.tags
    assert tags.words.count(category) >= 2
    assert f"{category}, before: 0.50 [0.25, 2.50]" in tags.words and f"{category}, after: 75.0 %" in tags.words
    assert "\ufffd \ufffd" in Tags(draw_example("\ud800\n\x00")).words


def test_plots_are_the_same_each_time_and_whatever_the_user_has_set():
    first = draw_example("a")
    with matplotlib.rc_context({"font.size": 30, "svg.fonttype": "path", "text.color": "red"}):
        assert draw_example("a") == first


def test_plots_style_nothing_but_themselves():
    assert "<style" not in draw_example("a")


def test_plots_hold_with_nothing_defined():
    row = {"category": "a", "impact_ratio": float("nan"), "ratio_low": float("nan"), "ratio_high": float("nan")}
    assert "no ratio" in draw_ratios({"before": [row | {"mark": "undefined"}]}, title="t")
    assert "<svg" in draw_gains([0.0, 0.0], [False, True], title="t")
    assert "<svg" in draw_gains([], [], title="t")


@pytest.mark.slow
def test_echo_is_no_improvement(tmp_path):
    """DOMAIN 2.13: a rewrite equal to its original gains nothing, and the page does not claim it does."""
    postings, _ = make_market(seed=1)
    save_json_lines(tmp_path / "echo.jsonl", ({"id": p.id, "text": p.description} for p in postings[:30]))
    arguments = ["--sample", "--seed", "1", "--rewrites", str(tmp_path / "echo.jsonl"), "--attributes", "gender"]
    run_command(["audit", *arguments, "--out", str(tmp_path / "out")])
    result = json.loads((tmp_path / "out" / "audit.json").read_text())
    section = result["attributes"][0]
    assert section["scores"]["gain"] == section["scores"]["guarded_gain"] == 0.0
    assert all(row["change"] == 1.0 for rows in section["changes"].values() for row in rows)
    assert "no clear change" in state_findings(result | {"attributes": [fill_nan(section)]})["gender"][-1]


def fill_nan(value):
    """Turn null back into NaN, as findings expect."""
    if isinstance(value, dict):
        return {key: fill_nan(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [fill_nan(inner) for inner in value]
    return float("nan") if value is None else value


@pytest.mark.skipif(bool(chromium.find_missing()), reason=chromium.find_missing() or "Chromium is there")
@pytest.mark.parametrize("width", [360, 1200])
def test_page_fits_its_screen_and_asks_for_nothing_in_chromium(report, tmp_path, width):
    with chromium.open_browser(tmp_path, width=width, height=800) as browser:
        browser.open(report)
        browser.run("for (const details of document.querySelectorAll('details')) details.open = true")
        assert browser.run("return document.title") == "Audit of shortlists"
        assert browser.run("return document.documentElement.scrollWidth") <= width
        wide = browser.run(
            "return [...document.querySelectorAll('body *')].filter(e => !e.closest('.wide, svg') &&"
            " e.getBoundingClientRect().right > document.documentElement.clientWidth + 1).map(e => e.outerHTML)"
        )
        assert wide == []
        small = browser.run(
            "return [...document.querySelectorAll('svg text')].map(e => e.getBoundingClientRect().height)"
            ".filter(h => h > 0 && h < 9)"
        )
        assert small == []
        assert browser.logs("browser") == []
        assert list_requests(browser) == [report.absolute().as_uri()]


@pytest.mark.skipif(bool(chromium.find_missing()), reason=chromium.find_missing() or "Chromium is there")
def test_no_table_is_cut_at_the_edge_of_a_printed_page(report, tmp_path):
    with chromium.open_browser(tmp_path, width=700, height=1000) as browser:  # A4 less its margins
        browser.open(report)
        chromium.send(
            f"{browser.url}/goog/cdp/execute", {"cmd": "Emulation.setEmulatedMedia", "params": {"media": "print"}}
        )
        assert browser.run("return matchMedia('print').matches")
        cut = browser.run(
            "return [...document.querySelectorAll('.wide, .wide *')].filter(e => e.getBoundingClientRect().right >"
            " 1 + Math.min(document.documentElement.clientWidth, e.closest('.wide').getBoundingClientRect().right))"
            ".map(e => e.tagName + e.textContent.slice(0, 80))"
        )
        assert cut == []


def list_requests(browser) -> list[str]:
    events = [json.loads(entry["message"])["message"] for entry in browser.logs("performance")]
    sent = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    own = ("data:", "chrome:", "chrome-untrusted:", "about:")  # of the browser's own first page
    return [url for url in sent if not url.startswith(own)]
