"""A critic's view of texts, as a plain table and as a self-contained HTML heat map."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ilqljax.data.pages import render_page
from ilqljax.training.inspection.values import ActionValue

COLUMNS = ("token", "advantage", "V", "target Q", "Q", "log p", "reward")


class Token(NamedTuple):
    """Hold what the page shows of an action: the cells of its line, and its colours."""

    cells: list[str]
    background: tuple[int, int, int]
    ink: str


def format_table(row: Sequence[ActionValue]) -> str:
    """Lay out a row's actions, one a line."""
    lines = [f"{'advantage':>9} {'V':>9} {'target Q':>9} {'Q':>19} {'log p':>9} {'reward':>9}  token"]
    for a in row:
        q = " / ".join(f"{value:.3f}" for value in a.q)
        numbers = (a.advantage, a.v, a.target_q)
        cells = " ".join(f"{number:>9.3f}" for number in numbers)
        lines.append(f"{cells} {q:>19} {a.log_probability:>9.3f} {a.reward:>9.3f}  {a.text!r}")
    return "\n".join(lines)


def render_heatmap(rows: Sequence[Sequence[ActionValue]], *, titles: Sequence[str]) -> str:
    """Return an HTML page: each text coloured by advantage, its numbers on hover and in a table below it.

    Blue is liked, red disliked; white is 0, and the scale is the same for all texts: its ends are four times the
    median size of an advantage, so that a few extreme tokens (names that training never saw) do not pale the rest.
    Nothing is loaded from outside, and all text is escaped.
    """
    sizes = np.abs([a.advantage for row in rows for a in row])
    limit = max(4.0 * float(np.median(sizes)) if len(sizes) else 0.0, 1e-6)
    texts = [(title, [show_token(a, limit=limit) for a in row]) for title, row in zip(titles, rows, strict=True)]
    return render_page(__package__, "heatmap.html.j2", texts=texts, columns=COLUMNS, limit=limit)


def show_token(action: ActionValue, *, limit: float) -> Token:
    """Return a token's numbers as text, and its colours."""
    a, strength = action, min(abs(action.advantage) / limit, 1.0)
    full = (33, 102, 172) if a.advantage > 0 else (178, 24, 43)
    red, green, blue = (round(255 + (channel - 255) * strength) for channel in full)
    q = " / ".join(f"{value:.3f}" for value in a.q)
    numbers = [f"{number:.3f}" for number in (a.advantage, a.v, a.target_q, a.log_probability, a.reward)]
    return Token([a.text, *numbers[:3], q, *numbers[3:]], (red, green, blue), "#fff" if strength > 0.6 else "#111")
