"""Draw arrays as images: color maps, heatmap overlays, tiles, PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image as PILImage

from striate.core.findings import Image

# Colors for signed values: negative blue, zero pale gray, positive red.
_NEGATIVE, _ZERO, _POSITIVE = (33, 86, 165), (238, 238, 234), (190, 45, 40)
_ORANGE = (230, 120, 20)  # orange: unsigned importance, and the borders of boxes
_NO_DITHER = PILImage.Dither.NONE
_BLACK, _SPAN = 90, 0.5  # gray value of black under a heatmap, and contrast
# Colors for unsigned values, from dark (small) through blue to light (large).
_SEQUENTIAL = (
    *((12, 14, 28), (38, 64, 120), (96, 130, 150), (222, 178, 96), (255, 247, 220)),
)


def diverging_colors(values: np.ndarray, limit: float) -> np.ndarray:
    """Convert signed values to colors: −limit blue, 0 pale gray, +limit red.

    Shapes:
        (H, W) → (H, W, 3) uint8

    Example:
        >>> diverging_colors(np.array([[0.0]]), 1.0).tolist()
        [[[238, 238, 234]]]
    """
    share = np.clip(values / (limit or 1.0), -1, 1)
    return _ramp((share + 1) / 2, (_NEGATIVE, _ZERO, _POSITIVE))


def sequential_colors(values: np.ndarray) -> np.ndarray:
    """Convert values to colors, from the minimum (dark) to the maximum (light)."""
    low, high = float(values.min()), float(values.max())
    return _ramp((values - low) / ((high - low) or 1.0), _SEQUENTIAL)


def _ramp(share: np.ndarray, stops: Sequence[tuple[int, int, int]]) -> np.ndarray:
    positions = np.linspace(0, 1, len(stops))
    channels = [np.interp(share, positions, [s[c] for s in stops]) for c in range(3)]
    return np.stack(channels, -1).round().astype(np.uint8)


def overlay_heatmap(
    pixels: np.ndarray,  # image, (H, W, C), uint8
    heatmap: np.ndarray,  # (H, W)
    signed: bool,  # draw positive values red and negative ones blue; else orange
) -> np.ndarray:
    """Draw a heatmap in color over a gray image.

    Shapes:
        (H, W, C) and (H, W) → (H, W, 3) uint8

    Example:
        >>> pixels = np.full((1, 1, 1), 80, np.uint8)
        >>> overlay_heatmap(pixels, np.zeros((1, 1)), True).tolist()
        [[[130, 130, 130]]]
    """
    # Black is raised to gray: on black all colors look brown.
    gray = _BLACK + pixels.astype(float).mean(-1, keepdims=True).repeat(3, -1) * _SPAN
    share = heatmap / (float(np.abs(heatmap).max()) or 1.0)
    against = _NEGATIVE if signed else _ORANGE
    color = np.where(share[..., None] < 0, against, _POSITIVE if signed else _ORANGE)
    # The square root makes small values visible; opacity is at most 75 %.
    strength = 0.75 * np.sqrt(np.abs(share))[..., None]
    mixed = (1 - strength) * gray + strength * color
    return np.asarray(mixed.round().astype(np.uint8))


def to_rgb(pixels: np.ndarray) -> np.ndarray:
    """Return an image as RGB; without three channels, as gray (mean over channels).

    Shapes:
        (H, W, C) → (H, W, 3) uint8
    """
    if pixels.shape[-1] == 3:
        return pixels
    gray = pixels.mean(-1, keepdims=True).round().astype(np.uint8)
    return np.asarray(gray.repeat(3, -1))


def draw_box(pixels: np.ndarray, box: tuple[tuple[int, int], ...]) -> np.ndarray:
    """Draw a box in an image: ((first row, last row), (first column, last column)).

    Example:
        >>> draw_box(np.zeros((3, 3, 3), np.uint8), ((0, 2), (0, 2)))[1].tolist()
        [[230, 120, 20], [0, 0, 0], [230, 120, 20]]
    """
    (first_row, last_row), (first_column, last_column) = box
    out = pixels.copy()
    out[[first_row, last_row], first_column : last_column + 1] = _ORANGE
    out[first_row : last_row + 1, [first_column, last_column]] = _ORANGE
    return out


def enlarge(pixels: np.ndarray, side: int) -> np.ndarray:
    """Enlarge an image by an integer factor to at least `side` pixels in height.

    Example:
        >>> enlarge(np.zeros((3, 2, 3), np.uint8), 6).shape
        (6, 4, 3)
    """
    times = -(-side // pixels.shape[0])
    return pixels.repeat(times, 0).repeat(times, 1)


def limit_side(pixels: np.ndarray, side: int) -> np.ndarray:
    """Shrink an image so that its longest side is at most `side` pixels.

    Shapes:
        (H, W, C) → (H, W, C) uint8; with 1 or 3 channels, else unchanged

    Example:
        >>> limit_side(np.zeros((200, 100, 1), np.uint8), 50).shape
        (50, 25, 1)
    """
    longest, channels = max(pixels.shape[:2]), pixels.shape[-1]
    if longest <= side or channels not in (1, 3):
        return pixels
    height, width = (max(1, round(n * side / longest)) for n in pixels.shape[:2])
    image = PILImage.fromarray(pixels[..., 0] if channels == 1 else pixels)
    small = np.asarray(image.resize((width, height), PILImage.Resampling.BOX))
    return small.reshape(height, width, channels)


def tile(images: Sequence[np.ndarray], columns: int, gap: int = 4) -> np.ndarray:
    """Arrange images of equal size in a grid with transparent gaps.

    Example:
        >>> tile([np.zeros((2, 2, 3), np.uint8)] * 3, columns=2).shape
        (8, 8, 4)
    """
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    height, width = images[0].shape[:2]
    size = (rows * (height + gap) - gap, columns * (width + gap) - gap, 4)
    sheet = np.zeros(size, np.uint8)
    for i, image in enumerate(images):
        top, left = (i // columns) * (height + gap), (i % columns) * (width + gap)
        cell = sheet[top : top + height, left : left + width]
        cell[..., 3] = 255
        cell[..., : image.shape[-1]] = image
    return sheet


def to_image(
    pixels: np.ndarray, caption: str = "", detail: str = "", palette: bool = False
) -> Image:
    """Encode 8-bit pixels with shape (H, W, channels) as a PNG with a caption.

    1 channel is gray, 3 are RGB, 4 are RGBA; for other numbers of channels, the image
    shows the mean over channels. With `palette`, the image is stored with at most 256
    colors, in about a third of the bytes.
    """
    if pixels.shape[-1] not in (1, 3, 4):
        pixels = pixels.mean(-1, keepdims=True).round().astype(np.uint8)
    height, width, channels = pixels.shape
    image = PILImage.fromarray(pixels[..., 0] if channels == 1 else pixels)
    if palette and channels > 1:
        image = image.quantize(256, PILImage.Quantize.FASTOCTREE, dither=_NO_DITHER)
    file = io.BytesIO()
    image.save(file, "PNG")
    png = file.getvalue()
    return Image(png=png, width=width, height=height, caption=caption, detail=detail)
