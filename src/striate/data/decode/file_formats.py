"""Checks of image files before decoding: truncation, damage, decompression bombs."""

from __future__ import annotations

import zlib

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

_PNG_START = 8
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
    if payload[4:8] == b"ftyp":
        return "HEIC/AVIF or a video, which is not supported; save it as PNG or JPEG"
    try:
        payload[:512].decode("utf-8")
    except UnicodeDecodeError:
        return "the file is not in a supported image format"
    return "this is a text file"


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
