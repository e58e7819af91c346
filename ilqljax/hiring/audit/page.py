"""Lay the audit out as one page of HTML that needs nothing else: for a regulator to check and a recruiter to read.

The page's words, and how its numbers are to be read, stand in `templates/report.html.j2`. Its plots are matplotlib's,
as inline SVG (`ilqljax.data.drawings`). "Before" is a hollow circle or a hatched bar, "after" a filled diamond or a
filled bar.
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
from ilqljax.hiring.audit.filing import list_exclusions
from ilqljax.hiring.audit.market import AFTER, BEFORE
from ilqljax.hiring.audit.rates import FOUR_FIFTHS, MIN_PEOPLE
from ilqljax.hiring.audit.summary import VERDICTS, summarize_audit
from ilqljax.hiring.edits.differences import diff_words
from ilqljax.hiring.evaluation.record import Rewrite

MAX_SHOWN_REWRITES = 45
MAX_COMPARED_CHARACTERS = 30_000  # the comparison takes time that grows with the square
MEASURE_TITLES = {
    "shortlisting": "Who gets onto a shortlist",
    "selection": "Who is selected",
    "scoring": "Who scores above the median",
}
_TAGS = {"same": "span", "removed": "del", "added": "ins"}

MOST_RATIO = 2.0
MOST_TENTHS = 8  # of a drawing's width that can all be labelled
SHARES_WIDTH = 1.45  # of a drawing of shares, over its longest bar: the rest is for numbers
COLOURS = {"before": ORANGE, "after": BLUE}
_MARKS = {phase: {"color": colour, "linestyle": "none", "markeredgewidth": 2} for phase, colour in COLOURS.items()}
_MARKS["before"] |= {"marker": "o", "markersize": 9, "markerfacecolor": "white"}
_MARKS["after"] |= {"marker": "D", "markersize": 6}
_BARS = {phase: {"edgecolor": colour, "linewidth": 1, "facecolor": colour} for phase, colour in COLOURS.items()}
_BARS["before"] |= {"facecolor": "white", "hatch": "////"}
_TINT = {"color": ALARM, "alpha": 0.1, "linewidth": 0}


def choose_title(audit: Mapping[str, Any]) -> str:
    """Return the page's title: what was audited are shortlists, or a table of scores or of selections."""
    what = "scores" if audit["medians"] else "selections"
    return f"Audit of {'shortlists' if audit['top'] else what}"


def format_page(
    audit: Mapping[str, Any],
    *,
    facts: Sequence[tuple[str, str]],
    filing: Sequence[tuple[str, str]] = (),
    rewrites: Sequence[Rewrite] = (),
) -> str:
    """Return the report.

    The facts say what was audited and how, and the filing when and for whom, as names and values; there is one rewrite
    a posting of the audit, or none.
    """
    names = [section["name"] for section in audit["attributes"] if section["scores"]]
    name = next(iter(names), "")  # one page can show the gains on one attribute, of which no cell is hidden
    gains = [
        row[f"score_{AFTER}"][name] - row[f"score_{BEFORE}"][name] for row in audit["postings"] if name and rewrites
    ]
    failed = [bool(rewrite.failed_checks) for rewrite in rewrites if gains]
    return render_page(
        __package__,
        "report.html.j2",
        audit=audit,
        title=choose_title(audit),
        facts=facts,
        filing=filing,
        summary=summarize_audit(audit),
        verdicts=VERDICTS,
        exclusions=list_exclusions(audit),
        findings=tables.state_findings(audit),
        titles=MEASURE_TITLES,
        tables=tables,
        min_people=MIN_PEOPLE,
        draw_measure=_draw_measure,
        draw_composition=draw_composition,
        gains=gains,
        gained=name,
        passed=[gain for gain, fail in zip(gains, failed, strict=True) if not fail],
        draw_gains=lambda: draw_gains(gains, failed, title=f"Gain in the score on {name} of every posting"),
        rewrites=[(audit["postings"][i], rewrites[i], gains[i]) for i in _choose_rewrites(gains, failed)],
        compare=_compare,
    )


def _draw_measure(section: Mapping[str, Any], measure: str) -> Markup | None:
    rows = {phase: of_phase[measure]["rows"] for phase, of_phase in section["rates"].items()}
    title = f"{tables.show_name(section['name'])}: impact ratio, {MEASURE_TITLES[measure].lower()}"
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
    return embed(plot_ratios(rows_by_phase).figure, title)


@matplotlib.style.context(STYLE)
def plot_ratios(rows_by_phase: dict[str, Sequence[dict[str, Any]]]) -> Axes:
    """Draw each category's impact ratio and interval, before and after, lines at 0.8 and 1, and a tint below 0.8."""
    ratios = {
        phase: {row["category"]: row for row in rows if math.isfinite(row["impact_ratio"])}
        for phase, rows in rows_by_phase.items()
    }
    categories = [row["category"] for row in next(iter(rows_by_phase.values()))]
    least, most, ticks = _choose_axis([row for of_phase in ratios.values() for row in of_phase.values()])
    axes, places = _make_axes(categories, list(ratios), ends=(least, most), letters=44)
    lines = [y for (category, phase), y in places.items() if category in ratios[phase]]  # and none through the names
    axes.barh(lines, FOUR_FIFTHS - least, height=1.0, left=least, **_TINT)
    for ratio, look in ((1.0, {"color": FAINT}), (FOUR_FIFTHS, {"color": ALARM, "linestyle": (0, (5, 3))})):
        axes.vlines([ratio] * len(lines), [y - 0.5 for y in lines], [y + 0.5 for y in lines], linewidth=1, **look)
    axes.set_xticks(ticks)
    axes.xaxis.set_major_formatter("{x:g}")
    for (category, phase), y in places.items():
        if category not in ratios[phase]:
            when = f"{phase}: " if len(ratios) > 1 else ""
            axes.text(least, y, f"{when}no ratio (see the table)", color=FAINT, va="center")
            continue
        ratio, low, high = (ratios[phase][category][name] for name in ("impact_ratio", "ratio_low", "ratio_high"))
        words, error, x = f"{tables.show_name(category)}, {phase}: {ratio:.2f}", None, min(ratio, most)
        if math.isfinite(low):
            words += f" [{low:.2f}, {high:.2f}]"
            error = [[max(0.0, x - low)], [max(0.0, min(high, most) - x)]]
            if high > most:
                axes.plot([most], [y], marker=">", markersize=9, color=COLOURS[phase])  # it goes on
        bar = axes.errorbar([x], [y], xerr=error, elinewidth=2, capsize=4, capthick=2, **_MARKS[phase])
        set_tip(words, *bar.get_children())
    return _finish(axes, [Line2D([], [], label=phase, **_MARKS[phase]) for phase in ratios if len(ratios) > 1])


def _choose_axis(rows: Sequence[Mapping[str, Any]]) -> tuple[float, float, list[float]]:
    """Return where an axis of ratios begins and ends, and its ticks, among which are always 0.8 and 1.

    It begins and ends at a tenth, where the intervals do, and takes in 0.7 to 1.1.
    """
    names = ("impact_ratio", "ratio_low", "ratio_high")
    found = [row[name] for row in rows for name in names if math.isfinite(row[name])]
    least = math.floor(round(10 * min([*found, 0.7]), 6))
    most = math.ceil(round(10 * min(MOST_RATIO, max([*found, 1.1])), 6))
    step = 1 if most - least <= MOST_TENTHS else 2
    return least / 10, most / 10, [tenth / 10 for tenth in range(least, most + 1) if tenth % step == 0]


@matplotlib.style.context(STYLE)
def draw_composition(rows: Sequence[dict[str, Any]], *, phases: Sequence[str], title: str) -> Markup:
    """Return `plot_composition` as an element of a page."""
    return embed(plot_composition(rows, phases=phases).figure, title)


@matplotlib.style.context(STYLE)
def plot_composition(rows: Sequence[dict[str, Any]], *, phases: Sequence[str]) -> Axes:
    """Draw each category's share of the shortlists as bars, its target as a tall tick, and both as numbers beside."""
    values = [row[name] for row in rows for name in ("target", *phases)]
    right = SHARES_WIDTH * (max([value for value in values if math.isfinite(value)], default=1.0) or 1.0)
    axes, places = _make_axes([row["category"] for row in rows], phases, ends=(0.0, right), letters=30)
    axes.set_axis_off()
    for row in rows:
        ys = [places[row["category"], phase] for phase in phases]
        for y, phase in zip(ys, phases, strict=True):
            if math.isfinite(row[phase]):
                bars = axes.barh([y], [row[phase]], height=0.75, **_BARS[phase])
                set_tip(f"{tables.show_name(row['category'])}, {phase}: {100 * row[phase]:.1f} %", *bars)
                axes.text(right, y, f"{100 * row[phase]:.1f} %", ha="right", va="center")
        if math.isfinite(row["target"]):
            text = f"target {100 * row['target']:.1f} %"
            axes.text(right, ys[0] - 1, text, ha="right", va="center", color=FAINT)
            axes.plot([row["target"]] * 2, [ys[0] - 0.6, ys[-1] + 0.5], color=INK, linewidth=2.5)
    names = phases if len(phases) > 1 else ["shortlists as they are"]
    target = {"marker": "|", "markersize": 14, "markeredgewidth": 2.5, "linestyle": "none"}
    bars = [Patch(label=name, **_BARS[phase]) for name, phase in zip(names, phases, strict=True)]
    return _finish(axes, [*bars, Line2D([], [], label="target", color=INK, **target)])


@matplotlib.style.context(STYLE)
def draw_gains(gains: Sequence[float], failed: Sequence[bool], *, title: str) -> Markup:
    """Draw the gain of every posting, sorted; a rewrite that fails a guardrail is hollow."""
    order, n = sorted(range(len(gains)), key=lambda i: -gains[i]), max(1, len(gains))
    colours = [FAINT if gains[i] == 0 else COLOURS["after" if gains[i] > 0 else "before"] for i in order]
    axes = Figure(figsize=(WIDTH / 72, 2.4), layout="constrained").subplots()
    look = {"align": "edge", "edgecolor": colours, "linewidth": min(1.0, 96 / n)}
    faces = ["white" if failed[i] else colour for i, colour in zip(order, colours, strict=True)]
    axes.bar(range(len(order)), [gains[i] for i in order], color=faces, **look)
    axes.axhline(0.0, color=INK, linewidth=1)
    axes.set(xlim=(0, n), xticks=[], ylabel="gain", xlabel="postings, best to worst")
    return embed(_finish(axes).figure, title)


def _make_axes(
    categories: Sequence[str], phases: Sequence[str], *, ends: tuple[float, float], letters: int
) -> tuple[Axes, dict[tuple[str, str], float]]:
    """Return axes between the ends with the categories' names, and how many lines down each one's phases stand."""
    n = 1 + len(phases)
    figure = Figure(figsize=(WIDTH / 72, 0.8 + 0.21 * n * len(categories)), layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=ends, ylim=(n * len(categories), 0.0))
    axes.yaxis.set_visible(False)
    axes.spines[["left", "right", "top"]].set_visible(False)
    for i, category in enumerate(categories):
        axes.text(ends[0], n * i + 0.5, shorten(category, letters), weight="bold", va="center")
    return axes, {(c, phase): n * i + 1.5 + j for i, c in enumerate(categories) for j, phase in enumerate(phases)}


def _finish(axes: Axes, handles: Sequence[Artist] = ()) -> Axes:
    """Let marks and lines pass the end of an axis, and add a legend of the handles, if there are any."""
    for artist in axes.get_children():
        artist.set_clip_on(False)
    if handles:
        axes.figure.legend(handles=handles, loc="outside upper left", ncols=len(handles), frameon=False)
    return axes
