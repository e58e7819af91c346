"""Turn HTML into plain text, whatever state the HTML is in, in time linear in its length."""

import re

from lxml import etree

from ilqljax.hiring.postings.posting import normalize_spaces

# fmt: off
_BLOCK_TAGS = frozenset({
    "address", "article", "br", "div", "dd", "dl", "dt", "h1", "h2", "h3", "h4", "h5", "h6",
    "hr", "li", "ol", "p", "pre", "section", "table", "td", "th", "title", "tr", "ul",
})
# fmt: on
_HIDDEN_TAGS = ("script", "style")
_TAG = re.compile(r"</?([a-zA-Z][\w:.-]*)", re.ASCII)


class _TextOfHtml:
    """Gather text from lxml's parser, which calls these methods as it reads and builds no tree."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._hidden = 0

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self._hidden += tag in _HIDDEN_TAGS
        if tag == "br":
            self._pieces.append("\n")

    def end(self, tag: str) -> None:
        self._hidden -= tag in _HIDDEN_TAGS

    def data(self, text: str) -> None:
        if not self._hidden:  # white space in HTML is one space; only tags make lines
            self._pieces.append(re.sub(r"\s+", " ", text))

    def close(self) -> str:
        lines = map(normalize_spaces, "".join(self._pieces).split("\n"))
        return "\n".join(line for line in lines if line)


def strip_html(html: str) -> str:
    """Return the text of an HTML fragment: block elements end a line, scripts and styles are dropped.

    "<p>Lead &amp; care.</p><ul><li>Plan</li></ul>" gives "Lead & care.\\nPlan".
    """
    parser = etree.HTMLParser(target=_TextOfHtml(), encoding="utf-8", huge_tree=True)
    # Within a body from the start: what stands before any tag is text.
    parser.feed(b"<html><body><div>")
    parser.feed(_TAG.sub(_empty_tag, _show_unclosed(html)).encode("utf-8", errors="replace"))
    return parser.close()


def _empty_tag(match: re.Match[str]) -> str:
    """Name a tag as an element that has no end, so that nothing nests: lxml looks through all open ones for an end."""
    name = match[1].lower()
    return match[0] if name in _HIDDEN_TAGS else "<br" if name in _BLOCK_TAGS else "<img"


def _show_unclosed(html: str) -> str:
    """Make tags, comments, scripts and styles that never end hide nothing: their content is read as text."""
    for tag in _HIDDEN_TAGS:
        ends = [match.start() for match in re.finditer(f"</{tag}", html, re.IGNORECASE)]
        end = ends[-1] if ends else 0
        html = html[:end] + re.sub(rf"<{tag}\b[^<>]*>", "", html[end:], flags=re.IGNORECASE)
    closed, arrow, rest = html.rpartition("-->")
    html = closed + arrow + rest.replace("<!--", "&lt;!--")
    closed, arrow, rest = html.rpartition(">")
    return closed + arrow + rest.replace("<", "&lt;")
