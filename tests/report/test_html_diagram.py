"""Diagrams of boxes and arrows: nothing overlaps, and text is escaped."""

import re
from itertools import combinations

import pytest

from striate.audit.network import audit
from striate.core.findings import Diagram, DiagramNode
from striate.report.html import render_page
from striate.report.html_diagram import HEIGHT, WIDTH, diagram_html
from striate.report.terminal import blocks_text
from striate.run.create_model import create_model
from striate.workflows.summary.diagram import network_diagram
from striate.workflows.summary.summary import summary, summary_page

RECT = re.compile(r'<rect x="([\d.-]+)" y="([\d.-]+)"')


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "googlenet"])
def test_boxes_do_not_overlap_and_are_inside(name):
    diagram = network_diagram(audit(create_model(name), (3, 224, 224)))
    html = diagram_html(diagram)
    boxes = [(float(x), float(y)) for x, y in RECT.findall(html)]
    assert len(boxes) == len(diagram.nodes)
    for (x1, y1), (x2, y2) in combinations(boxes, 2):
        assert abs(x1 - x2) >= WIDTH or abs(y1 - y2) >= HEIGHT
    width, height = map(float, re.search(r'viewBox="0 0 (\S+) (\S+)"', html).groups())
    assert all(0 <= x <= width - WIDTH and 0 <= y <= height - HEIGHT for x, y in boxes)
    assert html.count('class="arrow"') == len(diagram.edges)


def test_names_are_escaped_and_shortened():
    node = DiagramNode(title="<script>" + "x" * 99, detail="a&b")
    html = diagram_html(Diagram(nodes=(node,), edges=()))
    assert "<script>" not in html
    assert "a&amp;b" in html


def test_the_terminal_names_the_boxes_that_feed_a_box():
    nodes = tuple(DiagramNode(title=t, rank=i) for i, t in enumerate("abc"))
    text = blocks_text([Diagram(nodes=nodes, edges=((0, 1), (0, 2), (1, 2)))])
    assert "c   ← a, b" in text


@pytest.mark.parametrize(
    "names", [("tutorial_gray", None), ("resnet50", None), ("googlenet", "resnet18")]
)
def test_each_box_links_to_a_row_of_the_table(names):
    first, second = (name and summary(name) for name in names)
    html = render_page(summary_page(first, second))
    ids = re.findall(r' id="([^"]*)"', html)
    assert len(ids) == len(set(ids))
    links = re.findall(r'<a href="#(row-[^"]*)">', html)
    entries = html.count("<g><title>image<") + html.count("<g><title>input<")
    assert len(links) == html.count("<rect") - entries > 0
    assert set(links) <= set(ids)


def test_a_box_links_to_its_own_row_and_a_container_to_its_first():
    summarized = summary("resnet50")
    html = render_page(summary_page(summarized))
    rows = [row[0] for row in summarized.table.rows]
    for box, row in (("conv1", "conv1"), ("layer2.0", "layer2.0.conv1"), ("fc", "fc")):
        number = rows.index(row) + 1
        link = rf'<a href="#row-1-{number}"><title>{re.escape(box)}: '
        assert re.search(link, html), box
    shallow = summary("resnet50", depth=1)
    assert '<a href="#row-1-' in render_page(summary_page(shallow))


def test_the_inside_of_blocks_is_folded_without_a_script():
    html = render_page(summary_page(summary("resnet50")))
    assert len(re.findall(r"<details [^>]*graph", html)) == 2
    assert "Inside layer1.1, and 11 more blocks of the same structure" in html
    assert ">downsample.0<" in html  # without the name of the block
