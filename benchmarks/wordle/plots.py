"""Small plots as SVG text, without a plotting library: lines over a shared x, with bands and a legend."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

WIDTH, HEIGHT, MARGIN, LEGEND = 640, 320, 52, 220
# Okabe and Ito's colours, which colour-blind readers tell apart; further lines are dashed.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


class Line(NamedTuple):
    """One curve: its name, its points, and the half width of the band around each point (0 for none)."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    band: Sequence[float]


def draw_lines(
    lines: Sequence[Line],
    *,
    title: str,
    x_label: str,
    y_label: str,
    y_range: tuple[float, float],
    n_ticks: int = 5,
    x_ticks: Mapping[float, str] | None = None,
) -> str:
    """Return a plot as SVG text.

    Args:
        lines: curves, each with at least one point.
        title: above the plot.
        x_label: below it.
        y_label: beside it.
        y_range: lowest and highest y shown.
        n_ticks: labelled places on each axis.
        x_ticks: labels by x, instead of `n_ticks` of them evenly.
    """
    low, high = y_range
    x_low, x_high = min(min(line.x) for line in lines), max(max(line.x) for line in lines)
    right, bottom = WIDTH - LEGEND, HEIGHT - MARGIN

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_low) / ((x_high - x_low) or 1)
        up = (min(max(y, low), high) - low) / (high - low)
        return MARGIN + across * (right - MARGIN), bottom - up * (bottom - MARGIN)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"',
        ' font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{MARGIN}" y="24" font-size="14">{escape(title)}</text>',
        f'<text x="{(MARGIN + right) / 2}" y="{HEIGHT - 12}" text-anchor="middle">{escape(x_label)}</text>',
        f'<text transform="translate(14 {(MARGIN + bottom) / 2}) rotate(-90)" text-anchor="middle">',
        f"{escape(y_label)}</text>",
    ]
    shares = [i / (n_ticks - 1) for i in range(n_ticks)]
    for y in (low + share * (high - low) for share in shares):
        _, py = place(x_low, y)
        parts += [
            f'<line x1="{MARGIN}" y1="{py:.1f}" x2="{right}" y2="{py:.1f}" stroke="#ddd"/>',
            f'<text x="{MARGIN - 6}" y="{py + 4:.1f}" text-anchor="end">{y:.4g}</text>',
        ]
    even = (x_low + share * (x_high - x_low) for share in shares)
    for x, text in (x_ticks or {x: f"{x:.4g}" for x in even}).items():
        px, _ = place(x, low)
        parts.append(f'<text x="{px:.1f}" y="{bottom + 16}" text-anchor="middle">{escape(text)}</text>')
    for i, line in enumerate(lines):
        color, dash = PALETTE[i % len(PALETTE)], "6 3" if i >= len(PALETTE) else "none"
        parts += _draw_line(line, place, color=color, dash=dash)
        y = MARGIN + 18 * i
        parts += [
            f'<line x1="{right + 12}" y1="{y + 2}" x2="{right + 27}" y2="{y + 2}" stroke="{color}" stroke-width="4" '
            f'stroke-dasharray="{dash}"/>',
            f'<text x="{right + 32}" y="{y + 6}">{escape(line.name)}</text>',
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _draw_line(line: Line, place, *, color: str, dash: str) -> list[str]:
    """Return a curve and its band."""
    points = [place(x, y) for x, y in zip(line.x, line.y, strict=True)]
    upper = [place(x, y + b) for x, y, b in zip(line.x, line.y, line.band, strict=True)]
    lower = [place(x, y - b) for x, y, b in zip(line.x, line.y, line.band, strict=True)]
    return [
        f'<polygon points="{_join([*upper, *lower[::-1]])}" fill="{color}" opacity="0.2"/>',
        f'<polyline points="{_join(points)}" fill="none" stroke="{color}" stroke-width="2" stroke-dasharray="{dash}"/>',
    ]


def _join(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
