"""A ledger as lines to open: the largest terms first, down to the pixels."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from striate.core.findings import Node, Tree
from striate.interpret.arithmetic.unit_arithmetic import UnitArithmetic
from striate.interpret.arithmetic.unit_value import (
    COPY,
    FUNCTION,
    IMAGE,
    SUM,
    UnitValue,
)

TERMS = 4  # of a sum, opened one by one; the others are added up
LINES = 160  # of a tree


@dataclass
class _Line:
    """A number on the way to becoming a node."""

    entry: UnitValue
    term: str
    weight: float
    inner: list[_Line] = field(default_factory=list)
    opened: bool = False


def arithmetic_tree(
    book: UnitArithmetic,
    name: str,
    unit: Sequence[int],
    labels: Sequence[str] = (),
    lines: int = LINES,
) -> Tree:
    """Open a number, then what weighs most in it, and so on to the pixels.

    Args:
        book: The ledger.
        name: A module's call, `output`, or `@` and a step's number.
        unit: (channel, row, column), or (number,).
        labels: Class names, for the output's numbers.
        lines: How many to open before stopping.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Conv2d(1, 1, 1))
        >>> book = UnitArithmetic(model, torch.ones(1, 1, 1, 1))
        >>> tree = arithmetic_tree(book, "0", (0, 0, 0))
        >>> tree.nodes[0].title, tree.nodes[0].children[0].title
        ('0 [0, 0, 0]', 'image [0, 0, 0]')
    """
    root = _Line(book.open(name, unit), "", 1.0)
    queue: list[tuple[float, int, _Line]] = [(-1.0, 0, root)]
    count = 0
    while queue and count < lines:
        _, _, line = heapq.heappop(queue)
        line.opened = True
        for inner in _terms(book, line):
            count += 1
            line.inner.append(inner)
            heapq.heappush(queue, (-inner.weight, count, inner))
    node = _node(book, root, tuple(labels), depth=0)
    return Tree(nodes=(node,), note=_NOTE)


_NOTE = (
    "Each number is what the network itself computed; the lines beneath it add up to "
    "it. The largest terms can be opened, in the end down to pixels; steps that only "
    "hand numbers on are passed over."
)


def _terms(book: UnitArithmetic, line: _Line) -> list[_Line]:
    entry = line.entry
    total = sum(float(np.abs(part.products).sum()) for part in entry.parts) or 1.0
    found = []
    for part, number in book.largest(entry, TERMS):
        one = entry.parts[part]
        product = float(one.products[number])
        if not product and entry.kind == SUM:
            continue
        term = ""
        if entry.kind == SUM:
            value, factor = float(one.values[number]), float(one.weights[number])
            term = f"{_text(value)} × {_text(factor)} = {_text(product)}"
        share = line.weight * abs(product) / total
        source = _source(book, book.follow(entry, part, number))
        found.append(_Line(source, term, share))
    return found


def _source(book: UnitArithmetic, entry: UnitValue) -> UnitValue:
    """Go back over steps that only hand a number on: views, copies, flattening."""
    while entry.kind == COPY and [part.weights.tolist() for part in entry.parts] == [
        [1.0]
    ]:
        entry = book.follow(entry, 0, 0)
    return entry


def _node(
    book: UnitArithmetic, line: _Line, labels: tuple[str, ...], depth: int
) -> Node:
    entry = line.entry
    children = [_node(book, inner, labels, depth + 1) for inner in line.inner]
    if line.opened and entry.kind == SUM:
        children += _others(entry, line)
    place = list(entry.unit[1:])
    title = f"{book.name(entry.ref)} {place}"
    if labels and entry.ref == book.tape.output and len(place) == 1:
        title = f"{book.name(entry.ref)} {place} (class {labels[place[0]]})"
    words = [line.term] if line.term else []
    if entry.kind != IMAGE:
        words.append(_how(entry))
    return Node(
        title=title,
        value=_text(entry.value),
        detail=" · ".join(words),
        children=tuple(children),
        opened=depth < 2,
    )


def _how(entry: UnitValue) -> str:
    count = sum(len(part.at) for part in entry.parts)
    if entry.kind != SUM:
        return f"{entry.how} of" if entry.kind == FUNCTION else entry.how
    terms = f"{count:,} terms" if count > 1 else "one term"
    constant = f" and {_text(entry.constant)}" if entry.constant else ""
    return f"{entry.how}: {terms}{constant}"


def _others(entry: UnitValue, line: _Line) -> list[Node]:
    """Return what the opened terms leave of a sum: the other terms, the constant."""
    shown = len(line.inner)
    products = np.concatenate([part.products for part in entry.parts] or [np.zeros(0)])
    order = np.argsort(-np.abs(products), kind="stable")
    rest = products[order[shown:]]
    nodes = []
    if len(rest) and np.any(rest):
        count = int(np.count_nonzero(rest))
        detail = f"{count:,} smaller terms together"
        nodes.append(Node(title="others", value=_text(rest.sum()), detail=detail))
    if entry.constant:
        what = "shift" if entry.how == "batch norm" else "bias"
        what = what if entry.how in ("convolution", "linear", "batch norm") else "plus"
        nodes.append(Node(title=what, value=_text(entry.constant)))
    return nodes


def _text(value: float) -> str:
    return f"{value:.4g}".replace("-", "−")
