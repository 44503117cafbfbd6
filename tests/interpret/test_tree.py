"""The tree of the ledger: lines add up, and lead to pixels."""

import re

import pytest
import torch

from striate.interpret.arithmetic.tree import arithmetic_tree
from striate.interpret.arithmetic.unit_arithmetic import UnitArithmetic
from support.foreign_networks import STRANGERS, stranger


def number(text):
    return float(text.replace("−", "-"))


def walk(node):
    yield node
    for child in node.children:
        yield from walk(child)


@pytest.mark.parametrize("kind", STRANGERS)
def test_tree_lines_add_up_and_reach_the_image(kind):
    model, x = stranger(kind), torch.randn(1, 3, 12, 12)
    book = UnitArithmetic(model, x)
    tree = arithmetic_tree(book, "output", (2,), labels=["a", "b", "c", "d"])
    top = tree.nodes[0]
    assert top.title.endswith("[2] (class c)")
    assert number(top.value) == pytest.approx(book.open("output", (2,)).value, rel=1e-3)
    nodes = list(walk(top))
    assert 20 < len(nodes) < 400
    assert any(node.title.startswith("image [") for node in nodes)
    sums = 0
    for node in nodes:
        terms = [re.search(r"= (\S+)", child.detail) for child in node.children]
        if not any(terms):
            continue
        total = sum(
            number(result[1]) if result else number(child.value)
            for result, child in zip(terms, node.children, strict=True)
        )
        largest = max(abs(number(child.value)) for child in node.children)
        assert total == pytest.approx(number(node.value), abs=2e-3 * (1 + largest))
        sums += 1
    assert sums > 5
