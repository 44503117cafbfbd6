"""Strict decoding: a whole image or a reason; every color mode is defined.

The guards were each taken out once: without libjpeg-turbo's strictness half JPEGs with
an end marker pass (Pillow alone takes all of them), without `lacks_scans` progressive
ones cut between scans do, without `IEND` a cut PNG does.
"""

import io
import os
import struct
import threading
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from striate.data.decode import decode as decoding
from striate.data.decode import file_bytes as reading
from striate.data.decode import jpeg_decoder
from striate.data.decode.decode import (
    ImageHeader,
    decode,
    pil_to_pixels,
    read_header,
    without_pillow_warnings,
)
from striate.data.decode.file_bytes import UndecodableError, read_file
from support.images import encoded, pil_image, stripes

NOISE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def _quiet():
    with without_pillow_warnings():
        yield


def refusal(payload: bytes, read=decode) -> str:
    """Return why the bytes are refused, or None."""
    try:
        read(payload)
    except UndecodableError as error:
        return error.reason
    return ""


def reason(payload: bytes) -> str:
    with pytest.raises(UndecodableError) as caught:
        decode(payload)
    return caught.value.reason


def png_chunk(kind: bytes, body: bytes) -> bytes:
    check = zlib.crc32(kind + body)
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", check)


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises a size and holds almost nothing."""
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = png_chunk(b"IHDR", head) + png_chunk(b"IDAT", zlib.compress(b"\0" * 100))
    return b"\x89PNG\r\n\x1a\n" + body + png_chunk(b"IEND", b"")


# --- what is no image


@pytest.mark.parametrize(
    ("payload", "detail"),
    [
        (b"\xff", "not in a supported image format"),
        (b"just words", "this is a text file"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "this is an SVG drawing"),
        (b"\n <?xml version='1.0'?><svg/>", "this is an XML or SVG file"),
        (b"<!DOCTYPE html><title>404</title>", "this is an HTML page"),
        (b"<html><body>Not found</body></html>", "this is an HTML page"),
        (b"%PDF-1.7\n", "this is a PDF document"),
        (b"PK\x03\x04rest", "this is a ZIP archive"),
        (b"{\\rtf1}", "this is an RTF document"),
        (b"\0\0\0\x18ftypavif\0\0\0\0avifmif1", "AVIF or a video"),
        (bytes(128) + b"DICM" + bytes(400), "a DICOM file; convert it to PNG"),
        (bytes(512), "not in a supported image format"),
        (b"\x93NUMPY\x01\0v\0{'descr'", "this is a NumPy array"),
        (b"SIMPLE  =                    T", "this is a FITS file"),
        (b"\xfe" + os.urandom(4095), "not in a supported image format"),
    ],
)
def test_not_an_image_and_what_it_is(payload, detail):
    with pytest.raises(UndecodableError, match=detail) as caught:
        read_header(payload)
    assert caught.value.reason == "not-an-image"
    assert reason(payload) == "not-an-image"


# --- damage


@pytest.mark.parametrize("tail", [b"", b"\xff\xd9"], ids=["cut", "cut and ended"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"progressive": True},
        {"quality": 95, "subsampling": 0},
        {"optimize": True},
        {"restart_marker_blocks": 1},
    ],
    ids=str,
)
def test_truncated_jpeg(options, tail):
    """At every position except the last bytes, where all pixels are complete."""
    whole = encoded(pil_image(stripes(0, 0, 64, 64, 3)), "JPEG", **options)
    decode(whole)
    cuts = range(1, len(whole) - 2, 7)
    accepted = [cut for cut in cuts if not refusal(whole[:cut] + tail)]
    assert all(cut > len(whole) - 8 for cut in accepted)
    assert not accepted or options.get("progressive")


def test_truncated_gray_and_cmyk_jpeg():
    for mode in ("L", "CMYK"):
        whole = encoded(pil_image(NOISE).convert(mode), "JPEG")
        decode(whole)
        assert reason(whole[: len(whole) * 2 // 3] + b"\xff\xd9") == "truncated"


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP", "TIFF", "BMP"])
def test_truncated_files_of_other_formats(kind):
    whole = encoded(pil_image(NOISE), kind)
    decode(whole)
    for cut in range(1, len(whole) - 12, 13):
        reason_of_cut = reason(whole[:cut])
        assert reason_of_cut in ("truncated", "damaged", "not-an-image")


def test_png_without_its_end_alone():
    whole = encoded(pil_image(NOISE))
    assert reason(whole[:-12]) == "truncated"
    assert decode(whole + b"trailing").shape == (20, 30, 3)


KINDS = {
    kind: encoded(pil_image(NOISE), kind)
    for kind in ("PNG", "GIF", "WEBP", "TIFF", "BMP")
} | {
    "JPEG": encoded(pil_image(NOISE), "JPEG"),
    "progressive": encoded(pil_image(NOISE), "JPEG", progressive=True),
    "exif": encoded(pil_image(NOISE), "PNG", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0"),
}


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(sorted(KINDS)),
    st.lists(
        st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=6
    ),
    st.integers(0, 3000),
)
def test_changed_bytes_never_crash(kind, changes, cut):
    payload = bytearray(KINDS[kind])
    for place, value in changes:
        payload[place % len(payload)] = value
    payload = bytes(payload[: cut or None])
    for read in (read_header, decode):
        refusal(payload, read)


def test_memory_errors_are_too_large(monkeypatch):
    def burst(*_):
        raise MemoryError

    monkeypatch.setattr(decoding, "_to_array", burst)
    assert reason(encoded(pil_image(NOISE))) == "too-large"


def test_jpeg_with_a_scan_marker_and_nothing_in_it(monkeypatch):
    """The marker parser must stop at the end, whatever libjpeg reports."""
    monkeypatch.setattr(jpeg_decoder.simplejpeg, "decode_jpeg", lambda *a, **k: None)
    whole = encoded(pil_image(NOISE), "JPEG", progressive=True)
    scan = whole.index(b"\xff\xda")
    assert reason(whole[: scan + 2] + b"\0\x02" + whole[scan + 2 :]) == "truncated"


# --- size


@pytest.mark.parametrize(
    ("width", "height"), [(60_000, 60_000), (14_000, 14_000), (1, 65_500), (65_500, 1)]
)
def test_large_images_are_refused_before_decoding(width, height, monkeypatch):
    """Without the limit Pillow only warns at 144 MP and decodes."""
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("decoded"))
    payload = png_header(width, height)
    with pytest.raises(UndecodableError, match=f"{width}×{height}") as caught:
        read_header(payload)
    assert caught.value.reason == "too-large"
    assert "32,768 in height and width" in caught.value.detail
    assert reason(payload) == "too-large"


def test_a_decompression_bomb_is_not_decoded():
    """14000×14000 pixels of one color are a small file, which is not decoded."""
    import resource

    payload = encoded(Image.new("1", (14_000, 14_000)))
    assert len(payload) < 600_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert reason(payload) == "too-large"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10


def test_zero_sides():
    assert reason(png_header(0, 5)) in ("damaged", "not-an-image")


@pytest.mark.parametrize("kind", [b"iTXt", b"zTXt", b"tEXt", b"iCCP"])
@pytest.mark.parametrize("after_pixels", [False, True])
def test_a_large_comment_in_a_png_is_no_reason_to_refuse_it(kind, after_pixels):
    """The comment is left out unread, so a text bomb does no harm either."""
    texts = {
        b"iTXt": b"key\0\1\0\0\0" + zlib.compress(b"\0" * (80 << 20), 9),
        b"zTXt": b"key\0\0" + zlib.compress(b"a" * (2 << 20), 9),
        b"tEXt": b"key\0" + b"a" * (2 << 20),
        b"iCCP": b"profile\0\0" + zlib.compress(b"\0" * (2 << 20), 9),
    }
    whole = encoded(pil_image(NOISE))
    place = -12 if after_pixels else 33
    text = png_chunk(kind, texts[kind])
    payload = whole[:place] + text + whole[place:]
    assert (read_header(payload).height, read_header(payload).width) == (20, 30)
    assert (decode(payload) == NOISE).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("after_pixels", [False, True])
def test_exif_of_a_png_before_and_after_the_pixels(orientation, after_pixels):
    """Pillow turned the pixels, but not the size: the image was squashed."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    whole = encoded(pil_image(NOISE))
    place = -12 if after_pixels else 33
    chunk = png_chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    payload = whole[:place] + chunk + whole[place:]
    turned = pil_image(NOISE)
    turned.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(turned))
    pixels = decode(payload)
    assert pixels.shape == expected.shape
    assert (pixels == expected).all()
    header = read_header(payload)
    assert (header.height, header.width) == pixels.shape[:2]


# --- depth


def test_16_bit_gray_keeps_its_levels():
    """Through Pillow's own `convert` 99.6 % of the values would be one level."""
    ramp = np.arange(65_536, dtype=np.uint16).reshape(256, 256)
    for kind in ("PNG", "TIFF"):
        payload = encoded(Image.fromarray(ramp), kind)
        pixels = decode(payload)
        assert read_header(payload).channels == 1
        assert pixels.shape == (256, 256, 1)
        assert len(np.unique(pixels)) == 256
        expected = np.rint(ramp.astype(np.float64) * 255 / 65_535)
        assert np.abs(pixels[..., 0] - expected).max() <= 1
        assert (pixels[0, 0, 0], pixels[-1, -1, 0]) == (0, 255)


def tiff_of_12_bits(values):
    """A TIFF as cameras write it: two values in three bytes, 12 bits declared."""
    height, width = values.shape
    first, second = values.reshape(-1, 2).T.astype(np.uint32)
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], 1)
    data = packed.astype(np.uint8).tobytes()
    tags = {256: width, 257: height, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1}
    tags |= {278: height, 279: len(data)}
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items()]
    directory = struct.pack("<H", len(tags)) + b"".join(entries) + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory


@pytest.mark.parametrize("white_level", [65_535, 4095])
def test_12_bit_tiff_is_not_nearly_black(white_level):
    """The file declares 12 bits: 4,095 is white, not 65,535."""
    values = np.arange(4096).reshape(64, 64)
    pixels = decode(tiff_of_12_bits(values), white_level=white_level)
    assert (pixels[..., 0] == np.rint(values * 255 / 4095)).all()


def pgm(values, largest, comment=b""):
    head = b"P5 " + comment + b"%d %d\n%d\n" % (*values.shape[::-1], largest)
    return head + values.astype(">u2").tobytes()


@pytest.mark.parametrize("largest", [256, 1023, 4095, 65_535])
@pytest.mark.parametrize("comment", [b"", b"# from a camera 7 9\n"])
def test_pgm_has_the_range_that_it_declares(largest, comment):
    values = np.linspace(0, largest, 1024).round().reshape(32, 32)
    payload = pgm(values, largest, comment)
    assert read_header(payload).channels == 1
    pixels = decode(payload)
    assert (pixels[..., 0] == np.rint(values * 255 / largest)).all()
    image = Image.open(io.BytesIO(payload))
    assert np.abs(pil_to_pixels(image).astype(int) - pixels).max() <= 1


def test_the_white_level_of_a_pgm_is_a_value_of_the_file():
    values = np.array([[0, 100], [500, 900]])
    expected = np.rint(values * 255 / 900)
    assert (decode(pgm(values, 1023), white_level=900)[..., 0] == expected).all()
    with pytest.raises(UndecodableError, match="900 is above the white level 800"):
        decode(pgm(values, 1023), white_level=800)


def test_16_bit_big_endian_tiff():
    ramp = np.arange(0, 65_536, 64, dtype=">u2").reshape(32, 32)
    payload = encoded(Image.frombytes("I;16B", (32, 32), ramp.tobytes()), "TIFF")
    assert len(np.unique(decode(payload))) >= 250


def test_16_bit_color_is_not_clipped():
    ramp = np.linspace(0, 65_535, 256, dtype=">u2")
    rows = b"".join(b"\0" + np.repeat(ramp[i : i + 1], 3).tobytes() for i in range(256))
    payload = _png16(1, 256, rows)
    pixels = decode(payload)
    assert pixels.shape == (256, 1, 3)
    assert len(np.unique(pixels)) >= 250


def _png16(width, height, rows):
    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    body = png_chunk(b"IHDR", head) + png_chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + body + png_chunk(b"IEND", b"")


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_32_bit_is_refused_at_the_header(dtype):
    """At the header, so that a refused file decides neither size nor channels."""
    payload = encoded(Image.fromarray(np.zeros((4, 4), dtype)), "TIFF")
    for read in (read_header, decode):
        with pytest.raises(
            UndecodableError, match="32-bit pixels are not supported"
        ) as caught:
            read(payload)
        assert caught.value.reason == "unsupported"


def test_1_bit():
    dots = np.eye(8, dtype=bool)
    pixels = decode(encoded(Image.fromarray(dots)))
    assert (pixels[..., 0] == 255 * np.eye(8)).all()


# --- color modes


def one_color(mode, color):
    return encoded(Image.new(mode, (2, 2), color), "PNG")


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (one_color("L", 7), [7]),
        (one_color("RGB", (1, 2, 3)), [1, 2, 3]),
        (one_color("RGBA", (10, 20, 30, 255)), [10, 20, 30]),
        (one_color("RGBA", (10, 20, 30, 0)), [255, 255, 255]),
        (one_color("RGBA", (0, 0, 0, 128)), [127, 127, 127]),
        (one_color("LA", (90, 255)), [90]),
        (one_color("LA", (90, 0)), [255]),
    ],
)
def test_modes(payload, expected):
    pixels = decode(payload)
    assert np.abs(pixels[0, 0].astype(int) - expected).max() <= 1
    assert read_header(payload).channels == len(expected)


def test_background_lies_under_transparency():
    payload = one_color("RGBA", (10, 20, 30, 0))
    assert decode(payload, background=0)[0, 0].tolist() == [0, 0, 0]


def test_palette_with_and_without_transparency():
    paletted = Image.new("P", (2, 1))
    paletted.putpalette([10, 20, 30, 200, 100, 50])
    paletted.putdata([0, 1])
    assert decode(encoded(paletted)).tolist() == [[[10, 20, 30], [200, 100, 50]]]
    clear = decode(encoded(paletted, transparency=1))
    assert clear.tolist() == [[[10, 20, 30], [255, 255, 255]]]
    gray = Image.new("L", (1, 1), 9)
    assert decode(encoded(gray, transparency=9)).tolist() == [[[255]]]


def test_cmyk_adobe_inverted():
    """Red in CMYK stays red; an inverted reading would make it cyan."""
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    pixels = decode(encoded(red, "JPEG", quality=100))
    assert pixels.shape == (16, 16, 3)
    assert np.abs(pixels[8, 8].astype(int) - [255, 0, 0]).max() <= 3


def test_lab_is_converted_to_rgb():
    crimson = Image.new("LAB", (4, 4), (128, 200, 128))
    red, green, blue = decode(encoded(crimson, "TIFF"))[0, 0].tolist()
    assert red > 200 > 150 > blue > 100 > 50 > green


# --- orientation


def _oriented(kind, tag):
    """A file that shows NOISE upright with the orientation `tag`."""
    inverse = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = pil_image(NOISE)
    stored = stored.transpose(inverse[tag]) if tag in inverse else stored
    exif = Image.Exif()
    exif[0x0112] = tag
    options = {"lossless": True} if kind == "WEBP" else {}
    return encoded(stored, kind, exif=exif, **options)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("tag", range(1, 9))
def test_orientations_are_pixel_identical(kind, tag):
    payload = _oriented(kind, tag)
    assert (decode(payload) == NOISE).all()
    assert read_header(payload) == ImageHeader(height=20, width=30, channels=3)


@pytest.mark.parametrize("tag", range(1, 9))
def test_orientations_of_jpeg(tag):
    payload = _oriented("JPEG", tag)
    assert decode(payload).shape == (20, 30, 3)
    assert read_header(payload) == ImageHeader(height=20, width=30, channels=3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage!", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0" * 2]
)
def test_images_with_bad_exif_are_usable(kind, exif):
    payload = encoded(pil_image(NOISE), kind, exif=exif)
    assert decode(payload).shape == (20, 30, 3)
    assert read_header(payload) == ImageHeader(height=20, width=30, channels=3)


def test_orientation_out_of_range():
    exif = Image.Exif()
    exif[0x0112] = 77
    payload = encoded(pil_image(NOISE), exif=exif)
    assert (decode(payload) == NOISE).all()


# --- several images in one file


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP", "PNG"])
def test_the_first_image_of_several_is_used(kind):
    frames = [Image.new("L", (8, 8), value) for value in (40, 200, 90)]
    options = {"lossless": True} if kind == "WEBP" else {}
    payload = encoded(
        frames[0], kind, save_all=True, append_images=frames[1:], **options
    )
    assert set(decode(payload).ravel().tolist()) == {40}


def test_mpo_is_decoded_as_jpeg():
    frames = [pil_image(stripes(kind, 0, 32, 32, 3)) for kind in (0, 1)]
    payload = encoded(frames[0], "MPO", save_all=True, append_images=frames[1:])
    assert decode(payload).shape == (32, 32, 3)


# --- files


def test_read_file_refusals(tmp_path, monkeypatch):
    def error_of(path):
        with pytest.raises(UndecodableError) as caught:
            read_file(path)
        return caught.value.reason, caught.value.detail

    (tmp_path / "empty.jpg").touch()
    assert error_of(tmp_path / "empty.jpg") == ("not-an-image", "the file is empty")
    assert error_of(tmp_path / "none.jpg") == ("missing", "no such file")
    assert error_of(tmp_path) == ("not-a-file", "a folder")
    os.mkfifo(tmp_path / "pipe")
    assert error_of(tmp_path / "pipe") == ("not-a-file", "a pipe, socket or device")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert error_of(tmp_path / "loop")[0] == "unreadable"
    (tmp_path / "big.jpg").write_bytes(b"12345")
    monkeypatch.setattr(reading, "MAX_BYTES", 4)
    assert error_of(tmp_path / "big.jpg") == ("too-large", "5 bytes, at most 4")


def test_a_pipe_is_never_opened(tmp_path):
    """Opening a pipe would wait for a writer forever."""
    os.mkfifo(tmp_path / "pipe.jpg")
    answers = []

    def ask():
        try:
            read_file(tmp_path / "pipe.jpg")
        except UndecodableError as error:
            answers.append(error.reason)

    asker = threading.Thread(target=ask, daemon=True)
    asker.start()
    asker.join(30)
    assert answers == ["not-a-file"]


def test_unreadable_file(tmp_path, monkeypatch):
    """Root can read mode 000, so the system's error is simulated."""
    from pathlib import Path

    (tmp_path / "a.jpg").write_bytes(b"x")

    def deny(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", deny)
    with pytest.raises(UndecodableError, match="unreadable: Permission denied"):
        read_file(tmp_path / "a.jpg")


def test_an_error_without_a_number(tmp_path, monkeypatch):
    from pathlib import Path

    (tmp_path / "a.jpg").write_bytes(b"x")

    def deny(path):
        raise OSError("odd")

    monkeypatch.setattr(Path, "read_bytes", deny)
    with pytest.raises(UndecodableError, match="unreadable: odd"):
        read_file(tmp_path / "a.jpg")


def test_decoding_does_not_change_the_bytes():
    payload = encoded(pil_image(NOISE))
    copy = io.BytesIO(payload).getvalue()
    decode(payload)
    assert payload == copy
