"""Render a tree as HTML: nested `<details>` elements."""

from __future__ import annotations

from striate.core.findings import Node, Tree
from striate.report.markup import Html, bdi, escape, heading, note, tag


def tree_html(tree: Tree) -> Html:
    """Return the HTML of a tree as nested `<details>` elements, without JavaScript.

    Example:
        >>> tree_html(Tree(nodes=(Node(title="a", value="2"),)))[:26]
        '<div class="block"><ul cla'
    """
    lines = tag("ul", *[tag("li", _branch(node)) for node in tree.nodes], class_="tree")
    return tag("div", heading(tree.title), lines, note(tree.note), class_="block")


def _branch(node: Node) -> Html:
    words = [bdi(node.title)]
    if node.value:
        words.append(tag("output", escape(node.value)))
    if node.detail:
        words.append(tag("small", escape(node.detail)))
    if not node.children:
        return tag("div", *words)
    inner = [tag("li", _branch(child)) for child in node.children]
    head = tag("summary", *words)
    return tag("details", head, tag("ul", *inner), open=node.opened)
