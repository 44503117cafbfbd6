"""Tree of a unit's arithmetic, from the unit to the pixels, largest terms first."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from striate.core.findings import Node, Tree
from striate.core.format import count_text
from striate.interpret.arithmetic.unit_arithmetic import UnitArithmetic
from striate.interpret.arithmetic.unit_value import (
    COPY,
    FUNCTION,
    IMAGE,
    SUM,
    UnitValue,
)

TERMS = 4  # terms of a sum that become branches; the others are added up
LINES = 160  # lines of a tree, at most


@dataclass
class _Line:
    """Line of the unfinished tree: value of a unit, text, weight and child lines."""

    entry: UnitValue
    term: str
    weight: float
    children: list[_Line] = field(default_factory=list)
    opened: bool = False


def arithmetic_tree(
    arithmetic: UnitArithmetic,
    name: str,
    unit: Sequence[int],
    labels: Sequence[str] = (),
    lines: int = LINES,
) -> Tree:
    """Expand a unit's value into a tree of terms, down to the pixels.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Conv2d(1, 1, 1))
        >>> arithmetic = UnitArithmetic(model, torch.ones(1, 1, 1, 1))
        >>> tree = arithmetic_tree(arithmetic, "0", (0, 0, 0))
        >>> tree.nodes[0].title, tree.nodes[0].children[0].title
        ('0 [0, 0, 0]', 'image [0, 0, 0]')
    """
    root = _Line(arithmetic.open(name, unit), "", 1.0)
    queue: list[tuple[float, int, _Line]] = [(-1.0, 0, root)]
    count = 0
    while queue and count < lines:
        _, _, line = heapq.heappop(queue)
        line.opened = True
        for child in _terms(arithmetic, line):
            count += 1
            line.children.append(child)
            heapq.heappush(queue, (-child.weight, count, child))
    node = _node(arithmetic, root, tuple(labels), depth=0)
    return Tree(nodes=(node,), note=_NOTE)


_NOTE = (
    "Each value was computed by the network; the lines below it add up to it. Open the "
    "largest terms, down to single pixels. Steps that only copy values are left out."
)


def _terms(arithmetic: UnitArithmetic, line: _Line) -> list[_Line]:
    entry = line.entry
    sizes = [float(np.abs(terms.contributions).sum()) for terms in entry.terms]
    total = sum(sizes) or 1.0
    lines = []
    for term_index, number in arithmetic.largest(entry, TERMS):
        terms = entry.terms[term_index]
        product = float(terms.contributions[number])
        if not product and entry.kind == SUM:
            continue
        term = ""
        if entry.kind == SUM:
            value, factor = float(terms.values[number]), float(terms.weights[number])
            term = f"{_text(value)} × {_text(factor)} = {_text(product)}"
        source = arithmetic.follow(entry, term_index, number)
        # Skip steps that only copy a value, such as views and flattening.
        while source.kind == COPY and [list(t.weights) for t in source.terms] == [
            [1.0]
        ]:
            source = arithmetic.follow(source, 0, 0)
        lines.append(_Line(source, term, line.weight * abs(product) / total))
    return lines


def _node(
    arithmetic: UnitArithmetic, line: _Line, labels: tuple[str, ...], depth: int
) -> Node:
    entry = line.entry
    children = [_node(arithmetic, child, labels, depth + 1) for child in line.children]
    if line.opened and entry.kind == SUM:
        children += _remaining_terms(entry, line)
    position = list(entry.unit[1:])
    title = f"{arithmetic.name(entry.ref)} {position}"
    if labels and entry.ref == arithmetic.trace.output and len(position) == 1:
        title += f" (class {labels[position[0]]})"
    description = [] if entry.kind == IMAGE else [_description(entry)]
    return Node(
        title=title,
        value=_text(entry.value),
        detail=" · ".join([line.term] * bool(line.term) + description),
        children=tuple(children),
        opened=depth < 2,
    )


def _description(entry: UnitValue) -> str:
    if entry.kind == FUNCTION:
        return f"{entry.operation} of the values below"
    if entry.kind != SUM:
        return entry.operation
    count = sum(len(terms.positions) for terms in entry.terms)
    terms = count_text(count, "term")
    constant = f" + constant {_text(entry.constant)}" if entry.constant else ""
    return f"{entry.operation}: {terms}{constant}"


def _remaining_terms(entry: UnitValue, line: _Line) -> list[Node]:
    """Return tree nodes for the sum of all terms not shown, and for the constant."""
    products = np.concatenate([np.zeros(0), *(t.contributions for t in entry.terms)])
    order = np.argsort(-np.abs(products), kind="stable")
    rest = products[order[len(line.children) :]]
    nodes = []
    if np.any(rest):
        detail = f"sum of {count_text(int(np.count_nonzero(rest)), 'smaller term')}"
        nodes.append(Node(title="other terms", value=_text(rest.sum()), detail=detail))
    if entry.constant:
        names = {"convolution": "bias", "linear": "bias", "batch norm": "shift"}
        title = names.get(entry.operation, "constant")
        nodes.append(Node(title=title, value=_text(entry.constant)))
    return nodes


def _text(value: float) -> str:
    return f"{value:.4g}".replace("-", "−")
