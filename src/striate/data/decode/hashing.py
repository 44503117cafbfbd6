"""What makes two images the same image, and two files the same file."""

from __future__ import annotations

import hashlib

import numpy as np
import xxhash

from striate.data.decode.jpeg_markers import JPEGLayout, coded_bytes

# Duplicates must be found, not forged: a fast 128-bit hash is enough. blake2 over the
# pixels of a photograph takes as long as decoding it (docs/notebook/image-decoding.md).
_DIGITS = 24
_CODED = "j"  # begins what was hashed as coded, which no hexadecimal number does


def content_hash(pixels: np.ndarray) -> str:
    """Hash an image by what it shows, whatever its file format or metadata.

    Gray stored as three equal channels is the same gray.

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
    """Tell whether all channels are equal; a first row that differs ends the search."""
    for rows in (pixels[:1], pixels):
        first = rows[..., :1]
        if not np.array_equal(np.broadcast_to(first, rows.shape), rows):
            return False
    return True


def coded_hash(payload: bytes, found: JPEGLayout, orientation: int) -> str:
    """Hash a JPEG by its coded image and the way up it is shown, without metadata."""
    digest = xxhash.xxh3_128(f"jpeg {orientation}".encode())
    for piece in coded_bytes(payload, found):
        digest.update(piece)
    return (_CODED + digest.hexdigest())[:_DIGITS]


def is_coded_hash(content: str) -> bool:
    """Tell whether an image is known by its coded bytes rather than by its pixels."""
    return content.startswith(_CODED)


def file_hash(payload: bytes) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    return hashlib.sha256(payload).hexdigest()


def checksum64(payload: bytes) -> int:
    """Return a 64-bit checksum of bytes that nobody would forge."""
    return xxhash.xxh3_64_intdigest(payload)
