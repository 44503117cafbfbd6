"""Draw a diagram of boxes and arrows as inline SVG, from the top to the bottom."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from striate.core.findings import Diagram, DiagramNode
from striate.report.format import one_line, shorten
from striate.report.markup import Html, escape, heading, note, tag

WIDTH, HEIGHT = 190, 42  # of a box
ACROSS, DOWN = 18, 24  # between boxes
LANE = 12  # between the arrows that pass boxes
MARGIN = 8
LONGEST = 26  # characters of a line in a box


@dataclass(frozen=True)
class _Place:
    """Center of a box, and its row."""

    x: float
    y: float
    rank: int


def diagram_html(diagram: Diagram) -> Html:
    """Return a diagram as a figure; wide diagrams can be scrolled sideways.

    Example:
        >>> nodes = DiagramNode(title="a<b"), DiagramNode(title="c", rank=1)
        >>> html = diagram_html(Diagram(nodes=nodes, edges=((0, 1),)))
        >>> "a&lt;b" in html, html.count("<rect"), html.count('class="arrow"')
        (True, 2, 1)
    """
    places, width = _places(diagram)
    lanes = _lanes(diagram, places)
    right = width + LANE * (max(lanes.values(), default=0) + 1)
    bottom = max((place.y for place in places), default=0) + HEIGHT / 2 + MARGIN
    arrows = [
        _arrow(places[a], places[b], width, lanes.get((a, b))) for a, b in diagram.edges
    ]
    boxes = [_box(n, p) for n, p in zip(diagram.nodes, places, strict=True)]
    drawing = tag(
        "svg",
        tag("title", escape(one_line(diagram.title or "diagram"))),
        *arrows,
        *boxes,
        role="group",
        class_="diagram",
        viewBox=f"0 0 {right:g} {bottom:g}",
        width=f"{right:g}",
        style=f"--w:{right:g}px",
    )
    label = diagram.title or "diagram"
    scroll = tag(
        "div", drawing, class_="scroll", tabindex="0", role="region", aria_label=label
    )
    if diagram.folded:
        summary = tag("summary", escape(one_line(label)))
        return tag(
            "details", summary, scroll, note(diagram.note), class_="block fold graph"
        )
    return tag(
        "figure",
        heading(diagram.title),
        scroll,
        note(diagram.note),
        class_="block graph",
    )


def _places(diagram: Diagram) -> tuple[list[_Place], float]:
    """Return the place of each box; boxes of one rank stand side by side."""
    sizes = Counter(node.rank for node in diagram.nodes)
    widest = max(sizes.values(), default=1)
    width = 2 * MARGIN + widest * WIDTH + (widest - 1) * ACROSS
    used: Counter[int] = Counter()
    places = []
    for node in diagram.nodes:
        count, index = sizes[node.rank], used[node.rank]
        used[node.rank] += 1
        x = width / 2 + (index - (count - 1) / 2) * (WIDTH + ACROSS)
        y = MARGIN + HEIGHT / 2 + node.rank * (HEIGHT + DOWN)
        places.append(_Place(x, y, node.rank))
    return places, width


def _lanes(diagram: Diagram, places: list[_Place]) -> dict[tuple[int, int], int]:
    """Return the lane of each arrow that passes a row, without crossing another."""
    lanes: dict[tuple[int, int], int] = {}
    taken: list[list[tuple[int, int]]] = []
    for a, b in sorted(diagram.edges, key=lambda e: places[e[1]].rank):
        first, last = places[a].rank, places[b].rank
        if last - first < 2:
            continue
        free = (
            lane
            for lane, spans in enumerate(taken)
            if all(last <= low or high <= first for low, high in spans)
        )
        lane = next(free, len(taken))
        if lane == len(taken):
            taken.append([])
        taken[lane].append((first, last))
        lanes[a, b] = lane + 1
    return lanes


def _arrow(start: _Place, end: _Place, width: float, lane: int | None) -> Html:
    top, bottom = start.y + HEIGHT / 2, end.y - HEIGHT / 2
    if lane is None:
        middle = (top + bottom) / 2
        curve = f"M{start.x:g},{top:g} C{start.x:g},{middle:g} "
        curve += f"{end.x:g},{middle:g} {end.x:g},{bottom - 4:g}"
    else:  # past the boxes between, on the right side
        x, r = width - MARGIN + LANE * lane, 8
        out, back = top + DOWN / 3, bottom - DOWN / 2
        curve = f"M{start.x:g},{top:g} Q{start.x:g},{out:g} {start.x + r:g},{out:g} "
        curve += f"H{x - r:g} Q{x:g},{out:g} {x:g},{out + r:g} V{back - r:g} "
        curve += f"Q{x:g},{back:g} {x - r:g},{back:g} H{end.x + r:g} "
        curve += f"Q{end.x:g},{back:g} {end.x:g},{bottom - 4:g}"
    tip = f"M{end.x - 4:g},{bottom - 5:g} l4,5 l4,-5z"
    return tag(
        "g", tag("path", d=curve, class_="arrow"), tag("path", d=tip, class_="tip")
    )


def _box(node: DiagramNode, place: _Place) -> Html:
    left, top = f"{place.x - WIDTH / 2:g}", f"{place.y - HEIGHT / 2:g}"
    x = f"{place.x:g}"
    return tag(
        "a" if node.link else "g",
        tag("title", escape(one_line(node.hint or node.title))),
        tag("rect", x=left, y=top, width=WIDTH, height=HEIGHT, rx=6),
        tag("text", _line(node.title), x=x, y=f"{place.y - 4:g}", class_="name"),
        tag("text", _line(node.detail), x=x, y=f"{place.y + 13:g}"),
        href=f"#{node.link}" if node.link else None,
    )


def _line(text: str) -> Html:
    return escape(shorten(one_line(text), LONGEST))
