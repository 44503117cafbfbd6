"""Preprocessing is bit-identical for one image and for a batch."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from striate.core.errors import DataError
from striate.core.preprocess_config import Preprocess
from striate.data import channel_stats
from striate.data.channel_stats import channel_mean_std
from striate.data.decode import preprocess as preprocess
from striate.data.decode.preprocess import (
    batch_to_input,
    image_to_input,
    normalize,
)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from([1, 3]),
    st.sampled_from([1, 3]),
    st.integers(1, 33),
    st.integers(1, 33),
    st.sampled_from(["stretch", "crop", "pad"]),
)
def test_single_images_and_batches_are_bit_identical(
    n, h, w, have, want, height, width, resize
):
    """Batches come from arrays, single images from files; torch picks its routine
    by the layout of memory, and both must give the same numbers."""
    pixels = np.random.default_rng(h * w).integers(0, 256, (n, h, w, have), np.uint8)
    p = Preprocess(channels=want, height=height, width=width, resize=resize)
    many = batch_to_input(pixels, p)
    assert many.shape == (n, height, width, want)
    assert many.dtype == torch.uint8
    for i in range(n):
        assert torch.equal(image_to_input(pixels[i], p), many[i])


def ramp(height, width):
    return np.linspace(0, 255, width).astype(np.uint8)[None, :, None].repeat(height, 0)


def make(resize, height=8, width=8, **options):
    return Preprocess(channels=1, height=height, width=width, resize=resize, **options)


def test_stretch_keeps_the_whole_image():
    out = image_to_input(ramp(4, 32), make("stretch"))
    assert out[0, 0] < 20
    assert out[0, -1] > 235


def test_crop_keeps_the_center():
    out = image_to_input(ramp(8, 32), make("crop"))
    assert torch.equal(out[..., 0], torch.from_numpy(ramp(8, 32)[:, 12:20, 0]))


def test_pad_adds_background_around():
    out = image_to_input(np.zeros((4, 8, 1), np.uint8), make("pad", background=77))
    assert out[:2].eq(77).all()
    assert out[2:6].eq(0).all()
    assert out[6:].eq(77).all()
    odd = image_to_input(np.zeros((3, 8, 1), np.uint8), make("pad", background=77))
    assert odd[..., 0].eq(77).all(1).tolist() == [True] * 2 + [False] * 3 + [True] * 3


def test_shrinking_averages():
    """Without antialiasing fine stripes come out dark or light by chance."""
    lines = (np.arange(66) % 3 == 0) * np.uint8(255)
    fine = lines[None, :, None].repeat(66, 0)
    out = image_to_input(fine, make("stretch"))
    assert out[:, 1:-1].float().sub(85).abs().max() < 15


def test_gray_of_color_is_the_luma_of_every_imaging_library():
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    result = image_to_input(pixels, make("stretch", 32, 32))[..., 0].numpy()
    assert (result == np.asarray(Image.fromarray(pixels).convert("L"))).all()


def test_channels_that_cannot_be_converted():
    with pytest.raises(DataError, match="images have 4 channels, the network takes 1"):
        image_to_input(np.zeros((2, 2, 4), np.uint8), make("stretch", 2, 2))


@pytest.mark.parametrize("chunk", [7, 1 << 24])
def test_statistics_are_exact(monkeypatch, chunk):
    monkeypatch.setattr(channel_stats, "_CHUNK", chunk)
    pixels = torch.randint(0, 256, (5, 4, 3, 3), dtype=torch.uint8)
    mean, std = channel_mean_std(pixels)
    flat = pixels.double().div(255).flatten(0, 2)
    assert mean == pytest.approx(flat.mean(0).tolist(), abs=1e-6)
    assert std == pytest.approx(flat.std(0, correction=0).tolist(), abs=1e-6)


def test_constant_images_stay_finite():
    mean, std = channel_mean_std(torch.full((2, 2, 2, 1), 51, dtype=torch.uint8))
    assert (mean, std) == ((0.2,), (round(1 / 255, 6),))
    p = make("stretch", 2, 2, mean=mean, std=std)
    assert normalize(torch.full((1, 2, 2, 1), 51).byte(), p).abs().max() < 1e-3


@pytest.mark.parametrize("channels", [1, 3])
def test_large_images_are_normalized_bit_identically(monkeypatch, channels):
    """One by one or as a batch; also with long rows."""
    p = Preprocess(
        channels=channels,
        height=19,
        width=23,
        mean=(0.485, 0.456, 0.406)[:channels],
        std=(0.229, 0.224, 0.225)[:channels],
    )
    generator = torch.Generator().manual_seed(0)
    shape = 5, 19, 25, channels
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    for batch in (pixels, pixels[:, :, :23], pixels[:1]):
        whole = normalize(batch, p)
        with monkeypatch.context() as patch:
            patch.setattr(preprocess, "_LARGE", 1)
            alone = normalize(batch, p)
        assert torch.equal(whole, alone)
        assert whole.stride() == alone.stride()


def test_normalize_does_not_change_its_input():
    pixels = torch.full((2, 2, 2, 3), 100, dtype=torch.uint8)
    p = Preprocess(channels=3, height=2, width=2, mean=(0, 0.5, 1), std=(1, 1, 1))
    x = normalize(pixels, p)
    assert pixels.eq(100).all()
    assert x.shape == (2, 3, 2, 2)
    assert x[0, :, 0, 0].tolist() == pytest.approx(
        [100 / 255, 100 / 255 - 0.5, 100 / 255 - 1]
    )
