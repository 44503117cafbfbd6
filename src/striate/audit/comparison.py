"""Two networks side by side: one question to both, and the second over the first."""

from __future__ import annotations

from collections.abc import Callable

from striate.audit.network import Audit
from striate.audit.table import last_field
from striate.core.findings import Cell, Column, Table
from striate.core.format import format_bytes

Ask = Callable[[Audit], int | None]

# What is asked, how it is written.
QUESTIONS: tuple[tuple[str, Ask, Callable[[int], str]], ...] = (
    ("parameters", lambda a: a.parameters, "{:,}".format),
    ("trainable", lambda a: a.trainable, "{:,}".format),
    ("multiply-adds", lambda a: a.macs, "{:,}".format),
    ("layers", lambda a: len(a.layers), "{:,}".format),
    ("activations, all", lambda a: sum(x.activation for x in a.layers), format_bytes),
    ("inference memory", lambda a: a.weights + a.peak, format_bytes),
    (
        "training memory",
        lambda a: None if a.memory is None else a.memory.peak,
        format_bytes,
    ),
)


def comparison(first: Audit, second: Audit, names: tuple[str, str]) -> Table:
    """Return the totals of two networks and their ratio.

    Example:
        >>> from torch import nn
        >>> from striate.audit.network import audit
        >>> wide = audit(nn.Sequential(nn.Conv2d(4, 8, 3)), (4, 8, 8))
        >>> grouped = audit(nn.Sequential(nn.Conv2d(4, 8, 3, groups=2)), (4, 8, 8))
        >>> comparison(wide, grouped, ("one", "two")).rows[2]
        ('multiply-adds', '10,368', '5,184', 0.5)
    """
    columns = (
        Column(title="", key="what"),
        Column(title=names[0], key="first", kind="number"),
        Column(title=names[1], key="second", kind="number"),
        Column(title="second : first", key="ratio", kind="ratio"),
    )
    rows: list[tuple[Cell, ...]] = []
    for what, ask, write in QUESTIONS:
        one, two = ask(first), ask(second)
        if one is None or two is None:
            continue
        rows.append((what, write(one), write(two), two / one if one else None))
    fields = [last_field(audit) for audit in (first, second)]
    rows.append(("receptive field", *fields, None))
    return Table(columns=columns, rows=tuple(rows), title="Side by side")
