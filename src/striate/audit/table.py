"""A trace as a table."""

from __future__ import annotations

from collections.abc import Sequence

from striate.audit.trace import Layer
from striate.core.findings import Column, Table

COLUMNS = (
    Column(title="layer", kind="code"),
    Column(title="type"),
    Column(title="output", kind="code", hint="height×width×channels of one picture"),
    Column(title="parameters", kind="integer"),
    Column(title="share", kind="share", hint="of all parameters"),
)


def layer_table(layers: Sequence[Layer]) -> Table:
    """Return one row a layer and a row of totals.

    Example:
        >>> row = Layer(name="c", kind="Conv2d", output=(6, 24, 24), parameters=156,
        ...             trainable=156)
        >>> layer_table([row]).rows
        (('c', 'Conv2d', '24×24×6', 156, 1.0),)
    """
    total = sum(layer.parameters for layer in layers)
    rows = tuple(
        (
            layer.name,
            layer.kind,
            shape_text(layer.output),
            layer.parameters or None,
            layer.parameters / total if layer.parameters else None,
        )
        for layer in layers
    )
    totals = ("total", f"{len(layers)} layers", None, total, None)
    return Table(columns=COLUMNS, rows=rows, totals=totals)


def shape_text(shape: tuple[int, ...]) -> str:
    """Write a (channels, height, width) shape as height×width×channels.

    Example:
        >>> shape_text((25, 28, 14)), shape_text((2450,))
        ('28×14×25', '2450')
    """
    ordered = (*shape[1:], shape[0]) if len(shape) == 3 else shape
    return "×".join(map(str, ordered))
