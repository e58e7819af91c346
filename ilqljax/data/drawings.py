"""Draw with matplotlib as inline SVG: no script, nothing loaded, no meaning carried by colour alone.

The drawings are 340 points wide, so that their text keeps its size on a phone; it stays text, which the browser sets in
its own font. `templates/page.css` gives their colours others on a dark screen.
"""

import io
import re
import warnings
from collections.abc import Mapping, Sequence

import matplotlib
import matplotlib.style
from markupsafe import Markup, escape
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from ilqljax.data.pages import clean_text

WIDTH = 340
INK, FAINT, ALARM, BLUE, ORANGE = "#222222", "#767676", "#b00020", "#15599c", "#a04a00"
STYLE = [
    "default",  # and not what the user's own matplotlibrc says
    {
        "svg.fonttype": "none",
        "text.parse_math": False,  # a "$" in a category is a "$"
        "text.color": INK,
        "font.sans-serif": ["DejaVu Sans"],
        "font.size": 12,
        "legend.fontsize": 12,
        "hatch.linewidth": 1.4,
        **{f"{name}color": INK for name in ("axes.edge", "axes.label", "xtick.", "ytick.")},
    },
]
_CURVES = ({"color": BLUE}, {"color": ORANGE, "linestyle": "--", "marker": "o", "markersize": 5})
_ESTIMATES = [
    {"color": colour, "marker": marker, "markersize": 7, "markerfacecolor": face}
    for colour, marker, face in ((BLUE, "D", BLUE), (BLUE, "o", "white"), (ORANGE, "^", ORANGE), (ORANGE, "s", "white"))
]
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
_TIP = "tip "  # marks a group whose id is what a pointer shows


@matplotlib.style.context(STYLE)
def draw_curves(metrics: Mapping[str, Mapping[int, float]], names: Sequence[str], *, title: str) -> Markup:
    """Draw up to two metrics (value by step), with standard errors where they have any; "" where none is there."""
    names = [name for name in names if metrics.get(name)]
    if not names:
        return Markup()
    axes = Figure(figsize=(WIDTH / 72, 3), layout="constrained").subplots()
    for name, look in zip(names, _CURVES, strict=False):
        steps, values = zip(*metrics[name].items(), strict=True)
        errors = [metrics.get(f"{name}_standard_error", {}).get(step, 0.0) for step in steps]
        look = {"marker": "o"} | look if len(steps) == 1 else look  # no line is seen
        axes.errorbar(steps, values, yerr=errors if any(errors) else None, label=name, capsize=3, **look)
        title += f"; {name} {values[0]:.4g} at step {steps[0]}, {values[-1]:.4g} at step {steps[-1]}"
    axes.set(xlabel="step")
    axes.figure.legend(loc="outside upper left", ncols=2, frameon=False)
    return embed(axes.figure, title)


@matplotlib.style.context(STYLE)
def draw_intervals(rows: Mapping[str, Mapping[str, tuple[float, float, float]]], *, title: str) -> Markup:
    """Draw each row's up to four estimates (value, low, high) with their intervals, and a line at 0."""
    n = max(map(len, rows.values()))
    axes = Figure(figsize=(WIDTH / 72, 1.2 + len(rows) * 0.2 * (n + 1)), layout="constrained").subplots()
    for i, (row, estimates) in enumerate(rows.items()):
        for j, (name, (value, low, high)) in enumerate(estimates.items()):
            look = _ESTIMATES[j] | {"linestyle": "none", "label": "" if i else name}
            place, ends = i + (j - (n - 1) / 2) / (n + 1), [[max(0.0, value - low)], [max(0.0, high - value)]]
            words = f"{row}, {name}: {value:.2f} [{low:.2f}, {high:.2f}]"
            set_tip(words, *axes.errorbar([value], [place], xerr=ends, **look).get_children())
            title += f"; {words}"
    axes.axvline(0.0, color=FAINT, linewidth=1)
    axes.set_yticks(range(len(rows)), [shorten(row, 16) for row in rows])
    axes.set(ylim=(len(rows) - 0.5, -0.5))
    axes.figure.legend(loc="outside upper left", ncols=2, frameon=False)
    return embed(axes.figure, title)


def shorten(text: str, most: int = 44) -> str:
    """Return the text in one line, cut to a length; of a long one the middle, for often names differ at their ends."""
    text, end = " ".join(clean_text(text).split()), most // 4
    return text if len(text) <= most else f"{text[: most - 1 - end]}…{text[-end:]}"


def set_tip(words: str, *artists: Artist) -> None:
    """Give artists what a pointer shows over them."""
    for artist in artists:
        artist.set_gid(_TIP + clean_text(words))


def embed(figure: Figure, title: str) -> Markup:
    """Return what was drawn as an element of a page.

    A file's style would hold for the whole page, and the ids of its groups would come twice; both go, and a group that
    has a tip gets a title. Only matplotlib can have written what is replaced here: in a text, "<" is "&lt;".
    """
    title, file = clean_text(title), io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": title}), warnings.catch_warnings():  # equal drawings, equal bytes
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # the browser's fonts count
        figure.savefig(file, format="svg", transparent=True, metadata=_NO_METADATA)
    svg = file.getvalue()
    svg = re.sub("<style.*?</style>", "", svg[svg.index("<svg ") :], flags=re.DOTALL)
    svg = re.sub(f'<g id="{_TIP}([^"]*)">', r"<g><title>\1</title>", svg)
    svg = re.sub('<g id="[^"]*">', "<g>", svg)
    start, rest = svg.split(">", 1)
    return Markup(f'{start} role="img" aria-label="{escape(title)}"><title>{escape(title)}</title>{rest}')
