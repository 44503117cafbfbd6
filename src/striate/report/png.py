"""Draw charts as PNG files with matplotlib, without using `pyplot`.

Importing matplotlib takes a second, so it is imported only when a file is drawn.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from striate.core.files import write_bytes
from striate.core.findings import Curve, Images, Matrix, Series
from striate.report.axis_ticks import (
    band_points,
    curve_axes,
    drawable_points,
    error_shade,
    is_drawable,
    x_text,
    y_text,
)
from striate.report.format import one_line, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

DPI = 200  # twice the usual 100: sharp on dense screens and in print
INK, SOFT, RULE = "#1d2125", "#596068", "#e3e3de"
HUES = ("#1f5f8b", "#c4582a", "#3a7d55", "#84509c", "#8f6b0a", "#b03a67")  # page.css
# Gallery sizes in inches: image pixel, row width, gap, two caption lines.
_PIXEL, _ROW_WIDTH, _GAP, _CAPTION = 1 / 144, 10.0, 0.2, 0.36
MAX_WITH_COUNTS = 30  # classes up to which the cells show their counts


def save_curve(curve: Curve, path: Path) -> None:
    """Draw a line chart and write a PNG file atomically.

    Example:
        >>> import tempfile
        >>> line = Series(name="train", x=(1, 2), y=(0.9, 0.4))
        >>> chart = Curve(title="Loss", x_label="epoch", y_label="", series=(line,))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_curve(chart, Path(folder) / "loss.png")
        ...     (Path(folder) / "loss.png").read_bytes()[1:4]
        b'PNG'
    """
    figure, axes = _canvas(6.4, 3.8)
    for index, series in enumerate(curve.series):
        _line(axes, series, index, curve)
    _frame(axes, curve)
    if curve.mark is not None:
        _mark(axes, *curve.mark)
    if len(curve.series) > 1:
        axes.legend(frameon=False, fontsize=8, labelcolor=SOFT, loc="best")
    _save(figure, path)


def save_matrix(matrix: Matrix, path: Path) -> None:
    """Draw a confusion matrix and write a PNG file atomically.

    Example:
        >>> import tempfile
        >>> errors = Matrix(labels=("cat", "dog"), counts=((9, 1), (0, 8)))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_matrix(errors, Path(folder) / "errors.png")
        ...     (Path(folder) / "errors.png").read_bytes()[1:4]
        b'PNG'
    """
    size = max(1, len(matrix.labels))
    cell = 0.42 if size <= MAX_WITH_COUNTS else 0.16
    side = max(3.0, min(20.0, cell * size + 1.6))
    figure, axes = _canvas(side, side)
    axes.imshow(_bytes(_colors(matrix)), aspect="equal", interpolation="nearest")
    _names(axes, matrix, size)
    if size <= MAX_WITH_COUNTS:
        _digits(axes, matrix)
    axes.set_title(_plain(matrix.title), fontsize=11, color=INK, loc="left", pad=12)
    _save(figure, path)


def save_images(images: Images, path: Path) -> None:
    """Draw a gallery with captions above the images, and write a PNG file.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_images(Images(images=()), Path(folder) / "none.png")
        ...     (Path(folder) / "none.png").read_bytes()[1:4]
        b'PNG'
    """
    from matplotlib.figure import Figure
    from matplotlib.image import imread

    places, wide, tall = _flow(images)
    figure = Figure(figsize=(wide, tall), dpi=DPI)
    title = _plain(images.title)
    figure.text(_GAP / wide, 1 - _GAP / tall, title, color=INK, fontsize=11, va="top")
    for image, (x, top) in zip(images.images, places, strict=True):
        lines = (_plain(image.caption), 8, INK), (_plain(image.detail), 6, SOFT)
        for line, (text, font, hue) in enumerate(lines):
            height = 1 - (top + 0.16 * line) / tall
            figure.text(x / wide, height, text, fontsize=font, color=hue, va="top")
        size = image.width * _PIXEL / wide, image.height * _PIXEL / tall
        below = 1 - (top + _CAPTION) / tall - size[1]
        axes = figure.add_axes((x / wide, below, *size))
        axes.imshow(imread(io.BytesIO(image.png)), interpolation="nearest", cmap="gray")
        axes.set_axis_off()
    _save(figure, path)


def _flow(images: Images) -> tuple[list[tuple[float, float]], float, float]:
    """Place images in rows; return (left, top) positions, width, height in inches."""
    most = max([_ROW_WIDTH, *(p.width * _PIXEL for p in images.images)])
    x, top, row = _GAP, 3 * _GAP, 0.0
    places, widest = [], 3.0
    for image in images.images:
        width, height = image.width * _PIXEL, image.height * _PIXEL + _CAPTION
        if x + width > most + _GAP and x > _GAP:
            x, top, row = _GAP, top + row + _GAP, 0.0
        places.append((x, top))
        row = max(row, height)
        x += max(width, 1.5) + 2 * _GAP
        widest = max(widest, x - _GAP)
    return places, widest, top + row + _GAP


def _canvas(width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=8, labelcolor=SOFT)
    return figure, axes


def _line(axes: Axes, series: Series, index: int, curve: Curve) -> None:
    hue, style = HUES[index % len(HUES)], "--" if index >= len(HUES) else "-"
    gap = float("nan"), float("nan")  # matplotlib breaks a line there
    points = [
        (x, y) if is_drawable(x, curve.log_x) and is_drawable(y, curve.log_y) else gap
        for x, y in zip(series.x, series.y, strict=False)
    ]
    lone = len(drawable_points(series, curve.log_y, curve.log_x)) == 1
    xs, ys = [x for x, _ in points], [y for _, y in points]
    marker = "o" if lone else ""
    label = _plain(series.name)
    axes.plot(xs, ys, style, color=hue, label=label, marker=marker, linewidth=1.6)
    if series.low is not None and series.high is not None:
        _band(axes, series, hue, curve)


def _band(axes: Axes, series: Series, hue: str, curve: Curve) -> None:
    points = band_points(series, curve.log_y, curve.log_x)
    x, low, high = zip(*points, strict=True) if points else ((),) * 3
    axes.fill_between(x, low, high, color=hue, alpha=0.16, linewidth=0)


def _frame(axes: Axes, curve: Curve) -> None:
    """Set the same axis limits, ticks and labels as in the HTML chart."""
    across, up = curve_axes(curve)
    axes.set_xscale("log" if curve.log_x else "linear")
    axes.set_yscale("log" if curve.log_y else "linear")
    axes.minorticks_off()
    axes.set_xlim(across.low, across.high)
    axes.set_ylim(up.low, up.high)
    axes.set_xticks(across.ticks, [x_text(t, across) for t in across.ticks])
    axes.set_yticks(up.ticks, [y_text(t, up, curve.percent_y) for t in up.ticks])
    axes.grid(axis="y", color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_xlabel(_plain(curve.x_label), fontsize=8, color=SOFT, loc="right")
    axes.set_ylabel(_plain(curve.y_label), fontsize=8, color=SOFT, loc="top")
    axes.set_title(_plain(curve.title), fontsize=11, color=INK, loc="left", pad=12)


def _mark(axes: Axes, x: float, words: str) -> None:
    low, high = axes.get_xlim()
    if not low <= x <= high:
        return
    axes.axvline(x, color=SOFT, linewidth=0.9, linestyle=(0, (3, 3)))
    side = "right" if x > (low + high) / 2 else "left"
    style: dict[str, Any] = {"fontsize": 8, "color": INK, "ha": side, "va": "bottom"}
    axes.text(x, 1.01, _plain(words), transform=axes.get_xaxis_transform(), **style)


def _bytes(colors: list[list[tuple[float, float, float]]]) -> NDArray[np.uint8]:
    """Convert colors to bytes, which matplotlib draws faster than floats."""
    levels: NDArray[np.uint8] = np.rint(255 * np.asarray(colors)).astype(np.uint8)
    return levels


def _colors(matrix: Matrix) -> list[list[tuple[float, float, float]]]:
    counts = matrix.counts
    wrong = [n for r, row in enumerate(counts) for c, n in enumerate(row) if r != c]
    most = max([*wrong, 1])
    return [
        [_color(n, r == c, sum(row), most) for c, n in enumerate(row)]
        for r, row in enumerate(counts)
    ] or [[(1.0, 1.0, 1.0)]]


def _color(
    count: int, right: bool, total: int, most: int
) -> tuple[float, float, float]:
    """Return a matrix cell's RGB color: by recall on the diagonal, else by count."""
    if not count:
        return (0.957, 0.957, 0.945)
    full = (0.561, 0.753, 0.871) if right else (0.949, 0.561, 0.384)
    weight = count / total if right else error_shade(count, most)
    red, green, blue = (1 - weight * (1 - part) for part in full)
    return red, green, blue


def _names(axes: Axes, matrix: Matrix, size: int) -> None:
    names = [shorten(_plain(label), 18) for label in matrix.labels]
    turned = any(len(name) > 3 for name in names) or size > MAX_WITH_COUNTS
    font = 8 if size <= MAX_WITH_COUNTS else 6
    axes.set_xticks(range(len(names)), names, rotation=90 if turned else 0)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(labelsize=font, labeltop=True, labelbottom=False)
    axes.xaxis.set_label_position("top")
    axes.set_xlabel("predicted", fontsize=8, color=SOFT)
    axes.set_ylabel("true", fontsize=8, color=SOFT)
    edges = [index - 0.5 for index in range(size + 1)]
    axes.set_xticks(edges, minor=True)
    axes.set_yticks(edges, minor=True)
    axes.grid(
        which="minor", color="white", linewidth=1.2 if size <= MAX_WITH_COUNTS else 0.5
    )
    axes.tick_params(which="minor", length=0)


def _digits(axes: Axes, matrix: Matrix) -> None:
    style: dict[str, Any] = {
        "ha": "center",
        "va": "center",
        "fontsize": 7,
        "color": INK,
    }
    for row, counts in enumerate(matrix.counts):
        for column, count in enumerate(counts):
            if count:
                axes.text(column, row, str(count), **style)


def _plain(text: str) -> str:
    """Escape dollar signs, which matplotlib would interpret as math text."""
    return one_line(text).replace("$", r"\$")


def _save(figure: Figure, path: Path) -> None:
    payload = io.BytesIO()
    with warnings.catch_warnings():
        # Class names in a script that the font lacks are drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(payload, format="png", facecolor="white")
    write_bytes(path, payload.getvalue())
