"""Decode JPEG with libjpeg-turbo: strictly, and large ones at a fraction of their size.

Pillow accepts every half JPEG that carries an end marker; this decoder does not.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import simplejpeg

from striate.data.decode.file_bytes import UndecodableError
from striate.data.decode.jpeg_markers import is_truncated_jpeg

# From this size on a JPEG may be decoded at a fraction of it, and is known by its coded
# bytes rather than by pixels that need not all be made.
LARGE_JPEG = 1_500_000
# (fraction, how many times the scaled sides it must leave): the antialiased resize
# that follows hides how the fraction was made. Eighths never come within the tolerance
# of docs/preprocessing.md (docs/notebook/image-decoding.md).
REDUCED = ((4, 4), (2, 3))

Scaled = Callable[[int, int], tuple[int, int]]


def jpeg_reduction(sides: tuple[int, int], scaled: Scaled) -> int:
    """Return 4, 2 or 1: how much smaller a large JPEG may be decoded.

    Example:
        >>> jpeg_reduction((3000, 4000), lambda height, width: (160, 160))
        4
    """
    rows, columns = scaled(*sides)
    for factor, margin in REDUCED:
        if sides[0] >= factor * margin * rows and sides[1] >= factor * margin * columns:
            return factor
    return 1


def decode_jpeg(payload: bytes, mode: str, height: int, width: int) -> np.ndarray:
    """Return the pixels of a JPEG at this size or the next fraction above it.

    Raises:
        UndecodableError: The file is damaged or cut short.
    """
    # Pillow fills what is missing with gray and reports nothing.
    space = {"L": "GRAY", "CMYK": "CMYK"}.get(mode, "RGB")
    try:
        pixels: np.ndarray = simplejpeg.decode_jpeg(
            payload,
            colorspace=space,
            min_height=height,
            min_width=width,
            min_factor=1,
            strict=True,
        )
    except ValueError as error:
        text = str(error)
        raise UndecodableError(error_reason(payload, text), text) from None
    return pixels


def error_reason(payload: bytes, text: str) -> str:
    """Tell from a decoder's words, and from the file, what is wrong with it."""
    said = text.lower()
    if "too large" in said:
        return "too-large"
    words = ("truncated", "premature", "eof", "broken", "not enough", "end of")
    cut = any(word in said for word in words) or is_truncated_jpeg(payload)
    return "truncated" if cut else "damaged"
