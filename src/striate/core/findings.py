"""Blocks of a report (text, tables, charts, images) as data, without formatting.

An analysis returns these blocks; `report` renders them as HTML or for a terminal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Cell = str | int | float | None


@dataclass(frozen=True, kw_only=True)
class Prose:
    """A paragraph. Blank lines separate paragraphs; there is no other markup."""

    text: str
    tone: str = "plain"  # plain | good | warning | bad | advice


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A headline number with label and detail, such as `98.9 %` test accuracy."""

    label: str
    value: str
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """A row of headline numbers side by side."""

    figures: tuple[Figure, ...]


@dataclass(frozen=True, kw_only=True)
class Column:
    """A table's column. `kind` fixes alignment and format.

    Kinds: text, integer (1,792), number (0.0312), bytes (1.2 MB), ratio (10.33 %),
    share (0–1 shown as percent with a bar), percent (without), code (names and
    formulas).

    Args:
        title: Heading for people.
        kind: As above.
        hint: Explanation of the column.
        key: Name in JSON and CSV.
        rank: 0 is always shown; on a narrow screen the highest ranks are hidden first.
    """

    title: str
    kind: str = "text"
    hint: str = ""
    key: str = ""
    rank: int = 0


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows under columns; `totals` is an extra last row; None is an empty cell."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    totals: tuple[Cell, ...] | None = None
    title: str = ""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line of a chart; `low` and `high` draw a band where given."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A chart of lines over one axis; `mark` is a labeled vertical line."""

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    log_y: bool = False
    log_x: bool = False
    percent_y: bool = False
    mark: tuple[float, str] | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Image:
    """An encoded image: PNG bytes, its size in pixels, and what it shows."""

    png: bytes = field(repr=False)
    width: int
    height: int
    caption: str = ""
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Images:
    """A gallery. `scale` enlarges small images by whole pixels (28×28 at 3)."""

    images: tuple[Image, ...]
    title: str = ""
    note: str = ""
    scale: int = 1


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """A confusion matrix: rows are the truth, columns the prediction.

    `images[(row, column)]` are examples of that cell; `counts` stay exact where
    fewer images than counted are held.
    """

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    images: Mapping[tuple[int, int], tuple[Image, ...]] = field(default_factory=dict)
    title: str = ""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Node:
    """A line of a tree, which can be expanded.

    Args:
        title: Label.
        value: Formatted number.
        detail: How the number was computed.
        children: Lines inside it.
        opened: Expanded at first.
    """

    title: str
    value: str = ""
    detail: str = ""
    children: tuple[Node, ...] = ()
    opened: bool = False


@dataclass(frozen=True, kw_only=True)
class Tree:
    """A tree of lines that can be expanded."""

    nodes: tuple[Node, ...]
    title: str = ""
    note: str = ""


Block = Prose | Figures | Table | Curve | Images | Matrix | Tree


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading and the blocks below it."""

    title: str
    blocks: tuple[Block, ...]
    lead: str = ""


@dataclass(frozen=True, kw_only=True)
class Page:
    """A whole report: title and sections in order."""

    title: str
    sections: tuple[Section, ...]
    subtitle: str = ""
    footer: str = ""
