"""Render a table as HTML, with bars in percentage columns and column hints below."""

from __future__ import annotations

import math
from itertools import zip_longest

from striate.core.findings import Cell, Column, Table
from striate.report.format import NUMERIC, cell_text
from striate.report.markup import (
    Html,
    bdi,
    command_html,
    escape,
    join,
    note,
    tag,
    text_html,
)


def table_html(table: Table) -> Html:
    """Return the HTML of a table in a scrollable box, with hints and note below.

    Example:
        >>> macs = Column(title="share", kind="share", hint="of all multiply-adds")
        >>> html = table_html(Table(columns=(macs,), rows=((0.25,), (None,))))
        >>> "25.0 %" in html, "of all multiply-adds" in html
        (True, True)
    """
    heads = tag("tr", *[_head(column) for column in table.columns])
    rows = zip_longest(table.rows, table.row_ids[: len(table.rows)])
    body = tag("tbody", *[_row(row, table.columns, id_) for row, id_ in rows])
    parts = [tag("thead", heads), body]
    if table.totals is not None:
        parts.append(tag("tfoot", _row(table.totals, table.columns)))
    if table.title:
        parts.insert(0, tag("caption", escape(table.title)))
    grid = tag("table", *parts, class_="sheet")
    # A box that scrolls must be reachable by keyboard, and therefore needs a name.
    label = table.title or "table"
    box = tag("div", grid, class_="scroll", tabindex=0, role="region", aria_label=label)
    return tag("div", box, _hints(table.columns), note(table.note), class_="block")


def _head(column: Column) -> Html:
    side = "n" if column.kind in NUMERIC else None
    title = column.hint or None
    return tag("th", escape(column.title), scope="col", class_=side, title=title)


def _row(
    row: tuple[Cell, ...], columns: tuple[Column, ...], row_id: str | None = None
) -> Html:
    cells = zip(row, columns, strict=False)
    return tag("tr", *[_cell(cell, column.kind) for cell, column in cells], id=row_id)


def _cell(cell: Cell, kind: str) -> Html:
    text = cell_text(cell, kind)
    if kind == "code":
        return tag("td", tag("code", escape(text)) if text else Html(""))
    if kind == "command":
        return tag("td", command_html(text) if text else Html(""))
    if kind == "share" and isinstance(cell, int | float):
        width = min(1.0, max(0.0, cell)) if math.isfinite(cell) else 0.0
        bar = tag("i", class_="bar", style=f"--v:{width:.4f}", aria_hidden="true")
        return tag("td", bar, tag("span", escape(text)), class_="n share")
    if kind in NUMERIC:
        return tag("td", escape(text), class_="n")
    return tag("td", bdi(text) if text else Html(""))


def _hints(columns: tuple[Column, ...]) -> Html:
    """Return the column hints as a list, because touch screens have no tooltips."""
    hinted = [column for column in columns if column.hint]
    if not hinted:
        return Html("")
    pairs = join(
        tag("div", tag("dt", escape(column.title)), tag("dd", text_html(column.hint)))
        for column in hinted
    )
    return tag("dl", pairs, class_="hints")
