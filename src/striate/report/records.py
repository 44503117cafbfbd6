"""Findings for programs: tables as records, for JSON and CSV."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from striate.core.findings import Cell, Column, Node, Table, Tree


def records(table: Table) -> list[dict[str, Cell]]:
    """Return a table's rows as mappings, under the columns' keys.

    Example:
        >>> columns = (Column(title="Param #", key="parameters", kind="integer"),)
        >>> records(Table(columns=columns, rows=((56,),)))
        [{'parameters': 56}]
    """
    return [row_dict(table, row) for row in table.rows]


def row_dict(table: Table, row: Iterable[Cell]) -> dict[str, Cell]:
    """Return one row as a mapping."""
    return dict(zip(column_keys(table), row, strict=False))


def column_keys(table: Table) -> list[str]:
    """Return what programs call the columns."""
    return [_key(column) for column in table.columns]


def _key(column: Column) -> str:
    spelt = re.sub(r"[^a-z0-9]+", "_", column.title.lower()).strip("_")
    return column.key or spelt or "column"


def table_dict(table: Table) -> dict[str, Any]:
    """Return a table as JSON values: title, rows, and totals where it has them.

    Example:
        >>> table_dict(Table(columns=(Column(title="Output"),), rows=(("a",),)))
        {'title': '', 'rows': [{'output': 'a'}]}
    """
    made: dict[str, Any] = {"title": table.title, "rows": records(table)}
    if table.totals is not None:
        made["totals"] = row_dict(table, table.totals)
    return made


def tree_dicts(tree: Tree) -> list[dict[str, Any]]:
    """Return a tree's lines as nested mappings.

    Example:
        >>> tree_dicts(Tree(nodes=(Node(title="a", value="2"),)))
        [{'title': 'a', 'value': '2', 'detail': '', 'of': []}]
    """
    return [_node(one) for one in tree.nodes]


def _node(one: Node) -> dict[str, Any]:
    inner = [_node(child) for child in one.children]
    return {"title": one.title, "value": one.value, "detail": one.detail, "of": inner}
