"""Every distinct image of a page once, however often it is shown.

An image is the background of a `<span role="img">`. Its bytes stand in one rule of
the style sheet, which any number of spans share, without a line of JavaScript.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence

from striate.core.findings import Image
from striate.report.format import one_line
from striate.report.markup import Html, bdi, join, tag

# Up to this side an image is read pixel by pixel; above it, as a photograph.
SMALL = 128


class PageImages:
    """Collects the images of one page and writes each into the style sheet once.

    Example:
        >>> album = PageImages()
        >>> dot = Image(png=b"PNG", width=2, height=2, caption="a dot")
        >>> album.show(dot) == album.show(dot), album.css()
        (True, '.p0{background-image:url(data:image/png;base64,UE5H)}')
    """

    def __init__(self) -> None:
        self._pages: dict[bytes, tuple[str, bytes]] = {}

    def show(self, image: Image, scale: int = 1) -> Html:
        """Return the image as an element, enlarged by whole pixels."""
        fresh = f"p{len(self._pages)}"
        key = hashlib.sha256(image.png).digest()
        own, _ = self._pages.setdefault(key, (fresh, image.png))
        width, height = max(1, image.width), max(1, image.height)
        crisp = scale > 1 or max(width, height) <= SMALL
        return tag(
            "span",
            role="img",
            class_=f"pic {own} crisp" if crisp else f"pic {own}",
            style=f"width:{width * scale}px;aspect-ratio:{width}/{height}",
            aria_label=one_line(f"{image.caption} {image.detail}") or "image",
        )

    def gallery(self, images: Sequence[Image], scale: int = 1) -> Html:
        """Return images side by side with what they show beneath them."""
        bare = not any(image.caption or image.detail for image in images)
        tiles = join(self._tile(image, scale) for image in images)
        return tag("ul", tiles, class_="gallery bare" if bare else "gallery")

    def _tile(self, image: Image, scale: int) -> Html:
        words = [self.show(image, scale)]
        if image.caption:
            words.append(tag("b", bdi(image.caption)))
        if image.detail:
            words.append(tag("small", bdi(image.detail)))
        return tag("li", *words)

    def css(self) -> str:
        """Return one rule a distinct image."""
        return "".join(_rule(*page) for page in self._pages.values())


def _rule(own: str, png: bytes) -> str:
    address = f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
    return f".{own}{{background-image:url({address})}}"
