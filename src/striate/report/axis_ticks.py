"""Chart axes: range, tick positions, tick labels, and the points that can be drawn."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from striate.core.findings import Curve, Series
from striate.report.format import MINUS, number, value_text

Point = tuple[float, float]

# Larger values would overflow the range of an axis, so they are not drawn.
LARGEST = 1e300


@dataclass(frozen=True, kw_only=True)
class ChartAxis:
    """A chart axis: limits, tick positions, and linear or logarithmic scale.

    Example:
        >>> axis = fit_axis([0.0, 7.0])
        >>> axis.ticks, axis.place(4.0)
        ((0.0, 2.0, 4.0, 6.0, 8.0), 0.5)
    """

    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False

    def place(self, value: float) -> float:
        """Return the relative position of a value between the axis limits, 0 to 1."""
        low, high, x = self.low, self.high, value
        if self.log:
            low, high, x = math.log10(low), math.log10(high), math.log10(value)
        return min(1.0, max(0.0, (x - low) / (high - low)))


def is_drawable(value: float, log: bool = False) -> bool:
    """Return whether a value can be drawn on a linear or logarithmic axis.

    Example:
        >>> is_drawable(0.0), is_drawable(0.0, log=True), is_drawable(float("nan"))
        (True, False, False)
    """
    return math.isfinite(value) and abs(value) < LARGEST and (value > 1e-300 or not log)


def drawable_points(
    series: Series, log: bool = False, log_x: bool = False
) -> list[Point]:
    """Return the points of a series that can be drawn.

    Example:
        >>> drawable_points(Series(name="", x=(1, 2), y=(float("inf"), 0.5)))
        [(2.0, 0.5)]
    """
    pairs = zip(series.x, series.y, strict=False)
    return [
        (float(x), float(y))
        for x, y in pairs
        if is_drawable(x, log_x) and is_drawable(y, log)
    ]


def mark_text(curve: Curve, series: Series) -> str:
    """Return the value of a series at the mark of its chart as text, or ''."""
    value = curve.value_at_mark(series)
    if value is None or not is_drawable(value, curve.log_y):
        return ""
    return value_text(value, curve.percent_y)


def band_points(
    series: Series, log: bool = False, log_x: bool = False
) -> list[tuple[float, float, float]]:
    """Return the drawable points of the band around a series, as (x, low, high)."""
    edges = zip(series.x, series.low or (), series.high or (), strict=False)
    return [
        edge
        for edge in edges
        if is_drawable(edge[0], log_x) and all(is_drawable(y, log) for y in edge[1:])
    ]


def curve_axes(curve: Curve) -> tuple[ChartAxis, ChartAxis]:
    """Return the x and y axis of a line chart."""
    points = [
        point
        for series in curve.series
        for point in drawable_points(series, curve.log_y, curve.log_x)
    ]
    bands = [band for s in curve.series for band in (s.low, s.high) if band]
    heights = [y for _, y in points] + [y for band in bands for y in band]
    across = fit_axis((x for x, _ in points), log=curve.log_x, tight=True)
    return across, fit_axis(heights, log=curve.log_y)


def fit_axis(
    values: Iterable[float], *, log: bool = False, tight: bool = False
) -> ChartAxis:
    """Return an axis for values that ends at ticks, or if `tight` at the data range.

    Example:
        >>> fit_axis([0.003, 40.0], log=True).ticks
        (0.001, 0.01, 0.1, 1.0, 10.0, 100.0)
    """
    finite = [value for value in values if is_drawable(value, log)]
    finite = finite or ([1.0, 10.0] if log else [0.0, 1.0])
    low, high = min(finite), max(finite)
    if log:
        marks = log_ticks(low, high)
        return ChartAxis(low=marks[0], high=marks[-1], ticks=marks, log=True)
    low, high = _widen(low, high)
    # Integers such as epochs get integer ticks.
    least = 1.0 if tight and all(value == round(value) for value in finite) else 0.0
    marks = ticks(low, high, least=least)
    if not tight:
        return ChartAxis(low=marks[0], high=marks[-1], ticks=marks)
    return ChartAxis(low=low, high=high, ticks=_inside(low, high, marks))


def _inside(low: float, high: float, marks: Sequence[float]) -> tuple[float, ...]:
    inside = [mark for mark in marks if low <= mark <= high]
    # Epochs start at 1, which is not a round number but needs a tick.
    if low == round(low) and inside and inside[0] - low > 0.4 * (marks[1] - marks[0]):
        inside.insert(0, low)
    return tuple(inside)


def _widen(low: float, high: float) -> tuple[float, float]:
    # A constant gets a margin of a tenth of its size on both sides. Ranges near the
    # resolution of floats would give equal ticks.
    size = max(abs(low), abs(high))
    if high - low > max(1e-9 * size, 1e-290):
        return low, high
    margin = 0.1 * size if size > 1e-280 else 1.0
    return low - margin, high + margin


def ticks(low: float, high: float, *, least: float = 0.0) -> tuple[float, ...]:
    """Return round tick values that cover the range from `low` to `high`.

    There are about five steps. The step is 1, 2 or 5 times a power of ten, and at least
    `least`.

    Example:
        >>> ticks(0.83, 0.991)
        (0.8, 0.85, 0.9, 0.95, 1.0)
    """
    rough = max((high - low) / 5, least)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough * 0.8)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    # Rounding to the step's own digits turns 0.30000000000000004 into 0.3.
    digits = max(0, 2 - math.floor(math.log10(step)))
    rounded = (round(k * step, digits) for k in range(first, last + 1))
    return tuple(value + 0.0 for value in rounded)


def log_ticks(low: float, high: float) -> tuple[float, ...]:
    """Return tick values of a log axis: at most eight, covering a positive range.

    Example:
        >>> log_ticks(0.2, 0.7)
        (0.2, 0.5, 1.0)
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    last = max(last, first + 1)
    if last - first <= 2:
        fine = [d * 10.0**p for p in range(first, last) for d in (1, 2, 5)]
        marks = [float(f"{mark:.0e}") for mark in [*fine, 10.0**last]]
        return _around(marks, low, high)
    stride = -(-(last - first) // 7)
    powers = range(first, last + stride, stride)
    return tuple(10.0**power for power in powers if -300 <= power <= 300)


def _around(marks: Sequence[float], low: float, high: float) -> tuple[float, ...]:
    start = max(i for i, mark in enumerate(marks) if mark <= low or i == 0)
    stop = min(i for i, m in enumerate(marks) if m >= high or i == len(marks) - 1)
    stop = min(len(marks) - 1, max(stop, start + 1))
    return tuple(marks[min(start, stop - 1) : stop + 1])


def error_shade(count: int, most: int) -> float:
    """Return the color intensity (0 to 1) of a confusion matrix cell with errors.

    The scale is logarithmic, so that one error is visible next to a hundred.

    Example:
        >>> error_shade(100, 100), round(error_shade(1, 100), 2)
        (1.0, 0.28)
    """
    return 0.15 + 0.85 * math.log1p(count) / math.log1p(max(most, count))


def tick_text(value: float, marks: Sequence[float], percent: bool = False) -> str:
    """Format a tick label with enough digits to distinguish it from its neighbors.

    Example:
        >>> [tick_text(v, (0.0, 0.25, 0.5)) for v in (0.0, 0.25)]
        ['0.00', '0.25']
        >>> tick_text(0.975, (0.95, 0.975, 1.0), percent=True)
        '97.5 %'
    """
    factor = 100.0 if percent else 1.0
    gap = min((b - a for a, b in pairwise(marks)), default=1.0)
    largest = max((abs(mark) for mark in marks), default=0.0) * factor
    if largest >= 1e6 or gap * factor < 1e-5:
        return number(value * factor) + (" %" if percent else "")
    digits = _digits(gap * factor)
    text = f"{value * factor:,.{digits}f}".replace("-", MINUS)
    return f"{text} %" if percent else text


def x_text(value: float, across: ChartAxis) -> str:
    """Format a tick label of the x axis."""
    return number(value) if across.log else tick_text(value, across.ticks)


def y_text(value: float, up: ChartAxis, percent: bool) -> str:
    """Format a y tick label; on a log axis, each label has its own number of digits."""
    if up.log:
        return value_text(value, percent)
    return tick_text(value, up.ticks, percent)


def _digits(gap: float) -> int:
    return next(d for d in range(7) if d == 6 or abs(gap - round(gap, d)) < gap * 1e-3)
