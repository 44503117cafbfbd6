"""Which points of a series are drawn: those that have a place, and not too many."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from striate.core.findings import Series
from striate.report.axis_ticks import is_drawable

MOST_POINTS = 600  # about one a pixel; more would only make the file larger

Point = tuple[float, float]


def drawable_points(
    series: Series, log: bool = False, log_x: bool = False
) -> list[Point]:
    """Return the points of a series that have a place on the axes.

    Args:
        series: A line.
        log: Whether the height is on a logarithm.
        log_x: Whether the width is.

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


def line_segments(
    xs: Sequence[float], ys: Sequence[float], log: bool, log_x: bool = False
) -> Iterator[list[Point]]:
    """Yield the unbroken stretches of a line.

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
    """Keep the lowest and highest point of each bucket: spikes outlive thinning.

    Example:
        >>> kept = downsample([(i, float(i == 4321)) for i in range(10_000)], most=100)
        >>> len(kept) <= 102, max(y for _, y in kept)
        (True, 1.0)
    """
    if len(points) <= most:
        return list(points)
    size = -(-len(points) // (most // 2))
    kept = {0, len(points) - 1}
    for start in range(0, len(points), size):
        bucket = range(start, min(start + size, len(points)))
        kept |= {min(bucket, key=lambda i: points[i][1])}
        kept |= {max(bucket, key=lambda i: points[i][1])}
    return [points[i] for i in sorted(kept)]
