"""Blocks of a report (text, tables, charts, images) as plain dataclasses.

An analysis returns these blocks; `report` renders them as HTML or for a terminal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field

Cell = str | int | float | None


@dataclass(frozen=True)
class Prose:
    """Paragraphs of plain text, separated by blank lines."""

    text: str
    tone: str = "plain"  # plain | good | warning | bad | advice


@dataclass(frozen=True)
class Figure:
    """A key number of a report, such as the test accuracy, with label and detail."""

    label: str
    value: str
    detail: str = ""


@dataclass(frozen=True)
class Figures:
    """A row of headline numbers side by side."""

    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class Column:
    """A column of a table; `kind` determines alignment and number format.

    Kinds: text, integer (1,792), number (0.0312), bytes (1.2 MB), ratio (10.33 %),
    percent (10.3 %), share (percent with a bar), probability (>99.9 % below 1), code
    (names and formulas), command. Values of ratio, percent, share and probability are
    fractions 0–1.
    """

    title: str  # heading
    kind: str = "text"  # one of the kinds above
    _: KW_ONLY
    hint: str = ""  # explanation of the column
    key: str = ""  # name in JSON and CSV; default: the title as `snake_case`
    # 0: always shown; columns of the highest rank are hidden first on narrow screens
    rank: int = 0


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table; `totals` is an extra last row, and None is an empty cell."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    totals: tuple[Cell, ...] | None = None
    title: str = ""
    note: str = ""
    row_ids: tuple[str, ...] = ()  # ids of the rows, for links


@dataclass(frozen=True)
class Series:
    """One line of a chart; `low` and `high` are the limits of an optional band."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Curve:
    """A line chart; `mark` is the x value and the label of a vertical line.

    Legends show the values at the mark. Without a mark, they show no values: the last
    value of a series is not its result.
    """

    title: str
    _: KW_ONLY
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    log_y: bool = False
    log_x: bool = False
    percent_y: bool = False
    mark: tuple[float, str] | None = None
    note: str = ""

    def value_at_mark(self, series: Series) -> float | None:
        """Return the value of a series at the mark, or None.

        Example:
            >>> line = Series("a", x=(1, 2, 3), y=(0.5, 0.9, 0.7))
            >>> axes = {"x_label": "epoch", "y_label": "accuracy"}
            >>> curve = Curve("A", **axes, series=(line,), mark=(2, "best epoch: 2"))
            >>> curve.value_at_mark(line)
            0.9
        """
        at = self.mark[0] if self.mark else math.nan
        pairs = zip(series.x, series.y, strict=False)
        return next((y for x, y in pairs if math.isclose(x, at)), None)


@dataclass(frozen=True, kw_only=True)
class Image:
    """A PNG image with its size in pixels, a caption, further lines and a detail."""

    png: bytes = field(repr=False)
    width: int
    height: int
    caption: str = ""
    lines: tuple[str, ...] = ()  # lines between the caption and the detail
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Images:
    """A gallery of images; `scale` is an integer zoom factor for small images.

    A gallery that is `folded` shows its title only, until the reader opens it.
    """

    images: tuple[Image, ...]
    title: str = ""
    note: str = ""
    scale: int = 1
    folded: bool = False


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """A confusion matrix: rows are true classes, columns are predicted classes.

    `images[(row, column)]` are example images of that cell. There may be fewer example
    images than the number in `counts`.
    """

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    images: Mapping[tuple[int, int], tuple[Image, ...]] = field(default_factory=dict)
    title: str = ""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Node:
    """A node of a tree: one line of text and its child nodes."""

    title: str  # label
    value: str = ""  # formatted number
    detail: str = ""  # how the number was computed
    children: tuple[Node, ...] = ()  # child nodes
    opened: bool = False  # whether the children are visible at first


@dataclass(frozen=True, kw_only=True)
class Tree:
    """A tree whose nodes can be expanded and collapsed."""

    nodes: tuple[Node, ...]
    title: str = ""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class DiagramNode:
    """A box of a diagram: title, detail below it, and its rank (row) from the top."""

    title: str
    detail: str = ""
    rank: int = 0
    hint: str = ""  # shown when the reader points at the box
    link: str = ""  # id of the table row that a click on the box shows


@dataclass(frozen=True, kw_only=True)
class Diagram:
    """A diagram of boxes with arrows from the top to the bottom.

    `edges` are pairs (from, to) of indices of `nodes`.
    """

    nodes: tuple[DiagramNode, ...]
    edges: tuple[tuple[int, int], ...]
    title: str = ""
    note: str = ""
    folded: bool = False  # the reader opens it with a click on the title


Block = Prose | Figures | Table | Curve | Images | Matrix | Tree | Diagram


@dataclass(frozen=True)
class Section:
    """A section of a report: a heading and its blocks."""

    title: str
    blocks: tuple[Block, ...]
    lead: str = ""


@dataclass(frozen=True)
class Page:
    """A complete report: title, sections and footer."""

    title: str
    _: KW_ONLY
    sections: tuple[Section, ...]
    subtitle: str = ""
    footer: str = ""
