"""Decode an image file to 8-bit pixels; damaged files are refused.

A strict libjpeg-turbo decodes JPEGs (`jpeg_decoder`), because Pillow accepts half a
JPEG if it has an end marker. Pillow decodes all other formats. EXIF orientation is
applied. Gray of 9 to 16 bits becomes v·255/white, never clipped. Transparent pixels are
blended with `background`. Animations and multi-page files give their first image.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from striate.core.preprocess_config import MAX_WHITE_LEVEL
from striate.data.decode.file_bytes import UndecodableError
from striate.data.decode.file_formats import (
    MAX_FRAMES,
    gif_frames,
    non_image_kind,
    pgm_max_value,
    png_exif,
    png_fault,
    png_without_texts,
)
from striate.data.decode.hashing import coded_hash, content_hash
from striate.data.decode.heic import is_heic, open_heic
from striate.data.decode.jpeg_decoder import (
    LARGE_JPEG,
    Scaled,
    decode_jpeg,
    error_reason,
    jpeg_reduction,
)
from striate.data.decode.jpeg_markers import (
    is_truncated_jpeg,
    jpeg_layout,
    lacks_jpeg_scans,
)

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
MAX_PIXELS = 100_000_000  # a 100-megapixel camera; decoded that is 300 MB
MAX_SIDE = 32_768
# No real image is both large and this empty; the header of a bomb is.
LARGE_IMAGE = 1 << 24
MAX_PIXELS_PER_BYTE = 1000
_32_BITS = "32-bit pixels are not supported; save the image with 8 or 16 bits"
_GRAY_MODES = ("1", "L", "LA", "I", "I;16", "I;16L", "I;16B", "I;16N")

Image.MAX_IMAGE_PIXELS = None  # our own limit is stricter, and an error


@contextmanager
def without_pillow_warnings() -> Iterator[None]:
    """Silence Pillow's warnings about unusual metadata; such images can be used.

    Enter the context once around all decoding threads: warning filters belong to the
    process, so threads that set and reset the filters would undo one another.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        yield


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """Image size (after EXIF rotation) and channels (1 or 3), from the file header."""

    height: int
    width: int
    channels: int


@dataclass(frozen=True, slots=True)
class ImageFileInfo:
    """Format and color mode of an image file."""

    format: str  # JPEG, PNG, …
    mode: str  # Pillow's color mode: L, RGB, P, CMYK, I;16, …
    notes: tuple[str, ...] = ()  # conversions during decoding, and problems of the file


def read_header(payload: bytes) -> ImageHeader:
    """Read image size and channels without decoding the pixels.

    Raises:
        UndecodableError: The file is not an image, or exceeds the size limits.
    """
    image = _open(payload)
    width, height = image.size
    if image.format != "TIFF" and _orientation(image) >= 5:  # Pillow turns TIFF itself
        width, height = height, width
    channels = 1 if image.mode in _GRAY_MODES else 3
    return ImageHeader(height=height, width=width, channels=channels)


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """A decoded image: pixels and hash."""

    pixels: np.ndarray  # (height, width, 1 or 3) uint8
    content: str  # content hash of the image
    factor: int  # 2 or 4 if a large JPEG was decoded at 1/2 or 1/4 of its size, else 1
    sides: tuple[int, int]  # height and width at full size, after EXIF rotation


def decode(
    payload: bytes,
    background: int = 255,  # gray level under transparent pixels, 0–255
    white_level: int = MAX_WHITE_LEVEL,  # the 16-bit gray value that becomes 255
) -> np.ndarray:
    """Decode a file to 8-bit pixels, (height, width, 1) or (height, width, 3).

    Raises:
        UndecodableError: The file is damaged, truncated, too large or not an image.

    Example:
        >>> from io import BytesIO
        >>> file = BytesIO()
        >>> Image.new("RGB", (4, 3), (9, 8, 7)).save(file, "PNG")
        >>> decode(file.getvalue()).shape
        (3, 4, 3)
    """
    return decode_image(payload, background, white_level).pixels


def decode_image(
    payload: bytes,
    background: int = 255,
    white_level: int = MAX_WHITE_LEVEL,
    scaled: Scaled | None = None,
) -> DecodedImage:
    """Decode an image file as `decode` does, and compute its content hash.

    If `scaled`, a function from the full size to the size after resizing, is given, a
    large JPEG may be decoded at 1/2 or 1/4 of its size.

    Raises:
        UndecodableError: The file is damaged, truncated, too large or not an image.
    """
    return _decode_opened(payload, _open(payload), background, white_level, scaled)


def decode_with_info(payload: bytes) -> tuple[np.ndarray, ImageFileInfo]:
    """Decode an image; also return format, color mode and conversions.

    Raises:
        UndecodableError: The file is damaged, truncated, too large or not an image.
    """
    image = _open(payload)
    frames = _frames(payload, image)  # before decoding, which may close the file
    decoded = _decode_opened(payload, image, 255, MAX_WHITE_LEVEL, None)
    return decoded.pixels, _file_info(image, frames)


def _decode_opened(
    payload: bytes,
    image: Image.Image,
    background: int,
    white_level: int,
    scaled: Scaled | None,
) -> DecodedImage:
    try:
        if image.format in ("JPEG", "MPO"):
            return _decode_opened_jpeg(payload, image, background, scaled)
        if image.format == "PNG" and (fault := png_fault(payload)):
            raise fault
        image.load()
        if _orientation(image) > 1:
            image = ImageOps.exif_transpose(image)
        deep = _deep_gray(image, payload, white_level)
        pixels = _to_array(image, background) if deep is None else deep
        return DecodedImage(pixels, content_hash(pixels), 1, pixels.shape[:2])
    except UndecodableError:
        raise
    except (MemoryError, OverflowError) as error:
        raise UndecodableError("too-large", type(error).__name__) from None
    except Exception as error:  # Pillow's plugins raise many errors on hostile bytes
        text = str(error) or type(error).__name__
        raise UndecodableError(error_reason(payload, text), text) from None


def pixel_hash(
    payload: bytes, background: int = 255, white_level: int = MAX_WHITE_LEVEL
) -> str:
    """Decode an image file in full, and return the hash of its pixels."""
    return content_hash(decode(payload, background, white_level))


def _open(payload: bytes) -> Image.Image:
    try:
        image = _open_image(payload)
    except UndecodableError:
        raise
    except UnidentifiedImageError:
        raise _unidentified_error(payload) from None
    except Exception as error:  # Pillow's plugins raise many errors on hostile headers
        detail = f"{type(error).__name__}: {error}"
        raise UndecodableError(error_reason(payload, str(error)), detail) from None
    _check_size(payload, image)
    if image.mode in ("F", "I") and not _is_pgm(image):
        raise UndecodableError("unsupported", _32_BITS)
    return image


def _open_image(payload: bytes) -> Image.Image:
    """Open an image with Pillow; a PNG has its EXIF data, but no texts."""
    if is_heic(payload):
        image: Image.Image = open_heic(payload)
        return image
    if not payload.startswith(b"\x89PNG"):
        return Image.open(io.BytesIO(payload), formats=FORMATS)
    image = Image.open(io.BytesIO(png_without_texts(payload)), formats=("PNG",))
    if exif := png_exif(payload):
        image.info["exif"] = b"Exif\0\0" + exif
    return image


def _is_pgm(image: Image.Image) -> bool:
    """Return whether this is gray of more than 8 bits, which Pillow scales to 16."""
    return image.format == "PPM" and image.mode == "I"


def _unidentified_error(payload: bytes) -> UndecodableError:
    """Return the error for a file that Pillow does not recognize."""
    if is_truncated_jpeg(payload):
        detail = "the file has only the beginning of a JPEG"
        return UndecodableError("truncated", detail)
    if payload[12:16] == b"IHDR":
        damaged = UndecodableError("damaged", "wrong checksum of a PNG chunk")
        return png_fault(payload) or damaged
    return UndecodableError("not-an-image", non_image_kind(payload))


def _check_size(payload: bytes, image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        limit = f"at most {MAX_PIXELS:,} pixels, and {MAX_SIDE:,} in height and width"
        raise UndecodableError("too-large", f"{width}×{height}; {limit}")
    if min(width, height) < 1:
        raise UndecodableError("damaged", f"the size is {width}×{height} pixels")
    if width * height > max(LARGE_IMAGE, MAX_PIXELS_PER_BYTE * len(payload)):
        detail = f"{width}×{height} pixels in a file of {len(payload):,} bytes"
        raise UndecodableError("too-large", detail)
    if image.format == "GIF" and gif_frames(payload) > MAX_FRAMES:
        detail = f"an animation of more than {MAX_FRAMES:,} images"
        raise UndecodableError("too-large", detail)


def _decode_opened_jpeg(
    payload: bytes, image: Image.Image, background: int, scaled: Scaled | None
) -> DecodedImage:
    orientation = _orientation(image)
    width, height = image.size
    large = width * height >= LARGE_JPEG
    sides = (width, height) if orientation >= 5 else (height, width)
    factor = jpeg_reduction(sides, scaled) if large and scaled else 1
    coded = decode_jpeg(payload, image.mode, -(-height // factor), -(-width // factor))
    jpeg = jpeg_layout(payload)
    if lacks_jpeg_scans(payload, jpeg):
        raise UndecodableError("truncated", "the progressive JPEG lacks some scans")
    if image.mode == "CMYK":  # Pillow handles Adobe's inverted inks
        image.load()
        coded = _to_array(image, background)
    pixels = np.ascontiguousarray(_apply_orientation(coded, orientation))
    if large:
        content = coded_hash(payload, jpeg, max(orientation, 1))
    else:
        content = content_hash(pixels)
    return DecodedImage(pixels, content, factor, sides)


def _apply_orientation(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Rotate or flip an image by its EXIF orientation (tag 0x0112), without a copy."""
    across = pixels.transpose(1, 0, 2) if orientation >= 5 else pixels
    if orientation in (3, 4, 7, 8):
        across = across[::-1]
    if orientation in (2, 3, 6, 7):
        across = across[:, ::-1]
    return across


def _frames(payload: bytes, image: Image.Image) -> int:
    """Return the number of images in the file; 1 if the number is unknown."""
    if image.format == "GIF":
        return gif_frames(payload)
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # a broken second page does not concern the first
        return 1


def _file_info(image: Image.Image, frames: int) -> ImageFileInfo:
    orientation = _orientation(image)
    conditions = {
        f"only the first of {frames} images is used": frames > 1,
        "the EXIF data is unreadable": orientation == 0,
        "rotated by EXIF orientation": 1 < orientation < 9,
        "transparent pixels became white": _is_transparent(image),
        "16-bit values scaled to 8 bits": image.mode.startswith("I"),
        "CMYK converted to RGB": image.mode == "CMYK",
    }
    notes = tuple(note for note, holds in conditions.items() if holds)
    return ImageFileInfo(format=image.format or "", mode=image.mode, notes=notes)


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation; 1 if it is missing, 0 if it is unreadable."""
    if not image.info.get("exif") and image.format not in ("TIFF", "WEBP", "MPO"):
        return 1
    try:
        exif = image.getexif()
        orientation = int(exif.get(0x0112, 1))
    except Exception:  # an image with bad EXIF data is still usable
        return 0
    empty = len(image.info.get("exif") or b"") > 6 and not exif
    return orientation if 1 <= orientation <= 8 and not empty else 0


def _deep_gray(
    image: Image.Image, payload: bytes, white_level: int
) -> np.ndarray | None:
    """Return a gray image of 9 to 16 bits as 8-bit pixels; None for other images.

    White is the largest value that the file declares, unless `white_level` is smaller.
    """
    if not image.mode.startswith("I"):
        return None
    wide = np.asarray(image).astype(np.uint32)
    declared = _declared_white(image, payload)
    if _is_pgm(image):  # undo Pillow's scaling, which is exact both ways
        wide = (wide * declared + MAX_WHITE_LEVEL // 2) // MAX_WHITE_LEVEL
    return _scale_to_8_bits(wide, min(declared, white_level))


def _declared_white(image: Image.Image, payload: bytes) -> int:
    """Return the largest value that a gray image can have, as its file declares."""
    if _is_pgm(image):
        return pgm_max_value(payload)
    bits = getattr(image, "tag_v2", {}).get(258, (16,))  # BitsPerSample of TIFF
    return int((1 << min(16, *bits)) - 1)


def _scale_to_8_bits(wide: np.ndarray, white_level: int) -> np.ndarray:
    if (largest := int(wide.max())) > white_level:
        detail = f"the value {largest:,} is above the white level {white_level:,}"
        raise UndecodableError("above-white", detail)
    levels = (wide * 255 + white_level // 2) // white_level
    return levels.astype(np.uint8)[..., None]


def _to_array(image: Image.Image, background: int) -> np.ndarray:
    gray = image.mode in ("1", "L", "LA", "La")
    if _is_transparent(image):
        foreground = image.convert("RGBA")
        color = (background, background, background, 255)
        canvas = Image.new("RGBA", foreground.size, color)
        image = Image.alpha_composite(canvas, foreground)
    pixels = np.array(image.convert("L" if gray else "RGB"))
    return pixels[..., None] if gray else pixels


def is_pil_image(value: object) -> bool:
    """Return whether an object is a PIL image."""
    return isinstance(value, Image.Image)


def pil_to_pixels(
    image: Any,  # PIL image of any color mode with 1, 8 or 16 bits
    background: int = 255,  # gray level under transparent pixels, 0–255
    white_level: int = MAX_WHITE_LEVEL,  # the 16-bit gray value that becomes 255
) -> np.ndarray:
    """Convert a PIL image to 8-bit pixels, as an image file is converted.

    Shapes:
        (height, width, 1) or (height, width, 3), uint8

    Raises:
        UndecodableError: The image has 32-bit values, or a value above `white_level`.
    """
    if image.mode in ("F", "I") and not _is_pgm(image):
        raise UndecodableError("unsupported", _32_BITS)
    if not image.mode.startswith("I"):
        return _to_array(image, background)
    wide = np.asarray(image).astype(np.uint32)
    declared = MAX_WHITE_LEVEL if _is_pgm(image) else _declared_white(image, b"")
    return _scale_to_8_bits(wide, min(declared, white_level))


def _is_transparent(image: Image.Image) -> bool:
    alpha = image.mode in ("LA", "PA", "La", "RGBA", "RGBa")
    return alpha or "transparency" in image.info
