"""A JPEG's own structure: its segments, scans that are missing, what makes the image.

Marker names and sections are those of ITU-T T.81.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

# In coded data 0xFF is followed by 0 or a restart marker; any other is a segment.
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
_START = b"\xff\xd8"
_PROGRESSIVE, _END, _SCAN = 0xC2, 0xD9, 0xDA
_FIRST_APP, _ADOBE, _LAST_APP, _COMMENT = 0xE0, 0xEE, 0xEF, 0xFE


@dataclass(frozen=True)
class JPEGLayout:
    """Where the pieces of a JPEG lie.

    Args:
        segments: (marker, start, end) of each segment's body.
        end: Where the end marker stands; None where the file breaks off before it.
    """

    segments: tuple[tuple[int, int, int], ...]
    end: int | None


def jpeg_layout(payload: bytes) -> JPEGLayout:
    """Find the segments of a JPEG, up to the end of the image, in one pass.

    Example:
        >>> jpeg_layout(bytes.fromhex("ffd8 fffe 0003 41 ffd9"))
        Layout(segments=((254, 6, 7),), end=7)
    """
    found: list[tuple[int, int, int]] = []
    position = len(_START)
    while match := _MARKER.search(payload, position):
        start, kind = match.end(), payload[match.end() - 1]
        if kind == _END:
            return JPEGLayout(tuple(found), match.start())
        position = start + int.from_bytes(payload[start : start + 2])
        found.append((kind, start + 2, position))
    return JPEGLayout(tuple(found), None)


def is_truncated_jpeg(payload: bytes) -> bool:
    r"""Tell whether a JPEG breaks off, with or without an end marker put behind.

    Example:
        >>> is_truncated_jpeg(b"\xff\xd8\xff\xe0\0\x10JFIF"), is_truncated_jpeg(b"BM")
        (True, False)
    """
    if not payload.startswith(_START):
        return False
    found = jpeg_layout(payload)
    return found.end is None or all(kind != _SCAN for kind, _, _ in found.segments)


def lacks_jpeg_scans(payload: bytes, found: JPEGLayout) -> bool:
    """Tell whether a progressive JPEG ends before its last refinement.

    Every scan (G.1) sends coefficients Ss–Se down to bit Al. A file cut between scans
    decodes without complaint to a blurred image.
    """
    missing: dict[tuple[int, int], int] = {}
    for kind, start, end in found.segments:
        segment = payload[start:end]
        if kind == _PROGRESSIVE:
            components = segment[6::3]
            missing = {(c, k): 1 for c in components for k in range(64)}
        elif kind == _SCAN and missing:
            low, high, bits = segment[-3:]
            for component in segment[1:-3:2]:
                missing |= {(component, k): bits & 15 for k in range(low, high + 1)}
    return any(missing.values())


def coded_bytes(payload: bytes, found: JPEGLayout) -> Iterator[bytes]:
    """Yield the bytes that decide the pixels: no metadata, nothing behind the end.

    Comments and application segments are left out, but for Adobe's, which tells how
    colors are coded. Files that differ only in EXIF, profiles or thumbnails agree.

    Example:
        >>> plain = bytes.fromhex("ffd8 ffd9")
        >>> commented = bytes.fromhex("ffd8 fffe 0003 41 ffd9")
        >>> a, b = (
        ...     list(coded_bytes(file, jpeg_layout(file)))
        ...     for file in (plain, commented)
        ... )
        >>> a == b
        True
    """
    starts = [start - 4 for _, start, _ in found.segments]
    last = len(payload) if found.end is None else found.end
    ends = [*starts[1:], last]
    for (kind, _, _), start, end in zip(found.segments, starts, ends, strict=False):
        if kind == _ADOBE or not (_FIRST_APP <= kind <= _LAST_APP or kind == _COMMENT):
            yield payload[start:end]
