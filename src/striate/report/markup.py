"""Build HTML elements with escaped text.

`Html` is a separate type. mypy reports a plain string in place of `Html`, so a missing
escape is a type error.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape as html_escape
from typing import NewType

from striate.report.format import one_line, printable

Html = NewType("Html", str)
Value = str | int | float | bool | None

_VOID = {"meta", "br", "col", "link", "hr"}


def escape(text: str) -> Html:
    """Escape text for HTML and replace unprintable characters.

    Example:
        >>> escape("<b>7 & 'up'</b>")
        '&lt;b&gt;7 &amp; &#x27;up&#x27;&lt;/b&gt;'
    """
    return Html(html_escape(printable(text), quote=True))


def bdi(text: str) -> Html:
    """Return a name in a `<bdi>` element, which isolates its text direction.

    Example:
        >>> bdi("שבע")
        '<bdi>שבע</bdi>'
    """
    return tag("bdi", escape(one_line(text) or "(no name)"))


def tag(element: str, *children: Html, **attributes: Value) -> Html:
    """Return an HTML element with escaped attributes; omit values None and False.

    `class_` gives the attribute `class`, and underscores in names become hyphens.

    Example:
        >>> tag("td", escape("a<b"), class_="n", data_x='"', hidden=True, title=None)
        '<td class="n" data-x="&quot;" hidden>a&lt;b</td>'
    """
    pairs = [_attribute(key, value) for key, value in attributes.items()]
    start = f"<{element}{''.join(pairs)}>"
    if element in _VOID:
        return Html(start)
    return Html(f"{start}{''.join(children)}</{element}>")


def _attribute(key: str, value: Value) -> str:
    if value is None or value is False:
        return ""
    attribute = key.rstrip("_").replace("_", "-")
    return f" {attribute}" if value is True else f' {attribute}="{escape(str(value))}"'


def command_html(text: str) -> Html:
    """Return a command as `<code>`; a line can end only between its words.

    Example:
        >>> command_html("--lr 1")
        '<code class="command"><span>--lr</span> <span>1</span></code>'
    """
    spans = (tag("span", escape(word)) for word in text.split(" "))
    return tag("code", Html(" ".join(spans)), class_="command")


def text_html(text: str) -> Html:
    """Return escaped text; commands between backticks become `<code>`.

    Example:
        >>> text_html("a < b, see `f`")
        'a &lt; b, see <code class="command"><span>f</span></code>'
    """
    parts = text.split("`")
    if len(parts) % 2 == 0:  # a backtick without a partner is part of a name
        return escape(text)
    return join(
        command_html(part) if i % 2 else escape(part) for i, part in enumerate(parts)
    )


def heading(text: str) -> Html:
    """Return a heading of one line as `<h3>`, or nothing for an empty text."""
    return tag("h3", escape(one_line(text))) if text else Html("")


def note(text: str) -> Html:
    """Return a note below a block, or nothing for an empty text."""
    return tag("p", text_html(text), class_="note") if text else Html("")


def join(parts: Iterable[Html]) -> Html:
    """Concatenate HTML parts.

    Example:
        >>> join([escape("a"), tag("br"), escape("b")])
        'a<br>b'
    """
    return Html("".join(parts))


def paragraphs(text: str) -> Html:
    r"""Return a text as `<p>` elements, split at blank lines.

    Example:
        >>> paragraphs("one\n\ntwo")
        '<p>one</p><p>two</p>'
    """
    parts = printable(text.replace("\r\n", "\n")).split("\n\n")
    return join(tag("p", text_html(part.strip())) for part in parts if part.strip())
