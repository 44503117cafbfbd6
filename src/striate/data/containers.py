"""What a file's own structure says before anything is decoded: cut, damaged, a bomb."""

from __future__ import annotations

import re
import zlib

MAX_FRAMES = 10_000  # an animation of five minutes; more is a bomb or no photograph

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
_JPEG_START = b"\xff\xd8"

_PNG_START = 8
_PNG_NEEDED = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")


def kind_of(payload: bytes) -> str:
    """Say what a file that is no picture is, where that is known.

    Example:
        >>> kind_of(b"<!DOCTYPE html>")
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
        return "the content is of no picture format that is read here"
    return "this is a text file"


def is_cut_jpeg(payload: bytes) -> bool:
    r"""Tell whether a JPEG breaks off, with or without an end marker put behind.

    Example:
        >>> is_cut_jpeg(b"\xff\xd8\xff\xe0\0\x10JFIF"), is_cut_jpeg(b"BM")
        (True, False)
    """
    if not payload.startswith(_JPEG_START):
        return False
    position, scans = 2, 0
    while match := _MARKER.search(payload, position):
        start, kind = match.end(), payload[match.end() - 1]
        if kind == _END:
            return scans == 0
        scans += kind == _SCAN
        position = start + int.from_bytes(payload[start : start + 2])
    return True


def lacks_scans(payload: bytes) -> bool:
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


def png_fault(payload: bytes) -> tuple[str, str] | None:
    """Return why a PNG is not whole, as (reason, detail).

    Pillow reads past wrong checksums of the pixels' chunks, every other reader stops.
    """
    position = _PNG_START
    view = memoryview(payload)
    while position + 12 <= len(payload):
        size = int.from_bytes(view[position : position + 4])
        kind = bytes(view[position + 4 : position + 8])
        end = position + 8 + size
        if end + 4 > len(payload):
            return "truncated", f"the PNG ends inside its {kind!r} chunk"
        check = int.from_bytes(view[end : end + 4])
        if kind in _PNG_NEEDED and zlib.crc32(view[position + 4 : end]) != check:
            return "damaged", f"wrong checksum of the PNG's {kind.decode()} chunk"
        if kind == b"IEND":
            return None
        position = end + 4
    return "truncated", "the PNG has no end"


def gif_frames(payload: bytes, most: int = MAX_FRAMES) -> int:
    """Count a GIF's pictures without decoding one; stops just above `most`.

    A file that breaks off or makes no sense counts as far as it can be followed.
    """
    position = 13 + _table_bytes(payload[10:11])
    count = 0
    while position < len(payload) and count <= most:
        kind = payload[position]
        if kind == 0x2C:  # a picture: its place, its palette, its code size
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
    """Return the bytes of a GIF colour table from its flags."""
    return 3 << ((flags[0] & 7) + 1) if flags and flags[0] & 0x80 else 0
