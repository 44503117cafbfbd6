"""Every distinct picture of a page once, however often it is shown.

A picture is the background of a `<span role="img">`. Its bytes stand in one rule of
the style sheet, which any number of spans share, without a line of JavaScript.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence

from striate.core.findings import Picture
from striate.report.format import one_line
from striate.report.markup import Html, join, name, tag

# Up to this side a picture is read pixel by pixel; above it, as a photograph.
SMALL = 128


class Album:
    """Collects the pictures of one page and writes each into the style sheet once.

    Example:
        >>> album = Album()
        >>> dot = Picture(png=b"PNG", width=2, height=2, caption="a dot")
        >>> album.show(dot) == album.show(dot), album.css()
        (True, '.p0{background-image:url(data:image/png;base64,UE5H)}')
    """

    def __init__(self) -> None:
        self._pages: dict[bytes, tuple[str, bytes]] = {}

    def show(self, picture: Picture, scale: int = 1) -> Html:
        """Return the picture as an element, enlarged by whole pixels."""
        fresh = f"p{len(self._pages)}"
        key = hashlib.sha256(picture.png).digest()
        own, _ = self._pages.setdefault(key, (fresh, picture.png))
        width, height = max(1, picture.width), max(1, picture.height)
        crisp = scale > 1 or max(width, height) <= SMALL
        return tag(
            "span",
            role="img",
            class_=f"pic {own} crisp" if crisp else f"pic {own}",
            style=f"width:{width * scale}px;aspect-ratio:{width}/{height}",
            aria_label=one_line(f"{picture.caption} {picture.detail}") or "picture",
        )

    def gallery(self, pictures: Sequence[Picture], scale: int = 1) -> Html:
        """Return pictures side by side with what they show beneath them."""
        bare = not any(picture.caption or picture.detail for picture in pictures)
        tiles = join(self._tile(picture, scale) for picture in pictures)
        return tag("ul", tiles, class_="gallery bare" if bare else "gallery")

    def _tile(self, picture: Picture, scale: int) -> Html:
        words = [self.show(picture, scale)]
        if picture.caption:
            words.append(tag("b", name(picture.caption)))
        if picture.detail:
            words.append(tag("small", name(picture.detail)))
        return tag("li", *words)

    def css(self) -> str:
        """Return one rule a distinct picture."""
        return "".join(_rule(*page) for page in self._pages.values())


def _rule(own: str, png: bytes) -> str:
    address = f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
    return f".{own}{{background-image:url({address})}}"
