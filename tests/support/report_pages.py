"""A page with every kind of block, and a parser of rendered pages."""

import base64
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

from striate.core.findings import (
    Block,
    Column,
    Curve,
    Figure,
    Figures,
    Image,
    Images,
    Matrix,
    Page,
    Prose,
    Section,
    Series,
    Table,
)

VOID = {"meta", "br", "link", "hr", "col"}


def image(content: bytes = b"one", caption: str = "", side: int = 8) -> Image:
    return Image(png=content, width=side, height=side, caption=caption)


def curve(*series: Series, **fields: object) -> Curve:
    given = {"title": "Loss", "x_label": "epoch", "y_label": "nats", **fields}
    return Curve(series=series, **given)  # type: ignore[arg-type]


def line(*y: float, name: str = "train") -> Series:
    return Series(name=name, x=tuple(range(len(y))), y=y)


def page(*blocks: Block, title: str = "Run", section: str = "Part") -> Page:
    return Page(title=title, sections=(Section(title=section, blocks=blocks),))


def full_page(name: str) -> Page:
    """Use one name wherever a page takes text from outside."""
    shot = Image(
        png=b"shot", width=8, height=8, caption=name, lines=(name,), detail=name
    )
    label = (name, f"{name}2")
    blocks: tuple[Block, ...] = (
        Prose(text=name, tone="warning"),
        Figures(figures=(Figure(label=name, value=name, detail=name),)),
        Table(
            title=name,
            note=name,
            columns=(Column(title=name, hint=name), Column(title=name, kind="code")),
            rows=((name, name),),
            totals=(name, None),
        ),
        curve(line(1.0, 2.0, name=name), title=name, mark=(0.5, name), note=name),
        Images(images=(shot,), title=name, note=name, scale=2),
        Matrix(
            labels=label,
            counts=((3, 1), (0, 4)),
            images={(0, 1): (shot,)},
            title=name,
            note=name,
        ),
    )
    section = Section(title=name, lead=name, blocks=blocks)
    return Page(title=name, subtitle=name, footer=name, sections=(section, section))


@dataclass
class Node:
    tag: str
    attributes: dict[str, str | None]
    text: list[str] = field(default_factory=list)


class Reader(HTMLParser):
    """Keeps every element; complains about ends that match no start."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.nodes: list[Node] = []
        self.open: list[Node] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"left open: {[n.tag for n in self.open]}"

    def handle_starttag(self, tag, attrs):
        keys = [key for key, _ in attrs]
        assert len(keys) == len(set(keys)), f"<{tag}> repeats an attribute"
        node = Node(tag, dict(attrs))
        self.nodes.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_endtag(self, tag):
        assert self.open.pop().tag == tag

    def handle_data(self, data):
        self.text.append(data)
        for node in self.open:
            node.text.append(data)

    def all(self, tag: str) -> list[Node]:
        return [node for node in self.nodes if node.tag == tag]

    def shape(self) -> list[tuple[str, frozenset[str]]]:
        return [(node.tag, frozenset(node.attributes)) for node in self.nodes]


def embedded(text: str) -> list[bytes]:
    found = re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", text)
    return [base64.b64decode(each) for each in found]
