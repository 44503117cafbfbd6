"""Images of an HTML page; an image shown several times is stored once.

An image is the background of a `<span role="img">`. The image bytes are in one rule of
the style sheet, which several spans can share, without JavaScript.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence

from striate.core.findings import Image
from striate.report.format import one_line
from striate.report.markup import Html, bdi, join, tag

# Up to this size in pixels, images are enlarged without smoothing.
MAX_CRISP = 128


class PageImages:
    """Collect the images of a page, and store each image once in the style sheet.

    Example:
        >>> images = PageImages()
        >>> dot = Image(png=b"PNG", width=2, height=2, caption="a dot")
        >>> images.image_html(dot) == images.image_html(dot), images.css()
        (True, '.p0{background-image:url(data:image/png;base64,UE5H)}')
    """

    def __init__(self) -> None:
        self._rules: dict[bytes, tuple[str, bytes]] = {}

    def image_html(self, image: Image, scale: int = 1) -> Html:
        """Return an HTML element that shows an image enlarged by an integer factor."""
        new_class = f"p{len(self._rules)}"
        key = hashlib.sha256(image.png).digest()
        css_class, _ = self._rules.setdefault(key, (new_class, image.png))
        width, height = max(1, image.width), max(1, image.height)
        crisp = scale > 1 or max(width, height) <= MAX_CRISP
        return tag(
            "span",
            role="img",
            class_=f"pic {css_class} crisp" if crisp else f"pic {css_class}",
            style=f"width:{width * scale}px;aspect-ratio:{width}/{height}",
            aria_label=one_line(" ".join((image.caption, *image.lines, image.detail)))
            or "image",
        )

    def gallery(self, images: Sequence[Image], scale: int = 1) -> Html:
        """Return an HTML list of images side by side, with captions below."""
        bare = not any(image.caption or image.detail for image in images)
        tiles = join(self._tile(image, scale) for image in images)
        return tag("ul", tiles, class_="gallery bare" if bare else "gallery")

    def _tile(self, image: Image, scale: int) -> Html:
        parts = [self.image_html(image, scale)]
        if image.caption:
            parts.append(tag("b", bdi(image.caption)))
        details = [*image.lines, *([image.detail] if image.detail else [])]
        parts += [tag("small", bdi(line)) for line in details]
        return tag("li", *parts)

    def css(self) -> str:
        """Return the style sheet: one CSS rule per image."""
        rules = ""
        for css_class, png in self._rules.values():
            url = f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
            rules += f".{css_class}{{background-image:url({url})}}"
        return rules
