"""Pages of HTML that load nothing and run nothing, from Jinja2 templates in which every text is escaped; plain texts.

A template extends `document.html.j2`, whose content security policy enforces it. Templates and style sheets lie in the
folder `templates` beside the code that fills them.
"""

import re
from collections.abc import Mapping

import jinja2

# Control characters and lone surrogates, which no file of UTF-8 HTML can hold.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
# Marks of direction, invisible operators, fillers, tags, and the joiners where no letter of another script is beside.
_UNSEEN = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164\ufeff\uffa0"
    "\ufff9-\ufffb\U0001d173-\U0001d17a\U000e0000-\U000e007f]|(?<![\u0600-\uffff\U00010000-\U0010ffff])[\u200c\u200d]"
    "|[\u200c\u200d](?![\u0600-\uffff\U00010000-\U0010ffff])"
)

# Where a spreadsheet would run a formula: also behind what another one takes for the end of a cell.
_FORMULA = re.compile("(^|[;,|\t\r\n])(?=\\s*[=+\\-@＝＋－＠])|^(?=[\t\r\n])")


def clean_text(text: str) -> str:
    """Return the text with characters that a UTF-8 document cannot hold replaced by U+FFFD, and unseen ones shown.

    A mark that turns the direction of what follows, or has no width, becomes its number, as "⟨U+202E⟩": obeyed, it
    could make two names look alike, or turn round the numbers beside it. Joiners within a word of other scripts stay.
    """
    return _UNSEEN.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", _UNPRINTABLE.sub("\ufffd", text))


def defuse_cell(value: object) -> object:
    """Return a cell of a CSV, a text with a quote before it where a spreadsheet would run it as a formula."""
    return _FORMULA.sub(r"\1'", clean_text(value)) if isinstance(value, str) else value


def render_page(package: str, template: str, **values: object) -> str:
    """Return a whole page from a template of a package (its dotted name).

    All values but those of type `markupsafe.Markup` are escaped; a name in the template without a value is an error.
    """
    return _render(package, template, values, autoescape=True)


def render_text(package: str, template: str, **values: object) -> str:
    """Return a whole text that is not HTML, such as Markdown, from a template as `render_page`; nothing is escaped."""
    return _render(package, template, values, autoescape=False)


def _render(package: str, template: str, values: Mapping[str, object], *, autoescape: bool) -> str:
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(package), jinja2.PackageLoader("ilqljax.data")]),
        autoescape=autoescape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return clean_text(environment.get_template(template).render(**values))
