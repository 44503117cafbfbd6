"""Print report blocks (findings) in a terminal with rich."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table as Grid
from rich.text import Text
from rich.tree import Tree as Outline

from striate.core.findings import (
    Block,
    Curve,
    Diagram,
    Figures,
    Images,
    Matrix,
    Node,
    Prose,
    Series,
    Table,
    Tree,
)
from striate.core.format import count_text
from striate.report.axis_ticks import (
    drawable_points,
    fit_axis,
    is_drawable,
    mark_text,
)
from striate.report.format import (
    one_line,
    percent,
    printable,
    shorten,
    value_text,
)
from striate.report.terminal_table import table_lines

TONES = {"good": "green", "warning": "yellow", "bad": "red", "advice": "cyan"}
MARKS = {"good": "✓", "warning": "!", "bad": "✗", "advice": "→"}
LEVELS = "▁▂▃▄▅▆▇█"
SPARKLINE_WIDTH = 40  # characters: half of the narrowest common terminal
MAX_LISTED = 12  # captions or errors listed before "and more"


def print_blocks(blocks: Iterable[Block], console: Console) -> None:
    """Print report blocks to a rich console; text is not parsed as markup.

    Example:
        >>> console = Console(width=60)
        >>> print_blocks([Prose(text="[bold]12[/bold] images")], console)
        [bold]12[/bold] images
        <BLANKLINE>
    """
    for block in blocks:
        # Sentences are wrapped; paths and tables are not.
        soft = False if isinstance(block, Prose) else None
        crop = not isinstance(block, Table)
        console.print(_block(block, console.width), soft_wrap=soft, crop=crop)
        console.print()


def blocks_text(blocks: Iterable[Block], width: int = 100) -> str:
    """Return report blocks as plain text, `width` columns wide."""
    file = io.StringIO()
    console = Console(file=file, width=width, highlight=False, color_system=None)
    print_blocks(blocks, console)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


def _block(block: Block, width: int) -> RenderableType:
    match block:
        case Prose():
            return _prose(block)
        case Figures():
            return _figures(block)
        case Table():
            body, note = table_lines(block, width)
            return _framed(block.title, body, note)
        case Curve():
            return _curve(block, width)
        case Images():
            return _images(block)
        case Matrix():
            return _matrix(block, width)
        case Tree():
            return _framed(block.title, rich_tree(block), block.note)
        case Diagram():
            return _diagram(block)


def _prose(prose: Prose) -> RenderableType:
    if prose.tone not in TONES:
        return Text(printable(prose.text))
    style = TONES[prose.tone]
    mark = Text(MARKS[prose.tone], f"bold {style}")
    grid = Grid.grid(padding=(0, 1))
    grid.add_row(mark, Text(printable(prose.text), style))
    return grid


def _figures(figures: Figures) -> Grid:
    grid = Grid.grid(padding=(0, 2))
    for figure in figures.figures:
        label = Text(one_line(figure.label), "dim")
        value = Text(one_line(figure.value), "bold")
        grid.add_row(label, value, Text(one_line(figure.detail), "dim"))
    return grid


def _framed(title: str, body: RenderableType, note: str) -> Group:
    parts: list[RenderableType] = [Text(one_line(title), "bold")] if title else []
    parts.append(body)
    if note.strip():
        # Notes are wrapped, even if tables and paths are not.
        note = printable(note.strip())
        parts.append(Text(note, "dim", no_wrap=False, overflow="fold"))
    return Group(*parts)


def _curve(curve: Curve, width: int) -> Group:
    grid = Grid.grid(padding=(0, 2))
    room = max(8, min(SPARKLINE_WIDTH, width - 40))
    for series in curve.series:
        name = Text(shorten(one_line(series.name), 16))
        line = Text(sparkline(series, room, log=curve.log_y), "cyan")
        grid.add_row(name, line, Text(_key(curve, series), "dim"))
    axes = f"{one_line(curve.y_label)} by {one_line(curve.x_label)}"
    title = curve.title or axes
    return _framed(title, grid, curve.note)


def _key(curve: Curve, series: Series) -> str:
    """Return the value at the mark, or the range of the values, as text."""
    values = [y for _, y in drawable_points(series, curve.log_y, curve.log_x)]
    if not values:
        return "no values"
    if (text := mark_text(curve, series)) and curve.mark:
        return f"{text} ({one_line(curve.mark[1])})"
    low, high = (value_text(y, curve.percent_y) for y in (min(values), max(values)))
    return f"{low} to {high}" if low != high else low


def sparkline(series: Series, room: int = SPARKLINE_WIDTH, *, log: bool = False) -> str:
    """Draw a series as block characters; values that cannot be drawn are spaces.

    Example:
        >>> sparkline(Series(name="", x=(1, 2, 3), y=(0.0, 0.5, 1.0)))
        '▁▅█'
    """
    heights = list(series.y)
    if len(heights) > room:  # the last value of each bucket, so that the end is exact
        heights = [heights[(i + 1) * len(heights) // room - 1] for i in range(room)]
    finite = [y for y in heights if is_drawable(y, log)]
    if not finite:
        return ""
    if min(finite) == max(finite):
        return "".join(LEVELS[3] if is_drawable(y, log) else " " for y in heights)
    scale = fit_axis(finite, log=log)
    low, high = scale.place(min(finite)), scale.place(max(finite))
    places = [scale.place(y) if is_drawable(y, log) else None for y in heights]
    return "".join(_level(place, low, high) for place in places)


def _level(place: float | None, low: float, high: float) -> str:
    if place is None:
        return " "
    share = (place - low) / (high - low) if high > low else 0.5
    return LEVELS[min(len(LEVELS) - 1, int(share * len(LEVELS)))]


def _diagram(diagram: Diagram) -> RenderableType:
    """Return the boxes of a diagram as lines, each with the boxes that feed it."""
    lines = []
    for number, node in enumerate(diagram.nodes):
        sources = [diagram.nodes[a].title for a, b in diagram.edges if b == number]
        arrow = f" ← {', '.join(sources)}" if sources else ""
        lines.append(printable(f"{node.title}  {node.detail}{arrow}"))
    return _framed(diagram.title, Text("\n".join(lines)), diagram.note)


def _images(images: Images) -> Group:
    named = [one_line(p.caption) for p in images.images if p.caption][:MAX_LISTED]
    more = len(images.images) - len(named)
    if named and more:
        named.append(f"and {more:,} more")
    count = count_text(len(images.images), "image")
    line = Text(f"{count}: {', '.join(named)}" if named else count)
    return _framed(images.title, line, images.note)


def _matrix(matrix: Matrix, width: int) -> Group:
    labels = [shorten(one_line(label), 12) for label in matrix.labels]
    widest = max((len(f"{n:,}") for row in matrix.counts for n in row), default=1)
    column = max(widest, max(map(len, labels), default=1)) + 2
    fits = column * (len(labels) + 1) <= width
    body = _heat(matrix, labels) if fits else _errors(matrix)
    return _framed(matrix.title, body, matrix.note)


def _heat(matrix: Matrix, labels: Sequence[str]) -> Grid:
    grid = Grid(box=None, padding=(0, 2, 0, 0), header_style="dim")
    grid.add_column(Text("true ↓"), style="dim", justify="right")
    for label in labels:
        grid.add_column(Text(label), justify="right")
    for index, (label, row) in enumerate(zip(labels, matrix.counts, strict=False)):
        styles = [
            "bold cyan" if index == column else "red" for column in range(len(row))
        ]
        cells = [
            Text(f"{count:,}", style) if count else Text("·", "dim")
            for count, style in zip(row, styles, strict=True)
        ]
        grid.add_row(Text(label), *cells)
    return grid


def _errors(matrix: Matrix) -> RenderableType:
    """Return accuracy and frequent errors, in place of a matrix that is too wide."""
    total = sum(map(sum, matrix.counts))
    right = sum(row[i] for i, row in enumerate(matrix.counts))
    share = percent(right / total) if total else "none"
    head = Text(f"{right:,} of {total:,} correct ({share}); most frequent errors:")
    wrong = [
        (count, row, column)
        for row, counts in enumerate(matrix.counts)
        for column, count in enumerate(counts)
        if count and row != column
    ]
    grid = Grid.grid(padding=(0, 2))
    for count, row, column in sorted(wrong, key=lambda cell: -cell[0])[:MAX_LISTED]:
        true, guess = one_line(matrix.labels[row]), one_line(matrix.labels[column])
        grid.add_row(Text(f"{count:,}", "red"), Text(f"{true} predicted as {guess}"))
    return Group(head, Padding(grid, (0, 0, 0, 2)))


def rich_tree(tree: Tree) -> Outline:
    """Return a rich tree with all nodes expanded."""
    root = Outline("", hide_root=True, guide_style="dim")
    for node in tree.nodes:
        _grow(root, node)
    return root


def _grow(above: Outline, node: Node) -> None:
    line = Text(one_line(node.title))
    if node.value:
        line.append(f"  {one_line(node.value)}", "bold")
    if node.detail:
        line.append(f"  {one_line(node.detail)}", "dim")
    here = above.add(line)
    for child in node.children:
        _grow(here, child)
