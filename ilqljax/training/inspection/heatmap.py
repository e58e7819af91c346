"""A critic's view of texts, as a plain table and as a self-contained HTML heat map."""

import html
from collections.abc import Sequence

import numpy as np

from ilqljax.training.inspection.values import ActionValue

COLUMNS = ("token", "advantage", "V", "target Q", "Q", "log p", "reward")
STYLE = """
body{font:16px/1.6 system-ui,sans-serif;margin:1.5rem auto;max-width:60rem;padding:0 1rem;color:#111;background:#fff}
.text{white-space:pre-wrap;overflow-wrap:anywhere}.text span{border-radius:2px}
.legend{display:flex;align-items:center;gap:.5rem;font-size:.85rem}
.scale{flex:1;max-width:20rem;height:1rem;background:linear-gradient(90deg,rgb(178,24,43),#fff,rgb(33,102,172))}
table{border-collapse:collapse;font-size:.8rem}td,th{padding:.1rem .5rem;text-align:right;border-bottom:1px solid #ddd}
td:first-child,th:first-child{text-align:left;white-space:pre}.wide{overflow-x:auto}
"""


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
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
        f"<title>What the critic thinks</title><style>{STYLE}</style><h1>What the critic thinks</h1>",
        "<p>Advantage (target Q &minus; V) of each token: what decoding multiplies by beta.</p>",
        f"<p class=legend>&minus;{limit:.3g} or less, disliked<span class=scale></span>+{limit:.3g} or more, liked</p>",
    ]
    for title, row in zip(titles, rows, strict=True):
        spans = "".join(render_token(a, limit=limit) for a in row)
        body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in describe(a))}</tr>" for a in row)
        head = "".join(f"<th>{name}</th>" for name in COLUMNS)
        parts.append(
            f"<h2>{html.escape(title)}</h2><p class=text>{spans}</p><details><summary>numbers</summary>"
            f"<div class=wide><table><tr>{head}</tr>{body}</table></div></details>"
        )
    return "\n".join(parts) + "\n</html>\n"


def render_token(action: ActionValue, *, limit: float) -> str:
    """Return a token with its colour and, on hover, its numbers."""
    strength = min(abs(action.advantage) / limit, 1.0)
    full = (33, 102, 172) if action.advantage > 0 else (178, 24, 43)
    background = tuple(round(255 + (channel - 255) * strength) for channel in full)
    ink = "#fff" if strength > 0.6 else "#111"
    numbers = "; ".join(f"{name} {cell}" for name, cell in zip(COLUMNS[1:], describe(action)[1:], strict=True))
    style = f"background:rgb{background};color:{ink}".replace(" ", "")
    return f'<span style="{style}" title="{numbers}">{html.escape(action.text)}</span>'


def describe(action: ActionValue) -> list[str]:
    """Return a table line's cells, escaped."""
    a = action
    numbers = [a.advantage, a.v, a.target_q, *a.q, a.log_probability, a.reward]
    shown = [f"{number:.3f}" for number in numbers]
    q = " / ".join(shown[3 : 3 + len(a.q)])
    return [html.escape(a.text), *shown[:3], q, *shown[-2:]]
