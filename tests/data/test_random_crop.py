"""Crops from larger stores, and moves by one copy: as the plain way makes them."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from striate.core.spec import ImageSpec, Preprocess
from striate.data.augment import pipeline as room
from striate.data.augment import random_crop as windows_room
from striate.data.augment.augment import Augment, augmentation
from striate.data.augment.random_crop import MARGIN, cut, margin_for, windows
from striate.data.augment.random_params import draw
from striate.data.batches import Batches
from striate.data.decode.preprocess import normalize
from striate.data.subset import Subset

DRAW = np.random.default_rng(0)


def subset(count, height, width, channels, larger=None):
    pixels = torch.from_numpy(
        DRAW.integers(0, 256, (count, height, width, channels), np.uint8)
    )
    return Subset.of(pixels, list(range(count)), ["" for _ in range(count)], larger)


def plain(height, width, channels):
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
def test_the_tape_changes_nothing_but_time(
    monkeypatch, shift, mirror, border, channels
):
    """One copy from a tape of the whole part, or each batch moved by itself."""
    held = subset(23, 10, 13, channels)
    augment = Augment(shift=shift, mirror=mirror, border=border)

    def made():
        batches = Batches(
            subset=held,
            preprocess=plain(10, 13, channels),
            batch_size=6,
            augment=augment,
        )
        return batches, [pair for epoch in (0, 1, 2) for pair in batches(epoch)]

    taped, fast = made()
    assert taped._views.tape is not None
    monkeypatch.setattr(room, "TAPE", 0)
    slow, straight = made()
    assert slow._views.tape is None
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
def test_no_tape_where_more_is_done(augment):
    made = Batches(
        subset=subset(4, 8, 8, 1),
        preprocess=plain(8, 8, 1),
        batch_size=2,
        augment=augment,
    )
    assert made._views.tape is None
    assert len(list(made(0))) == 2


def test_no_tape_on_an_accelerator():
    p, held = plain(8, 8, 1), subset(4, 8, 8, 1)
    augment = Augment(flip="horizontal")
    views = room.Views(subset=held, preprocess=p, augment=augment, device="meta")
    assert views.tape is None


def test_a_window_is_cut_and_resized_antialiased():
    """Against torch on float values, which rounds once."""
    pixels = torch.from_numpy(DRAW.integers(0, 256, (5, 20, 24, 3), np.uint8))
    places = np.array(
        [[0, 0, 20, 24], [3, 4, 8, 8], [1, 2, 16, 11], [12, 16, 8, 8], [0, 0, 1, 1]]
    )
    made = cut(pixels, places, (8, 8))
    assert made.shape == (5, 8, 8, 3)
    for i, (top, left, height, width) in enumerate(places.tolist()):
        window = pixels[i, top : top + height, left : left + width].permute(2, 0, 1)
        wanted = F.interpolate(
            window[None].float(), (8, 8), mode="bilinear", antialias=True
        )
        assert (made[i].permute(2, 0, 1).float() - wanted[0]).abs().max() <= 1
    assert torch.equal(made[1], pixels[1, 3:11, 4:12])


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("threads", [1, 3])
def test_cutting_is_the_same_on_any_number_of_threads(monkeypatch, channels, threads):
    """Rows of a larger store, mirrored at once: as torch makes them one by one."""
    monkeypatch.setattr(windows_room.torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(windows_room, "_ALONE", 100)  # flipped in several bands
    held = torch.from_numpy(DRAW.integers(0, 256, (30, 33, 47, channels), np.uint8))
    rows = torch.from_numpy(DRAW.permutation(30)[:21])
    tall, wide = DRAW.integers(4, 33, 21), DRAW.integers(4, 47, 21)
    tall[:4], wide[:4] = 17, 20  # the size itself: copied
    top, left = DRAW.integers(0, 34 - tall), DRAW.integers(0, 48 - wide)
    places = np.stack([top, left, tall, wide], 1)
    flips = DRAW.integers(0, 2, (21, 2)).astype(bool)
    made = cut(held, places, (17, 20), flips, rows)
    for i, (row, (t, x, h, w)) in enumerate(zip(rows, places.tolist(), strict=True)):
        planes = held[row, t : t + h, x : x + w].permute(2, 0, 1)[None]
        wanted = F.interpolate(planes, (17, 20), mode="bilinear", antialias=True)
        across, down = flips[i].tolist()
        axes = [axis for axis, turned in ((3, across), (2, down)) if turned]
        assert torch.equal(made[i], wanted.flip(axes)[0].permute(1, 2, 0))


def test_windows_follow_the_draws():
    """The same draws as the warp of images at the input's own size."""
    draws = draw(
        Augment(crop=0.4),
        ImageSpec(channels=3, height=16, width=16),
        np.arange(500),
        count=500,
        seed=0,
        epoch=0,
    )
    found = windows(draws.crop, 40, 60)
    top, left, height, width = found.T
    assert height.min() == 24
    assert height.max() == 40
    assert width.min() == 36
    assert (top >= 0).all()
    assert (top + height <= 40).all()
    assert (left + width <= 60).all()
    assert set(top[height == 24]) == set(range(17)) or len(set(top)) > 8


def test_crops_come_from_the_larger_images():
    larger = torch.from_numpy(DRAW.integers(0, 256, (12, 20, 20, 3), np.uint8))
    held = subset(12, 16, 16, 3, larger)
    p = plain(16, 16, 3)
    augment = Augment(crop=0.3, flip="horizontal")
    made = Batches(subset=held, preprocess=p, batch_size=5, augment=augment, seed=3)
    (views,) = {id(made._views): made._views}.values()
    assert views.held is larger
    for x, y in made(1):
        numbers = y.numpy()
        draws = draw(augment, p.spec, numbers, count=12, seed=3, epoch=1)
        pixels = cut(larger[y], windows(draws.crop, 20, 20), (16, 16))
        flip = torch.from_numpy(draws.mirror[:, 0]).view(-1, 1, 1, 1)
        pixels = torch.where(flip, pixels.flip(2), pixels)
        assert torch.equal(x, normalize(pixels, p))


def test_without_larger_images_crops_are_warped():
    augment = Augment(crop=0.3)
    made = Batches(
        subset=subset(6, 16, 16, 3),
        preprocess=plain(16, 16, 3),
        batch_size=3,
        augment=augment,
    )
    assert made._views.held is made.subset.pixels
    assert [x.shape for x, _ in made(0)] == [(3, 3, 16, 16)] * 2


def test_who_needs_a_margin():
    assert margin_for(Augment(crop=0.2, flip="horizontal", color=0.1)) == MARGIN
    for augment in (augmentation("six"), Augment(), Augment(crop=0.2, scale=0.1)):
        assert margin_for(augment) == 1
