"""HTML as values: text becomes markup here, by escaping, and nowhere else.

`Html` is a type of its own, so that mypy refuses a plain string where markup is
meant: to forget an escape is a type error.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import NewType

from striate.report.format import clean, one_line

Html = NewType("Html", str)
Value = str | int | float | bool | None

_VOID = {"meta", "br", "col", "link", "hr"}


def say(text: str) -> Html:
    """Turn foreign text into markup that shows exactly that text.

    Example:
        >>> say("<b>7 & 'up'</b>")
        '&lt;b&gt;7 &amp; &#x27;up&#x27;&lt;/b&gt;'
    """
    return Html(escape(clean(text), quote=True))


def name(text: str) -> Html:
    """Turn a foreign name into markup, fenced against its writing direction.

    Example:
        >>> name("שבע")
        '<bdi>שבע</bdi>'
    """
    return tag("bdi", say(one_line(text) or "(no name)"))


def tag(element: str, *children: Html, **attributes: Value) -> Html:
    """Build one element; attributes are escaped, None and False leave one out.

    `class_` spells class and an underscore inside a name spells a hyphen.

    Example:
        >>> tag("td", say("a<b"), class_="n", data_x='"', hidden=True, title=None)
        '<td class="n" data-x="&quot;" hidden>a&lt;b</td>'
    """
    pairs = [_attribute(*pair) for pair in attributes.items()]
    start = f"<{element}{''.join(pairs)}>"
    if element in _VOID:
        return Html(start)
    return Html(f"{start}{''.join(children)}</{element}>")


def _attribute(key: str, value: Value) -> str:
    if value is None or value is False:
        return ""
    spelt = key.rstrip("_").replace("_", "-")
    return f" {spelt}" if value is True else f' {spelt}="{say(str(value))}"'


def join(parts: Iterable[Html]) -> Html:
    """Put markup side by side.

    Example:
        >>> join([say("a"), tag("br"), say("b")])
        'a<br>b'
    """
    return Html("".join(parts))


def paragraphs(text: str) -> Html:
    r"""Set text in paragraphs, which blank lines part.

    Example:
        >>> paragraphs("one\n\ntwo")
        '<p>one</p><p>two</p>'
    """
    parts = clean(text.replace("\r\n", "\n")).split("\n\n")
    return join(tag("p", say(part.strip())) for part in parts if part.strip())
