"""Plots of the page: what is drawn, not how it looks."""

import matplotlib.style
import numpy as np
import pytest
from matplotlib import rcParams
from matplotlib.colors import to_hex
from PIL import Image

from demo.reproduce.charts import Line, Panel, chart, figure

EVALUATIONS = (2, 4, 20)
LINES = [Line("TCD", EVALUATIONS, [3.0, 2.0, 1.0], [0.5, 0.25, 0.125]), Line("LCM", EVALUATIONS, [4.0, 5.0, 6.0])]
PANELS = [
    Panel("evaluations", "Frechet distance", LINES, logx=True, ticks=EVALUATIONS),
    Panel("gamma", "error", LINES[::-1], logy=True),
]


def words(texts):
    return [text.get_text() for text in texts]


def test_every_panel_has_its_lines_with_the_spread_where_there_is_one():
    made = figure(PANELS)
    assert len(made.axes) == 2
    tcd, lcm = made.axes[0].containers
    assert np.array_equal(tcd[0].get_xydata(), [[2, 3], [4, 2], [20, 1]])
    (bars,) = tcd[2]
    assert [bar[:, 1].tolist() for bar in bars.get_segments()] == [[2.5, 3.5], [1.75, 2.25], [0.875, 1.125]]
    assert np.array_equal(lcm[0].get_ydata(), [4, 5, 6])
    assert lcm[2] == ()
    assert [axes.get_xlabel() for axes in made.axes] == ["evaluations", "gamma"]
    assert [axes.get_ylabel() for axes in made.axes] == ["Frechet distance", "error"]


def test_axes_are_logarithmic_where_that_is_asked_for_and_ticks_are_plain_numbers():
    first, second = figure(PANELS).axes
    assert (first.get_xscale(), first.get_yscale()) == ("log", "linear")
    assert (second.get_xscale(), second.get_yscale()) == ("linear", "log")
    assert words(first.get_xticklabels()) == ["2", "4", "20"]
    assert words(first.get_xticklabels(minor=True)) == []


def test_the_legend_has_every_label_once():
    (legend,) = figure(PANELS).legends
    assert words(legend.get_texts()) == ["TCD", "LCM"]


def test_lines_of_one_panel_are_told_apart():
    many = [Line(str(i), [1], [1.0]) for i in range(6)]
    made = figure([Panel("x", "y", many)])
    drawn = [container[0] for container in made.axes[0].containers]
    assert len({(to_hex(line.get_color()), line.get_marker()) for line in drawn}) == len(many)


def test_one_label_needs_no_legend():
    assert figure([Panel("x", "y", LINES[:1])]).legends == []


def test_a_chart_is_a_file_beside_the_page_and_a_line_of_it(tmp_path):
    assert chart(tmp_path / "images", "direct_guidance", PANELS) == (
        "![direct guidance](images/results_direct_guidance.png)"
    )
    (path,) = (tmp_path / "images").iterdir()
    assert path.name == "results_direct_guidance.png"
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.width > 2 * image.height


@pytest.mark.parametrize("theirs", [{}, {"font.size": 30.0, "axes.grid": True, "lines.linewidth": 9.0}], ids=str)
def test_what_the_caller_set_is_left_as_it_was_and_changes_nothing(tmp_path, theirs):
    chart(tmp_path, "plain", PANELS)
    with matplotlib.style.context(theirs):
        before = dict(rcParams)
        chart(tmp_path, "set", PANELS)
        assert dict(rcParams) == before
    assert (tmp_path / "results_set.png").read_bytes() == (tmp_path / "results_plain.png").read_bytes()
