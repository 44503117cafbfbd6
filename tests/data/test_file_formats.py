"""Checks of file structure, on files built and damaged by hand."""

import struct

import numpy as np
import pytest
from PIL import Image

from striate.data.decode.decode import decode, decode_with_info
from striate.data.decode.file_bytes import UndecodableError
from striate.data.decode.file_formats import (
    MAX_FRAMES,
    gif_frames,
    non_image_kind,
    png_fault,
)
from striate.data.decode.jpeg_markers import is_truncated_jpeg
from support.images import encoded, pil_image, stripes
from support.mutated_files import png

NOISE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
PNG = encoded(pil_image(NOISE))


def reason(payload):
    with pytest.raises(UndecodableError) as caught:
        decode(payload)
    return caught.value.reason


def test_every_changed_byte_of_a_png_is_detected():
    """Pillow ignores a wrong checksum of pixel chunks."""
    unnoticed = []
    for place in range(8, len(PNG)):
        broken = bytearray(PNG)
        broken[place] ^= 0x55
        try:
            decode(bytes(broken))
            unnoticed.append(place)
        except UndecodableError:
            pass
    assert unnoticed == []


def test_a_wrong_checksum_is_named():
    place = PNG.index(b"IDAT") + 300
    broken = bytearray(PNG)
    broken[place] ^= 1
    fault = png_fault(bytes(broken))
    assert str(fault) == "damaged: wrong checksum of the PNG's IDAT chunk"


def test_a_wrong_checksum_of_a_comment_does_no_harm():
    """The pixels are whole; Pillow alone would not recognize the file as an image."""
    body = b"Comment\0hello"
    chunk = struct.pack(">I", len(body)) + b"tEXt" + body + b"\0\0\0\0"
    commented = PNG[:33] + chunk + PNG[33:]
    assert png_fault(commented) is None
    assert (decode(commented) == decode(PNG)).all()


def test_what_follows_the_end_of_a_png_does_not_matter():
    assert png_fault(PNG + b"trailing bytes of some tool") is None


@pytest.mark.parametrize("cut", [4, 12, 13, 100])
def test_png_without_its_end(cut):
    assert png_fault(PNG[:-cut]).reason == "truncated"


def frames(count, **options):
    images = [pil_image(stripes(k % 3, k, 8, 8)) for k in range(count)]
    return encoded(images[0], "GIF", save_all=True, append_images=images[1:], **options)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_gif_frames_are_counted(count):
    payload = frames(count)
    assert gif_frames(payload) == count
    _, nature = decode_with_info(payload)
    several = (f"only the first of {count} images is used",) if count > 1 else ()
    assert nature.notes == several


def test_gif_frames_with_palettes_and_extensions_of_their_own():
    payload = frames(4, loop=0, duration=70, disposal=2, comment=b"x" * 600)
    assert gif_frames(payload) == 4


def test_counting_gif_frames_ends_for_any_bytes():
    payload = frames(3)
    for cut in range(len(payload)):
        assert 0 <= gif_frames(payload[:cut]) <= 3
    chance = np.random.default_rng(0)
    for _ in range(300):
        assert gif_frames(b"GIF89a" + chance.bytes(80)) <= 80


def test_counting_stops_above_the_limit():
    assert gif_frames(frames(9), limit=4) == 5
    assert MAX_FRAMES == 10_000


def test_a_header_with_more_pixels_than_the_bytes_can_hold():
    """A large image with enough bytes is accepted."""
    assert reason(png(9_000, 9_000)) == "too-large"
    assert reason(png(4_000, 4_000)) == "truncated"  # 16 megapixels: looked at
    whole = encoded(Image.new("L", (4_200, 4_200), 7), "BMP")
    assert decode(whole).shape == (4_200, 4_200, 1)


def test_whole_jpegs_are_not_truncated():
    for options in ({}, {"progressive": True}, {"restart_marker_blocks": 1}):
        whole = encoded(pil_image(NOISE), "JPEG", **options)
        assert not is_truncated_jpeg(whole)
        assert not is_truncated_jpeg(whole + b"trailer")
        assert is_truncated_jpeg(whole[:-2])
        assert is_truncated_jpeg(whole[:200] + b"\xff\xd9")


@pytest.mark.parametrize(
    ("payload", "description"),
    [
        (b"", "text file"),
        (b"caf\xe9 is latin", "not in a supported image format"),
        (b"\0\0\0\x20ftypavif", "AVIF"),
    ],
)
def test_kinds_of_non_images(payload, description):
    assert description in non_image_kind(payload)
