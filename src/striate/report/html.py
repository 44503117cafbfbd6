"""Render a report as one HTML file that works offline.

Style, script and images are inline, and the content security policy forbids loading
anything else. The policy allows only our script, by its hash. Without JavaScript, only
the dialogs in old browsers do not work.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Sequence
from importlib.resources import files
from itertools import groupby

from striate.core.findings import (
    Block,
    Curve,
    Diagram,
    Figure,
    Figures,
    Images,
    Matrix,
    Page,
    Prose,
    Section,
    Table,
    Tree,
)
from striate.report import svg
from striate.report.format import one_line
from striate.report.html_confusion_matrix import matrix_html
from striate.report.html_diagram import diagram_html
from striate.report.html_images import PageImages
from striate.report.html_table import table_html
from striate.report.html_tree import tree_html
from striate.report.markup import Html, escape, join, note, paragraphs, tag

TONES = {"good": "Good", "warning": "Warning", "bad": "Problem", "advice": "Advice"}


def render_page(page: Page) -> str:
    """Return a report as one self-contained HTML document.

    Example:
        >>> section = Section(title="A", blocks=(Prose(text="All <well>."),))
        >>> html = render_page(Page(title="Run 1", sections=(section,)))
        >>> html[:15], "All &lt;well&gt;." in html, "://" in html
        ('<!doctype html>', True, False)
    """
    images = PageImages()
    # The body comes first: it collects the images for the style sheet in the head.
    body = _body(page, images)
    return f"<!doctype html>\n{tag('html', _head(page, images), body, lang='en')}\n"


def _head(page: Page, images: PageImages) -> Html:
    script = _asset("page.js")
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_policy(script)),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="generator", content="striate"),
        tag("title", escape(one_line(page.title))),
        tag("style", _asset("page.css"), Html(images.css())),
        tag("script", script, type="module"),
    )


def _asset(file: str) -> Html:
    return Html(files("striate.report").joinpath(file).read_text("utf-8"))


def _policy(script: str) -> str:
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    deny = "default-src 'none'; base-uri 'none'; form-action 'none'"
    own = f"img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return f"{deny}; {own}"


def _body(page: Page, images: PageImages) -> Html:
    pairs = list(zip(page.sections, _anchors(page.sections), strict=True))
    title = tag("h1", escape(one_line(page.title)))
    subtitle = paragraphs(page.subtitle)
    sections = [_section(section, anchor, images) for section, anchor in pairs]
    return tag(
        "body",
        tag("a", escape("Skip to the report"), href="#report", class_="skip"),
        tag("header", title, subtitle),
        _contents(pairs) if len(pairs) > 1 else Html(""),
        tag("main", *sections, id="report", tabindex=-1),
        tag("footer", paragraphs(page.footer)),
    )


def _anchors(sections: Sequence[Section]) -> list[str]:
    """Return a unique element id for each section: its number and its title."""
    slugs = [re.sub(r"[^a-z0-9]+", "-", s.title.lower()).strip("-") for s in sections]
    return [f"{number}-{slug}".strip("-") for number, slug in enumerate(slugs, 1)]


def _contents(pairs: Sequence[tuple[Section, str]]) -> Html:
    links = [
        tag("li", tag("a", escape(one_line(section.title)), href=f"#{anchor}"))
        for section, anchor in pairs
    ]
    return tag("nav", tag("ol", *links), aria_label="Contents")


def _section(section: Section, anchor: str, images: PageImages) -> Html:
    label_id = f"{anchor}-title"
    head = tag("h2", escape(one_line(section.title)), id=label_id)
    lead = tag("div", paragraphs(section.lead), class_="lead") if section.lead else ""
    blocks = join(blocks_html(section.blocks, images, anchor))
    return tag("section", head, Html(lead), blocks, id=anchor, aria_labelledby=label_id)


def blocks_html(
    blocks: Sequence[Block], images: PageImages, anchor: str
) -> Iterator[Html]:
    """Render blocks as HTML; on wide pages, adjacent charts share a row.

    Without `anchor`, nothing can be clicked, because a notebook runs no script.
    """
    numbered = enumerate(blocks, 1)
    for charts, group in groupby(numbered, key=lambda pair: isinstance(pair[1], Curve)):
        keys = (
            (block, f"{anchor}-{number}" if anchor else "") for number, block in group
        )
        html = [_block(block, images, key) for block, key in keys]
        yield tag("div", *html, class_="charts") if charts else join(html)


def _block(block: Block, images: PageImages, key: str) -> Html:
    match block:
        case Prose():
            return _prose(block)
        case Figures():
            return tag("dl", *[_figure(f) for f in block.figures], class_="figures")
        case Table():
            return table_html(block)
        case Curve():
            return _chart(block)
        case Images():
            return _gallery(block, images)
        case Matrix():
            return matrix_html(block, images, key)
        case Tree():
            return tree_html(block)
        case Diagram():
            return diagram_html(block)


def _prose(prose: Prose) -> Html:
    if prose.tone not in TONES:
        return tag("div", paragraphs(prose.text), class_="prose")
    # Color alone must not show the tone.
    label = tag("b", escape(TONES[prose.tone]), class_="tone")
    text = paragraphs(prose.text)
    return tag("div", label, text, class_=f"prose {prose.tone}", role="note")


def _figure(figure: Figure) -> Html:
    parts = [tag("dt", escape(figure.label)), tag("dd", escape(figure.value))]
    if figure.detail:
        parts.append(tag("dd", escape(figure.detail), class_="detail"))
    return tag("div", *parts)


def _chart(curve: Curve) -> Html:
    title = tag("h3", escape(one_line(curve.title)))
    drawing = [Html(svg.svg_legend(curve)), Html(svg.svg_chart(curve))]
    return tag("figure", title, *drawing, note(curve.note), class_="block")


def _gallery(gallery: Images, images: PageImages) -> Html:
    title = tag("h3", escape(gallery.title)) if gallery.title else Html("")
    html = images.gallery(gallery.images, gallery.scale)
    if gallery.folded and gallery.title:
        summary = tag("summary", escape(gallery.title))
        return tag("details", summary, html, note(gallery.note), class_="block fold")
    return tag("div", title, html, note(gallery.note), class_="block")
