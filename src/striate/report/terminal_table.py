"""Lay out a table for a terminal: drop bars, hide columns, wrap words, or list."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions
from rich.segment import Segment
from rich.style import Style

from striate.core.findings import Cell, Table
from striate.report.axis_ticks import is_drawable
from striate.report.format import NUMERIC, cell_text, one_line

BAR_WIDTH = 8  # characters of the bar of 100 %
GAP = 2  # spaces between two columns
_SHARE = Style(color="cyan")

PaddedCell = tuple[str, str, str]  # text before the bar, the bar, text after it


@dataclass(frozen=True)
class TableLines:
    """The lines of a table, printed 50 times faster than a rich table."""

    rows: Sequence[Sequence[PaddedCell]]
    styles: Sequence[Style]

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[Segment]:
        """Yield the rich segments of each line."""
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


def table_lines(table: Table, width: int) -> tuple[TableLines, str]:
    """Return the lines of a table at a width, and its note with the hidden columns.

    Bars are dropped first, then the columns of the highest rank. Then cells wrap
    between words. If a line of whole words is still too long, each row is a list.
    """
    texts = [_texts(table, i) for i in range(len(table.columns))]
    widths = [_natural_width(table, i, text) for i, text in enumerate(texts)]
    if sum(widths) > width:
        table = _without_bars(table)
        widths = [_natural_width(table, i, text) for i, text in enumerate(texts)]
    visible = _visible_columns(table, widths, width)
    hidden = [c.title for i, c in enumerate(table.columns) if i not in visible]
    note = f"Hidden columns (terminal too narrow): {', '.join(hidden)}.\n"
    note = note * bool(hidden) + table.note
    if sum(widths[i] for i in visible) <= width:
        return _lines(table, visible, widths, texts), note
    words = [_longest_word(table, i, text) + GAP for i, text in enumerate(texts)]
    if sum(words[i] for i in visible) <= width:
        narrow = _narrow_widths([widths[i] for i in visible], words, visible, width)
        return _wrapped(table, visible, narrow, texts), note
    return _listed(table, visible, texts), note


def _rows(table: Table) -> list[tuple[Cell, ...]]:
    return [*table.rows, *([table.totals] if table.totals is not None else [])]


def _texts(table: Table, i: int) -> list[str]:
    """Return the formatted cells of a column; the totals cell is last."""
    kind = table.columns[i].kind
    cells = [row[i] if i < len(row) else None for row in _rows(table)]
    names = {cell: one_line(cell) for cell in cells if isinstance(cell, str)}
    return [
        names[cell] if isinstance(cell, str) else cell_text(cell, kind)
        for cell in cells
    ]


def _without_bars(table: Table) -> Table:
    columns = (
        replace(column, kind="percent") if column.kind == "share" else column
        for column in table.columns
    )
    return replace(table, columns=tuple(columns))


def _natural_width(table: Table, i: int, texts: Sequence[str]) -> int:
    column = table.columns[i]
    bar = BAR_WIDTH + 1 if column.kind == "share" else 0
    widest = max((cell_len(text) + bar * bool(text) for text in set(texts)), default=0)
    return max(widest, cell_len(one_line(column.title))) + GAP


def _longest_word(table: Table, i: int, texts: Sequence[str]) -> int:
    """Return the width of the longest word of a column; a number is one word."""
    column = table.columns[i]
    words = _words(one_line(column.title))
    for text in set(texts):
        words += [text] if column.kind in NUMERIC else _words(text)
    return max(map(cell_len, words), default=0)


def _words(text: str) -> list[str]:
    return text.split(" ")  # a no-break space joins a number and its unit


def _visible_columns(table: Table, widths: Sequence[int], width: int) -> list[int]:
    """Return the indices of columns that fit; hide the columns of highest `rank`."""
    visible = list(range(len(widths)))
    while sum(widths[i] for i in visible) > width:
        last = max(visible, key=lambda i: table.columns[i].rank)
        if not table.columns[last].rank:
            break
        visible.remove(last)
    return visible


def _narrow_widths(
    widths: list[int], words: Sequence[int], visible: Sequence[int], width: int
) -> dict[int, int]:
    """Return the column widths of a table that wraps; the widest column gives most."""
    least = [words[i] for i in visible]
    for _ in range(sum(widths) - width):
        shrinkable = [i for i in range(len(widths)) if widths[i] > least[i]]
        widths[max(shrinkable, key=lambda i: widths[i])] -= 1
    return dict(zip(visible, widths, strict=True))


def _pad(table: Table, i: int, width: int, texts: Sequence[str]) -> list[PaddedCell]:
    """Pad the title and the cells of a column to the column width."""
    column = table.columns[i]
    rows = [(), *_rows(table)]
    bars = [""] * len(rows)
    if column.kind == "share":
        bars = [_bar(row[i]) if i < len(row) else "" for row in rows]
    pairs = zip([one_line(column.title), *texts], bars, strict=True)
    right = column.kind in NUMERIC
    return [_padded(text, bar, width - GAP, right=right) for text, bar in pairs]


def _padded(text: str, bar: str, width: int, *, right: bool) -> PaddedCell:
    blank, gap = " " * (width - cell_len(text) - len(bar)), " " * GAP
    return (blank, bar, text + gap) if right else ("", bar, text + blank + gap)


def _bar(cell: Cell) -> str:
    """Return the bar that shows a fraction; empty if the cell is not a number."""
    if not isinstance(cell, int | float):
        return ""
    filled = round(BAR_WIDTH * min(1.0, max(0.0, cell))) if is_drawable(cell) else 0
    return f"{'█' * filled:<{BAR_WIDTH}} "


def _styles(table: Table) -> list[Style]:
    """Return the styles of the header, the rows and the totals."""
    totals = [Style(bold=True)] if table.totals is not None else []
    return [Style(dim=True), *[Style.null()] * len(table.rows), *totals]


def _lines(
    table: Table, visible: Sequence[int], widths: list[int], texts: list[list[str]]
) -> TableLines:
    columns = [_pad(table, i, widths[i], texts[i]) for i in visible]
    return TableLines(list(zip(*columns, strict=True)), _styles(table))


def _wrapped(
    table: Table,
    visible: Sequence[int],
    widths: dict[int, int],
    texts: list[list[str]],
) -> TableLines:
    """Return a table whose cells wrap between words, never inside of a word."""
    rows, styles = [], []
    for number, style in enumerate(_styles(table)):
        cells = []
        for i in visible:
            column = table.columns[i]
            text = texts[i][number - 1] if number else one_line(column.title)
            whole = bool(number) and column.kind in NUMERIC
            cells.append([text] if whole else _wrap(text, widths[i] - GAP))
        height = max(map(len, cells), default=0)
        for line in range(height):
            row = []
            for i, parts in zip(visible, cells, strict=True):
                text = parts[line] if line < len(parts) else ""
                right = table.columns[i].kind in NUMERIC
                row.append(_padded(text, "", widths[i] - GAP, right=right))
            rows.append(row)
            styles.append(style)
    return TableLines(rows, styles)


def _wrap(text: str, width: int) -> list[str]:
    """Break a text between words into lines of at most `width` terminal cells.

    Example:
        >>> _wrap("a network with skip connections", 12)
        ['a network', 'with skip', 'connections']
    """
    lines: list[str] = []
    for word in _words(text):
        if lines and cell_len(lines[-1]) + 1 + cell_len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _listed(table: Table, visible: Sequence[int], texts: list[list[str]]) -> TableLines:
    """Return one line per cell, with the column title, where no line can hold a row."""
    titles = [one_line(table.columns[i].title) for i in visible]
    room = max(map(cell_len, titles), default=0)
    rows: list[list[PaddedCell]] = []
    styles: list[Style] = []
    for number, style in enumerate(_styles(table)[1:]):
        for i, title in zip(visible, titles, strict=True):
            if text := texts[i][number]:
                rows.append([_padded(title, "", room, right=False), ("", "", text)])
                styles.append(style)
        rows.append([])
        styles.append(style)
    return TableLines(rows[:-1], styles[:-1])
