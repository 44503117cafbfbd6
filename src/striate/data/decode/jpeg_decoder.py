"""Strict JPEG decoder (libjpeg-turbo), which decodes large images at reduced size.

Pillow accepts a truncated JPEG if it has an end marker; this decoder does not.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import simplejpeg

from striate.data.decode.file_bytes import UndecodableError
from striate.data.decode.jpeg_markers import is_truncated_jpeg

# From this size on a JPEG may be decoded at a fraction of it. So it is identified by a
# hash of its coded bytes, not of its pixels.
LARGE_JPEG = 1_500_000
# (factor, minimum ratio of the remaining sides to the scaled sides): the antialiased
# resize that follows evens out the difference. Eighths never come within the tolerance
# of docs/preprocessing.md (docs/notebook/image-decoding.md).
REDUCED = ((4, 4), (2, 3))

Scaled = Callable[[int, int], tuple[int, int]]


def jpeg_reduction(sides: tuple[int, int], scaled: Scaled) -> int:
    """Return the factor (1, 2 or 4) by which a large JPEG is reduced in decoding.

    Example:
        >>> jpeg_reduction((3000, 4000), lambda height, width: (160, 160))
        4
    """
    height, width = sides
    rows, columns = scaled(height, width)
    for factor, margin in REDUCED:
        if min(height / rows, width / columns) >= factor * margin:
            return factor
    return 1


def decode_jpeg(payload: bytes, mode: str, height: int, width: int) -> np.ndarray:
    """Decode a JPEG at the smallest reduced size that covers height and width.

    Raises:
        UndecodableError: The file is damaged or truncated.
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
    """Return why a file cannot be decoded: `truncated`, `damaged` or `too-large`."""
    message = text.lower()
    if "too large" in message:
        return "too-large"
    patterns = ("truncated", "premature", "eof", "broken", "not enough", "end of")
    is_cut = any(word in message for word in patterns) or is_truncated_jpeg(payload)
    return "truncated" if is_cut else "damaged"
