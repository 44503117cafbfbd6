"""From the bytes of a picture file to 8-bit pixels, strictly or not at all.

JPEG goes through a strict libjpeg-turbo, because Pillow accepts every half JPEG that
carries an end marker; everything else goes through Pillow. Rules: EXIF orientation
is applied; 16-bit grey becomes v·255/65535 (never clipped); transparency is laid on
`background`; of animations and multi-page files the first picture counts.
"""

from __future__ import annotations

import io
import os
import re
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
MAX_PIXELS = 100_000_000  # a 100-megapixel camera; decoded that is 300 MB
MAX_SIDE = 32_768
MAX_BYTES = 1 << 30

_GREY_MODES = ("1", "L", "LA", "I;16", "I;16L", "I;16B", "I;16N")
_KNOWN_OTHERS = {
    b"<svg": "an SVG drawing",
    b"<?xml": "an XML or SVG file",
    b"<!doc": "an HTML page",
    b"<html": "an HTML page",
    b"%pdf": "a PDF document",
    b"pk\x03\x04": "a ZIP archive",
    b"{\\rtf": "an RTF document",
}

# JPEG markers; in coded data 0xFF is followed by 0 or a restart.
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
_PROGRESSIVE, _END, _SCAN = 0xC2, 0xD9, 0xDA

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
    image = _open(payload)
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
        text = str(error).lower()
        cut = any(word in text for word in ("truncated", "eof", "broken", "not enough"))
        reason = "truncated" if cut else "damaged"
        raise UndecodableError(reason, str(error) or type(error).__name__) from None


def _open(payload: bytes) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(payload), formats=FORMATS)
    except UnidentifiedImageError:
        raise UndecodableError("not-an-image", _describe(payload)) from None
    except Exception as error:  # Pillow's plugins raise many kinds on hostile headers
        detail = f"{type(error).__name__}: {error}"
        raise UndecodableError("damaged", detail) from None
    width, height = image.size
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        limit = f"at most {MAX_PIXELS:,} pixels and {MAX_SIDE:,} a side"
        raise UndecodableError("too-large", f"{width}×{height}; {limit}")
    if min(width, height) < 1:
        raise UndecodableError("damaged", f"{width}×{height} pixels")
    if image.mode in ("F", "I"):
        detail = "32-bit values have no declared range; save as 8 or 16 bits"
        raise UndecodableError("unsupported", detail)
    return image


def _describe(payload: bytes) -> str:
    start = payload[:64].lstrip().lower()
    for magic, kind in _KNOWN_OTHERS.items():
        if start.startswith(magic):
            return f"this is {kind}"
    if payload[4:8] == b"ftyp":
        return "HEIC/AVIF or a video, which is not supported; save it as PNG or JPEG"
    try:
        payload[:512].decode("utf-8")
    except UnicodeDecodeError:
        return "the content is of no picture format that is read here"
    return "this is a text file"


def _check_whole(payload: bytes, image: Image.Image) -> None:
    if image.format in ("JPEG", "MPO"):
        _check_jpeg(payload, image.mode)
    if image.format == "PNG" and b"IEND" not in payload:
        raise UndecodableError("truncated", "the PNG has no end")


def _check_jpeg(payload: bytes, mode: str) -> None:
    # Pillow fills what is missing with grey and reports nothing.
    space = {"L": "GRAY", "CMYK": "CMYK"}.get(mode, "RGB")
    try:
        simplejpeg.decode_jpeg(payload, colorspace=space, strict=True)
    except ValueError as error:
        text = str(error)
        cut = any(word in text.lower() for word in ("premature", "truncated", "end"))
        raise UndecodableError("truncated" if cut else "damaged", text) from None
    if _lacks_scans(payload):
        raise UndecodableError("truncated", "the progressive JPEG lacks scans")


def _lacks_scans(payload: bytes) -> bool:
    """Tell whether a progressive JPEG ends before its last refinement.

    Every scan (ITU-T T.81, G.1) sends coefficients Ss–Se down to bit Al. A file cut
    between scans decodes without complaint to a blurred picture.
    """
    missing: dict[tuple[int, int], int] = {}
    position = 2
    while match := _MARKER.search(payload, position):
        start, kind = match.end(), payload[match.end() - 1]
        if kind == _END:
            break
        position = start + int.from_bytes(payload[start : start + 2])
        segment = payload[start + 2 : position]
        if kind == _PROGRESSIVE:
            components = segment[6::3]
            missing = {(c, k): 1 for c in components for k in range(64)}
        elif kind == _SCAN and missing:
            low, high, bits = segment[-3:]
            for component in segment[1:-3:2]:
                missing |= {(component, k): bits & 15 for k in range(low, high + 1)}
    return any(missing.values())


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 where there is none or it is unreadable."""
    if "exif" not in image.info and image.format not in ("TIFF", "WEBP", "MPO"):
        return 1
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # a bad EXIF block must not stop a picture
        return 1


def _to_array(image: Image.Image, background: int) -> np.ndarray:
    if image.mode.startswith("I;16"):
        wide = np.asarray(image).astype(np.uint32)
        return ((wide * 255 + 32_767) // 65_535).astype(np.uint8)[..., None]
    if image.mode in ("LA", "PA", "La", "RGBA", "RGBa") or "transparency" in image.info:
        return _flatten(image, background)
    mode = "L" if image.mode in ("1", "L") else "RGB"
    pixels = np.array(image.convert(mode))
    return pixels[..., None] if mode == "L" else pixels


def _flatten(image: Image.Image, background: int) -> np.ndarray:
    grey = image.mode in ("1", "L", "LA", "La")
    top = image.convert("RGBA")
    under = Image.new("RGBA", top.size, (background, background, background, 255))
    flat = Image.alpha_composite(under, top)
    pixels = np.array(flat.convert("L" if grey else "RGB"))
    return pixels[..., None] if grey else pixels
