"""Lines that open: nested on a page, indented in a terminal."""

from __future__ import annotations

from rich.text import Text
from rich.tree import Tree as Outline

from striate.core.findings import Node, Tree
from striate.report.format import one_line
from striate.report.markup import Html, bdi, escape, tag


def tree_html(tree: Tree) -> Html:
    """Return a tree as nested `details`, which need no script.

    Example:
        >>> tree_html(Tree(nodes=(Node(title="a", value="2"),)))[:26]
        '<div class="block"><ul cla'
    """
    title = tag("h3", escape(one_line(tree.title))) if tree.title else Html("")
    note = tag("p", escape(tree.note), class_="note") if tree.note else Html("")
    lines = [tag("li", _branch(node)) for node in tree.nodes]
    return tag("div", title, tag("ul", *lines, class_="tree"), note, class_="block")


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


def rich_tree(tree: Tree) -> Outline:
    """Return a tree for a terminal, whole."""
    root = Outline("", hide_root=True, guide_style="dim")
    for node in tree.nodes:
        _grow(root, node)
    return root


def _grow(above: Outline, node: Node) -> None:
    line = Text(one_line(node.title))
    if node.value:
        line.append(f"  {one_line(node.value)}", "bold")
    if node.detail:
        line.append(f"  {one_line(node.detail)}", "dim")
    here = above.add(line)
    for child in node.children:
        _grow(here, child)
