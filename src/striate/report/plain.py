"""Findings for programs: tables as records, for JSON and CSV."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from striate.core.findings import Block, Cell, Column, Figures, Prose, Table


def records(table: Table) -> list[dict[str, Cell]]:
    """Return a table's rows as mappings, under the columns' keys.

    Example:
        >>> columns = (Column(title="Param #", key="parameters", kind="integer"),)
        >>> records(Table(columns=columns, rows=((56,),)))
        [{'parameters': 56}]
    """
    return [record(table, row) for row in table.rows]


def record(table: Table, row: Iterable[Cell]) -> dict[str, Cell]:
    """Return one row as a mapping."""
    return dict(zip(keys(table), row, strict=False))


def keys(table: Table) -> list[str]:
    """Return what programs call the columns."""
    return [_key(column) for column in table.columns]


def _key(column: Column) -> str:
    spelt = re.sub(r"[^a-z0-9]+", "_", column.title.lower()).strip("_")
    return column.key or spelt or "column"


def as_data(blocks: Iterable[Block]) -> list[dict[str, Any]]:
    """Return figures, tables and prose as JSON values, in order.

    Example:
        >>> as_data([Prose(text="All well.", tone="good")])
        [{'text': 'All well.', 'tone': 'good'}]
    """
    found: list[dict[str, Any]] = []
    for block in blocks:
        match block:
            case Prose():
                found.append({"text": block.text, "tone": block.tone})
            case Figures():
                found += [{f.label: f.value, "detail": f.detail} for f in block.figures]
            case Table():
                found.append(_table(block))
    return found


def _table(table: Table) -> dict[str, Any]:
    made: dict[str, Any] = {"title": table.title, "rows": records(table)}
    if table.totals is not None:
        made["totals"] = record(table, table.totals)
    return made
