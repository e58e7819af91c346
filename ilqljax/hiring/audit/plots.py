"""Draw the report's plots as inline SVG: no script, nothing loaded, and no meaning carried by colour alone.

"Before" is a hollow circle or a hatched bar, "after" a filled diamond or a filled bar. The drawings are 340 units wide,
so that their text keeps its size on a phone.
"""

import math
from collections.abc import Sequence
from typing import Any

from ilqljax.hiring.audit.impact_ratio import FOUR_FIFTHS
from ilqljax.hiring.audit.markup import Markup, element, join

WIDTH, LEFT, RIGHT = 340, 10, 24
BEFORE_COLOUR, AFTER_COLOUR = "#a04a00", "#15599c"
COLOURS = {"before": BEFORE_COLOUR, "after": AFTER_COLOUR}
INK, FAINT = "#222", "#767676"


def draw_ratios(rows_by_phase: dict[str, Sequence[dict[str, Any]]], *, title: str) -> Markup:
    """Draw each category's impact ratio with its interval, before and after, the line at 0.8 and the one at 1."""
    categories = [row["category"] for row in next(iter(rows_by_phase.values()))]
    ends = [row["ratio_high"] for rows in rows_by_phase.values() for row in rows] + [1.15]
    most = min(2.0, max(end for end in ends if math.isfinite(end)))

    def place(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * min(value, most) / most

    step = 20 + 15 * len(rows_by_phase)
    height = 22 + step * len(categories) + 22
    parts = [_line(place(1.0), 16, place(1.0), height - 20, stroke=FAINT)]
    parts.append(
        _line(place(FOUR_FIFTHS), 16, place(FOUR_FIFTHS), height - 20, stroke="#b00020", stroke_dasharray="5 3")
    )
    parts.append(_text(place(FOUR_FIFTHS) - 3, 12, "0.8", text_anchor="end", fill="#b00020"))
    parts.append(_text(place(1.0) + 3, 12, "1"))
    for tick in (0.0, 0.5, 1.0, 1.5, 2.0):
        if tick <= most:
            parts.append(_text(place(tick), height - 6, f"{tick:g}", text_anchor="middle", fill=FAINT))
    for i, category in enumerate(categories):
        y = 22 + i * step
        parts.append(_text(LEFT, y + 11, shorten(category), font_weight="600"))
        if not any(is_drawn(row) for rows in rows_by_phase.values() for row in rows if row["category"] == category):
            parts.append(_text(LEFT, y + 26, "no ratio (see the table)", fill=FAINT))
            continue
        for j, (phase, rows) in enumerate(rows_by_phase.items()):
            row = next((row for row in rows if row["category"] == category), None)
            parts.append(_draw_ratio(row, y + 22 + 15 * j, phase, place, most))
    return _svg(height, title, *parts)


def is_drawn(row: dict[str, Any]) -> bool:
    """Return whether a category has a ratio to draw."""
    return math.isfinite(row["impact_ratio"])


def _draw_ratio(row: dict[str, Any] | None, y: float, phase: str, place: Any, most: float) -> Markup:
    if row is None or not is_drawn(row):
        return _text(LEFT, y + 4, f"{phase}: no ratio (see the table)", fill=FAINT)
    parts = []
    colour, x = COLOURS[phase], place(row["impact_ratio"])
    low, high = row["ratio_low"], row["ratio_high"]
    words = f"{row['category']}, {phase}: {row['impact_ratio']:.2f}"
    if math.isfinite(low):
        words += f" [{low:.2f}, {high:.2f}]"
        parts.append(_line(place(low), y, place(high), y, stroke=colour, stroke_width=2))
        parts.append(_line(place(low), y - 4, place(low), y + 4, stroke=colour, stroke_width=2))
        if high <= most:
            parts.append(_line(place(high), y - 4, place(high), y + 4, stroke=colour, stroke_width=2))
        else:
            parts.append(_text(place(most) + 2, y + 4, "→", fill=colour))
    parts.append(_mark(x, y, phase))
    return element("g", element("title", words), *parts)


def _mark(x: float, y: float, phase: str) -> Markup:
    if phase == "before":
        return element("circle", cx=x, cy=y, r=4.5, fill="#fff", stroke=BEFORE_COLOUR, stroke_width=2)
    return element("path", d=f"M{x:.1f} {y - 6:.1f} l6 6 l-6 6 l-6 -6 z", fill=AFTER_COLOUR)


def draw_composition(rows: Sequence[dict[str, Any]], *, phases: Sequence[str], title: str) -> Markup:
    """Draw each category's share of the shortlists as bars, and its target as a tall tick."""
    values = [row[name] for row in rows for name in ("target", *phases)]
    most = max([value for value in values if math.isfinite(value)], default=1.0) or 1.0
    room = WIDTH - LEFT - 58
    step, parts = 24 + 15 * len(phases), [_hatch()]
    for i, row in enumerate(rows):
        y = i * step
        parts.append(_text(LEFT, y + 13, shorten(row["category"], 30), font_weight="600"))
        if math.isfinite(row["target"]):
            parts.append(_text(WIDTH - 2, y + 13, f"target {100 * row['target']:.1f} %", text_anchor="end", fill=FAINT))
        for j, phase in enumerate(phases):
            top, share = y + 19 + 15 * j, row[phase]
            if not math.isfinite(share):
                continue
            width = room * share / most
            fill = "url(#hatch)" if phase == "before" else AFTER_COLOUR
            bar = element(
                "rect", x=LEFT, y=top, width=width, height=11, fill=fill, stroke=COLOURS[phase], stroke_width=1
            )
            words = f"{row['category']}, {phase}: {100 * share:.1f} %"
            parts.append(element("g", element("title", words), bar))
            parts.append(_text(WIDTH - 2, top + 9.5, f"{100 * share:.1f} %", text_anchor="end"))
        if math.isfinite(row["target"]):
            x = LEFT + room * row["target"] / most
            parts.append(_line(x, y + 16, x, y + 19 + 15 * len(phases), stroke=INK, stroke_width=2.5))
    return _svg(step * len(rows) + 4, title, *parts)


def draw_gains(gains: Sequence[float], failed: Sequence[bool], *, title: str) -> Markup:
    """Draw the gain of every posting, sorted; a rewrite that fails a guardrail is hollow."""
    order = sorted(range(len(gains)), key=lambda i: -gains[i])
    most = max((abs(gain) for gain in gains), default=0.0) or 1.0
    height, axis, room = 170, 85, 70
    slot = (WIDTH - 2 * LEFT) / max(1, len(gains))
    parts = [_text(LEFT, 11, f"gain, up to {most:.1f}", fill=FAINT)]
    for place, i in enumerate(order):
        size = max(0.75, room * abs(gains[i]) / most)
        colour = FAINT if gains[i] == 0 else AFTER_COLOUR if gains[i] > 0 else BEFORE_COLOUR
        parts.append(
            element(
                "rect",
                x=LEFT + place * slot,
                y=axis - size if gains[i] > 0 else axis,
                width=max(0.4, 0.8 * slot),
                height=size,
                fill="#fff" if failed[i] else colour,
                stroke=colour,
                stroke_width=min(1.0, 0.3 * slot),
            )
        )
    parts.append(_line(LEFT, axis, WIDTH - LEFT, axis, stroke=INK))
    parts.append(_text(LEFT, height - 3, "best", fill=FAINT))
    parts.append(_text(WIDTH - LEFT, height - 3, "worst", text_anchor="end", fill=FAINT))
    return _svg(height, title, *parts)


def draw_legend(phases: Sequence[str], *, bars: bool) -> Markup:
    """Draw what the marks mean: bars and a target, or points."""
    parts, x = [_hatch()] if bars else [], 16
    for phase in phases:
        if bars:
            fill = "url(#hatch)" if phase == "before" else AFTER_COLOUR
            parts.append(element("rect", x=x - 6, y=4, width=18, height=10, fill=fill, stroke=COLOURS[phase]))
        else:
            parts.append(_mark(x, 9, phase))
        parts.append(_text(x + 17, 13, phase if len(phases) > 1 else "shortlists as they are"))
        x += 90 if len(phases) > 1 else 170
    if bars:
        parts.append(_line(x, 2, x, 17, stroke=INK, stroke_width=2.5))
        parts.append(_text(x + 7, 13, "target"))
    return _svg(20, "Legend", *parts)


def shorten(text: str, most: int = 44) -> str:
    """Return the text cut to a length, with an ellipsis where something was cut."""
    return text if len(text) <= most else text[: most - 1] + "…"


def _svg(height: float, title: str, *parts: Markup) -> Markup:
    return element(
        "svg",
        element("title", title),
        join(*parts),
        viewBox=f"0 0 {WIDTH} {height:.0f}",
        role="img",
        aria_label=title,
        xmlns="http://www.w3.org/2000/svg",
    )


def _hatch() -> Markup:
    stroke = element("path", d="M0 6 L6 0", stroke=BEFORE_COLOUR, stroke_width=1.6)
    pattern = element("pattern", stroke, id="hatch", width=6, height=6, patternUnits="userSpaceOnUse")
    return element("defs", pattern)


def _line(x1: float, y1: float, x2: float, y2: float, **attributes: str | float) -> Markup:
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, **attributes)


def _text(x: float, y: float, text: str, **attributes: str | float) -> Markup:
    return element("text", text, x=x, y=y, **({"fill": INK} | attributes))
