"""Large JPEGs at a fraction: within the tolerance, as strict, and the same hash.

Guards taken out once, each test then red: the margins, the rule that small JPEGs
are decoded whole, the orientation in the hash, the comparison across formats.
"""

import io
from itertools import product

import numpy as np
import pytest
import torch
from PIL import Image

from striate.core.preprocess_config import Preprocess
from striate.data.decode import decode as decoding
from striate.data.decode import jpeg_decoder
from striate.data.decode.decode import decode_image, without_pillow_warnings
from striate.data.decode.file_bytes import UndecodableError
from striate.data.decode.hashing import coded_hash, content_hash, is_coded_hash
from striate.data.decode.jpeg_markers import jpeg_layout
from striate.data.decode.preprocess import decode_at_sizes, decode_for, file_to_input
from striate.data.load import load_data
from support.images import encoded


@pytest.fixture(scope="module", params=["china.jpg", "flower.jpg"])
def sharp(request):
    """2.5 megapixels of a photograph that is sharp to the pixel: the hardest case."""
    from sklearn.datasets import load_sample_image

    photograph = load_sample_image(request.param)
    row = np.concatenate([photograph, photograph[:, ::-1], photograph], 1)
    return encoded(Image.fromarray(np.concatenate([row, row[::-1], row])), "JPEG")


@pytest.fixture(scope="module")
def photo():
    """A photograph at 1.9 megapixels, and as a JPEG of camera quality."""
    from sklearn.datasets import load_sample_image

    small = Image.fromarray(load_sample_image("china.jpg"))
    pixels = np.asarray(small.resize((1600, 1200), Image.Resampling.LANCZOS))
    return pixels, encoded(Image.fromarray(pixels), "JPEG", quality=92)


def make(side, resize="stretch", jpeg="reduced", **options):
    return Preprocess(
        channels=3, height=side, width=side, resize=resize, jpeg=jpeg, **options
    )


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("side", [32, 64, 80, 96, 128, 160, 213])
def test_the_tolerance(sharp, side, resize):
    """As docs/preprocessing.md states it."""
    assert decode_for(sharp, make(side)).factor > 1
    full = file_to_input(sharp, make(side, resize, "full")).float()
    reduced = file_to_input(sharp, make(side, resize)).float()
    gap = (full - reduced).abs()
    assert gap.mean() < 1.7
    assert gap.flatten().quantile(0.999) <= 24


@pytest.mark.parametrize(
    ("side", "factor"), [(9, 4), (75, 4), (76, 2), (200, 2), (201, 1), (999, 1)]
)
def test_the_reduced_image_is_large_enough(photo, side, factor):
    decoded = decode_for(photo[1], make(side))
    assert (decoded.factor, decoded.sides) == (factor, (1200, 1600))
    assert decoded.pixels.shape == (-(-1200 // factor), -(-1600 // factor), 3)


def test_sides_that_a_fraction_does_not_divide():
    noise = np.random.default_rng(0).integers(0, 256, (1237, 1301, 1), np.uint8)
    gray = encoded(Image.fromarray(noise[..., 0]), "JPEG")
    for factor, rows in ((2, 200), (4, 70)):
        decoded = decode_image(
            gray, scaled=lambda height, width, rows=rows: (rows, rows)
        )
        assert decoded.factor == factor
        assert decoded.pixels.shape == (-(-1237 // factor), -(-1301 // factor), 1)


def test_small_jpegs_and_other_formats_are_decoded_in_full(photo):
    small = encoded(Image.fromarray(photo[0]).resize((1200, 1200)), "JPEG")
    assert decode_for(small, make(8)).factor == 1
    png = encoded(Image.fromarray(photo[0]), compress_level=1)
    assert decode_for(png, make(8)).factor == 1


def test_the_hash_depends_on_the_file_alone(photo):
    """Otherwise another image size would give another split."""
    settings = product((8, 99), ("full", "reduced"))
    hashes = {decode_for(photo[1], make(side, jpeg=j)).content for side, j in settings}
    assert len(hashes) == 1
    assert is_coded_hash(hashes.pop())
    assert not is_coded_hash(content_hash(photo[0]))


@pytest.mark.parametrize("turn", range(1, 9))
def test_each_orientation(photo, turn):
    """Rotating and reducing commute."""
    exif = Image.Exif()
    exif[0x0112] = turn
    wide = Image.fromarray(photo[0])
    turned = encoded(wide, "JPEG", quality=92, exif=exif)
    full = file_to_input(turned, make(64, "pad", "full"))
    reduced = file_to_input(turned, make(64, "pad"))
    assert (full.float() - reduced.float()).abs().mean() < 1.7
    assert decode_for(turned, make(64)).factor == 4
    same = (
        decode_for(turned, make(64)).content == decode_for(photo[1], make(64)).content
    )
    assert same == (turn == 1)


def test_an_invalid_orientation(photo):
    exif = Image.Exif()
    exif[0x0112] = 9
    odd = encoded(Image.fromarray(photo[0]), "JPEG", quality=92, exif=exif)
    assert decode_for(odd, make(64)).sides == (1200, 1600)


def coded(payload):
    return coded_hash(payload, jpeg_layout(payload), 1)


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_metadata_does_not_change_the_hash(photo, options):
    image = Image.fromarray(photo[0])
    plain = encoded(image, "JPEG", quality=92, **options)
    exif = Image.Exif()
    exif[0x010E] = "a title"
    with_metadata = encoded(
        image, "JPEG", quality=92, exif=exif, comment=b"c" * 99, **options
    )
    assert plain != with_metadata
    assert coded(plain) == coded(with_metadata + b"trailing bytes")
    other = encoded(image, "JPEG", quality=91, **options)
    assert coded(plain) != coded(other)
    flipped = bytearray(plain)
    flipped[len(plain) // 2] ^= 1
    assert coded(plain) != coded(bytes(flipped))


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_half_a_large_jpeg_is_refused(photo, options):
    whole = encoded(Image.fromarray(photo[0]), "JPEG", quality=92, **options)
    for share in (0.3, 0.6, 0.9):
        cut = whole[: int(share * len(whole))]
        for payload in (cut, cut + b"\xff\xd9"):
            with pytest.raises(UndecodableError), without_pillow_warnings():
                decode_for(payload, make(32))


def test_several_sizes_equal_single_sizes(photo, monkeypatch):
    calls = []
    real = jpeg_decoder.simplejpeg.decode_jpeg
    monkeypatch.setattr(
        jpeg_decoder.simplejpeg,
        "decode_jpeg",
        lambda *words, **options: calls.append(1) or real(*words, **options),
    )
    for sides, decodings in (((64, 70), 1), ((70, 80), 2), ((301, 400), 1)):
        calls.clear()
        sizes = [make(side) for side in sides]
        inputs, content = decode_at_sizes(photo[1], sizes)
        assert len(calls) == decodings
        for size, image in zip(sizes, inputs, strict=True):
            assert torch.equal(image, file_to_input(photo[1], size))
        assert content == decode_for(photo[1], sizes[0]).content


def test_cmyk_is_the_same_at_any_size(photo):
    inks = encoded(Image.fromarray(photo[0]).convert("CMYK"), "JPEG", quality=92)
    assert torch.equal(
        file_to_input(inks, make(32)), file_to_input(inks, make(32, jpeg="full"))
    )


def test_a_lossless_copy_of_a_large_jpeg_is_found(photo, tmp_path):
    """D1: the same pixels in another format are never in two splits."""
    pixels = Image.fromarray(photo[0])
    for label, shade in (("a", 0), ("b", 90)):
        (tmp_path / "set" / label).mkdir(parents=True)
        for i in range(4):
            dot = pixels.copy()
            dot.paste((shade, 40 * i, 0), (0, 0, 400, 400))
            file = tmp_path / "set" / label / f"{i}.jpg"
            dot.save(file, quality=90)
            if i < 2:
                Image.open(file).save(file.with_suffix(".png"), compress_level=1)
    data = load_data(
        tmp_path / "set", image_size=16, test_fraction=0.3, val_fraction=0.3
    )
    contents = {row.path: row.content for row in data.rows}
    splits = {row.path: row.split for row in data.rows}
    for label in "ab":
        for i in range(2):
            jpg, png = f"{label}/{i}.jpg", f"{label}/{i}.png"
            assert contents[jpg] == contents[png]
            assert splits[jpg] == splits[png]
    assert len(set(contents.values())) == 8


def test_sixteen_bits_by_their_own_white():
    wide = np.array([[0, 1000, 4095]], np.uint16)
    file = io.BytesIO()
    Image.fromarray(wide).save(file, "PNG")
    twelve = decoding.decode(file.getvalue(), white_level=4095)
    assert twelve[..., 0].tolist() == [[0, 62, 255]]
    assert decoding.decode(file.getvalue())[..., 0].tolist() == [[0, 4, 16]]
    with pytest.raises(UndecodableError, match="above-white: the value 4,095"):
        decoding.decode(file.getvalue(), white_level=4000)
