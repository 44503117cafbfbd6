"""From the bytes of an image file to 8-bit pixels, strictly or not at all.

JPEG goes through a strict libjpeg-turbo, because Pillow accepts every half JPEG that
carries an end marker; everything else goes through Pillow. Rules: EXIF orientation
is applied; 16-bit gray becomes v·255/white (never clipped); transparency is laid on
`background`; of animations and multi-page files the first image counts.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import simplejpeg
from PIL import Image, ImageOps, UnidentifiedImageError

from striate.core.preprocess import MAX_WHITE_LEVEL
from striate.data.decode.file_bytes import UndecodableError
from striate.data.decode.file_formats import MAX_FRAMES, gif_frames, kind_of, png_fault
from striate.data.decode.hashing import coded_hash, content_hash
from striate.data.decode.jpeg_markers import is_cut, lacks_scans, layout

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
MAX_PIXELS = 100_000_000  # a 100-megapixel camera; decoded that is 300 MB
MAX_SIDE = 32_768
# No real image is both large and this empty; a header's promise may be.
UNSEEN_PIXELS = 1 << 24
PIXELS_A_BYTE = 1000
# From this size on a JPEG may be decoded at a fraction of it, and is known by its coded
# bytes rather than by pixels that need not all be made.
LARGE_JPEG = 1_500_000
# (fraction, how many times the scaled sides it must leave): the antialiased resize
# that follows hides how the fraction was made. Eighths never come within the tolerance
# of docs/preprocessing.md (docs/notebook/image-decoding.md).
REDUCED = ((4, 4), (2, 3))

_GRAY_MODES = ("1", "L", "LA", "I;16", "I;16L", "I;16B", "I;16N")

Image.MAX_IMAGE_PIXELS = None  # our own limit is stricter and refuses, not warns


@contextmanager
def unwarned() -> Iterator[None]:
    """Silence Pillow's remarks on odd metadata, which stop no image.

    Enter it once around all decoding threads: filters belong to the process, and
    threads that each set and reset them undo one another.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        yield


@dataclass(frozen=True, slots=True)
class Header:
    """What a file's header promises: size as displayed, and gray or color."""

    height: int
    width: int
    channels: int


@dataclass(frozen=True, slots=True)
class Nature:
    """What kind of file an image came from.

    Args:
        format: JPEG, PNG, …
        mode: How it holds colors: L, RGB, P, CMYK, I;16, …
        notes: What was done to it by rule, and what was odd about it.
    """

    format: str
    mode: str
    notes: tuple[str, ...] = ()


def read_header(payload: bytes) -> Header:
    """Return size and channels without decoding pixels.

    Raises:
        UndecodableError: Not an image, or larger than the limits.
    """
    image = _open(payload)
    width, height = image.size
    if image.format != "TIFF" and _orientation(image) >= 5:  # Pillow turns TIFF itself
        width, height = height, width
    channels = 1 if image.mode in _GRAY_MODES else 3
    return Header(height=height, width=width, channels=channels)


@dataclass(frozen=True, slots=True)
class Decoded:
    """An image's pixels and what identifies it.

    Args:
        pixels: (height, width, 1 or 3) uint8.
        content: A hash of what the image shows.
        factor: 2 or 4 where a large JPEG was decoded at that fraction.
        sides: Height and width of the whole image as displayed.
    """

    pixels: np.ndarray
    content: str
    factor: int
    sides: tuple[int, int]


Scaled = Callable[[int, int], tuple[int, int]]


def decode(
    payload: bytes, background: int = 255, white_level: int = MAX_WHITE_LEVEL
) -> np.ndarray:
    """Return 8-bit pixels, (height, width, 1) for gray or (height, width, 3) for RGB.

    Args:
        payload: The whole file.
        background: Gray level laid under transparent pixels, 0–255.
        white_level: The 16-bit gray value that becomes 255.

    Raises:
        UndecodableError: The file is damaged, cut short, too large or no image.

    Example:
        >>> from io import BytesIO
        >>> file = BytesIO()
        >>> Image.new("RGB", (4, 3), (9, 8, 7)).save(file, "PNG")
        >>> decode(file.getvalue()).shape
        (3, 4, 3)
    """
    return examine(payload, background, white_level).pixels


def examine(
    payload: bytes,
    background: int = 255,
    white_level: int = MAX_WHITE_LEVEL,
    scaled: Scaled | None = None,
) -> Decoded:
    """Decode an image and say what identifies it.

    Args:
        payload: The whole file.
        background: Gray level laid under transparent pixels, 0–255.
        white_level: The 16-bit gray value that becomes 255.
        scaled: Given the displayed (height, width), the sides that the image will
            be scaled to: a large JPEG may then be decoded at a half or a quarter.

    Raises:
        UndecodableError: As `decode`.
    """
    return _examine(payload, _open(payload), background, white_level, scaled)


def inspect(
    payload: bytes, background: int = 255, white_level: int = MAX_WHITE_LEVEL
) -> tuple[np.ndarray, Nature]:
    """Decode, and say what kind of file it is and what became of its pixels.

    Raises:
        UndecodableError: As `decode`.
    """
    image = _open(payload)
    frames = _frames(payload, image)
    decoded = _examine(payload, image, background, white_level, None)
    return decoded.pixels, _nature(image, frames)


def _examine(
    payload: bytes,
    image: Image.Image,
    background: int,
    white_level: int,
    scaled: Scaled | None,
) -> Decoded:
    try:
        if image.format in ("JPEG", "MPO"):
            return _examine_jpeg(payload, image, background, scaled)
        if image.format == "PNG" and (fault := png_fault(payload)):
            raise UndecodableError(*fault)
        image.load()
        if _orientation(image) > 1:
            image = ImageOps.exif_transpose(image)
        pixels = _to_array(image, background, white_level)
        return Decoded(pixels, content_hash(pixels), 1, pixels.shape[:2])
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
    cut = any(word in said for word in words) or is_cut(payload)
    return "truncated" if cut else "damaged"


def pixel_content(
    payload: bytes, background: int = 255, white_level: int = MAX_WHITE_LEVEL
) -> str:
    """Return the hash of an image's pixels, however large: all of them are made."""
    return content_hash(decode(payload, background, white_level))


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
    """Say why Pillow recognizes nothing, as (reason, detail)."""
    if is_cut(payload):
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
        detail = f"an animation of more than {MAX_FRAMES:,} images"
        raise UndecodableError("too-large", detail)


def _examine_jpeg(
    payload: bytes, image: Image.Image, background: int, scaled: Scaled | None
) -> Decoded:
    turn = _orientation(image)
    width, height = image.size
    large = width * height >= LARGE_JPEG
    sides = (width, height) if turn >= 5 else (height, width)
    factor = fraction(sides, scaled) if large and scaled else 1
    coded = _decode_jpeg(payload, image.mode, -(-height // factor), -(-width // factor))
    found = layout(payload)
    if lacks_scans(payload, found):
        raise UndecodableError("truncated", "the progressive JPEG lacks scans")
    if image.mode == "CMYK":  # Pillow knows Adobe's inverted inks
        image.load()
        coded = _to_array(image, background, MAX_WHITE_LEVEL)
    pixels = np.ascontiguousarray(_turned(coded, turn))
    if large:
        content = coded_hash(payload, found, max(turn, 1))
    else:
        content = content_hash(pixels)
    return Decoded(pixels, content, factor, sides)


def fraction(sides: tuple[int, int], scaled: Scaled) -> int:
    """Return 4, 2 or 1: how much smaller a large JPEG may be decoded.

    Example:
        >>> fraction((3000, 4000), lambda height, width: (160, 160))
        4
    """
    rows, columns = scaled(*sides)
    for factor, margin in REDUCED:
        if sides[0] >= factor * margin * rows and sides[1] >= factor * margin * columns:
            return factor
    return 1


def _decode_jpeg(payload: bytes, mode: str, height: int, width: int) -> np.ndarray:
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
        raise UndecodableError(_reason(payload, text), text) from None
    return pixels


def _turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Apply an EXIF orientation (Exif 2.3, tag 0x0112) as views of the rows."""
    across = pixels.transpose(1, 0, 2) if orientation >= 5 else pixels
    if orientation in (3, 4, 7, 8):
        across = across[::-1]
    if orientation in (2, 3, 6, 7):
        across = across[:, ::-1]
    return across


def _frames(payload: bytes, image: Image.Image) -> int:
    """Return how many images the file holds, 1 where that cannot be told."""
    if image.format == "GIF":
        return gif_frames(payload)
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # a broken second page is no fault of the first
        return 1


def _nature(image: Image.Image, frames: int) -> Nature:
    turned = _orientation(image)
    said = {
        f"the first of {frames} images": frames > 1,
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
    except Exception:  # a bad EXIF block must not stop an image
        return 0
    empty = len(image.info.get("exif", b"")) > 6 and not found
    return turned if 1 <= turned <= 8 and not empty else 0


def _to_array(image: Image.Image, background: int, white_level: int) -> np.ndarray:
    if image.mode.startswith("I;16"):
        return _narrowed(np.asarray(image).astype(np.uint32), white_level)
    if _is_transparent(image):
        return _flatten(image, background)
    mode = "L" if image.mode in ("1", "L") else "RGB"
    pixels = np.array(image.convert(mode))
    return pixels[..., None] if mode == "L" else pixels


def _is_transparent(image: Image.Image) -> bool:
    alpha = image.mode in ("LA", "PA", "La", "RGBA", "RGBa")
    return alpha or "transparency" in image.info


def _narrowed(wide: np.ndarray, white_level: int) -> np.ndarray:
    if (most := int(wide.max())) > white_level:
        detail = f"a value of {most:,} where white is {white_level:,}"
        raise UndecodableError("above-white", detail)
    return ((wide * 255 + white_level // 2) // white_level).astype(np.uint8)[..., None]


def _flatten(image: Image.Image, background: int) -> np.ndarray:
    gray = image.mode in ("1", "L", "LA", "La")
    top = image.convert("RGBA")
    under = Image.new("RGBA", top.size, (background, background, background, 255))
    flat = Image.alpha_composite(under, top)
    pixels = np.array(flat.convert("L" if gray else "RGB"))
    return pixels[..., None] if gray else pixels
