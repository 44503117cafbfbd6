"""From the bytes of a picture file to 8-bit pixels, strictly or not at all.

JPEG goes through a strict libjpeg-turbo, because Pillow accepts every half JPEG that
carries an end marker; everything else goes through Pillow. Rules: EXIF orientation
is applied; 16-bit grey becomes v·255/65535 (never clipped); transparency is laid on
`background`; of animations and multi-page files the first picture counts.
"""

from __future__ import annotations

import io
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image, ImageOps, UnidentifiedImageError

from striate.data.containers import (
    MAX_FRAMES,
    gif_frames,
    is_cut_jpeg,
    kind_of,
    lacks_scans,
    png_fault,
)

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
MAX_PIXELS = 100_000_000  # a 100-megapixel camera; decoded that is 300 MB
MAX_SIDE = 32_768
MAX_BYTES = 1 << 30
# No real picture is both large and this empty; a header's promise may be.
UNSEEN_PIXELS = 1 << 24
PIXELS_A_BYTE = 1000

_GREY_MODES = ("1", "L", "LA", "I;16", "I;16L", "I;16B", "I;16N")

Image.MAX_IMAGE_PIXELS = None  # our own limit is stricter and refuses, not warns


class UndecodableError(Exception):
    """Why a file is not a usable picture: a short reason and a detail."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@contextmanager
def unwarned() -> Iterator[None]:
    """Silence Pillow's remarks on odd metadata, which stop no picture.

    Enter it once around all decoding threads: filters belong to the process, and
    threads that each set and reset them undo one another.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        yield


@dataclass(frozen=True, slots=True)
class Header:
    """What a file's header promises: size as displayed, and grey or colour."""

    height: int
    width: int
    channels: int


@dataclass(frozen=True, slots=True)
class Nature:
    """What kind of file a picture came from.

    Args:
        format: JPEG, PNG, …
        mode: How it holds colours: L, RGB, P, CMYK, I;16, …
        notes: What was done to it by rule, and what was odd about it.
    """

    format: str
    mode: str
    notes: tuple[str, ...] = ()


def read_file(path: Path) -> bytes:
    """Read a regular file; a pipe, socket or device is never opened.

    Raises:
        UndecodableError: Missing, not a regular file, unreadable, empty or enormous.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise UndecodableError("not-a-file", "a pipe, socket or device")
        if status.st_size == 0:
            raise UndecodableError("not-an-image", "the file is empty")
        if status.st_size > MAX_BYTES:
            size = f"{status.st_size:,} bytes, at most {MAX_BYTES:,}"
            raise UndecodableError("too-large", size)
        return path.read_bytes()
    except (FileNotFoundError, ValueError):  # a name with a zero byte is no name
        raise UndecodableError("missing", "no such file") from None
    except OSError as error:
        detail = os.strerror(error.errno) if error.errno else str(error)
        raise UndecodableError("unreadable", detail) from None


def read_header(payload: bytes) -> Header:
    """Return size and channels without decoding pixels.

    Raises:
        UndecodableError: Not a picture, or larger than the limits.
    """
    image = _open(payload)
    width, height = image.size
    if image.format != "TIFF" and _orientation(image) >= 5:  # Pillow turns TIFF itself
        width, height = height, width
    channels = 1 if image.mode in _GREY_MODES else 3
    return Header(height=height, width=width, channels=channels)


def decode(payload: bytes, background: int = 255) -> np.ndarray:
    """Return 8-bit pixels, (height, width, 1) for grey or (height, width, 3) for RGB.

    Args:
        payload: The whole file.
        background: Grey level laid under transparent pixels, 0–255.

    Raises:
        UndecodableError: The file is damaged, cut short, too large or no picture.

    Example:
        >>> from io import BytesIO
        >>> file = BytesIO()
        >>> Image.new("RGB", (4, 3), (9, 8, 7)).save(file, "PNG")
        >>> decode(file.getvalue()).shape
        (3, 4, 3)
    """
    return _pixels(payload, _open(payload), background)


def inspect(payload: bytes, background: int = 255) -> tuple[np.ndarray, Nature]:
    """Decode, and say what kind of file it is and what became of its pixels.

    Raises:
        UndecodableError: As `decode`.
    """
    image = _open(payload)
    frames = _frames(payload, image)
    pixels = _pixels(payload, image, background)
    return pixels, _nature(image, frames)


def _pixels(payload: bytes, image: Image.Image, background: int) -> np.ndarray:
    try:
        _check_whole(payload, image)
        image.load()
        if _orientation(image) > 1:
            image = ImageOps.exif_transpose(image)
        return _to_array(image, background)
    except UndecodableError:
        raise
    except (MemoryError, OverflowError) as error:
        raise UndecodableError("too-large", type(error).__name__) from None
    except Exception as error:  # Pillow's plugins raise many kinds on hostile bytes
        text = str(error) or type(error).__name__
        raise UndecodableError(_reason(payload, text), text) from None


def _reason(payload: bytes, text: str) -> str:
    """Tell from a decoder's words, and from the file, what is wrong with it."""
    said = text.lower()
    if "too large" in said:
        return "too-large"
    words = ("truncated", "premature", "eof", "broken", "not enough", "end of")
    cut = any(word in said for word in words) or is_cut_jpeg(payload)
    return "truncated" if cut else "damaged"


def _open(payload: bytes) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(payload), formats=FORMATS)
    except UnidentifiedImageError:
        raise UndecodableError(*_unidentified(payload)) from None
    except Exception as error:  # Pillow's plugins raise many kinds on hostile headers
        detail = f"{type(error).__name__}: {error}"
        raise UndecodableError(_reason(payload, str(error)), detail) from None
    _check_size(payload, image)
    if image.mode in ("F", "I"):
        detail = "32-bit values have no declared range; save as 8 or 16 bits"
        raise UndecodableError("unsupported", detail)
    return image


def _unidentified(payload: bytes) -> tuple[str, str]:
    """Say why Pillow recognises nothing, as (reason, detail)."""
    if is_cut_jpeg(payload):
        return "truncated", "a JPEG's beginning only"
    if payload[12:16] == b"IHDR":
        return png_fault(payload) or ("damaged", "wrong checksum of a PNG chunk")
    return "not-an-image", kind_of(payload)


def _check_size(payload: bytes, image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        limit = f"at most {MAX_PIXELS:,} pixels and {MAX_SIDE:,} a side"
        raise UndecodableError("too-large", f"{width}×{height}; {limit}")
    if min(width, height) < 1:
        raise UndecodableError("damaged", f"{width}×{height} pixels")
    if width * height > max(UNSEEN_PIXELS, PIXELS_A_BYTE * len(payload)):
        detail = f"{width}×{height} promised by {len(payload):,} bytes"
        raise UndecodableError("too-large", detail)
    if image.format == "GIF" and gif_frames(payload) > MAX_FRAMES:
        detail = f"an animation of more than {MAX_FRAMES:,} pictures"
        raise UndecodableError("too-large", detail)


def _check_whole(payload: bytes, image: Image.Image) -> None:
    if image.format in ("JPEG", "MPO"):
        _check_jpeg(payload, image.mode)
    if image.format == "PNG" and (fault := png_fault(payload)):
        raise UndecodableError(*fault)


def _check_jpeg(payload: bytes, mode: str) -> None:
    # Pillow fills what is missing with grey and reports nothing.
    space = {"L": "GRAY", "CMYK": "CMYK"}.get(mode, "RGB")
    try:
        simplejpeg.decode_jpeg(payload, colorspace=space, strict=True)
    except ValueError as error:
        text = str(error)
        raise UndecodableError(_reason(payload, text), text) from None
    if lacks_scans(payload):
        raise UndecodableError("truncated", "the progressive JPEG lacks scans")


def _frames(payload: bytes, image: Image.Image) -> int:
    """Return how many pictures the file holds, 1 where that cannot be told."""
    if image.format == "GIF":
        return gif_frames(payload)
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # a broken second page is no fault of the first
        return 1


def _nature(image: Image.Image, frames: int) -> Nature:
    turned = _orientation(image)
    said = {
        f"the first of {frames} pictures": frames > 1,
        "the EXIF data is unreadable": turned == 0,
        "turned upright by EXIF": 1 < turned < 9,
        "transparency laid on white": _is_transparent(image),
        "16 bits scaled to 8": image.mode.startswith("I;16"),
        "CMYK turned into RGB": image.mode == "CMYK",
    }
    notes = tuple(note for note, holds in said.items() if holds)
    return Nature(format=image.format or "", mode=image.mode, notes=notes)


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation: 1 where there is none, 0 if it is unreadable."""
    if "exif" not in image.info and image.format not in ("TIFF", "WEBP", "MPO"):
        return 1
    try:
        found = image.getexif()
        turned = int(found.get(0x0112, 1))
    except Exception:  # a bad EXIF block must not stop a picture
        return 0
    empty = len(image.info.get("exif", b"")) > 6 and not found
    return turned if 1 <= turned <= 8 and not empty else 0


def _to_array(image: Image.Image, background: int) -> np.ndarray:
    if image.mode.startswith("I;16"):
        wide = np.asarray(image).astype(np.uint32)
        return ((wide * 255 + 32_767) // 65_535).astype(np.uint8)[..., None]
    if _is_transparent(image):
        return _flatten(image, background)
    mode = "L" if image.mode in ("1", "L") else "RGB"
    pixels = np.array(image.convert(mode))
    return pixels[..., None] if mode == "L" else pixels


def _is_transparent(image: Image.Image) -> bool:
    alpha = image.mode in ("LA", "PA", "La", "RGBA", "RGBa")
    return alpha or "transparency" in image.info


def _flatten(image: Image.Image, background: int) -> np.ndarray:
    grey = image.mode in ("1", "L", "LA", "La")
    top = image.convert("RGBA")
    under = Image.new("RGBA", top.size, (background, background, background, 255))
    flat = Image.alpha_composite(under, top)
    pixels = np.array(flat.convert("L" if grey else "RGB"))
    return pixels[..., None] if grey else pixels
