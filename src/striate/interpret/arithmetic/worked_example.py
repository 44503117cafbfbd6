"""Worked example of one output value of a convolution: window × filter and sum."""

from __future__ import annotations

import numpy as np

from striate.core.findings import Cell, Column, Table
from striate.core.format import count_text
from striate.interpret.arithmetic.unit_arithmetic import UnitArithmetic
from striate.interpret.arithmetic.unit_value import UnitValue

CHANNELS = 3  # input channels with the largest contribution; the others are added up
CONVOLUTION = "convolution"


def nearest_convolution(
    arithmetic: UnitArithmetic, entry: UnitValue
) -> UnitValue | None:
    """Follow the largest terms to the nearest convolution and return its value.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Conv2d(1, 1, 2), nn.ReLU(), nn.MaxPool2d(2))
        >>> _ = nn.init.ones_(model[0].weight)
        >>> arithmetic = UnitArithmetic(model, torch.ones(1, 1, 3, 3))
        >>> nearest_convolution(arithmetic, arithmetic.open("2", (0, 0, 0))).operation
        'convolution'
    """
    while entry.operation != CONVOLUTION:
        largest = arithmetic.largest(entry)
        if not largest:
            return None
        term, number = largest[0]
        entry = arithmetic.follow(entry, term, number)
    return entry


def worked_example(arithmetic: UnitArithmetic, entry: UnitValue) -> Table | None:
    """Return the sum of a convolution as a table with one row per row of the window.

    Padding cells of the window are zero and left out.

    For the input channels with the largest contribution, one line per row: input
    values, filter weights, and the sum of their products. None if the value is not
    the output of a two-dimensional convolution.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> edge = nn.Conv2d(1, 1, 3, bias=False)
        >>> _ = edge.weight.data.copy_(torch.tensor([[1.0, 0, -1]] * 3))
        >>> step = torch.tensor([10.0, 10, 0]).expand(1, 1, 3, 3)
        >>> arithmetic = UnitArithmetic(nn.Sequential(edge), step)
        >>> table = worked_example(arithmetic, arithmetic.open("0", (0, 0, 0)))
        >>> table.rows[0]
        ('0, row 0', 10.0, 10.0, 0.0, 1.0, 0.0, -1.0, 10.0)
        >>> table.totals[-1]
        30.0
    """
    terms = entry.terms[0] if entry.terms else None
    if entry.operation != CONVOLUTION or terms is None or not len(terms.positions):
        return None
    shape = tuple(arithmetic.trace.value(terms.ref).shape)
    if len(shape) != 4:
        return None
    _, channels, rows, columns = np.unravel_index(terms.positions, shape)
    sides = tuple(len(np.unique(axis)) for axis in (channels, rows, columns))
    x, w = terms.values.reshape(sides), terms.weights.reshape(sides)
    row_sums = (x * w).sum(2)
    names = channels.reshape(sides)[:, 0, 0], rows.reshape(sides)[0, :, 0]
    largest_channels = np.argsort(-np.abs(row_sums.sum(1)), kind="stable")[:CHANNELS]
    rows_out: list[tuple[Cell, ...]] = []
    for c in largest_channels:
        for r in range(sides[1]):
            numbers = *x[c, r].tolist(), *w[c, r].tolist(), float(row_sums[c, r])
            rows_out.append((f"{names[0][c]}, row {names[1][r]}", *numbers))
    empty: tuple[Cell, ...] = (None,) * (2 * sides[2])
    if rest := sides[0] - len(largest_channels):
        others = float(row_sums.sum() - row_sums[largest_channels].sum())
        rows_out.append((count_text(rest, "other channel"), *empty, others))
    if entry.constant:
        rows_out.append(("bias", *empty, entry.constant))
    unit = f"{arithmetic.name(entry.ref)} {list(entry.unit[1:])}"
    return Table(
        title=f"{unit}: the sum in numbers",
        columns=_columns([int(c) for c in columns.reshape(sides)[0, 0]]),
        rows=tuple(rows_out),
        totals=("value", *empty, entry.value),
        note=f"Each line is one row of the window on {arithmetic.name(terms.ref)}: "
        "its values (x), the weights of the filter (w), and the sum of the products "
        "x·w.",
    )


def _columns(places: list[int]) -> tuple[Column, ...]:
    window = [Column(f"x[{p}]", "number", key=f"at_{p}") for p in places]
    cells = range(len(places))
    kernel = [Column(f"w[{i}]", "number", key=f"w_{i}") for i in cells]
    first = Column("Channel")
    return (first, *window, *kernel, Column("Σ x·w", "number", key="adds"))
