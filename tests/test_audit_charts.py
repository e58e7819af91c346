"""What the page's plots of impact ratios show: where their axis begins, the tint below 0.8, and names off the marks."""

import math

import pytest
from matplotlib.colors import to_hex

from ilqljax.data.drawings import ALARM, shorten
from ilqljax.hiring.audit.page import plot_composition, plot_ratios

LONG = "American Indian or Alaska Native (not Hispanic or Latino)"


def row(category, ratio, low=math.nan, high=math.nan):
    return {"category": category, "impact_ratio": ratio, "ratio_low": low, "ratio_high": high}


@pytest.mark.parametrize(
    ("rows", "ends"),
    [
        ([row("f", 0.9, 0.82, 1.03), row("m", 1.0)], (0.7, 1.1)),
        ([row("f", 0.9, 0.74, 1.18), row("m", 1.0)], (0.7, 1.2)),
        ([row("f", 0.4, 0.24, 0.7), row("m", 1.0)], (0.2, 1.1)),
        ([row("f", 0.04, 0.0, 3.0), row("m", 1.0)], (0.0, 2.0)),
        ([row("f", math.nan), row("m", 1.0)], (0.7, 1.1)),
    ],
)
def test_the_axis_begins_where_the_intervals_do_and_shows_four_fifths_and_one(rows, ends):
    axes = plot_ratios({"before": rows})
    assert axes.get_xlim() == ends
    assert {0.8, 1.0} <= set(axes.get_xticks()) and len(axes.get_xticks()) <= 11


def test_what_is_below_four_fifths_is_tinted_where_there_is_a_ratio():
    axes = plot_ratios({"before": [row("f", 0.5, 0.3, 0.7), row("m", 1.0), row("x", math.nan)]})
    tints = [(bar.get_x(), bar.get_x() + bar.get_width(), bar.get_y() + bar.get_height() / 2) for bar in axes.patches]
    assert tints == [(0.3, pytest.approx(0.8), 1.5), (0.3, pytest.approx(0.8), 3.5)]
    assert {to_hex(bar.get_facecolor()) for bar in axes.patches} == {ALARM} and axes.patches[0].get_alpha() < 0.2


def test_nothing_is_drawn_through_a_name():
    """A name has a line of its own: the lines at 0.8 and 1 have a gap there."""
    rows = [row(LONG, 0.5, 0.3, 0.7), row("m", 1.0)]
    axes = plot_ratios({"before": rows, "after": rows})
    names = [text.get_position()[1] for text in axes.texts]
    spans = [segment[:, 1].tolist() for lines in axes.collections for segment in lines.get_segments()]
    spans += [[bar.get_y(), bar.get_y() + bar.get_height()] for bar in axes.patches]
    assert names == [0.5, 3.5] and len(spans) > 8
    assert not [span for span in spans for y in names if span[0] - 0.5 < y < span[1] + 0.5]


def test_one_phase_is_not_called_before():
    rows = [row("f", math.nan), row("m", 1.0)]
    texts = {n: [text.get_text() for text in plot_ratios(of).axes.texts] for n, of in
             ((1, {"before": rows}), (2, {"before": rows, "after": rows}))}  # fmt: skip
    assert "no ratio (see the table)" in texts[1] and "before: no ratio (see the table)" in texts[2]


def test_long_names_that_differ_at_their_ends_stay_apart():
    assert shorten(f"{LONG} / Female") != shorten(f"{LONG} / Male")
    assert shorten("a" * 44) == "a" * 44 and len(shorten("a" * 45)) == 44


def test_no_bar_or_target_reaches_the_numbers_beside_it():
    axes = plot_composition(
        [{"category": "f", "target": 0.99, "before": 0.6, "after": 1.0}], phases=["before", "after"]
    )
    axes.figure.draw_without_rendering()
    numbers = [text.get_window_extent().x0 for text in axes.texts if text.get_ha() == "right"]
    marks = [mark.get_window_extent().x1 for mark in (*axes.patches, *axes.lines)]
    assert len(numbers) == len(marks) == 3 and max(marks) < min(numbers)
