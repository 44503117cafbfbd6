"""Image files with Pillow alone, as users of an exported file read them."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image, ImageOps

# Modes that need no decision of ours: 8 bits, no palette, no transparency, no CMYK.
PLAIN_MODES = ("L", "RGB")


def encode_png(pixels: np.ndarray) -> bytes:
    """Return a PNG file of 8-bit pixels, (H, W, 1 or 3)."""
    buffer = BytesIO()
    image = pixels[..., 0] if pixels.shape[2] == 1 else pixels
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, "PNG")
    return buffer.getvalue()


def decode_with_pillow(payload: bytes, channels: int) -> np.ndarray | None:
    """Return 8-bit pixels in the orientation of the EXIF tag, (H, W, channels).

    None for images that need more than Pillow's own conversion between gray and RGB:
    16 bits, palettes, transparency, CMYK, animations.
    """
    with Image.open(BytesIO(payload)) as file:
        plain = file.mode in PLAIN_MODES and "transparency" not in file.info
        if not plain or getattr(file, "n_frames", 1) > 1 or channels not in (1, 3):
            return None
        image = ImageOps.exif_transpose(file)
        pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    return pixels if pixels.ndim == 3 else pixels[..., None]
