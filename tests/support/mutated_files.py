"""Damaged image files: mutations that disks, networks and programs cause.

A mutation knows a little of the formats, so that damage gets past the first check: it
mends PNG checksums, rewrites sizes in headers, duplicates and swaps chunks.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from support.images import encoded, pil_image, stripes

KINDS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
Mutation = Callable[[bytearray, np.random.Generator], bytearray]


def seeds() -> list[tuple[str, bytes]]:
    """Small sound files of every kind, mode and option worth breaking."""
    color = pil_image(stripes(0, 1, 24, 32, 3))
    frames = [pil_image(stripes(k, k, 16, 16, 3)) for k in range(3)]
    exif = Image.Exif()
    exif[0x0112] = 6
    animated = {"save_all": True, "append_images": frames[1:]}
    made = [(kind, encoded(color, kind)) for kind in KINDS]
    made += [("JPEG", encoded(color, "JPEG", progressive=True))]
    made += [("JPEG", encoded(color.convert("CMYK"), "JPEG"))]
    made += [("JPEG", encoded(color, "JPEG", exif=exif, restart_marker_blocks=1))]
    made += [("PNG", encoded(color.convert("P")))]
    made += [("PNG", encoded(color.convert("RGBA"), exif=exif))]
    made += [("PNG", encoded(Image.fromarray(_wide())))]
    made += [("WEBP", encoded(color, "WEBP", lossless=True))]
    made += [(kind, encoded(frames[0], kind, **animated)) for kind in ("GIF", "WEBP")]
    made += [("PNG", encoded(frames[0], "PNG", **animated))]
    made += [("TIFF", encoded(frames[0], "TIFF", **animated))]
    made += [("TIFF", encoded(color, "TIFF", compression=c)) for c in COMPRESSIONS]
    return made


COMPRESSIONS = ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")


def _wide() -> np.ndarray:
    return np.arange(24 * 32, dtype=np.uint16).reshape(24, 32) * 80


def mutants(count: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """Yield `count` broken files, the same for the same seed."""
    originals = seeds()
    for number in range(count):
        chance = np.random.default_rng([seed, number])
        kind, payload = originals[chance.integers(len(originals))]
        broken = bytearray(payload)
        for _ in range(chance.integers(1, 4)):
            mutation = MUTATIONS[chance.integers(len(MUTATIONS))]
            broken = mutation(broken, chance) or bytearray(b"\0")
        if kind == "PNG" and chance.random() < 0.5:
            broken = mend_png(broken)
        yield kind, bytes(broken)


def flip_bits(payload: bytearray, chance: np.random.Generator) -> bytearray:
    for _ in range(chance.integers(1, 9)):
        payload[chance.integers(len(payload))] ^= 1 << chance.integers(8)
    return payload


def overwrite(payload: bytearray, chance: np.random.Generator) -> bytearray:
    start, size = chance.integers(len(payload)), chance.integers(1, 9)
    payload[start : start + size] = chance.bytes(size)
    return payload


def zero_hole(payload: bytearray, chance: np.random.Generator) -> bytearray:
    start, size = chance.integers(len(payload)), chance.integers(1, 513)
    end = min(len(payload), start + size)
    payload[start:end] = bytes(end - start)
    return payload


def truncate(payload: bytearray, chance: np.random.Generator) -> bytearray:
    return payload[: chance.integers(1, len(payload) + 1)]


def end_early(payload: bytearray, chance: np.random.Generator) -> bytearray:
    return truncate(payload, chance) + b"\xff\xd9"


def append(payload: bytearray, chance: np.random.Generator) -> bytearray:
    return payload + chance.bytes(chance.integers(1, 64))


def repeat(payload: bytearray, chance: np.random.Generator) -> bytearray:
    start, size = chance.integers(len(payload)), chance.integers(1, 200)
    return payload[: start + size] + payload[start:]


def cut_out(payload: bytearray, chance: np.random.Generator) -> bytearray:
    start, size = chance.integers(len(payload)), chance.integers(1, 200)
    return payload[:start] + payload[start + size :]


def extreme(payload: bytearray, chance: np.random.Generator) -> bytearray:
    """Put a number that programs trip over into the header."""
    value = (0, 1, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)[chance.integers(6)]
    order = "<>"[chance.integers(2)]
    size = (1, 2, 4)[chance.integers(3)]
    code = {1: "B", 2: "H", 4: "I"}[size]
    start = chance.integers(min(len(payload), 128))
    number = struct.pack(order + code, value & (256**size - 1))
    payload[start : start + size] = number
    return payload


def splice(payload: bytearray, chance: np.random.Generator) -> bytearray:
    """Go on as another file."""
    other = seeds_once()[chance.integers(len(seeds_once()))][1]
    at, to = chance.integers(len(payload)), chance.integers(len(other))
    return payload[:at] + other[to:]


MUTATIONS: tuple[Mutation, ...] = (
    flip_bits,
    overwrite,
    zero_hole,
    truncate,
    end_early,
    append,
    repeat,
    cut_out,
    extreme,
    splice,
)
_held: list[tuple[str, bytes]] = []


def seeds_once() -> list[tuple[str, bytes]]:
    if not _held:
        _held.extend(seeds())
    return _held


def mend_png(payload: bytearray) -> bytearray:
    """Correct every chunk's checksum, so that the damage lies behind it."""
    position = 8
    while position + 12 <= len(payload):
        size = int.from_bytes(payload[position : position + 4])
        end = position + 8 + size
        if end + 4 > len(payload):
            break
        check = zlib.crc32(payload[position + 4 : end])
        payload[end : end + 4] = struct.pack(">I", check)
        position = end + 4
    return payload


def png(width: int, height: int, *extra: tuple[bytes, bytes]) -> bytes:
    """A PNG that promises width × height gray pixels and holds nearly none."""
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", head), *extra, (b"IDAT", zlib.compress(b"\0" * 100))]
    file = io.BytesIO(b"\x89PNG\r\n\x1a\n")
    file.seek(0, io.SEEK_END)
    for kind, body in [*chunks, (b"IEND", b"")]:
        check = zlib.crc32(kind + body)
        file.write(struct.pack(">I", len(body)) + kind + body)
        file.write(struct.pack(">I", check))
    return file.getvalue()
