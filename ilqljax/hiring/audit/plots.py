"""Draw the report's plots with matplotlib as inline SVG: no script, nothing loaded, no meaning carried by colour alone.

"Before" is a hollow circle or a hatched bar, "after" a filled diamond or a filled bar. The drawings are 340 points
wide, so that their text keeps its size on a phone; it stays text, which the browser sets in its own font. Their y
counts points from the top.
"""

import io
import math
import re
import warnings
from collections.abc import Sequence
from typing import Any

import matplotlib
import matplotlib.style
from markupsafe import Markup, escape
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ilqljax.data.pages import clean_text
from ilqljax.hiring.audit.impact_ratio import FOUR_FIFTHS

WIDTH, LEFT, RIGHT = 340, 10, 24
LEGEND = 22  # points at the top
MOST_RATIO = 2.0
COLOURS = {"before": "#a04a00", "after": "#15599c"}
INK, FAINT, ALARM = "#222222", "#767676", "#b00020"

_STYLE = [
    "default",  # and not what the user's own matplotlibrc says
    {
        "svg.fonttype": "none",
        "text.parse_math": False,  # a "$" in a category is a "$"
        "text.color": INK,
        "font.sans-serif": ["DejaVu Sans"],
        "font.size": 12,
        "legend.fontsize": 12,
        "hatch.linewidth": 1.4,
    },
]
_MARKS = {phase: {"color": colour, "linestyle": "none", "markeredgewidth": 2} for phase, colour in COLOURS.items()}
_MARKS["before"] |= {"marker": "o", "markersize": 9, "markerfacecolor": "white"}
_MARKS["after"] |= {"marker": "D", "markersize": 6}
_BARS = {phase: {"edgecolor": colour, "linewidth": 1, "facecolor": colour} for phase, colour in COLOURS.items()}
_BARS["before"] |= {"facecolor": "white", "hatch": "////"}
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
_TIP = "tip "  # marks a group whose id is what a pointer shows


@matplotlib.style.context(_STYLE)
def draw_ratios(rows_by_phase: dict[str, Sequence[dict[str, Any]]], *, title: str) -> Markup:
    """Return `plot_ratios` as an element of a page."""
    return _embed(plot_ratios(rows_by_phase), title)


@matplotlib.style.context(_STYLE)
def plot_ratios(rows_by_phase: dict[str, Sequence[dict[str, Any]]]) -> Axes:
    """Draw each category's impact ratio with its interval, before and after, the line at 0.8 and the one at 1."""
    phases = list(rows_by_phase)
    categories = [row["category"] for row in rows_by_phase[phases[0]]]
    ratios = {
        phase: {row["category"]: row for row in rows if math.isfinite(row["impact_ratio"])}
        for phase, rows in rows_by_phase.items()
    }
    ends = [row["ratio_high"] for rows in rows_by_phase.values() for row in rows] + [1.15]
    most = min(MOST_RATIO, max(end for end in ends if math.isfinite(end)))
    top, step = (LEGEND if len(phases) > 1 else 0) + 16, 20 + 15 * len(phases)
    height = top + step * len(categories) + 28
    axes = _make_axes(height, x_end=most, right=RIGHT)
    axes.plot([1.0, 1.0], [top, height - 20], color=FAINT, linewidth=1, clip_on=False)
    axes.text(1.0, top - 4, " 1")
    axes.plot([FOUR_FIFTHS] * 2, [top, height - 20], color=ALARM, linewidth=1, dashes=(5, 3), clip_on=False)
    axes.text(FOUR_FIFTHS, top - 4, "0.8 ", ha="right", color=ALARM)
    for tick in (0.0, 0.5, 1.0, 1.5, 2.0):
        if tick <= most:
            axes.text(tick, height - 6, f"{tick:g}", ha="center", color=FAINT)
    for i, category in enumerate(categories):
        y = top + 17 + i * step
        axes.text(0.0, y, shorten(category), weight="bold")
        rows = [ratios[phase].get(category) for phase in phases]
        if not any(rows):
            axes.text(0.0, y + 15, "no ratio (see the table)", color=FAINT)
            continue
        for j, (phase, row) in enumerate(zip(phases, rows, strict=True)):
            _draw_ratio(axes, row, y + 11 + 15 * j, phase, most)
    if len(phases) > 1:
        _add_legend(axes, [Line2D([], [], label=phase, **_MARKS[phase]) for phase in phases])
    return axes


def _draw_ratio(axes: Axes, row: dict[str, Any] | None, y: float, phase: str, most: float) -> None:
    if row is None:
        axes.text(0.0, y + 4, f"{phase}: no ratio (see the table)", color=FAINT)
        return
    ratio, low, high = row["impact_ratio"], row["ratio_low"], row["ratio_high"]
    words, error, x = f"{row['category']}, {phase}: {ratio:.2f}", None, min(ratio, most)
    if math.isfinite(low):
        words += f" [{low:.2f}, {high:.2f}]"
        error = [[max(0.0, x - low)], [max(0.0, min(high, most) - x)]]
        if high > most:
            axes.plot([most], [y], marker=">", markersize=9, color=COLOURS[phase], clip_on=False)  # it goes on
    bars = {"elinewidth": 2, "capsize": 4, "capthick": 2, "clip_on": False}
    _set_tip(words, *axes.errorbar([x], [y], xerr=error, **bars, **_MARKS[phase]).get_children())


@matplotlib.style.context(_STYLE)
def draw_composition(rows: Sequence[dict[str, Any]], *, phases: Sequence[str], title: str) -> Markup:
    """Draw each category's share of the shortlists as bars, and its target as a tall tick."""
    values = [row[name] for row in rows for name in ("target", *phases)]
    most = max([value for value in values if math.isfinite(value)], default=1.0) or 1.0
    right, step = 58, 24 + 15 * len(phases)
    axes = _make_axes(LEGEND + step * len(rows) + 4, x_end=most, right=right)
    end = most * (WIDTH - LEFT - 2) / (WIDTH - LEFT - right)  # of the numbers, which stand right of the bars
    for i, row in enumerate(rows):
        y = LEGEND + i * step
        axes.text(0.0, y + 13, shorten(row["category"], 30), weight="bold")
        for j, phase in enumerate(phases):
            top, share = y + 19 + 15 * j, row[phase]
            if math.isfinite(share):
                bars = axes.barh([top], [share], height=11, align="edge", clip_on=False, **_BARS[phase])
                _set_tip(f"{row['category']}, {phase}: {100 * share:.1f} %", *bars)
                axes.text(end, top + 9.5, f"{100 * share:.1f} %", ha="right")
        if math.isfinite(row["target"]):
            axes.text(end, y + 13, f"target {100 * row['target']:.1f} %", ha="right", color=FAINT)
            ends = [y + 16, y + 19 + 15 * len(phases)]
            axes.plot([row["target"]] * 2, ends, color=INK, linewidth=2.5, clip_on=False)
    names = phases if len(phases) > 1 else ["shortlists as they are"]
    target = {"marker": "|", "markersize": 14, "markeredgewidth": 2.5, "linestyle": "none"}
    bars = [Patch(label=name, **_BARS[phase]) for name, phase in zip(names, phases, strict=True)]
    _add_legend(axes, [*bars, Line2D([], [], label="target", color=INK, **target)])
    return _embed(axes, title)


@matplotlib.style.context(_STYLE)
def draw_gains(gains: Sequence[float], failed: Sequence[bool], *, title: str) -> Markup:
    """Draw the gain of every posting, sorted; a rewrite that fails a guardrail is hollow."""
    order = sorted(range(len(gains)), key=lambda i: -gains[i])
    most = max((abs(gain) for gain in gains), default=0.0) or 1.0
    height, middle, room, n = 170, 85, 70, max(1, len(gains))
    colours = [FAINT if gains[i] == 0 else COLOURS["after" if gains[i] > 0 else "before"] for i in order]
    axes = _make_axes(height, x_end=n, right=LEFT)
    axes.bar(
        range(len(order)),
        [-room * gains[i] / most for i in order],  # less is higher up
        bottom=middle,
        align="edge",
        color=["white" if failed[i] else colour for i, colour in zip(order, colours, strict=True)],
        edgecolor=colours,
        linewidth=min(1.0, 0.3 * (WIDTH - 2 * LEFT) / n),
        clip_on=False,
    )
    axes.plot([0, n], [middle, middle], color=INK, linewidth=1, clip_on=False)
    axes.text(0, 11, f"gain, up to {most:.1f}", color=FAINT)
    axes.text(0, height - 3, "best", color=FAINT)
    axes.text(n, height - 3, "worst", ha="right", color=FAINT)
    return _embed(axes, title)


def shorten(text: str, most: int = 44) -> str:
    """Return the text in one line, cut to a length, with an ellipsis where something was cut."""
    text = " ".join(clean_text(text).split())
    return text if len(text) <= most else text[: most - 1] + "…"


def _make_axes(height: float, *, x_end: float, right: float) -> Axes:
    """Return axes without frame, from x = 0 at `LEFT` to x = `x_end` at `right` points from the right side."""
    axes = Figure(figsize=(WIDTH / 72, height / 72)).add_axes((LEFT / WIDTH, 0, (WIDTH - LEFT - right) / WIDTH, 1))
    axes.set(xlim=(0.0, x_end), ylim=(height, 0.0), autoscale_on=False)
    axes.set_axis_off()
    return axes


def _set_tip(words: str, *artists: Artist) -> None:
    for artist in artists:
        artist.set_gid(_TIP + clean_text(words))


def _add_legend(axes: Axes, handles: list[Artist]) -> None:
    place = {"loc": "upper left", "bbox_to_anchor": (0.0, 1.0), "borderaxespad": 0, "borderpad": 0.2}
    axes.legend(handles=handles, ncols=len(handles), frameon=False, handletextpad=0.5, **place)


def _embed(axes: Axes, title: str) -> Markup:
    """Return what was drawn as an element of a page.

    A file's style would hold for the whole page, and the ids of its groups would come twice; both go, and a group that
    has a tip gets a title. Only matplotlib can have written what is replaced here: in a text, "<" is "&lt;".
    """
    title, file = clean_text(title), io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": title}), warnings.catch_warnings():  # equal drawings, equal bytes
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # the browser's fonts count
        axes.figure.savefig(file, format="svg", transparent=True, metadata=_NO_METADATA)
    svg = file.getvalue()
    svg = re.sub("<style.*?</style>", "", svg[svg.index("<svg ") :], flags=re.DOTALL)
    svg = re.sub(f'<g id="{_TIP}([^"]*)">', r"<g><title>\1</title>", svg)
    svg = re.sub('<g id="[^"]*">', "<g>", svg)
    start, rest = svg.split(">", 1)
    return Markup(f'{start} role="img" aria-label="{escape(title)}"><title>{escape(title)}</title>{rest}')
