"""Draw a chart as inline SVG that adapts to color theme and width of the page.

The drawing is stretched to its box, but line widths and font sizes do not change: paths
are in an inner viewport of 1000×1000, and text positions are in percent.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from striate.core.findings import Curve, Series
from striate.core.format import count_text
from striate.report.axis_ticks import (
    ChartAxis,
    Point,
    band_points,
    curve_axes,
    drawable_points,
    is_drawable,
    mark_text,
    x_text,
    y_text,
)
from striate.report.format import isolate, number, one_line, value_text
from striate.report.markup import Html, escape, join, tag

COLORS = 6  # as in page.css; more series repeat them with dashes
MOST_POINTS = 600  # about one per pixel


def svg_chart(chart: Curve) -> str:
    """Return a chart as one `<svg>` element, with colors from page.css.

    Values that cannot be drawn (NaN, infinity, zero on a log axis) are gaps. Their
    number is in the `<desc>` element.

    Example:
        >>> loss = Series(name="train", x=(1, 2, 3), y=(0.9, 0.4, 0.3))
        >>> chart = Curve(title="L", x_label="epoch", y_label="", series=(loss,))
        >>> svg = svg_chart(chart)
        >>> svg[:4], "M0,0 500,833.3 1000,1000" in svg
        ('<svg', True)
    """
    across, up = curve_axes(chart)
    paths = join(_paths(i, s, across, up) for i, s in enumerate(chart.series))
    dots = join(_dots(i, s, across, up) for i, s in enumerate(chart.series))
    inner = {"viewBox": "0 0 1000 1000", "preserveAspectRatio": "none"}
    return tag(
        "svg",
        tag("title", escape(one_line(chart.title))),
        tag("desc", escape(_description(chart))),
        _grid(chart, across, up),
        _mark(chart, across),
        tag("svg", paths, class_="plot", **inner),
        dots,
        tag("line", class_="cursor", y1="0", y2="100%"),
        role="img",
        aria_label=f"{one_line(chart.title)}. {_description(chart)}",
        class_="chart",
        data_points=_readings(chart, across),
        data_percent=chart.percent_y,
    )


def svg_legend(curve: Curve) -> str:
    """Return the legend of a chart: color, name and value at the mark of each series.

    Example:
        >>> flat = Series(name="a<b", x=(1,), y=(0.5,))
        >>> axes = {"x_label": "", "y_label": "", "series": (flat,)}
        >>> key = svg_legend(Curve(title="", **axes, mark=(1, "best epoch: 1")))
        >>> "a&lt;b" in key, "0.5" in key, "at the mark (best epoch: 1)" in key
        (True, True, True)
        >>> "0.5" in svg_legend(Curve(title="", **axes))
        False
    """
    items = [_key(i, series, curve) for i, series in enumerate(curve.series)]
    if any(mark_text(curve, series) for series in curve.series) and curve.mark:
        text = f"at the mark ({one_line(curve.mark[1])})"
        items.append(tag("li", escape(text), class_="at"))
    return tag("ul", *items, class_="legend")


def _key(index: int, series: Series, curve: Curve) -> Html:
    finite = drawable_points(series, curve.log_y, curve.log_x)
    value = mark_text(curve, series) if finite else "no values"
    return tag(
        "li",
        tag("i", class_=_hue(index)),
        tag("bdi", escape(one_line(series.name))),
        tag("output", escape(value)),
    )


def _paths(index: int, series: Series, across: ChartAxis, up: ChartAxis) -> Html:
    lines = [
        run
        for run in line_segments(series.x, series.y, up.log, across.log)
        if len(run) > 1
    ]
    steps = " ".join(f"M{_trail(downsample(run), across, up)}" for run in lines)
    line = tag("path", class_=f"line {_hue(index)}", d=steps) if steps else Html("")
    return join([_band(index, series, across, up), line])


def _band(index: int, series: Series, across: ChartAxis, up: ChartAxis) -> Html:
    points = band_points(series, up.log, across.log)
    if len(points) < 2:
        return Html("")
    floor = _trail(downsample([(x, low) for x, low, _ in points]), across, up)
    roof = _trail(downsample([(x, high) for x, _, high in points])[::-1], across, up)
    return tag("path", class_=f"band {_hue(index)}", d=f"M{floor} L{roof}Z")


def _trail(spots: Sequence[Point], across: ChartAxis, up: ChartAxis) -> str:
    pairs = [(_thousand(across, x), _thousand(up, y, flip=True)) for x, y in spots]
    return " ".join(f"{x},{y}" for x, y in pairs)


def _thousand(scale: ChartAxis, value: float, flip: bool = False) -> str:
    place = scale.place(value)
    return f"{1000 * (1 - place if flip else place):.1f}".removesuffix(".0")


def _hundred(scale: ChartAxis, value: float, flip: bool = False) -> str:
    place = scale.place(value)
    return f"{100 * (1 - place if flip else place):.2f}%"


def _dots(index: int, series: Series, across: ChartAxis, up: ChartAxis) -> Html:
    """Return isolated points as dots, because a line needs two points."""
    alone = [
        run[0]
        for run in line_segments(series.x, series.y, up.log, across.log)
        if len(run) == 1
    ]
    return join(
        tag(
            "circle",
            class_=f"dot {_hue(index)}",
            cx=_hundred(across, x),
            cy=_hundred(up, y, flip=True),
            r=3.5,
        )
        for x, y in downsample(alone)
    )


def _hue(index: int) -> str:
    dash = f" d{index // COLORS % 3}" if index >= COLORS else ""
    return f"c{index % COLORS}{dash}"


def _grid(curve: Curve, across: ChartAxis, up: ChartAxis) -> Html:
    rows = [_row(value, up, curve.percent_y) for value in up.ticks]
    columns = [_column(value, across) for value in across.ticks]
    x_label = tag("text", escape(curve.x_label), class_="axis end", x="100%", y="100%")
    y_label = tag("text", escape(curve.y_label), class_="axis top", x="0", y="0")
    return tag("g", *rows, *columns, x_label, y_label, aria_hidden="true")


def _row(value: float, up: ChartAxis, share: bool) -> Html:
    y = _hundred(up, value, flip=True)
    words = tag("text", escape(y_text(value, up, share)), class_="y", x="0", y=y)
    return join([tag("line", class_="rule", x2="100%", y1=y, y2=y), words])


def _column(value: float, across: ChartAxis) -> Html:
    x = _hundred(across, value)
    return tag("text", escape(x_text(value, across)), class_="x", x=x, y="100%")


def _mark(curve: Curve, across: ChartAxis) -> Html:
    if curve.mark is None or not across.low <= curve.mark[0] <= across.high:
        return Html("")
    x = _hundred(across, curve.mark[0])
    # Past the middle the words go to the line's left, or they would leave the box.
    side = "mark left" if across.place(curve.mark[0]) > 0.5 else "mark"
    line = tag("line", class_="mark", x1=x, x2=x, y1="0", y2="100%")
    words = tag("text", escape(one_line(curve.mark[1])), class_=side, x=x, y="0")
    return join([line, words])


def _description(curve: Curve) -> str:
    sentences = [_sentence(series, curve) for series in curve.series]
    return " ".join(sentences) or "There are no values."


def _sentence(series: Series, curve: Curve) -> str:
    spots = drawable_points(series, curve.log_y, curve.log_x)
    who = isolate(one_line(series.name))
    left_out = len(series.x) - len(spots)
    gap = f" Not drawn: {count_text(left_out, 'value')}." if left_out else ""
    if not spots:
        return f"{who}: no values.{gap}"
    (x0, y0), (x1, y1) = spots[0], spots[-1]
    first, last = value_text(y0, curve.percent_y), value_text(y1, curve.percent_y)
    text = f"{who}: {first} at {number(x0)}, {last} at {number(x1)}"
    at_mark = mark_text(curve, series)
    if at_mark and curve.mark:
        text += f", {at_mark} at the mark ({one_line(curve.mark[1])})"
    return f"{text}.{gap}"


def _readings(curve: Curve, across: ChartAxis) -> str:
    """Return the points of each series as JSON, for the values shown on hover."""
    lines = [
        downsample(drawable_points(s, curve.log_y, curve.log_x), 300)
        for s in curve.series
    ]
    table = [
        [[round(across.place(x), 4), _short(x), _short(y)] for x, y in spots]
        for spots in lines
    ]
    return json.dumps(table, separators=(",", ":"), allow_nan=False)


def _short(value: float) -> float:
    return float(f"{value:.5g}")


def line_segments(
    xs: Sequence[float], ys: Sequence[float], log: bool, log_x: bool = False
) -> Iterator[list[Point]]:
    """Yield the segments of a line, split at values that cannot be drawn.

    Example:
        >>> list(line_segments([1, 2, 3], [5.0, float("nan"), 7.0], log=False))
        [[(1, 5.0)], [(3, 7.0)]]
    """
    stretch: list[Point] = []
    for x, y in zip(xs, ys, strict=False):
        if is_drawable(x, log_x) and is_drawable(y, log):
            stretch.append((x, y))
        elif stretch:
            yield stretch
            stretch = []
    if stretch:
        yield stretch


def downsample(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """Reduce points to the minimum and maximum of each bucket, so spikes remain.

    Example:
        >>> few = downsample([(i, float(i == 4321)) for i in range(10_000)], most=100)
        >>> len(few) <= 102, max(y for _, y in few)
        (True, 1.0)
    """
    if len(points) <= most:
        return list(points)
    size = -(-len(points) // (most // 2))
    indices = {0, len(points) - 1}
    for start in range(0, len(points), size):
        bucket = range(start, min(start + size, len(points)))
        indices |= {min(bucket, key=lambda i: points[i][1])}
        indices |= {max(bucket, key=lambda i: points[i][1])}
    return [points[i] for i in sorted(indices)]
