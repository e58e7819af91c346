"""Build HTML and SVG in which every text is escaped, whoever wrote it."""

import html
import math
import re

# Control characters and lone surrogates, which no file of UTF-8 HTML can hold.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


class Markup(str):
    """Mark a text that is HTML already; only this module makes one, out of escaped parts."""

    __slots__ = ()


def clean_text(text: str) -> str:
    """Return the text with characters that a UTF-8 document cannot hold replaced by U+FFFD."""
    return _UNPRINTABLE.sub("\ufffd", text)


def element(tag: str, *children: "str | Markup", **attributes: str | int | float) -> Markup:
    """Return an element; a child that is no `Markup` is text, and is escaped, as attribute values are.

    An underscore in an attribute's name stands for a hyphen, one at the end is dropped: `class_="a"`, `stroke_width=2`.
    """
    names = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{html.escape(clean_text(_number(value)))}"'
        for name, value in attributes.items()
    )
    return Markup(f"<{tag}{names}>{join(*children)}</{tag}>")


def join(*children: "str | Markup") -> Markup:
    """Return the children one after the other, texts escaped."""
    return Markup("".join(c if isinstance(c, Markup) else html.escape(clean_text(c)) for c in children))


def document(title: str, *body: Markup, style: str) -> str:
    """Return a whole page that loads nothing and runs nothing, which its content security policy enforces.

    Args:
        title: of the page.
        body: its elements.
        style: trusted CSS.
    """
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{join(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n{join(*body)}\n</body>\n</html>\n"
    )


def _number(value: str | int | float) -> str:
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".") if math.isfinite(value) else "0"
    return str(value)
