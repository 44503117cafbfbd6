"""JPEG file structure: segments, missing scans, and compressed image data.

Marker names and sections are those of ITU-T T.81.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

# In coded data 0xFF is followed by 0 or a restart marker; others start a segment.
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
_START = b"\xff\xd8"
_PROGRESSIVE, _END, _SCAN = 0xC2, 0xD9, 0xDA
_FIRST_APP, _ADOBE, _LAST_APP, _COMMENT = 0xE0, 0xEE, 0xEF, 0xFE


@dataclass(frozen=True)
class JPEGLayout:
    """Byte positions of the segments of a JPEG file."""

    # (marker, start, end) of the body of each segment
    segments: tuple[tuple[int, int, int], ...]
    # position of the end marker, or None if the file ends before the marker
    end: int | None


def jpeg_layout(payload: bytes) -> JPEGLayout:
    """Find the segments of a JPEG, up to the end of the image, in one pass.

    Example:
        >>> jpeg_layout(bytes.fromhex("ffd8 fffe 0003 41 ffd9"))
        JPEGLayout(segments=((254, 6, 7),), end=7)
    """
    segments: list[tuple[int, int, int]] = []
    position = len(_START)
    while match := _MARKER.search(payload, position):
        start, marker = match.end(), payload[match.end() - 1]
        if marker == _END:
            return JPEGLayout(tuple(segments), match.start())
        position = start + int.from_bytes(payload[start : start + 2])
        segments.append((marker, start + 2, position))
    return JPEGLayout(tuple(segments), None)


def is_truncated_jpeg(payload: bytes) -> bool:
    r"""Return whether a JPEG is truncated, even if an end marker was appended.

    Example:
        >>> is_truncated_jpeg(b"\xff\xd8\xff\xe0\0\x10JFIF"), is_truncated_jpeg(b"BM")
        (True, False)
    """
    if not payload.startswith(_START):
        return False
    layout = jpeg_layout(payload)
    return layout.end is None or all(marker != _SCAN for marker, *_ in layout.segments)


def lacks_jpeg_scans(payload: bytes, layout: JPEGLayout) -> bool:
    """Return whether a progressive JPEG ends before its last refinement scan.

    Every scan (T.81, G.1) contains the coefficients Ss–Se down to bit Al. A file that
    ends between two scans decodes without an error to a blurred image.
    """
    missing: dict[tuple[int, int], int] = {}
    for marker, start, end in layout.segments:
        segment = payload[start:end]
        if marker == _PROGRESSIVE:
            components = segment[6::3]
            missing = {(c, k): 1 for c in components for k in range(64)}
        elif marker == _SCAN and missing:
            low, high, bits = segment[-3:]
            for component in segment[1:-3:2]:
                missing |= {(component, k): bits & 15 for k in range(low, high + 1)}
    return any(missing.values())


def coded_bytes(payload: bytes, layout: JPEGLayout) -> Iterator[bytes]:
    """Yield the bytes of a JPEG that define its pixels, without metadata.

    Comments and application segments are left out, except Adobe's, which defines the
    color coding. So files that differ only in EXIF, profiles or thumbnails give equal
    bytes.

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
    starts = [start - 4 for _, start, _ in layout.segments]
    last = len(payload) if layout.end is None else layout.end
    ends = [*starts[1:], last]
    for (marker, _, _), start, end in zip(layout.segments, starts, ends, strict=False):
        is_app = _FIRST_APP <= marker <= _LAST_APP
        if marker == _ADOBE or not (is_app or marker == _COMMENT):
            yield payload[start:end]
