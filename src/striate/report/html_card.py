"""Render report blocks as an HTML fragment for a notebook, without script.

The styles of a fragment apply only inside it, so several outputs in one notebook do not
collide: each selector begins with the id of the fragment.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

from striate.core.findings import Section
from striate.report.format import one_line
from striate.report.html import blocks_html
from striate.report.html_images import PageImages
from striate.report.markup import Html, escape, heading, join, paragraphs, tag

# Also undoes what notebooks set for tables. `rem` is the font size of the page.
CARD_CSS = """
body { margin: 0; padding: 1rem 1.25rem; max-width: 60rem; font-size: .9375rem;
  border: 1px solid var(--rule); border-radius: 8px; }
h2 { font-size: 1.15rem; margin: 0 0 .75rem; padding: 0; color: var(--ink); }
h3, caption { color: var(--ink); margin: 0; }
tr, tr:hover, td, th { background: none; border: 0; color: inherit; }
table { width: auto; table-layout: auto; border: 0; color: inherit; }
dt, dd { float: none; margin: 0; }
.sheet { min-width: 0; }
section { margin: 0 0 1rem; padding: 0; border: 0; }
section > * + * { margin-top: 1rem; }
.figures dd { font-size: 1.5rem; }
.figures .detail { font-size: .8125rem; }
.figures dt { font-weight: 400; }
.links { margin: 0; color: var(--soft); font-size: .875rem; }
.links a { margin-right: 1.25rem; }
"""


def render_card(
    title: str, sections: Sequence[Section], links: Mapping[str, Path] | None = None
) -> str:
    """Return sections as an HTML fragment; `links` are files by their text.

    Example:
        >>> html = render_card("Run 1", [Section("Data", ())])
        >>> html.startswith('<div id="striate-'), "<script" in html
        (True, False)
    """
    images = PageImages()
    body = join(
        [
            tag("h2", escape(one_line(title))),
            *[_section(section, images) for section in sections],
            _links(links or {}),
        ]
    )
    digest = hashlib.sha256(f"{body}{images.css()}".encode()).hexdigest()[:12]
    name = f"striate-{digest}"
    # The rules of the page are longer, so those of the card come after them.
    css = "".join([_page_css(), CARD_CSS, images.css()])
    style = tag("style", Html(scoped_css(css, f"#{name}", body)))
    return tag("div", style, body, id=name)


def _page_css() -> str:
    return files("striate.report").joinpath("page.css").read_text("utf-8")


def _section(section: Section, images: PageImages) -> Html:
    lead = tag("div", paragraphs(section.lead), class_="lead") if section.lead else ""
    blocks = join(blocks_html(section.blocks, images, ""))
    return tag("section", heading(section.title), Html(lead), blocks)


def _links(links: Mapping[str, Path]) -> Html:
    """Return links to files, relative to the folder of the notebook."""
    if not links:
        return Html("")
    items = [
        tag("a", escape(text), href=quote(os.path.relpath(path)), target="_blank")
        for text, path in links.items()
    ]
    return tag("p", *items, class_="links")


def scoped_css(css: str, scope: str, html: str) -> str:
    """Return the rules that the HTML needs, each restricted to the element `scope`.

    Example:
        >>> css = ":root { --a: 1 } .b, p { top: 0 } .c { top: 1px } body { left: 0 }"
        >>> scoped_css(css, "#x", '<p class="b">')
        '#x{ --a: 1 }#x .b,#x p{ top: 0 }#x{ left: 0 }'
    """
    classes = {name for names in _CLASSES.findall(html) for name in names.split()}

    def restricted(rule: re.Match[str]) -> str:
        selectors = [part.strip() for part in _COMMAS.split(rule[1])]
        needed = [part for part in selectors if _is_needed(part, classes)]
        scoped = ",".join(_scoped(part, scope) for part in needed)
        return f"{scoped}{{{rule[2]}}}" if scoped else ""

    rules = _RULES.sub(restricted, _COMMENTS.sub("", css))
    return re.sub(r"@media[^{}]*\{\s*\}\s*", "", rules)


_CLASSES = re.compile(r'class="([^"]*)"')
_COMMENTS = re.compile(r"/\*.*?\*/", re.DOTALL)
_RULES = re.compile(r"\s*([^{}]+?)\s*\{([^{}]*)\}")
_COMMAS = re.compile(r",(?![^()]*\))")  # outside parentheses
_PAGE = re.compile(r"(:root|html|body)\b")  # the element that a rule of the page means


def _is_needed(selector: str, classes: set[str]) -> bool:
    names = set(re.findall(r"\.([a-z][\w-]*)", selector))
    return not names or bool(names & classes)


def _scoped(selector: str, scope: str) -> str:
    page = _PAGE.match(selector)
    return f"{scope}{selector[page.end() :]}" if page else f"{scope} {selector}"
