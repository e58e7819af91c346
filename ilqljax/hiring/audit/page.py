"""Lay the audit out as one page of HTML that needs nothing else: for a regulator to check and a recruiter to read.

The page's words, and how its numbers are to be read, stand in `templates/report.html.j2`. Its plots are matplotlib's,
as inline SVG (`ilqljax.data.drawings`). "Before" is a hollow circle or a hatched bar, "after" a filled diamond or a
filled bar. Their y counts points from the top.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import matplotlib.style
from markupsafe import Markup
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ilqljax.data.drawings import ALARM, BLUE, FAINT, INK, ORANGE, STYLE, WIDTH, embed, set_tip, shorten
from ilqljax.data.pages import render_page
from ilqljax.hiring.audit import tables
from ilqljax.hiring.audit.market import AFTER, BEFORE
from ilqljax.hiring.audit.rates import FOUR_FIFTHS, MIN_PEOPLE
from ilqljax.hiring.edits.differences import diff_words
from ilqljax.hiring.evaluation.record import Rewrite

MAX_SHOWN_REWRITES = 45
MAX_COMPARED_CHARACTERS = 30_000  # the comparison takes time that grows with the square
MEASURE_TITLES = {
    "shortlisting": "Who gets onto a shortlist",
    "selection": "Who is selected from it",
    "scoring": "Who scores above the median",
}
_TAGS = {"same": "span", "removed": "del", "added": "ins"}

LEFT, RIGHT = 10, 24
LEGEND = 22  # points at the top
MOST_RATIO = 2.0
COLOURS = {"before": ORANGE, "after": BLUE}
_MARKS = {phase: {"color": colour, "linestyle": "none", "markeredgewidth": 2} for phase, colour in COLOURS.items()}
_MARKS["before"] |= {"marker": "o", "markersize": 9, "markerfacecolor": "white"}
_MARKS["after"] |= {"marker": "D", "markersize": 6}
_BARS = {phase: {"edgecolor": colour, "linewidth": 1, "facecolor": colour} for phase, colour in COLOURS.items()}
_BARS["before"] |= {"facecolor": "white", "hatch": "////"}


def format_page(audit: Mapping[str, Any], *, facts: Sequence[tuple[str, str]], rewrites: Sequence[Rewrite] = ()) -> str:
    """Return the report.

    The facts say what was audited and how, as names and values; there is one rewrite a posting of the audit, or none.
    """
    name = audit["attributes"][0]["name"]  # one page can show the gains on one attribute
    gains = [row[f"score_{AFTER}"][name] - row[f"score_{BEFORE}"][name] for row in audit["postings"] if rewrites]
    failed = [bool(rewrite.failed_checks) for rewrite in rewrites]
    return render_page(
        __package__,
        "report.html.j2",
        audit=audit,
        facts=facts,
        findings=tables.state_findings(audit),
        titles=MEASURE_TITLES,
        tables=tables,
        min_people=MIN_PEOPLE,
        draw_measure=_draw_measure,
        draw_composition=draw_composition,
        gains=gains,
        passed=[gain for gain, fail in zip(gains, failed, strict=True) if not fail],
        draw_gains=lambda: draw_gains(gains, failed, title=f"Gain in the score on {name} of every posting"),
        rewrites=[(audit["postings"][i], rewrites[i], gains[i]) for i in _choose_rewrites(gains, failed)],
        compare=_compare,
    )


def _draw_measure(section: Mapping[str, Any], measure: str) -> Markup | None:
    rows = {phase: of_phase[measure]["rows"] for phase, of_phase in section["rates"].items()}
    title = f"{section['name']}: impact ratio, {MEASURE_TITLES[measure].lower()}"
    return draw_ratios(rows, title=title) if any(rows.values()) else None


def _choose_rewrites(gains: Sequence[float], failed: Sequence[bool]) -> list[int]:
    """Return which rewrites are shown: where there are many, the best and the worst that pass, and some that fail."""
    order = sorted(range(len(gains)), key=lambda i: (-gains[i], i))
    if len(order) <= MAX_SHOWN_REWRITES:
        return order
    part = MAX_SHOWN_REWRITES // 3
    passed = [i for i in order if not failed[i]]
    return [*passed[:part], *[i for i in order if failed[i]][:part], *passed[part:][-part:]]


def _compare(rewrite: Rewrite) -> list[tuple[str, str]]:
    """Return the pieces of a rewrite, each with the tag that shows whether it is old or new."""
    if max(len(rewrite.original), len(rewrite.text)) > MAX_COMPARED_CHARACTERS:
        return [("span", f"Longer than {MAX_COMPARED_CHARACTERS:,} characters: not compared.")]
    return [(_TAGS[segment.kind], segment.text) for segment in diff_words(rewrite.original, rewrite.text)]


# --- Plots ------------------------------------------------------------------------------------------------------------


@matplotlib.style.context(STYLE)
def draw_ratios(rows_by_phase: dict[str, Sequence[dict[str, Any]]], *, title: str) -> Markup:
    """Return `plot_ratios` as an element of a page."""
    return _embed(plot_ratios(rows_by_phase), title)


@matplotlib.style.context(STYLE)
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
    axes.plot([1.0, 1.0], [top, height - 20], color=FAINT, linewidth=1)
    axes.text(1.0, top - 4, " 1")
    axes.plot([FOUR_FIFTHS] * 2, [top, height - 20], color=ALARM, linewidth=1, dashes=(5, 3))
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
    return _release(axes)


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
            axes.plot([most], [y], marker=">", markersize=9, color=COLOURS[phase])  # it goes on
    bar = axes.errorbar([x], [y], xerr=error, elinewidth=2, capsize=4, capthick=2, **_MARKS[phase])
    set_tip(words, *bar.get_children())


@matplotlib.style.context(STYLE)
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
                bars = axes.barh([top], [share], height=11, align="edge", **_BARS[phase])
                set_tip(f"{row['category']}, {phase}: {100 * share:.1f} %", *bars)
                axes.text(end, top + 9.5, f"{100 * share:.1f} %", ha="right")
        if math.isfinite(row["target"]):
            axes.text(end, y + 13, f"target {100 * row['target']:.1f} %", ha="right", color=FAINT)
            ends = [y + 16, y + 19 + 15 * len(phases)]
            axes.plot([row["target"]] * 2, ends, color=INK, linewidth=2.5)
    names = phases if len(phases) > 1 else ["shortlists as they are"]
    target = {"marker": "|", "markersize": 14, "markeredgewidth": 2.5, "linestyle": "none"}
    bars = [Patch(label=name, **_BARS[phase]) for name, phase in zip(names, phases, strict=True)]
    _add_legend(axes, [*bars, Line2D([], [], label="target", color=INK, **target)])
    return _embed(axes, title)


@matplotlib.style.context(STYLE)
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
    )
    axes.plot([0, n], [middle, middle], color=INK, linewidth=1)
    axes.text(0, 11, f"gain, up to {most:.1f}", color=FAINT)
    axes.text(0, height - 3, "best", color=FAINT)
    axes.text(n, height - 3, "worst", ha="right", color=FAINT)
    return _embed(axes, title)


def _make_axes(height: float, *, x_end: float, right: float) -> Axes:
    """Return axes without frame, from x = 0 at `LEFT` to x = `x_end` at `right` points from the right side."""
    axes = Figure(figsize=(WIDTH / 72, height / 72)).add_axes((LEFT / WIDTH, 0, (WIDTH - LEFT - right) / WIDTH, 1))
    axes.set(xlim=(0.0, x_end), ylim=(height, 0.0), autoscale_on=False)
    axes.set_axis_off()
    return axes


def _add_legend(axes: Axes, handles: list[Artist]) -> None:
    place = {"loc": "upper left", "bbox_to_anchor": (0.0, 1.0), "borderaxespad": 0, "borderpad": 0.2}
    axes.legend(handles=handles, ncols=len(handles), frameon=False, handletextpad=0.5, **place)


def _release(axes: Axes) -> Axes:
    """Let marks and lines pass the end of an axis."""
    for artist in axes.get_children():
        artist.set_clip_on(False)
    return axes


def _embed(axes: Axes, title: str) -> Markup:
    return embed(_release(axes).figure, title)
