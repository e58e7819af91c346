"""HTML becomes plain text: what is damaged keeps its words, and what is hostile takes no longer than its length."""

import time

import pytest

from ilqljax.hiring.postings.hackernews import decode_text
from ilqljax.hiring.postings.html import strip_html


def test_html_becomes_lines_of_text_without_scripts():
    assert (
        strip_html("<p>Lead &amp;\n care.</p><style>p{}</style><ul><li>Pl<b>an</b></li></ul>") == "Lead & care.\nPlan"
    )


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("Nurse <![foo bar", "Nurse <![foo bar"),
        ("Nurse <![foo bar]> wanted", "Nurse wanted"),
        ("Nurse <![if gte mso 9]>wanted", "Nurse wanted"),
        ("<SCRIPT>var a = 1;<p>Nurse", "var a = 1;\nNurse"),
        ("A<style type='x'>p > b {}</style > nurse<style/> is wanted", "A nurse is wanted"),
        ("A<!-- <script> --> nurse<script>'<p>'</script>", "A nurse"),
        ("A<script>write('<script src=a></' + 'script>')</script> nurse", "A nurse"),
        ("A<style/> nurse<style>p{}</style>", "A nurse"),
        (f"Nurse &#{'9' * 5000}; wanted", "Nurse \ufffd wanted"),
        ("Nurse</p>wanted <!-- now", "Nurse\nwanted <!-- now"),
        ("Nurse <p", "Nurse <p"),
        ("3 < 4 > 2, R&D and P&L;", "3 < 4 > 2, R&D and P&L;"),
        ('<?xml version="1.0" encoding="latin-1"?><meta charset=latin-1>Zürich\0', "Zürich\ufffd"),
        ("<title>Nurse</title></body></html>wanted \U0001f600", "Nurse\nwanted \U0001f600"),
        ("", ""),
    ],
)
def test_damaged_html_keeps_its_text(html, text):
    assert strip_html(html) == text


# fmt: off
HOSTILE = (
    "<", "<!", "<!--", "<![", "<?", "</", "<p", "<p ", "<div>", "<b>", "<ul><li>x", "<table>x", "<script>", "<script",
    "</script", "<style>x", "<a b='", '<a href="', '<a href="">x', "<p>x", "&#", "&amp", "&#9", "<b><i></b></i>", "-->",
)
# fmt: on


@pytest.mark.slow
@pytest.mark.parametrize("part", HOSTILE)
@pytest.mark.parametrize("read", [strip_html, lambda text: decode_text(f"{text}<p>")], ids=["html", "api"])
def test_hostile_megabyte_is_read_in_seconds(part, read):
    """Each takes about a second at most; what took time in the square of the length needed hours."""
    start = time.perf_counter()
    read(part * (1_000_000 // len(part)))
    assert time.perf_counter() - start < 10.0


def test_many_different_unclosed_tags_are_read_in_seconds():
    """Which a browser opens again in every paragraph."""
    start = time.perf_counter()
    tags = "".join(f"<b id={i}>" for i in range(60_000))
    assert strip_html(f"{tags}{'<p>x' * 100_000}") == "\n".join(["x"] * 100_000)
    assert time.perf_counter() - start < 10.0
