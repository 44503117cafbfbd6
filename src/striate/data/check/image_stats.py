"""Statistics of one image: size, content hash, gray levels, sharpness."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from striate.data.check.fingerprint import closeup, gray_levels, thumbnail
from striate.data.check.tint import Tint, tint_of
from striate.data.decode.decode import ImageFileInfo, decode_with_info
from striate.data.decode.file_bytes import UndecodableError, read_file
from striate.data.decode.hashing import content_hash, file_hash, is_gray

Changes = tuple[np.ndarray, np.ndarray]  # across, down
_LEVELS = np.arange(256.0)
WINDOW = 1024  # sharpness is measured in a central window of this side


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageStats:
    """Statistics of one image."""

    height: int  # height after EXIF rotation
    width: int  # width after EXIF rotation
    colored: bool  # whether any pixel is not gray
    content: str  # hash of the pixels
    brightness: float  # mean gray level, 0–255
    contrast: float  # standard deviation of the levels: the largest of all channels
    lightest: float  # 99th percentile of the gray levels
    darkest: float  # 1st percentile of the gray levels
    # mean change over one pixel, divided by the mean change over four pixels: 0.25 or
    # less in a blurred image, 1 in noise
    sharpness: float
    # the same, in the strongest edges only: 1 for a sharp edge, 0.25 for a blurred one
    edge_sharpness: float = 1.0
    tint: Tint = ()  # colors on a coarse grid; empty for a gray image


@dataclass(frozen=True, kw_only=True, slots=True)
class ExaminedImage:
    """Result for a usable image: statistics, small copies, and file information."""

    stats: ImageStats  # statistics
    # gray close-up, at most 128×128; (H, W, C) for a color preview
    view: np.ndarray = field(repr=False)
    thumb: np.ndarray = field(repr=False)  # gray thumbnail, 32×32
    # file format and notes; None for images from arrays
    nature: ImageFileInfo | None = None
    sha256: str = ""  # hash of the file; empty for images from arrays
    size: int = 0  # file size in bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class UnusableFile:
    """Result for a file that is not a usable image: the reason and a detail."""

    reason: str
    detail: str
    sha256: str = ""
    size: int = 0


def examine_file(file: Path | bytes) -> ExaminedImage | UnusableFile:
    """Hash and decode an image file (or its bytes), and compute image statistics."""
    sha256, size = "", 0
    try:
        payload = _payload(file)
        sha256, size = file_hash(payload), len(payload)
        pixels, nature = decode_with_info(payload)
    except UndecodableError as error:
        reason, detail = error.reason, error.detail
        return UnusableFile(reason=reason, detail=detail, sha256=sha256, size=size)
    stats, view, thumb = measure_image(pixels)
    return ExaminedImage(
        stats=stats, view=view, thumb=thumb, nature=nature, sha256=sha256, size=size
    )


def preview_file(file: Path | bytes) -> ExaminedImage | UnusableFile:
    """Examine an image file like `examine_file`, but with a color close-up."""
    result = examine_file(file)
    if isinstance(result, UnusableFile):
        return result
    return replace(result, view=preview_pixels(decode_with_info(_payload(file))[0]))


def _payload(file: Path | bytes) -> bytes:
    return file if isinstance(file, bytes) else read_file(file)


def preview_pixels(pixels: np.ndarray) -> np.ndarray:
    """Shrink an image to at most 128 pixels in height and width, with all channels."""
    planes = np.moveaxis(pixels.astype(np.float32), -1, 0)
    return np.stack([closeup(plane) for plane in planes], -1)


def examine_pixels(pixels: np.ndarray) -> ExaminedImage:
    """Compute statistics and small copies of an image in memory, (H, W, C) uint8."""
    stats, view, thumb = measure_image(pixels)
    return ExaminedImage(stats=stats, view=view, thumb=thumb)


def measure_image(pixels: np.ndarray) -> tuple[ImageStats, np.ndarray, np.ndarray]:
    """Return the statistics, the close-up and the thumbnail of an image.

    Example:
        >>> stats, _, _ = measure_image(np.full((8, 6, 1), 7, np.uint8))
        >>> stats.brightness, stats.contrast, stats.height
        (7.0, 0.0, 8)
    """
    gray = gray_levels(pixels)
    levels = np.bincount(np.rint(gray).astype(np.uint8).ravel(), minlength=256)
    share = np.cumsum(levels) / gray.size
    mean = float(levels @ _LEVELS) / gray.size
    variance = float(levels @ (_LEVELS - mean) ** 2) / gray.size
    view = closeup(gray)
    colored = pixels.shape[-1] > 1 and not is_gray(pixels)
    contrast = variance**0.5
    if colored:  # red and green of one gray level are no blank image
        contrast = max(contrast, float(pixels.std((0, 1)).max()))
    sharpness, edge_sharpness = _sharpness(gray)
    stats = ImageStats(
        height=pixels.shape[0],
        width=pixels.shape[1],
        colored=colored,
        content=content_hash(pixels),
        brightness=round(mean, 2),
        contrast=round(contrast, 2),
        lightest=float(np.searchsorted(share, 0.99)),
        darkest=float(np.searchsorted(share, 0.01)),
        sharpness=round(sharpness, 4),
        edge_sharpness=round(edge_sharpness, 4),
        tint=tint_of(pixels, gray) if colored else (),
    )
    return stats, view, thumbnail(view)


def _sharpness(gray: np.ndarray) -> tuple[float, float]:
    """Return the gray-level change over 1 pixel, divided by that over 4 pixels.

    The first number is the ratio of the means over the image. Large areas without any
    texture do not change it, but distant edges do: in a drawing, both means count the
    same edges, and it is 0.25. So the second is the ratio in the strongest edges.
    """
    row, col = (max(0, (n - WINDOW) // 2) for n in gray.shape)
    middle = gray[row : row + WINDOW, col : col + WINDOW]
    if min(middle.shape) < 8:
        return 1.0, 1.0
    step_one, step_four = _changes(middle, 1), _changes(middle, 4)
    mean = _ratio(step_one, step_four, lambda change: float(change.mean()))
    return mean, _ratio(step_one, step_four, _strongest)


def _ratio(
    step_one: Changes, step_four: Changes, measure: Callable[[np.ndarray], float]
) -> float:
    """Return the measured changes over 1 pixel, divided by those over 4 pixels."""
    whole = sum(map(measure, step_four))
    return min(1.0, sum(map(measure, step_one)) / whole) if whole > 0 else 1.0


def _changes(gray: np.ndarray, step: int) -> Changes:
    """Return the absolute differences of pixels `step` apart, along both axes."""
    across = np.abs(gray[:, step:] - gray[:, :-step])
    return across, np.abs(gray[step:] - gray[:-step])


def _strongest(change: np.ndarray) -> float:
    """Return the mean of the largest changes: 1 in 200, at least 8."""
    flat = change.ravel()
    count = min(flat.size, max(8, flat.size // 200))
    return float(np.partition(flat, flat.size - count)[-count:].mean())
