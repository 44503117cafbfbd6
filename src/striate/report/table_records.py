"""Convert tables and trees to plain values, for JSON and CSV."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from striate.core.findings import Cell, Node, Table, Tree


def records(table: Table) -> list[dict[str, Cell]]:
    """Return the rows of a table as dicts with column keys.

    Example:
        >>> from striate.core.findings import Column
        >>> columns = (Column(title="Param #", key="parameters", kind="integer"),)
        >>> records(Table(columns=columns, rows=((56,),)))
        [{'parameters': 56}]
    """
    return [row_dict(table, row) for row in table.rows]


def row_dict(table: Table, row: Iterable[Cell]) -> dict[str, Cell]:
    """Return one row of a table as a dict with column keys."""
    return dict(zip(column_keys(table), row, strict=False))


def column_keys(table: Table) -> list[str]:
    """Return the column keys of a table; the default key is the title."""
    titles = [re.sub(r"[^a-z0-9]+", "_", c.title.lower()) for c in table.columns]
    pairs = zip(table.columns, titles, strict=True)
    return [column.key or title.strip("_") or "column" for column, title in pairs]


def table_dict(table: Table) -> dict[str, Any]:
    """Return a table as JSON values: title, rows, and totals if present.

    Example:
        >>> from striate.core.findings import Column, Table
        >>> table_dict(Table(columns=(Column(title="Output"),), rows=(("a",),)))
        {'title': '', 'rows': [{'output': 'a'}]}
    """
    values: dict[str, Any] = {"title": table.title, "rows": records(table)}
    if table.totals is not None:
        values["totals"] = row_dict(table, table.totals)
    return values


def tree_dicts(tree: Tree) -> list[dict[str, Any]]:
    """Return the nodes of a tree as nested dicts.

    Example:
        >>> tree_dicts(Tree(nodes=(Node(title="a", value="2"),)))
        [{'title': 'a', 'value': '2', 'detail': '', 'children': []}]
    """
    return [_node(node) for node in tree.nodes]


def _node(node: Node) -> dict[str, Any]:
    children = [_node(child) for child in node.children]
    values = {"title": node.title, "value": node.value, "detail": node.detail}
    return {**values, "children": children}
