"""Everything that is measured of one image, in one look at its file or its pixels."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from striate.data.check.fingerprint import closeup, gray_levels, thumbnail
from striate.data.decode.decode import ImageFileInfo, decode_with_info
from striate.data.decode.file_bytes import UndecodableError, read_file
from striate.data.decode.hashing import content_hash, is_gray

_LEVELS = np.arange(256.0)
WINDOW = 1024  # side of the middle that sharpness is measured in


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What one image is.

    Args:
        height: Rows, upright.
        width: Columns, upright.
        colored: Whether any pixel is not gray.
        content: Hash of the pixels.
        brightness: Mean gray level, 0–255.
        contrast: Deviation of the gray levels.
        lightest: Level that 1 % of the image is above.
        darkest: Level that 1 % of the image is below.
        sharpness: Change from pixel to pixel over the change across four pixels: 0.25
            or less in a blurred image, 1 in noise.
    """

    height: int
    width: int
    colored: bool
    content: str
    brightness: float
    contrast: float
    lightest: float
    darkest: float
    sharpness: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Examined:
    """A usable image: facts, its views, and its file where it has one.

    Args:
        facts: Figures.
        view: Gray close-up, at most 128 a side; (H, W, C) where color was asked for.
        thumb: Gray thumbnail, 32×32.
        nature: What kind of file it is; None for images from arrays.
        sha256: Hash of the file; empty for images from arrays.
        size: Bytes of the file.
    """

    facts: Facts
    view: np.ndarray = field(repr=False)
    thumb: np.ndarray = field(repr=False)
    nature: ImageFileInfo | None = None
    sha256: str = ""
    size: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Refused:
    """A file that is no usable image, and why."""

    reason: str
    detail: str
    sha256: str = ""
    size: int = 0


def examine_file(file: Path | bytes) -> Examined | Refused:
    """Read a file once, or take its bytes: hash it, decode it strictly, measure it."""
    try:
        payload = _payload(file)
    except UndecodableError as error:
        return Refused(reason=error.reason, detail=error.detail)
    sha256, size = hashlib.sha256(payload).hexdigest(), len(payload)
    try:
        pixels, nature = decode_with_info(payload)
    except UndecodableError as error:
        return Refused(
            reason=error.reason, detail=error.detail, sha256=sha256, size=size
        )
    facts, view, thumb = measure(pixels)
    return Examined(
        facts=facts, view=view, thumb=thumb, nature=nature, sha256=sha256, size=size
    )


def preview_file(file: Path | bytes) -> Examined | Refused:
    """As `examine_file`, but the view is in color."""
    found = examine_file(file)
    if isinstance(found, Refused):
        return found
    return replace(found, view=preview_pixels(decode_with_info(_payload(file))[0]))


def _payload(file: Path | bytes) -> bytes:
    return file if isinstance(file, bytes) else read_file(file)


def preview_pixels(pixels: np.ndarray) -> np.ndarray:
    """Return an image of at most 128 a side, channels kept, 8-bit."""
    planes = np.moveaxis(pixels.astype(np.float32), -1, 0)
    return np.stack([closeup(plane) for plane in planes], -1)


def examine_pixels(pixels: np.ndarray) -> Examined:
    """Measure an image that is at hand, (H, W, C) uint8."""
    facts, view, thumb = measure(pixels)
    return Examined(facts=facts, view=view, thumb=thumb)


def measure(pixels: np.ndarray) -> tuple[Facts, np.ndarray, np.ndarray]:
    """Return an image's figures, close-up and thumbnail.

    Example:
        >>> facts, _, _ = measure(np.full((8, 6, 1), 7, np.uint8))
        >>> facts.brightness, facts.contrast, facts.height
        (7.0, 0.0, 8)
    """
    gray = gray_levels(pixels)
    levels = np.bincount(np.rint(gray).astype(np.uint8).ravel(), minlength=256)
    share = np.cumsum(levels) / gray.size
    mean = float(levels @ _LEVELS) / gray.size
    variance = float(levels @ (_LEVELS - mean) ** 2) / gray.size
    view = closeup(gray)
    facts = Facts(
        height=pixels.shape[0],
        width=pixels.shape[1],
        colored=pixels.shape[-1] > 1 and not is_gray(pixels),
        content=content_hash(pixels),
        brightness=round(mean, 2),
        contrast=round(variance**0.5, 2),
        lightest=float(np.searchsorted(share, 0.99)),
        darkest=float(np.searchsorted(share, 0.01)),
        sharpness=round(_sharpness(gray), 4),
    )
    return facts, view, thumbnail(view)


def _sharpness(gray: np.ndarray) -> float:
    """Return how much of the change across four pixels happens within one."""
    top, left = (max(0, (n - WINDOW) // 2) for n in gray.shape)
    middle = gray[top : top + WINDOW, left : left + WINDOW]
    if min(middle.shape) < 8:
        return 1.0
    near, far = _change(middle, 1), _change(middle, 4)
    return min(1.0, near / far) if far > 0 else 1.0


def _change(gray: np.ndarray, step: int) -> float:
    """Return the mean change across so many pixels, along rows and columns."""
    across = np.abs(gray[:, step:] - gray[:, :-step])
    down = np.abs(gray[step:] - gray[:-step])
    return float(across.sum() / across.size + down.sum() / down.size)
