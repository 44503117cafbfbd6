"""Findings in a terminal, by rich; names are never read as markup."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.padding import Padding
from rich.segment import Segment
from rich.style import Style
from rich.table import Table as Grid
from rich.text import Text

from striate.core.findings import (
    Block,
    Cell,
    Curve,
    Figures,
    Images,
    Matrix,
    Prose,
    Series,
    Table,
    Tree,
)
from striate.report.axis_ticks import fit_axis, is_drawable
from striate.report.format import (
    NUMERIC,
    cell_text,
    count_text,
    one_line,
    percent,
    printable,
    shorten,
    value_text,
)
from striate.report.html_tree import rich_tree

TONES = {"good": "green", "warning": "yellow", "bad": "red", "advice": "cyan"}
MARKS = {"good": "✓", "warning": "!", "bad": "✗", "advice": "→"}
LEVELS = "▁▂▃▄▅▆▇█"
SPARKS = 40  # signs in a sparkline: half of the narrowest common terminal
NAMED = 12  # captions or errors listed before "and more"
BAR = 8  # signs in the bar of a whole share
_SHARE = Style(color="cyan")


def print_blocks(blocks: Iterable[Block], console: Console) -> None:
    """Print blocks one below another.

    Example:
        >>> console = Console(width=60)
        >>> print_blocks([Prose(text="[bold]12[/bold] images")], console)
        [bold]12[/bold] images
        <BLANKLINE>
    """
    for block in blocks:
        # Paths and tables must not be broken, sentences must.
        soft = False if isinstance(block, Prose) else None
        console.print(_block(block, console.width), soft_wrap=soft)
        console.print()


def blocks_text(blocks: Iterable[Block], width: int = 100) -> str:
    """Return blocks as plain text, as `print` shows a result."""
    file = io.StringIO()
    print_blocks(
        blocks, Console(file=file, width=width, highlight=False, color_system=None)
    )
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


def _block(block: Block, width: int) -> RenderableType:
    match block:
        case Prose():
            return _prose(block)
        case Figures():
            return _figures(block)
        case Table():
            return _table(block, width)
        case Curve():
            return _curve(block, width)
        case Images():
            return _images(block)
        case Matrix():
            return _matrix(block, width)
        case Tree():
            return _framed(block.title, rich_tree(block), block.note)


def _prose(prose: Prose) -> RenderableType:
    if prose.tone not in TONES:
        return Text(printable(prose.text))
    style = TONES[prose.tone]
    grid = Grid.grid(padding=(0, 1))
    grid.add_row(
        Text(MARKS[prose.tone], f"bold {style}"), Text(printable(prose.text), style)
    )
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
        # Notes are wrapped, also where tables and paths are not.
        note = printable(note.strip())
        parts.append(Text(note, "dim", no_wrap=False, overflow="fold"))
    return Group(*parts)


def _table(table: Table, width: int) -> Group:
    texts = [_texts(table, i) for i in range(len(table.columns))]
    widths = [_natural_width(table, i, texts[i]) for i in range(len(texts))]
    kept = _fitting(table, widths, width)
    fits = sum(widths[i] for i in kept) <= width
    body = _lines(table, kept, widths, texts) if fits else _grid(table, kept)
    return _framed(table.title, body, "\n".join([*_left_out(table, kept), table.note]))


def _grid(table: Table, kept: Sequence[int]) -> Grid:
    """Let rich wrap the cells of a table that is wider than the terminal."""
    grid = Grid(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for i in kept:
        title = Text(one_line(table.columns[i].title))
        grid.add_column(title, justify="right" if _numeric(table, i) else "left")
    kinds = [column.kind for column in table.columns]
    for row in table.rows:
        grid.add_row(*_cells(row, kinds, kept))
    if table.totals is not None:
        grid.add_row(*_cells(table.totals, kinds, kept), style="bold")
    return grid


def _texts(table: Table, i: int) -> list[str]:
    """Write a column's cells, that of the totals last; each name is read once."""
    kind = table.columns[i].kind
    rows = [*table.rows, *([table.totals] if table.totals is not None else [])]
    cells = [row[i] if i < len(row) else None for row in rows]
    names = {cell: one_line(cell) for cell in cells if isinstance(cell, str)}
    return [
        names[cell] if isinstance(cell, str) else cell_text(cell, kind)
        for cell in cells
    ]


def _natural_width(table: Table, i: int, texts: Sequence[str]) -> int:
    column = table.columns[i]
    bar = BAR + 1 if column.kind == "share" else 0
    widest = max((cell_len(text) + bar * bool(text) for text in set(texts)), default=0)
    return max(widest, cell_len(column.title)) + 2


Cut = tuple[str, str, str]  # what stands before a cell's bar, the bar, what is behind


def _set(table: Table, i: int, width: int, texts: Sequence[str]) -> list[Cut]:
    """Pad a column's title and cells to its width."""
    column = table.columns[i]
    rows = [(), *table.rows, *([table.totals] if table.totals is not None else [])]
    bars = [""] * len(rows)
    if column.kind == "share":
        bars = [_bar(row[i]) if i < len(row) else "" for row in rows]
    right, made = column.kind in NUMERIC, []
    for text, bar in zip([one_line(column.title), *texts], bars, strict=True):
        blank = " " * (width - 2 - cell_len(text) - len(bar))
        cut = (blank, bar, f"{text}  ") if right else ("", bar, f"{text}{blank}  ")
        made.append(cut)
    return made


def _bar(cell: Cell) -> str:
    """Draw a share; a cell that holds none has no bar."""
    if not isinstance(cell, int | float):
        return ""
    filled = round(BAR * min(1.0, max(0.0, cell))) if is_drawable(cell) else 0
    return f"{'█' * filled:<{BAR}} "


@dataclass(frozen=True)
class _Lines:
    """A table that fits, set line by line: hundreds of rows, fifty times sooner."""

    rows: Sequence[Sequence[Cut]]
    styles: Sequence[Style]

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[Segment]:
        """Yield each row's runs of one style."""
        for cells, style in zip(self.rows, self.styles, strict=True):
            run = ""
            for before, bar, after in cells:
                run += before
                if bar:
                    yield Segment(run, style)
                    yield Segment(bar, style + _SHARE)
                    run = ""
                run += after
            yield Segment(run, style)
            yield Segment.line()


def _lines(
    table: Table, kept: Sequence[int], widths: Sequence[int], texts: Sequence[list[str]]
) -> _Lines:
    columns = [_set(table, i, widths[i], texts[i]) for i in kept]
    totals = [Style(bold=True)] if table.totals is not None else []
    plain = [Style.null()] * len(table.rows)
    rows = list(zip(*columns, strict=True))
    return _Lines(rows, [Style(dim=True), *plain, *totals])


def _numeric(table: Table, i: int) -> bool:
    return table.columns[i].kind in NUMERIC


def _fitting(table: Table, widths: Sequence[int], width: int) -> list[int]:
    """Return the columns that fit side by side; the highest ranks go first."""
    kept = list(range(len(widths)))
    while sum(widths[i] for i in kept) > width:
        last = max(kept, key=lambda i: table.columns[i].rank)
        if not table.columns[last].rank:
            break
        kept.remove(last)
    return kept


def _left_out(table: Table, kept: Sequence[int]) -> list[str]:
    missing = [c.title for i, c in enumerate(table.columns) if i not in kept]
    return [f"No room for: {', '.join(missing)}."] if missing else []


def _cells(
    row: Sequence[Cell], kinds: Sequence[str], kept: Sequence[int]
) -> list[Text]:
    return [_cell(row[i], kinds[i]) for i in kept if i < len(row)]


def _cell(cell: Cell, kind: str) -> Text:
    words = Text(one_line(cell_text(cell, kind)))
    bar = _bar(cell) if kind == "share" else ""
    return Text.assemble((bar, _SHARE), words) if bar else words


def _curve(curve: Curve, width: int) -> Group:
    grid = Grid.grid(padding=(0, 2))
    room = max(8, min(SPARKS, width - 40))
    for series in curve.series:
        name = Text(shorten(one_line(series.name), 16))
        line = Text(sparkline(series, room, log=curve.log_y), "cyan")
        grid.add_row(name, line, Text(_ends(series, curve.percent_y), "dim"))
    axes = f"{one_line(curve.y_label)} over {one_line(curve.x_label)}"
    title = curve.title or axes
    return _framed(title, grid, curve.note)


def _ends(series: Series, share: bool) -> str:
    finite = [y for y in series.y if is_drawable(y)]
    if not finite:
        return "no values"
    return f"{value_text(finite[0], share)} → {value_text(finite[-1], share)}"


def sparkline(series: Series, room: int = SPARKS, *, log: bool = False) -> str:
    """Draw a line in block characters; a space is a value without a place.

    Example:
        >>> sparkline(Series(name="", x=(1, 2, 3), y=(0.0, 0.5, 1.0)))
        '▁▅█'
    """
    heights = list(series.y)
    if len(heights) > room:  # the last value of each stretch, so that the end is true
        heights = [heights[(i + 1) * len(heights) // room - 1] for i in range(room)]
    kept = [y for y in heights if is_drawable(y, log)]
    if not kept:
        return ""
    if min(kept) == max(kept):
        return "".join(LEVELS[3] if is_drawable(y, log) else " " for y in heights)
    scale = fit_axis(kept, log=log)
    low, high = scale.place(min(kept)), scale.place(max(kept))
    places = [scale.place(y) if is_drawable(y, log) else None for y in heights]
    return "".join(_level(place, low, high) for place in places)


def _level(place: float | None, low: float, high: float) -> str:
    if place is None:
        return " "
    share = (place - low) / (high - low) if high > low else 0.5
    return LEVELS[min(len(LEVELS) - 1, int(share * len(LEVELS)))]


def _images(images: Images) -> Group:
    named = [one_line(p.caption) for p in images.images if p.caption][:NAMED]
    more = len(images.images) - len(named)
    if named and more:
        named.append(f"and {more:,} more")
    said = count_text(len(images.images), "image")
    line = Text(f"{said}: {', '.join(named)}" if named else said)
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
        cells = [_count(count, index == column) for column, count in enumerate(row)]
        grid.add_row(Text(label), *cells)
    return grid


def _count(count: int, right: bool) -> Text:
    if not count:
        return Text("·", "dim")
    return Text(f"{count:,}", "bold cyan" if right else "red")


def _errors(matrix: Matrix) -> RenderableType:
    """A matrix wider than the terminal is told by its totals and worst cells."""
    total = sum(map(sum, matrix.counts))
    right = sum(row[i] for i, row in enumerate(matrix.counts))
    share = percent(right / total) if total else "none"
    head = Text(f"{right:,} of {total:,} right ({share}); most frequent errors:")
    wrong = [
        (count, row, column)
        for row, counts in enumerate(matrix.counts)
        for column, count in enumerate(counts)
        if count and row != column
    ]
    grid = Grid.grid(padding=(0, 2))
    for count, row, column in sorted(wrong, key=lambda cell: -cell[0])[:NAMED]:
        true, guess = one_line(matrix.labels[row]), one_line(matrix.labels[column])
        grid.add_row(Text(f"{count:,}", "red"), Text(f"{true} taken for {guess}"))
    return Group(head, Padding(grid, (0, 0, 0, 2)))
