"""What the experiments are built of: the exact table, the results file, the plots."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from benchmarks.wordle.plots import Line, draw_lines
from benchmarks.wordle.results import Results
from benchmarks.wordle.table import find_expectile, solve_table
from benchmarks.wordle.wordle import rank_pairs
from ilqljax.data.dataset import ObservationDataset
from ilqljax.errors import UserError
from ilqljax.wordle.data import make_tokenizer


class Said:
    """A dialogue of the agent alone."""

    def __init__(self, *pairs):
        self.pairs = pairs

    def to_sequence(self):
        return [step for text, reward in self.pairs for step in ((text, reward), ("", None))], True

    def metadata(self):
        return {}


def solve(expectile, discount=1.0):
    games = [Said(("a", -1.0), ("b", 0.0)), Said(("a", -1.0), ("c", -3.0)), Said(("d", -2.0), ("b", 0.0))]
    tokenizer = make_tokenizer()
    dataset = ObservationDataset(games, tokenizer)
    v, q = solve_table([dataset.get_item(i) for i in range(3)], discount=discount, expectile=expectile)
    start = (tokenizer.boa_id,)
    return v[start], [q[start, tokenizer.encode(letter)[0]] for letter in "ad"]


def test_one_step_values_are_means_of_returns():
    start, (a, d) = solve(0.5)
    assert (a, d) == pytest.approx((-2.5, -2.0))
    assert start == pytest.approx((2 * -2.5 - 2.0) / 3)


def test_a_high_expectile_values_the_best_continuation():
    _, (a, d) = solve(0.9999)
    assert a == pytest.approx(-1, abs=1e-3) and a > d


def test_the_discount_falls_between_every_two_actions():
    # The last reward of the row "d </a> b </a>" is 0, and -2 is paid at the first </a>, one action later.
    assert solve(0.5, discount=0.5)[1][1] == pytest.approx(-1.0)


def test_expectile_of_two_values():
    assert find_expectile(np.array([0.0, 1.0]), np.array([1, 1]), expectile=0.75) == pytest.approx(0.75)


def test_expectile_counts_rows():
    assert find_expectile(np.array([-4.0, 0.0]), np.array([5, 1]), expectile=0.5) == pytest.approx(-20 / 6)


@pytest.mark.parametrize("expectile", [0.0, 1.0, 1.5, -1.0])
def test_an_expectile_that_has_no_minimum_is_refused(expectile):
    with pytest.raises(ValueError, match="not between 0 and 1"):
        find_expectile(np.array([-4.0, 0.0]), np.array([5, 1]), expectile=expectile)


def test_pairs_are_ranked_at_every_action():
    values = np.array([[0.0, 2.0], [1.0, 1.0]])
    assert rank_pairs(values, ["x", "y"], [("x", "y"), ("y", "x")]) == [0.5, 0.5]
    assert rank_pairs(values, ["x", "y"], [("x", "y")]) == [0.0, 1.0]


def test_a_cell_is_computed_once_over_two_starts(tmp_path):
    calls = []
    for _ in range(2):
        results = Results(tmp_path / "r" / "results.json", {"seeds": (0, 1)})
        assert results.compute("cell", lambda: calls.append(1) or {"x": 1.5}) == {"x": 1.5}
    assert len(calls) == 1


def test_results_of_other_settings_are_refused(tmp_path):
    Results(tmp_path / "results.json", {"steps": 1}).save()
    with pytest.raises(UserError, match=r"other settings \(steps 1 there, 2 here\)"):
        Results(tmp_path / "results.json", {"steps": 2})


def test_a_plot_is_well_formed_and_keeps_to_its_range():
    text = draw_lines(
        [Line("a < b", [0, 10], [-1.0, 2.0], [0.0, 0.1])], title="t & t", x_label="x", y_label="y", y_range=(0.0, 1.0)
    )
    root = ElementTree.fromstring(text)
    points = next(e for e in root.iter() if e.tag.endswith("polyline")).get("points").split()
    assert [point.split(",")[1] for point in points] == ["268.0", "52.0"]
    assert "a < b" in "".join(root.itertext())


def test_places_on_the_x_axis_may_be_named():
    line = Line("a", [0, 1, 2], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0])
    options = {"title": "", "x_label": "", "y_label": "", "y_range": (0.0, 1.0), "n_ticks": 2}
    root = ElementTree.fromstring(draw_lines([line], **options, x_ticks={0: "beta=1", 2: "best & last"}))
    texts = [(e.get("x"), e.text) for e in root.iter() if e.text and e.text.strip()]
    assert texts == [("46", "0"), ("46", "1"), ("52.0", "beta=1"), ("420.0", "best & last"), ("452", "a")]
