"""Augmentation: a pure function of (seed, epoch, image), the same in any batch."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import fields

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from striate.core.derive_seed import derive_seed
from striate.core.errors import SettingError, UnknownNameError
from striate.core.preprocess_config import ImageSpec, Preprocess
from striate.core.seeds import COLUMNS, uniform
from striate.data.augment import pipeline
from striate.data.augment.augment import AUGMENT_PRESETS, RANGES, Augment, augmentation
from striate.data.augment.flip import flip_images, flipped_in_epoch
from striate.data.augment.random_params import RandomParams, draw_params
from striate.data.batches import Batches
from striate.data.decode.preprocess import normalize
from striate.data.subset import Subset
from support.images import stripes

EVERYTHING = augmentation(
    "six", scale=0.2, shift=0.1, erase=0.5, mixup=0.4, cutmix=1.0, flip="both"
)
SHAPE = ImageSpec(channels=3, height=20, width=30)


def subset(
    count: int = 40, height: int = 20, width: int = 30, channels: int = 3
) -> Subset:
    pixels = np.stack([stripes(i, i, height, width, channels) for i in range(count)])
    labels = [i % 4 for i in range(count)]
    return Subset.of(torch.from_numpy(pixels), labels, [str(i) for i in range(count)])


def batches(augment, size=16, *, of=None, **options) -> Batches:
    own = of or subset()
    _, height, width, channels = own.pixels.shape
    p = Preprocess(
        channels=channels,
        height=height,
        width=width,
        mean=(0.45,) * channels,
        std=(0.3,) * channels,
    )
    return Batches(
        subset=own, preprocess=p, batch_size=size, augment=augment, classes=4, **options
    )


def epoch_of(output: Batches, epoch: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Return input and target of each image, in order of the images."""
    index = torch.cat(output.indices(epoch))
    pairs = list(output(epoch))
    x, y = (torch.cat([pair[k] for pair in pairs]) for k in (0, 1))
    order = index.argsort()
    return x[order], y[order]


def params_of(augment=EVERYTHING, samples=range(40), epoch=1, seed=0) -> RandomParams:
    numbers = np.array(samples)
    return draw_params(augment, SHAPE, numbers, count=40, seed=seed, epoch=epoch)


# --- randomness


def test_the_sequence_is_splitmix64():
    """The first numbers for the seed 1234567 that the algorithm's users publish."""
    steps = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    sequence, state = [], 1234567
    for _ in steps:  # the algorithm as it stands in the paper, one step at a time
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        z = state
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        sequence.append(z ^ (z >> 31))
    assert sequence == steps
    state = (derive_seed(5) + 7 * COLUMNS * 0x9E3779B97F4A7C15) % 2**64
    for column in range(3):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        z = state
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        expected = ((z ^ (z >> 31)) >> 11) / 2**53
        assert uniform(np.array([7]), range(column, column + 1), 5)[0, 0] == expected


def test_numbers_are_even_and_independent():
    """Moments, bins and correlations of neighbors, within five standard errors."""
    count = 20_000
    numbers = uniform(np.arange(count), range(8), 0, "augment", 3)
    assert 0 <= numbers.min() < numbers.max() < 1
    error = 5 / np.sqrt(12 * count)
    assert np.abs(numbers.mean(0) - 0.5).max() < error
    bins = np.stack([np.bincount((u * 50).astype(int)) for u in numbers.T])
    chi = ((bins - count / 50) ** 2 / (count / 50)).sum(1)
    assert chi.max() < 49 + 5 * np.sqrt(2 * 49)
    next_epoch = uniform(np.arange(count), range(8), 0, "augment", 4)
    next_seed = uniform(np.arange(count), range(8), 1, "augment", 3)
    pairs = [
        (numbers[:-1], numbers[1:]),  # neighboring samples
        (numbers[:, :-1], numbers[:, 1:]),  # neighboring columns
        (numbers, next_epoch),
        (numbers, next_seed),
    ]
    for first, second in pairs:
        correlation = np.corrcoef(first.ravel(), second.ravel())[0, 1]
        assert abs(correlation) < 5 / np.sqrt(first.size)


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=9), st.integers(0, 90))
def test_a_samples_numbers_are_its_own(samples, first):
    columns = range(first, first + 5)
    together = uniform(np.array(samples), columns, 3, "x")
    for row, sample in zip(together, samples, strict=True):
        alone = uniform(np.array([sample]), range(first + 2, first + 3), 3, "x")
        assert row[2] == alone[0, 0]


def test_columns_outside_are_refused():
    with pytest.raises(ValueError, match="not within 0–1023"):
        uniform(np.array([0]), range(1020, 1025), 0)


# --- ranges


def test_presets_and_ranges():
    assert not augmentation("none").is_active
    assert augmentation("six").interpolates
    assert augmentation("flip") == Augment(flip="horizontal")
    assert augmentation("six", rotate=0, flip=None).flip == "horizontal"
    assert augmentation("none", cutmix=1).mixes_images
    assert tuple(spec.name for spec in fields(Augment)) == RANGES
    assert {name for preset in AUGMENT_PRESETS.values() for name in preset} <= set(
        RANGES
    )


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ({"rotate": 181}, "rotate must be at most 180, got 181"),
        ({"rotate": float("nan")}, "rotate must be at least 0, got nan"),
        ({"shear": 60}, "shear must be at most 45"),
        ({"warp": 0.3}, "warp must be at most 0.12"),
        ({"crop": 1}, "crop must be at most 0.9"),
        ({"color": -0.1}, "color must be at least 0"),
        ({"erase": 1.5}, "erase must be at most 1"),
        ({"mixup": -1}, "mixup must be at least 0"),
    ],
)
def test_ranges_out_of_bounds_are_refused(ranges, message):
    with pytest.raises(SettingError, match=message):
        augmentation("none", **ranges)


@pytest.mark.parametrize("ranges", [{"flip": "left"}, {"border": "wrap"}])
def test_unknown_names_are_refused(ranges):
    with pytest.raises(UnknownNameError, match="is called"):
        augmentation("none", **ranges)
    with pytest.raises(UnknownNameError, match="no augmentation is called 'seven'"):
        augmentation("seven")


# --- draws


def test_draws_fill_their_ranges():
    augment = augmentation("six", scale=0.5, shift=0.2, erase=1.0)
    numbers = np.arange(4000)
    output = draw_params(augment, SHAPE, numbers, count=4000, seed=0, epoch=0)
    for values, most in (
        (output.angle, 15),
        (output.shear, 10),
        (output.control_shifts, 0.1),
        (output.color, 0.1),
        (np.log(output.zoom), np.log(1.5)),
    ):
        assert 0.98 * most < np.abs(values).max() <= most
        assert np.abs(values.mean()) < 0.05 * most
    crop_share = output.crop[:, 0]
    assert 0.85 <= crop_share.min() < 0.855
    assert 0.998 < crop_share.max() <= 1
    assert set(output.shift[:, 0]) == set(range(-6, 7))
    assert set(output.shift[:, 1]) == set(range(-4, 5))
    assert 1900 < output.flip[:, 0].sum() < 2100
    top, bottom, left, right = output.erased.T
    assert (top >= 0).all()
    assert (bottom <= 20).all()
    assert (left >= 0).all()
    assert (right <= 30).all()
    area = (bottom - top) * (right - left) / 600
    assert 0 < area.min() < 0.03
    assert 0.2 < area.max() < 0.3


def test_a_further_change_leaves_the_draws_of_the_others():
    alone = params_of(augmentation("none", rotate=15))
    together = params_of()
    assert (alone.angle == together.angle).all()
    assert alone.control_shifts is None
    assert alone.color is None
    assert (alone.zoom == 1).all()


def test_draws_differ_by_image_epoch_and_seed():
    now, later, second = params_of(), params_of(epoch=2), params_of(seed=1)
    for name in ("angle", "shear", "zoom", "crop", "control_shifts", "color"):
        values = getattr(now, name).reshape(40, -1)
        assert len(np.unique(values, axis=0)) == 40
        assert (values != getattr(later, name).reshape(40, -1)).any(1).all()
        assert (values != getattr(second, name).reshape(40, -1)).any(1).all()


@given(st.integers(2, 40), st.integers(0, 50), st.integers(0, 9))
def test_two_epochs_show_every_image_both_ways(count, epoch, seed):
    first, second = (
        flipped_in_epoch(count, epoch, seed),
        flipped_in_epoch(count, epoch + 1, seed),
    )
    assert (first ^ second).all()
    assert (first == flipped_in_epoch(count, epoch + 2, seed)).all()


def test_both_flips_show_all_four_orientations_in_four_epochs():
    augment = Augment(flip="both")
    flips_by_epoch = [params_of(augment, epoch=epoch).flip for epoch in range(4)]
    for i in range(40):
        assert len({tuple(way[i]) for way in flips_by_epoch}) == 4
    upright = [params_of(Augment(flip="vertical"), epoch=e).flip for e in (0, 1)]
    assert (upright[0][:, 1] ^ upright[1][:, 1]).all()
    assert not upright[0][:, 0].any()


def test_flipping_twice_is_the_identity():
    pixels = torch.randint(0, 256, (5, 4, 3, 2), dtype=torch.uint8)
    which = torch.tensor([True, False, True, True, False])
    assert torch.equal(flip_images(flip_images(pixels, which), which), pixels)
    assert torch.equal(flip_images(pixels, which)[0], pixels[0].flip(1))
    assert torch.equal(flip_images(pixels, which)[1], pixels[1])
    assert torch.equal(flip_images(pixels, which, axis=1)[3], pixels[3].flip(0))


# --- the same pixels in any batch (fault D7)


@pytest.mark.parametrize("augment", [EVERYTHING, "six", "flip", Augment(shift=0.2)])
@pytest.mark.parametrize("shape", [(20, 30, 3), (8, 8, 1), (150, 131, 2)])
def test_batch_size_and_threads_change_no_pixel(augment, shape):
    if isinstance(augment, str):
        augment = augmentation(augment)
    own = subset(23, *shape)
    x, y = epoch_of(batches(augment, 23, of=own))
    assert x.is_contiguous(memory_format=torch.channels_last)
    for size in (1, 2, 7, 16):
        again, targets = epoch_of(batches(augment, size, of=own))
        assert torch.equal(x, again)
        assert torch.equal(y, targets)
    torch.set_num_threads(2)
    try:
        again, _ = epoch_of(batches(augment, 9, of=own))
    finally:
        torch.set_num_threads(1)
    assert torch.equal(x, again)
    still, _ = epoch_of(batches(augment, 5, of=own, shuffle=False))
    assert torch.equal(x, still)


def test_a_chunk_is_no_different_from_a_batch(monkeypatch):
    whole, _ = epoch_of(batches(EVERYTHING))
    monkeypatch.setattr(pipeline, "_CHUNK", 1)
    single, _ = epoch_of(batches(EVERYTHING))
    assert torch.equal(whole, single)


PROGRAM = """
import hashlib, sys
sys.path.insert(0, sys.argv[1])
sys.path.insert(0, sys.argv[2])
from test_augment import EVERYTHING, batches, epoch_of
print(hashlib.sha256(epoch_of(batches(EVERYTHING, 3))[0].numpy().tobytes()).hexdigest())
"""


def test_another_process_gives_the_same_pixels():
    here = epoch_of(batches(EVERYTHING, 16))[0].numpy().tobytes()
    folder = __file__.rpartition("/")[0]
    words = [sys.executable, "-c", PROGRAM, folder, folder.rpartition("/")[0]]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == hashlib.sha256(here).hexdigest()


def test_an_epoch_does_not_depend_on_those_before():
    output = batches(EVERYTHING)
    straight = [epoch_of(output, epoch)[0] for epoch in range(3)]
    resumed = batches(EVERYTHING)
    assert torch.equal(epoch_of(resumed, 2)[0], straight[2])
    assert all(
        (straight[a] != straight[b]).flatten(1).any(1).all()
        for a, b in ((0, 1), (1, 2), (0, 2))
    )


def test_seeds_differ():
    first, second = (epoch_of(batches("six", seed=seed))[0] for seed in (0, 1))
    assert (first != second).flatten(1).any(1).all()


def test_transforms_that_are_off_change_no_bit():
    """No transforms, ranges of zero, and flips, to the bit."""
    own = subset()
    plain = normalize(own.pixels, batches("none").preprocess)
    zero = Augment(rotate=0, border="edge")
    assert not zero.is_active
    for augment in ("none", zero):
        assert torch.equal(epoch_of(batches(augment))[0], plain)
    flips = torch.from_numpy(flipped_in_epoch(40, 1, 0)).view(-1, 1, 1, 1)
    by_hand = torch.where(flips, own.pixels.flip(2), own.pixels)
    expected = normalize(by_hand, batches("none").preprocess)
    assert torch.equal(epoch_of(batches("flip"))[0], expected)
    erased = epoch_of(batches(Augment(erase=0.5)))[0]
    same = (erased == plain).flatten(1).all(1)
    assert 8 < same.sum() < 32
    assert torch.equal(erased[same], plain[same])


def test_golden_pixels():
    """A view of release 0.1: a run of today is repeated by tomorrow's program.

    Sums of the image's values, not bits, so that another processor's sine may
    differ in its last digit.
    """
    x, _ = epoch_of(batches("six"), epoch=3)
    sums = [round(float(v), 2) for v in x[:4].double().sum((1, 2, 3))]
    assert sums == pytest.approx(GOLDEN, abs=0.1)


GOLDEN = [716.94, 178.03, 202.10, 174.79]
