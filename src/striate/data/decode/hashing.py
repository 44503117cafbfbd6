"""Hashes of images and of image files."""

from __future__ import annotations

import hashlib

import numpy as np
import xxhash

from striate.data.decode.jpeg_markers import JPEGLayout, coded_bytes

# Nobody forges duplicates: a fast 128-bit hash is enough. blake2 over the
# pixels of a photograph takes as long as decoding it (docs/notebook/image-decoding.md).
_DIGITS = 24
_CODED = "j"  # first letter of a hash of coded bytes; no hexadecimal number has it


def content_hash(pixels: np.ndarray) -> str:
    """Hash the pixels of an image, independent of file format and metadata.

    Gray that is stored as three equal channels has the same hash as gray.

    Example:
        >>> a, b = np.zeros((2, 3, 1), np.uint8), np.zeros((3, 2, 1), np.uint8)
        >>> content_hash(a) == content_hash(b)
        False
        >>> content_hash(a) == content_hash(a.repeat(3, 2))
        True
    """
    if pixels.shape[-1] == 3 and is_gray(pixels):
        pixels = pixels[..., :1]
    digest = xxhash.xxh3_128(repr(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()[:_DIGITS]


def is_gray(pixels: np.ndarray) -> bool:
    """Return whether all color channels of an image are equal."""
    for rows in (pixels[:1], pixels):
        first = rows[..., :1]
        if not np.array_equal(np.broadcast_to(first, rows.shape), rows):
            return False
    return True


def coded_hash(payload: bytes, layout: JPEGLayout, orientation: int) -> str:
    """Hash the compressed data and EXIF orientation of a JPEG, without metadata."""
    digest = xxhash.xxh3_128(f"jpeg {orientation}".encode())
    for chunk in coded_bytes(payload, layout):
        digest.update(chunk)
    return (_CODED + digest.hexdigest())[:_DIGITS]


def is_coded_hash(content: str) -> bool:
    """Return whether a content hash was computed from JPEG data instead of pixels."""
    return content.startswith(_CODED)


def file_hash(payload: bytes) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    return hashlib.sha256(payload).hexdigest()


def checksum64(payload: bytes) -> int:
    """Return a 64-bit checksum that detects damage (it is not cryptographic)."""
    return xxhash.xxh3_64_intdigest(payload)
