"""Checks of image files before decoding: truncation, damage, decompression bombs."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator

from striate.data.decode.file_bytes import UndecodableError

MAX_FRAMES = 10_000  # an animation of five minutes; more is a decompression bomb

_KNOWN_OTHERS = {
    b"<svg": "an SVG drawing",
    b"<?xml": "an XML or SVG file",
    b"<!doc": "an HTML page",
    b"<html": "an HTML page",
    b"%pdf": "a PDF document",
    b"pk\x03\x04": "a ZIP archive",
    b"{\\rtf": "an RTF document",
}

_BINARY_OTHERS = {
    b"\x93NUMPY": "a NumPy array",
    b"8BPS": "a Photoshop file",
    b"\x89HDF": "an HDF5 file",
    b"SIMPLE  =": "a FITS file",
    b"v/1\x01": "an OpenEXR file",
    b"\0\0\0\x0cjP  ": "a JPEG 2000 file",
    b"\0\0\0\x0cJXL ": "a JPEG XL file",
    b"\xff\x0a": "a JPEG XL file",
    b"\x1f\x8b": "a gzip archive",
}
_DICOM = "a DICOM file; convert it to PNG, for example with the package pydicom"

_PNG_START = 8
_PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
_PNG_NEEDED = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")


def non_image_kind(payload: bytes) -> str:
    """Describe the content of a file that is not a supported image, in one sentence.

    Example:
        >>> non_image_kind(b"<!DOCTYPE html>")
        'this is an HTML page'
    """
    start = payload[:64].lstrip().lower()
    for magic, kind in _KNOWN_OTHERS.items():
        if start.startswith(magic):
            return f"this is {kind}"
    for magic, kind in _BINARY_OTHERS.items():
        if payload.startswith(magic):
            return f"this is {kind}, which is not supported; save it as PNG or JPEG"
    if payload[128:132] == b"DICM":
        return f"this is {_DICOM}"
    if payload[4:8] == b"ftyp":
        return "AVIF or a video, which is not supported; save it as PNG or JPEG"
    try:
        text = payload[:512].decode("utf-8")
    except UnicodeDecodeError:
        text = "\0"
    unknown = "the file is not in a supported image format"
    return unknown if "\0" in text else "this is a text file"


def png_fault(payload: bytes) -> UndecodableError | None:
    """Return the error of a damaged or truncated PNG, None for an intact PNG.

    Pillow ignores wrong checksums of pixel chunks; other decoders stop there.
    """
    position = _PNG_START
    view = memoryview(payload)
    while position + 12 <= len(payload):
        size = int.from_bytes(view[position : position + 4])
        kind = bytes(view[position + 4 : position + 8])
        end = position + 8 + size
        if end + 4 > len(payload):
            name = kind.decode("ascii", "backslashreplace")
            detail = f"the PNG ends inside its {name} chunk"
            return UndecodableError("truncated", detail)
        check = int.from_bytes(view[end : end + 4])
        if kind in _PNG_NEEDED and zlib.crc32(view[position + 4 : end]) != check:
            detail = f"wrong checksum of the PNG's {kind.decode()} chunk"
            return UndecodableError("damaged", detail)
        if kind == b"IEND":
            return None
        position = end + 4
    return UndecodableError("truncated", "the PNG has no end")


def _png_chunks(payload: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, start and end of each chunk of a PNG, as far as it is intact."""
    position = _PNG_START
    while position + 12 <= len(payload):
        end = position + 12 + int.from_bytes(payload[position : position + 4])
        if end > len(payload):
            return
        yield payload[position + 4 : position + 8], position, end
        position = end


def png_without_texts(payload: bytes) -> bytes:
    """Return a PNG without comments and color profiles, which Pillow limits in size.

    A large comment is no reason to refuse an image. Profiles are never applied.
    """
    chunks = list(_png_chunks(payload))
    if not any(kind in _PNG_TEXTS for kind, _, _ in chunks):
        return payload
    pieces = [payload[:_PNG_START]]
    pieces += [payload[s:e] for kind, s, e in chunks if kind not in _PNG_TEXTS]
    return b"".join([*pieces, payload[chunks[-1][2] :]])


def png_exif(payload: bytes) -> bytes:
    """Return the EXIF data of a PNG, also after its pixels; empty if there is none.

    Pillow reads this chunk only while it decodes the pixels.
    """
    if b"eXIf" not in payload:
        return b""
    for kind, start, end in _png_chunks(payload):
        if kind == b"eXIf":
            return payload[start + 8 : end - 4]
    return b""


def pgm_max_value(payload: bytes) -> int:
    """Return the largest possible value of a PGM image, from its header.

    Example:
        >>> pgm_max_value(b"P5 14 10 1023 ")
        1023
    """
    words = re.sub(rb"#[^\r\n]*", b" ", payload[:4096]).split(None, 4)
    return int(words[3])


def gif_frames(payload: bytes, limit: int = MAX_FRAMES) -> int:
    """Count the images of a GIF without decoding; stop counting above `limit`.

    Images of a truncated or damaged file are counted as far as it can be parsed.
    """
    position = 13 + _table_bytes(payload[10:11])
    count = 0
    while position < len(payload) and count <= limit:
        kind = payload[position]
        if kind == 0x2C:  # an image: position, palette, code size
            count += 1
            position += 10 + _table_bytes(payload[position + 9 : position + 10]) + 1
        elif kind == 0x21:  # an extension
            position += 2
        else:
            break
        while position < len(payload) and payload[position]:
            position += payload[position] + 1
        position += 1
    return count


def _table_bytes(flags: bytes) -> int:
    """Return the size in bytes of a GIF color table, from the flags byte before it."""
    return 3 << ((flags[0] & 7) + 1) if flags and flags[0] & 0x80 else 0
