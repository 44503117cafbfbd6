"""Large JPEGs at a fraction: within the tolerance, as strict, known by the same hash.

Guards taken out once, each test then red: the margin of 2, the rule that small JPEGs
are decoded whole, the orientation in the hash, the comparison across formats.
"""

import io
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from pictures import encoded
from striate.core.spec import Preprocess
from striate.data import decode as decoding
from striate.data import preprocess as room
from striate.data.decode import UndecodableError, examine, fraction, unwarned
from striate.data.identity import coded_hash, content_hash, is_coded
from striate.data.load import load_data
from striate.data.preprocess import file_to_input, look, look_at_sizes, to_input


@pytest.fixture(scope="module")
def photo():
    """A real photograph at 1.9 megapixels, and as a JPEG of camera quality."""
    from sklearn.datasets import load_sample_image

    small = Image.fromarray(load_sample_image("china.jpg"))
    pixels = np.asarray(small.resize((1600, 1200), Image.Resampling.LANCZOS))
    return pixels, encoded(Image.fromarray(pixels), "JPEG", quality=92)


def make(side, resize="squash", jpeg="reduced", **options):
    return Preprocess(
        channels=3, height=side, width=side, resize=resize, jpeg=jpeg, **options
    )


@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
@pytest.mark.parametrize("side", [32, 64, 96, 160, 224])
def test_the_tolerance(photo, side, resize):
    """Stated in docs/preprocessing.md: mean below 1 level, none off by more than 12."""
    full = file_to_input(photo[1], make(side, resize, "full")).float()
    reduced = file_to_input(photo[1], make(side, resize)).float()
    gap = (full - reduced).abs()
    assert gap.mean() < 1
    assert gap.max() <= 12


@pytest.mark.parametrize(
    ("side", "factor"),
    [(50, 8), (75, 8), (76, 4), (150, 4), (151, 2), (300, 2), (301, 1)],
)
def test_twice_the_input_is_always_left(photo, side, factor):
    seen = look(photo[1], make(side))
    assert (seen.factor, seen.sides) == (factor, (1200, 1600))
    assert seen.pixels.shape == (-(-1200 // factor), -(-1600 // factor), 3)


def test_sides_that_a_fraction_does_not_divide():
    noise = np.random.default_rng(0).integers(0, 256, (1237, 1301, 1), np.uint8)
    grey = encoded(Image.fromarray(noise[..., 0]), "JPEG")
    for factor in (2, 4, 8):
        least = (1237 / factor, 1301 / factor)
        seen = examine(grey, least=lambda height, width, least=least: least)
        assert seen.factor == factor
        assert seen.pixels.shape == (-(-1237 // factor), -(-1301 // factor), 1)


def test_small_jpegs_and_other_formats_are_decoded_whole(photo):
    small = encoded(Image.fromarray(photo[0]).resize((1200, 1200)), "JPEG")
    assert look(small, make(8)).factor == 1
    png = encoded(Image.fromarray(photo[0]), compress_level=1)
    assert look(png, make(8)).factor == 1


def test_what_it_is_known_by_depends_on_the_file_alone(photo):
    """Else another image size would deal another split."""
    known = {
        look(photo[1], make(s, jpeg=j)).content for s in (8, 99) for j in room_jpegs
    }
    assert len(known) == 1
    assert is_coded(known.pop())
    assert not is_coded(content_hash(photo[0]))


room_jpegs = ("full", "reduced")


@pytest.mark.parametrize("turn", range(1, 9))
def test_each_way_up(photo, turn):
    """Turned first and reduced, or reduced and turned: the same picture."""
    exif = Image.Exif()
    exif[0x0112] = turn
    wide = Image.fromarray(photo[0])
    turned = encoded(wide, "JPEG", quality=92, exif=exif)
    full = file_to_input(turned, make(64, "pad", "full"))
    reduced = file_to_input(turned, make(64, "pad"))
    assert (full.float() - reduced.float()).abs().max() <= 12
    assert look(turned, make(64)).factor == 8
    same = look(turned, make(64)).content == look(photo[1], make(64)).content
    assert same == (turn == 1)


def test_an_orientation_that_is_none(photo):
    exif = Image.Exif()
    exif[0x0112] = 9
    odd = encoded(Image.fromarray(photo[0]), "JPEG", quality=92, exif=exif)
    assert look(odd, make(64)).sides == (1200, 1600)


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_metadata_changes_no_identity(photo, options):
    picture = Image.fromarray(photo[0])
    plain = encoded(picture, "JPEG", quality=92, **options)
    exif = Image.Exif()
    exif[0x010E] = "a title"
    told = encoded(picture, "JPEG", quality=92, exif=exif, comment=b"c" * 99, **options)
    assert plain != told
    assert coded_hash(plain, 1) == coded_hash(told + b"trailing bytes", 1)
    other = encoded(picture, "JPEG", quality=91, **options)
    assert coded_hash(plain, 1) != coded_hash(other, 1)
    flipped = bytearray(plain)
    flipped[len(plain) // 2] ^= 1
    assert coded_hash(plain, 1) != coded_hash(bytes(flipped), 1)


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_half_a_large_jpeg_is_refused(photo, options):
    whole = encoded(Image.fromarray(photo[0]), "JPEG", quality=92, **options)
    for share in (0.3, 0.6, 0.9):
        cut = whole[: int(share * len(whole))]
        for payload in (cut, cut + b"\xff\xd9"):
            with pytest.raises(UndecodableError), unwarned():
                look(payload, make(32))


def test_several_sizes_are_each_as_alone(photo, monkeypatch):
    calls = []
    real = decoding.simplejpeg.decode_jpeg
    monkeypatch.setattr(
        decoding.simplejpeg,
        "decode_jpeg",
        lambda *words, **options: calls.append(1) or real(*words, **options),
    )
    for sides, decodings in (((64, 70), 1), ((70, 80), 2), ((301, 400), 1)):
        calls.clear()
        sizes = [make(side) for side in sides]
        made, content = look_at_sizes(photo[1], sizes)
        assert len(calls) == decodings
        for size, picture in zip(sizes, made, strict=True):
            assert torch.equal(picture, file_to_input(photo[1], size))
        assert content == look(photo[1], sizes[0]).content


def test_cmyk_is_the_same_at_any_size(photo):
    inks = encoded(Image.fromarray(photo[0]).convert("CMYK"), "JPEG", quality=92)
    assert torch.equal(
        file_to_input(inks, make(32)), file_to_input(inks, make(32, jpeg="full"))
    )


def test_a_lossless_copy_of_a_large_jpeg_is_found(photo, tmp_path):
    """D1: the same pixels in another format never stand on two sides."""
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
    data = load_data(tmp_path / "set", image_size=16, test_fraction=0.3)
    contents = {row.path: row.content for row in data.rows}
    parts = {row.path: row.part for row in data.rows}
    for label in "ab":
        for i in range(2):
            jpg, png = f"{label}/{i}.jpg", f"{label}/{i}.png"
            assert contents[jpg] == contents[png]
            assert parts[jpg] == parts[png]
    assert len(set(contents.values())) == 8


def test_fraction_is_the_largest_that_does():
    for height, width, rows in ((1000, 3000, 100), (900, 801, 100), (799, 9000, 100)):
        factor = fraction((height, width), lambda h, w, rows=rows: (rows, rows))
        assert min(height, width) >= factor * rows
        assert factor == 8 or min(height, width) < 2 * factor * rows


def test_sixteen_bits_by_their_own_white():
    wide = np.array([[0, 1000, 4095]], np.uint16)
    file = io.BytesIO()
    Image.fromarray(wide).save(file, "PNG")
    twelve = decoding.decode(file.getvalue(), white=4095)
    assert twelve[..., 0].tolist() == [[0, 62, 255]]
    assert decoding.decode(file.getvalue())[..., 0].tolist() == [[0, 4, 16]]
    with pytest.raises(UndecodableError, match="above-white: a value of 4,095"):
        decoding.decode(file.getvalue(), white=4000)


def test_the_least_sides_follow_the_resize():
    p = make(100, "crop")
    assert partial(room._least, p)(1000, 3000) == (200, 600)
    assert torch.equal(
        to_input(np.zeros((50, 60, 3), np.uint8), p), torch.zeros(100, 100, 3).byte()
    )
