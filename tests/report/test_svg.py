"""Charts hold for any numbers, and their ticks are round and cover the range."""

import json
import math
import re
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from striate.core.findings import Series
from striate.report import svg
from striate.report.axis_ticks import (
    error_shade,
    fit_axis,
    is_drawable,
    log_ticks,
    tick_text,
    ticks,
)
from striate.report.svg import downsample, line_segments
from support.report_pages import Reader, curve, line

NAN, INF = float("nan"), float("inf")
ANY = st.floats(allow_nan=True, allow_infinity=True)
FINITE = st.floats(min_value=-1e12, max_value=1e12)


def numbers(text: str) -> list[float]:
    """Every coordinate of a drawing."""
    reader = Reader(text)
    keys = ("d", "cx", "cy", "x", "y", "x1", "x2", "y1", "y2")
    values = [n.attributes.get(key) or "" for n in reader.nodes for key in keys]
    joined = " ".join(values).lower()
    assert "nan" not in joined
    assert "inf" not in joined
    return [float(v) for v in re.findall(r"-?\d+(?:\.\d+)?(?:e-?\d+)?", joined)]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(ANY, ANY, ANY, ANY), max_size=12),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    ANY,
)
@example([(0, 5e-324, 0, 1e308), (1, 1e308, -1e308, 1e308)], False, True, False, 0.5)
@example([(1, 1e16, 1, 1), (2, 1e16 + 2, 1, 1)], False, False, True, 1)
@example([(1, 1e-320, 1, 1), (2, 1e299, 1, 1)], True, False, False, NAN)
@example([(-1, 1, 0, 2), (0, 1, 0, 2), (5, 1, 0, 2)], False, True, False, -1)
def test_any_numbers_stay_inside_the_box(points, log, log_x, share, mark):
    x, y, low, high = tuple(zip(*points, strict=True)) or ((),) * 4
    band = Series(name="a", x=x, y=y, low=low, high=high)
    chart = curve(
        band, line(), log_y=log, log_x=log_x, percent_y=share, mark=(mark, "best")
    )
    text = svg.svg_chart(chart)
    assert all(-0.01 <= value <= 1000.01 for value in numbers(text))
    json.loads(Reader(text).nodes[0].attributes["data-points"])
    Reader(svg.svg_legend(chart))


@settings(max_examples=300, deadline=None)
@given(FINITE, st.floats(min_value=1e-9, max_value=1e12))
def test_ticks_cover_the_range_evenly_and_are_few(low, span):
    high = low + max(span, abs(low) * 1e-6)
    marks = ticks(low, high)
    step = marks[1] - marks[0]
    slack = 1e-6 * step
    assert marks[0] <= low + slack
    assert marks[-1] >= high - slack
    assert 3 <= len(marks) <= 9
    gaps = [b - a for a, b in pairwise(marks)]
    assert all(math.isclose(gap, step, rel_tol=1e-4) for gap in gaps)


@given(st.floats(1e-200, 1e200), st.floats(1, 1e90))
def test_decades_cover_the_range(low, factor):
    marks = log_ticks(low, low * factor)
    assert marks[0] <= low * (1 + 1e-9)
    assert marks[-1] >= low * factor * (1 - 1e-9)
    assert 2 <= len(marks) <= 9


@pytest.mark.parametrize("kept", [[], [0.0], [3.0, 3.0], [NAN, INF], [1e16], [-7.0]])
@pytest.mark.parametrize("log", [False, True])
def test_an_axis_without_a_span_still_has_one(kept, log):
    axis = fit_axis(kept, log=log)
    assert axis.low < axis.high
    assert all(
        axis.low <= value <= axis.high for value in kept if is_drawable(value, log)
    )


def test_a_tight_axis_ends_at_the_data_and_names_the_first_epoch():
    axis = fit_axis(range(1, 31), tight=True)
    assert (axis.low, axis.high) == (1, 30)
    assert axis.ticks == (1, 5, 10, 15, 20, 25, 30)


def test_there_is_no_epoch_one_and_a_half():
    assert fit_axis([1, 2, 3], tight=True).ticks == (1, 2, 3)
    assert 1.5 in fit_axis([1, 2.2, 3], tight=True).ticks


@given(st.floats(-1e5, 1e5), st.floats(1e-3, 1e5))
def test_neighboring_ticks_never_read_the_same(low, span):
    marks = ticks(low, low + span)
    assert len({tick_text(mark, marks) for mark in marks}) == len(marks)


def test_a_gap_parts_the_line_and_a_lone_value_is_a_dot():
    text = svg.svg_chart(curve(line(1.0, 2.0, NAN, 3.0, INF, 4.0, 5.0)))
    reader = Reader(text)
    (path,) = (n for n in reader.all("path") if "line" in n.attributes["class"])
    assert path.attributes["d"].count("M") == 2
    assert len(reader.all("circle")) == 1
    assert "Not drawn: 2 values" in text


def test_zero_has_no_place_on_a_logarithm():
    assert list(line_segments([1, 2, 3], [1.0, 0.0, 2.0], log=True)) == [
        [(1, 1.0)],
        [(3, 2.0)],
    ]
    assert list(line_segments([1, 2], [1.0, 0.0], log=False)) == [[(1, 1.0), (2, 0.0)]]


@given(st.lists(FINITE, min_size=1, max_size=3000), st.integers(10, 200))
def test_thinning_keeps_ends_order_and_extremes(heights, most):
    points = list(enumerate(heights))
    kept = downsample(points, most)
    assert len(kept) <= max(most, 0) + 2
    assert kept == sorted(kept)
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert max(y for _, y in kept) == max(heights)
    assert min(y for _, y in kept) == min(heights)


def test_thinning_keeps_an_end_that_is_no_extreme():
    points = list(enumerate([0.0, 1.0, 0.5] * 500))
    assert downsample(points, 10)[-1] == points[-1]
    assert downsample(points[2:], 10)[0] == points[2]


def test_thousands_of_points_make_a_small_drawing():
    many = line(*(math.sin(i / 50) for i in range(50_000)))
    assert len(svg.svg_chart(curve(many))) < 40_000


def test_the_highest_value_is_drawn_highest():
    text = svg.svg_chart(curve(line(0.0, 10.0)))
    (path,) = (n for n in Reader(text).all("path") if "line" in n.attributes["class"])
    assert path.attributes["d"] == "M0,1000 1000,0"


def test_title_description_and_percent():
    text = svg.svg_chart(
        curve(line(0.5, 1.0, name="<val>"), title="A&B", percent_y=True)
    )
    reader = Reader(text)
    assert reader.all("title")[0].text == ["A&B"]
    assert "<val>: 50.00 % at 0, 100.00 % at 1." in reader.all("desc")[0].text[0]
    assert "100 %" in reader.text
    assert "data-percent" in reader.nodes[0].attributes


def test_the_mark_stands_where_it_belongs_and_only_inside():
    text = svg.svg_chart(curve(line(1, 2, 3, 4, 5), mark=(1, "best <1>")))
    (mark,) = (n for n in Reader(text).all("line") if n.attributes["class"] == "mark")
    assert mark.attributes["x1"] == "25.00%"
    assert "best <1>" in Reader(text).text
    assert "best" not in svg.svg_chart(curve(line(1, 2), mark=(9, "best")))


def test_a_band_needs_both_edges():
    banded = Series(name="a", x=(1, 2), y=(2, 2), low=(1, 1), high=(3, 3))
    assert 'class="band' in svg.svg_chart(curve(banded))
    half = Series(name="a", x=(1, 2), y=(2, 2), low=(1, 1))
    assert 'class="band' not in svg.svg_chart(curve(half))


def test_a_legend_shows_the_values_at_the_mark_and_never_the_last_ones():
    chart = curve(line(0.25, 0.75, 0.5), mark=(1, "best epoch: 1"))
    key = svg.svg_legend(chart)
    assert "<output>0.75</output>" in key
    assert "at the mark (best epoch: 1)" in key
    assert "0.75 at the mark (best epoch: 1)" in svg.svg_chart(chart)
    key = svg.svg_legend(curve(line(0.25, 0.75, 0.5)))
    assert "<output></output>" in key
    assert "mark" not in key
    elsewhere = curve(line(0.25, 0.75, 0.5), mark=(1.5, "now"))
    assert "now" not in svg.svg_legend(elsewhere)


def test_more_series_than_colors_are_dashed():
    series = [line(1, 2, name=str(i)) for i in range(8)]
    key = Reader(svg.svg_legend(curve(*series)))
    hues = [node.attributes["class"] for node in key.all("i")]
    assert len(set(hues)) == 8


def test_heat_rises_with_the_count():
    heats = [error_shade(count, 100) for count in (1, 2, 10, 100)]
    assert heats == sorted(heats)
    assert heats[0] > 0.2
    assert error_shade(1, 1) == 1.0
