"""Random crop from larger images, and the shift buffer, against simple versions."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from striate.core.preprocess_config import ImageSpec, Preprocess
from striate.data.augment import pipeline, random_crop
from striate.data.augment.augment import Augment, augmentation
from striate.data.augment.random_crop import (
    MARGIN,
    crop_and_resize,
    crop_margin,
    crop_windows,
)
from striate.data.augment.random_params import draw_params
from striate.data.batches import Batches
from striate.data.decode.preprocess import normalize
from striate.data.subset import Subset

DRAW = np.random.default_rng(0)


def subset(count, height, width, channels, larger=None):
    pixels = torch.from_numpy(
        DRAW.integers(0, 256, (count, height, width, channels), np.uint8)
    )
    return Subset.of(pixels, list(range(count)), ["" for _ in range(count)], larger)


def preprocess_of(height, width, channels):
    return Preprocess(
        channels=channels,
        height=height,
        width=width,
        background=77,
        mean=(0.4,) * channels,
        std=(0.2,) * channels,
    )


@pytest.mark.parametrize("border", ["reflect", "edge", "background"])
@pytest.mark.parametrize(
    ("shift", "flip"), [(0.0, "horizontal"), (0.2, "none"), (0.3, "horizontal")]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_shift_buffer_gives_the_same_batches(
    monkeypatch, shift, flip, border, channels
):
    """One copy from a buffer of the whole subset, or each batch shifted by itself."""
    source = subset(23, 10, 13, channels)
    augment = Augment(shift=shift, flip=flip, border=border)

    def output():
        batches = Batches(
            subset=source,
            preprocess=preprocess_of(10, 13, channels),
            batch_size=6,
            augment=augment,
        )
        return batches, [pair for epoch in (0, 1, 2) for pair in batches(epoch)]

    buffered, fast = output()
    assert buffered._views.shift_buffer is not None
    monkeypatch.setattr(pipeline, "SHIFT_BUFFER_LIMIT", 0)
    slow, straight = output()
    assert slow._views.shift_buffer is None
    for (x, y), (u, v) in zip(fast, straight, strict=True):
        assert torch.equal(y, v)
        assert torch.equal(x, u)
        assert x.stride() == u.stride()


@pytest.mark.parametrize(
    "augment",
    [
        Augment(flip="vertical"),
        Augment(flip="both"),
        Augment(shift=0.1, color=0.1),
        Augment(shift=0.1, erase=0.5),
        Augment(shift=0.1, rotate=5),
    ],
)
def test_no_shift_buffer_with_other_transforms(augment):
    output = Batches(
        subset=subset(4, 8, 8, 1),
        preprocess=preprocess_of(8, 8, 1),
        batch_size=2,
        augment=augment,
    )
    assert output._views.shift_buffer is None
    assert len(list(output(0))) == 2


def test_no_shift_buffer_on_an_accelerator():
    p, source = preprocess_of(8, 8, 1), subset(4, 8, 8, 1)
    augment = Augment(flip="horizontal")
    augmenter = pipeline.AugmentPipeline(
        subset=source, preprocess=p, augment=augment, device="meta"
    )
    assert augmenter.shift_buffer is None


def test_a_window_is_cut_and_resized_antialiased():
    """Against torch on float values, which rounds once."""
    pixels = torch.from_numpy(DRAW.integers(0, 256, (5, 20, 24, 3), np.uint8))
    places = np.array(
        [[0, 0, 20, 24], [3, 4, 8, 8], [1, 2, 16, 11], [12, 16, 8, 8], [0, 0, 1, 1]]
    )
    output = crop_and_resize(pixels, places, (8, 8))
    assert output.shape == (5, 8, 8, 3)
    for i, (top, left, height, width) in enumerate(places.tolist()):
        window = pixels[i, top : top + height, left : left + width].permute(2, 0, 1)
        expected = F.interpolate(
            window[None].float(), (8, 8), mode="bilinear", antialias=True
        )
        assert (output[i].permute(2, 0, 1).float() - expected[0]).abs().max() <= 1
    assert torch.equal(output[1], pixels[1, 3:11, 4:12])


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("threads", [1, 3])
def test_cutting_is_the_same_on_any_number_of_threads(monkeypatch, channels, threads):
    """Rows of a larger store, mirrored at once: as torch makes them one by one."""
    monkeypatch.setattr(random_crop.torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(random_crop, "_ALONE", 100)  # flipped in several bands
    source = torch.from_numpy(DRAW.integers(0, 256, (30, 33, 47, channels), np.uint8))
    rows = torch.from_numpy(DRAW.permutation(30)[:21])
    tall, wide = DRAW.integers(4, 33, 21), DRAW.integers(4, 47, 21)
    tall[:4], wide[:4] = 17, 20  # the size itself: copied
    top, left = DRAW.integers(0, 34 - tall), DRAW.integers(0, 48 - wide)
    places = np.stack([top, left, tall, wide], 1)
    flips = DRAW.integers(0, 2, (21, 2)).astype(bool)
    output = crop_and_resize(source, places, (17, 20), flips, rows)
    for i, (row, (t, x, h, w)) in enumerate(zip(rows, places.tolist(), strict=True)):
        planes = source[row, t : t + h, x : x + w].permute(2, 0, 1)[None]
        expected = F.interpolate(planes, (17, 20), mode="bilinear", antialias=True)
        across, down = flips[i].tolist()
        axes = [axis for axis, turned in ((3, across), (2, down)) if turned]
        assert torch.equal(output[i], expected.flip(axes)[0].permute(1, 2, 0))


def test_crop_windows_follow_the_random_params():
    """The same draws as the warp of images at the input's own size."""
    params = draw_params(
        Augment(crop=0.4),
        ImageSpec(channels=3, height=16, width=16),
        np.arange(500),
        count=500,
        seed=0,
        epoch=0,
    )
    rects = crop_windows(params.crop, 40, 60)
    top, left, height, width = rects.T
    assert height.min() == 24
    assert height.max() == 40
    assert width.min() == 36
    assert (top >= 0).all()
    assert (top + height <= 40).all()
    assert (left + width <= 60).all()
    assert set(top[height == 24]) == set(range(17)) or len(set(top)) > 8


def test_crops_come_from_the_larger_images():
    larger = torch.from_numpy(DRAW.integers(0, 256, (12, 20, 20, 3), np.uint8))
    source = subset(12, 16, 16, 3, larger)
    p = preprocess_of(16, 16, 3)
    augment = Augment(crop=0.3, flip="horizontal")
    output = Batches(subset=source, preprocess=p, batch_size=5, augment=augment, seed=3)
    (augmenter,) = {id(output._views): output._views}.values()
    assert augmenter.source_pixels is larger
    for x, y in output(1):
        numbers = y.numpy()
        params = draw_params(augment, p.spec, numbers, count=12, seed=3, epoch=1)
        pixels = crop_and_resize(larger[y], crop_windows(params.crop, 20, 20), (16, 16))
        flip = torch.from_numpy(params.flip[:, 0]).view(-1, 1, 1, 1)
        pixels = torch.where(flip, pixels.flip(2), pixels)
        assert torch.equal(x, normalize(pixels, p))


def test_without_larger_images_crops_are_warped():
    augment = Augment(crop=0.3)
    output = Batches(
        subset=subset(6, 16, 16, 3),
        preprocess=preprocess_of(16, 16, 3),
        batch_size=3,
        augment=augment,
    )
    assert output._views.source_pixels is output.subset.pixels
    assert [x.shape for x, _ in output(0)] == [(3, 3, 16, 16)] * 2


def test_crop_margin():
    assert crop_margin(Augment(crop=0.2, flip="horizontal", color=0.1)) == MARGIN
    for augment in (augmentation("six"), Augment(), Augment(crop=0.2, scale=0.1)):
        assert crop_margin(augment) == 1
