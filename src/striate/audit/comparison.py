"""Compare two networks: parameters, MACs, memory, receptive field, and ratios."""

from __future__ import annotations

from collections.abc import Callable

from striate.audit.findings import last_field_text
from striate.audit.network import Audit
from striate.core.findings import Cell, Column, Table
from striate.core.format import format_bytes

Metric = Callable[[Audit], int | None]

# Name of the metric, how it is read from an audit, how it is written.
METRICS: tuple[tuple[str, Metric, Callable[[int], str]], ...] = (
    ("parameters", lambda a: a.parameters, "{:,}".format),
    ("trainable", lambda a: a.trainable, "{:,}".format),
    ("multiply-adds", lambda a: a.macs, "{:,}".format),
    ("layers", lambda a: len(a.layers), "{:,}".format),
    ("activations (sum)", lambda a: sum(x.activation for x in a.layers), format_bytes),
    ("inference memory", lambda a: a.weights + a.peak, format_bytes),
    (
        "training memory",
        lambda a: None if a.memory is None else a.memory.peak,
        format_bytes,
    ),
)


def comparison_table(first: Audit, second: Audit, names: tuple[str, str]) -> Table:
    """Return a table of the key figures of two networks, and the ratio of each figure.

    Example:
        >>> from torch import nn
        >>> from striate.audit.network import audit
        >>> wide = audit(nn.Sequential(nn.Conv2d(4, 8, 3)), (4, 8, 8))
        >>> grouped = audit(nn.Sequential(nn.Conv2d(4, 8, 3, groups=2)), (4, 8, 8))
        >>> comparison_table(wide, grouped, ("one", "two")).rows[2]
        ('multiply-adds', '10,368', '5,184', 0.5)
    """
    columns = (
        Column("Total", key="what"),
        Column(names[0], "number", key="first"),
        Column(names[1], "number", key="second"),
        Column("second / first", "ratio", key="ratio"),
    )
    rows: list[tuple[Cell, ...]] = []
    for name, metric, write in METRICS:
        value_a, value_b = metric(first), metric(second)
        if value_a is None or value_b is None:
            continue
        ratio = value_b / value_a if value_a else None
        rows.append((name, write(value_a), write(value_b), ratio))
    fields = [last_field_text(audit) for audit in (first, second)]
    rows.append(("receptive field", *fields, None))
    return Table(columns=columns, rows=tuple(rows), title="Side by side")
