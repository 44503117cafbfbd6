"""Color, whole pixels, rectangles and mixed pairs: each against its definition."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from striate.core.errors import SettingError
from striate.core.preprocess_config import ImageSpec, Preprocess
from striate.data.augment.augment import Augment
from striate.data.augment.color import ColorMap
from striate.data.augment.mix import draw_mix_pairs, erase_rectangles, mixed_targets
from striate.data.augment.pipeline import augment_batch
from striate.data.augment.pixel_shift import shift_whole_pixels
from striate.data.augment.random_params import identity_params
from striate.data.batches import Batches
from striate.data.decode.preprocess import normalize
from striate.data.subset import Subset
from striate.engine.loss import cross_entropy_loss
from striate.engine.train_step import train_step

RGB = Preprocess(
    channels=3,
    height=9,
    width=7,
    mean=(0.5, 0.4, 0.3),
    std=(0.25, 0.2, 0.3),
    background=200,
)
OPENCV = {
    "reflect": cv2.BORDER_REFLECT,
    "edge": cv2.BORDER_REPLICATE,
    "background": cv2.BORDER_CONSTANT,
}
SHAPE = ImageSpec(channels=3, height=9, width=7)


def noise_images(count: int = 5, shape=(9, 7, 3)) -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=draw)


def values(x: torch.Tensor) -> np.ndarray:
    """Turn a network's input back into levels, (N, H, W, C)."""
    mean, std = np.array(RGB.mean), np.array(RGB.std)
    return 255 * (x.permute(0, 2, 3, 1).double().numpy() * std + mean)


# --- color


def test_the_color_map_is_opencvs_saturating_sum():
    pixels = noise_images()
    shifts = np.random.default_rng(0).integers(-100, 101, (5, 3))
    x = ColorMap(RGB, shifts / 255, "cpu")(pixels)
    for output, image, shift in zip(values(x), pixels.numpy(), shifts, strict=True):
        expected = cv2.add(image, (*map(float, shift), 0.0))
        assert np.abs(output - expected).max() < 1e-3
    assert x.is_contiguous(memory_format=torch.channels_last)


def test_the_map_without_shift_is_the_normalization():
    pixels = noise_images()
    plain = normalize(pixels, RGB)
    assert torch.allclose(ColorMap(RGB, None, "cpu")(pixels), plain, atol=1e-6)
    zero = ColorMap(RGB, np.zeros((5, 3)), "cpu")
    assert torch.allclose(zero(pixels), plain, atol=1e-6)
    assert torch.equal(zero(pixels)[2:4], zero(pixels[2:4], slice(2, 4)))


def test_the_background_is_shifted_with_the_image():
    """A turned image on its background shows no edge, whatever its color is."""
    white = torch.full((2, 9, 7, 3), RGB.background, dtype=torch.uint8)
    shifts = np.array([[0.1, -0.3, 0.5], [-0.9, 0.0, 0.2]])
    params = identity_params(2, angle=np.array([30.0, 75.0]), color=shifts)
    augment = Augment(rotate=90, color=1, border="background")
    x = augment_batch(white, params, RGB, augment)
    expected = np.clip(RGB.background + 255 * shifts, 0, 255)
    assert np.abs(values(x) - expected[:, None, None]).max() < 1e-3


# --- whole pixels


@pytest.mark.parametrize("border", OPENCV)
@pytest.mark.parametrize("most", [0, 1, 3])
def test_whole_pixels_are_opencvs_border_and_window(border, most):
    pixels = noise_images(40)
    draw = np.random.default_rng(most)
    shift = draw.integers(-most, most + 1, (40, 2))
    flips = draw.integers(0, 2, (40, 2)).astype(bool)
    output = shift_whole_pixels(pixels, shift, flips, border, RGB.background)
    for moved, image, (right, down), (left, top) in zip(
        output.numpy(), pixels.numpy(), shift, flips, strict=True
    ):
        turned = image[:: -1 if top else 1, :: -1 if left else 1]
        wide = cv2.copyMakeBorder(
            turned.copy(), *(most,) * 4, OPENCV[border], value=(RGB.background,) * 3
        )
        window = wide[most - down : most - down + 9, most - right : most - right + 7]
        assert (moved == window).all()


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 4), st.integers(0, 99))
def test_a_shift_as_warp_is_the_shift_as_copy(height, width, channels, seed):
    """Both ways of geometry agree, borders included."""
    p = Preprocess(
        channels=channels,
        height=height,
        width=width,
        mean=(0.0,) * channels,
        std=(1.0,) * channels,
    )
    draw = np.random.default_rng(seed)
    pixels = noise_images(3, (height, width, channels))
    reach = np.array([width // 2, height // 2])
    shift = draw.integers(-reach, reach + 1, (3, 2))
    flips = draw.integers(0, 2, (3, 2)).astype(bool)
    params = identity_params(3, shift=shift, flip=flips)
    for border in OPENCV:
        copied = augment_batch(pixels, params, p, Augment(shift=0.5, border=border))
        warped = augment_batch(pixels, params, p, Augment(rotate=1, border=border))
        assert (copied - warped).abs().max() < 1e-4


# --- rectangles


def test_an_erased_rectangle_is_the_mean_and_nothing_else_changes():
    x = torch.rand(3, 2, 5, 4).contiguous(memory_format=torch.channels_last)
    before = x.clone()
    output = erase_rectangles(x, np.array([[1, 3, 0, 2], [0, 0, 0, 0], [0, 5, 3, 4]]))
    assert (output[0, :, 1:3, 0:2] == 0).all()
    assert (output[2, :, :, 3:] == 0).all()
    output[0, :, 1:3, 0:2] = before[0, :, 1:3, 0:2]
    output[2, :, :, 3:] = before[2, :, :, 3:]
    assert torch.equal(output, before)


# --- mixed pairs


def mix_pairs(augment: Augment, count: int = 3000):
    return draw_mix_pairs(
        augment, SHAPE, np.arange(count), count=count, seed=0, epoch=2
    )


def test_mixups_shares_are_a_beta_distribution():
    """Mean and variance of Beta(a, a): 1/2 and 1/(4(2a + 1))."""
    for parameter in (0.2, 1.0, 4.0):
        mixed = mix_pairs(Augment(mixup=parameter), 20_000)
        assert (mixed.pixel_share == mixed.target_share).all()
        assert not mixed.pasted.any()
        assert abs(mixed.target_share.mean() - 0.5) < 0.02
        assert abs(mixed.target_share.var() - 1 / (4 * (2 * parameter + 1))) < 0.01


def test_cutmix_keeps_what_it_covers():
    mixed = mix_pairs(Augment(cutmix=1.0))
    assert (mixed.pixel_share == 1).all()
    top, bottom, left, right = mixed.pasted.T
    assert (top >= 0).all()
    assert (bottom <= 9).all()
    assert (left >= 0).all()
    assert (right <= 7).all()
    assert np.allclose(mixed.target_share, 1 - (bottom - top) * (right - left) / 63)
    assert mixed.target_share.min() < 0.1
    assert mixed.target_share.max() == 1


def test_with_both_a_coin_decides():
    mixed = mix_pairs(Augment(cutmix=1.0, mixup=0.5))
    blended = mixed.pixel_share < 1
    assert 1300 < blended.sum() < 1700
    assert not mixed.pasted[blended].any()


def test_every_image_is_partner_once():
    mixed = mix_pairs(Augment(mixup=0.5), 50)
    assert sorted(mixed.partner.tolist()) == list(range(50))


def mixing_batches(augment: Augment, count: int = 24) -> Batches:
    """Images of one level each, i, of class i % 4."""
    levels = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1)
    subset = Subset.of(
        levels.expand(-1, 9, 7, 3).contiguous(),
        [i % 4 for i in range(count)],
        [str(i) for i in range(count)],
    )
    p = Preprocess(channels=3, height=9, width=7, mean=(0.0,) * 3, std=(1 / 255,) * 3)
    return Batches(
        subset=subset,
        preprocess=p,
        batch_size=7,
        augment=augment,
        classes=4,
        shuffle=False,
    )


@pytest.mark.parametrize("augment", [Augment(mixup=1.0), Augment(cutmix=1.0)])
def test_pixels_and_targets_hold_the_same_shares(augment):
    """From the mean level of a mixed image follows its target."""
    output = mixing_batches(augment)
    mixed = draw_mix_pairs(augment, SHAPE, np.arange(24), count=24, seed=0, epoch=1)
    x, y = (torch.cat(batches) for batches in zip(*output(1), strict=True))
    assert y.shape == (24, 4)
    assert torch.allclose(y.sum(1), torch.ones(24))
    own, other = np.arange(24), mixed.partner
    level = own * mixed.target_share + other * (1 - mixed.target_share)
    assert np.allclose(x.mean((1, 2, 3)).numpy(), level, atol=1e-4)
    for i, j in zip(own, other, strict=True):
        target = np.zeros(4)
        target[i % 4] += mixed.target_share[i]
        target[j % 4] += 1 - mixed.target_share[i]
        assert np.allclose(y[i].numpy(), target, atol=1e-6)
    if augment.cutmix:
        assert set(np.unique(x.numpy())) <= set(range(24))


def test_mixing_needs_the_number_of_classes():
    output = mixing_batches(Augment(mixup=1.0))
    with pytest.raises(SettingError, match="need the number of classes"):
        next(iter(replace(output, classes=0)(0)))


def test_a_partner_is_seen_as_it_looks_itself():
    """Mixed with its own augmentation, of which the pair takes a share."""
    augment = Augment(color=0.02, mixup=1.0)
    alone = torch.cat([x for x, _ in mixing_batches(Augment(color=0.02))(1)])
    mixed = draw_mix_pairs(augment, SHAPE, np.arange(24), count=24, seed=0, epoch=1)
    together = torch.cat([x for x, _ in mixing_batches(augment)(1)])
    share = torch.from_numpy(mixed.pixel_share).float().view(-1, 1, 1, 1)
    expected = share * alone + (1 - share) * alone[mixed.partner]
    assert torch.allclose(together, expected, atol=1e-4)


def test_soft_targets_cost_what_hard_ones_do():
    """A share of 1 is the class itself, with label smoothing and without."""
    labels = torch.tensor([0, 2, 1])
    soft = mixed_targets(labels, labels.flip(0), np.ones(3), 3)
    for smoothing in (0.0, 0.1):
        costs = []
        for y in (labels, soft):
            torch.manual_seed(0)
            model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3))
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            x = torch.rand(3, 1, 2, 2, generator=torch.Generator().manual_seed(1))
            costs.append(
                train_step(model, x, y, optimizer, cross_entropy_loss(smoothing))
            )
            costs.append(
                train_step(model, x, y, optimizer, cross_entropy_loss(smoothing))
            )
        assert costs[:2] == pytest.approx(costs[2:], rel=1e-6)
    logits = torch.randn(2, 3)
    half = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.25, 0.75]])
    by_hand = -(half * logits.log_softmax(1)).sum(1).mean()
    assert torch.allclose(F.cross_entropy(logits, half), by_hand)
