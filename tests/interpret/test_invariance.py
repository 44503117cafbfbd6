"""Moves against outside references; curves of networks whose answer is known."""

from functools import partial

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from striate.core.errors import (
    DataError,
    GeometryError,
    SettingError,
    UnknownNameError,
)
from striate.interpret.invariance.invariance_curves import OUTPUT, invariance_curves
from striate.interpret.invariance.one_pixel_shift import one_pixel_shift
from striate.interpret.invariance.transforms import (
    TRANSFORMS,
    Transform,
    get_transform,
    shift_pixels,
    warp_affine,
)
from support.foreign_networks import STRANGERS, Unchanged, stranger


def batches(count=10, channels=3, side=12):
    x = torch.randn(count, channels, side, side, generator=torch.manual_seed(1))
    return list(zip(x.split(4), (torch.arange(count) % 4).split(4), strict=True))


# --- moves ---------------------------------------------------------------------------


@pytest.mark.parametrize(("down", "right"), [(0, 1), (3, 0), (-2, 4), (0, 0)])
def test_a_shift_is_exact(down, right):
    x = torch.randn(2, 3, 7, 9)
    moved = shift_pixels(x, down, right).numpy()
    for one, there in zip(x.flatten(0, 1), moved.reshape(-1, 7, 9), strict=True):
        want = ndimage.shift(one.numpy(), (down, right), order=0, mode="nearest")
        assert np.array_equal(there, want)


@pytest.mark.parametrize("name", ["rotation", "scale", "shear"])
def test_a_warp_is_scipys(name):
    """Wide images, so that a mistaken aspect ratio shows."""
    yy, xx = np.mgrid[0:15, 0:23]
    smooth = np.exp(-(((xx - 13) / 4.0) ** 2) - ((yy - 6) / 3.0) ** 2)
    x = torch.tensor(smooth, dtype=torch.float32)[None, None]
    angle = np.radians(20)
    turn = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    amount, matrix = {
        "rotation": (20, turn),
        "scale": (0.25, [[0.8, 0], [0, 0.8]]),
        "shear": (20, [[1, np.tan(angle)], [0, 1]]),
    }[name]
    result = get_transform(name).copies(x, amount)[0][0, 0].numpy()
    (a, b), (c, d) = matrix
    down_first = np.array([[d, c], [b, a]])  # scipy's axes are (down, right)
    middle = np.array([7.0, 11.0])
    offset = middle - down_first @ middle
    want = ndimage.affine_transform(smooth, down_first, offset, order=1, mode="nearest")
    assert np.abs(result - want).max() < 1e-5
    assert np.abs(result - smooth).max() > 0.05


@pytest.mark.parametrize("move", TRANSFORMS.values(), ids=TRANSFORMS)
def test_the_first_amount_changes_nothing_and_directions_differ(move):
    x = torch.randn(2, 3, 12, 10)
    assert move.amounts[0] == 0
    for copy in move.copies(x, 0):
        assert torch.allclose(copy, x, atol=1e-5)
    copies = move.copies(x, move.amounts[-1])
    assert {tuple(copy.shape) for copy in copies} == {(2, 3, 12, 10)}
    for i, copy in enumerate(copies):
        assert not torch.allclose(copy, x, atol=1e-3)
        assert not any(torch.allclose(copy, other) for other in copies[:i])


def test_invalid_transforms():
    with pytest.raises(UnknownNameError, match="no transform is called 'rotate'"):
        get_transform("rotate")
    for amount in (1.5, 12, -1):
        with pytest.raises(SettingError, match="whole number of pixels"):
            get_transform("shift").copies(torch.zeros(1, 1, 12, 12), amount)


# --- curves --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", STRANGERS)
def test_networks_of_others_are_left_alone_and_agree_with_brute_force(kind):
    model = stranger(kind)
    layer = next(name for name, m in model.named_modules() if isinstance(m, nn.Conv2d))
    data = batches()
    with Unchanged(model):
        result = invariance_curves(model, data, list(TRANSFORMS.values()), [layer])
    model.eval()
    x = torch.cat([x for x, _ in data])
    y = torch.cat([y for _, y in data])
    for one in result:
        assert one.images == 10
        assert one.consistency[0] == 1
        assert one.distance[OUTPUT][0] == pytest.approx(0, abs=1e-4)
        assert set(one.distance) == {layer, OUTPUT}
        with torch.no_grad():
            still = model(x).argmax(1)
            moved = [
                model(c).argmax(1)
                for c in TRANSFORMS[one.transform].copies(x, one.amounts[-1])
            ]
        same = torch.stack([(m == still).float().mean() for m in moved]).mean()
        right = torch.stack([(m == y).float().mean() for m in moved]).mean()
        assert one.consistency[-1] == pytest.approx(float(same))
        assert one.accuracy[-1] == pytest.approx(float(right))


def test_distance_one_is_another_image():
    """A move that puts the next image in its place has gone all the way."""
    swap = Transform(
        name="swap", unit="", amounts=(0, 1), copies=lambda x, a: [x.roll(int(a), 0)]
    )
    x = torch.randn(6, 1, 4, 4)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten())
    result = invariance_curves(model, [(x, torch.zeros(6))], [swap], "0")[0]
    assert result.distance["0"] == pytest.approx((0, 1), abs=1e-6)


def test_how_images_are_batched_does_not_matter():
    """One at a time there is still another image to compare with."""
    model = stranger(STRANGERS[0])
    x = torch.randn(5, 3, 12, 12)
    move = [get_transform("rotation")]
    whole, single = (
        invariance_curves(
            model, [(p, torch.zeros(len(p))) for p in x.split(size)], move
        )[0]
        for size in (5, 1)
    )
    expected = pytest.approx(whole.distance[OUTPUT], rel=1e-4, abs=1e-6)
    assert single.distance[OUTPUT] == expected


def test_shift_invariance_of_global_pooling():
    x = torch.zeros(4, 2, 11, 11)
    x[::2, 0, 5, 5] = 3.0
    x[1::2, 1, 5, 5] = 3.0
    y = torch.arange(4) % 2
    pooled = nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten())
    dense = nn.Sequential(nn.Flatten(), nn.Linear(242, 2, bias=False))
    dense[1].weight.data.zero_()
    dense[1].weight.data[0, 60] = dense[1].weight.data[1, 121 + 60] = 1.0
    dense[1].weight.data[1, :121] = 0.1  # elsewhere the wrong class wins
    dense[1].weight.data[1, 60] = 0.0
    move = [get_transform("shift")]
    forgiving = invariance_curves(pooled, [(x, y)], move)[0]
    strict = invariance_curves(dense, [(x, y)], move)[0]
    assert forgiving.accuracy == (1.0,) * 5
    assert strict.accuracy[0] == 1.0
    assert strict.accuracy[1] < 1.0


def test_curves_need_images():
    model = nn.Flatten()
    one = torch.zeros(1, 1, 9, 9), torch.zeros(1)
    with pytest.raises(DataError, match="two images"):
        invariance_curves(model, [one], [get_transform("shift")])
    with pytest.raises(UnknownNameError, match="no layer"):
        invariance_curves(nn.Sequential(model), [one], [get_transform("shift")], "conv")


# --- one pixel -----------------------------------------------------------------------


def test_one_pixel_counts_by_hand():
    """Cell by cell, with scipy's filter, on random blots."""
    chance = np.random.default_rng(0)
    images = chance.random((5, 10, 12)) > 0.6
    result = {one.stage: one for one in one_pixel_shift(torch.tensor(images).float())}
    kernel = np.array([[-1, 0, 1]] * 3)

    def maps(ink):
        edges = ndimage.correlate(ink.astype(int), kernel)[1:-1, 1:-1].clip(0)
        pool = edges.reshape(4, 2, 5, 2).max((1, 3))
        return {"image": ink, "edges": edges, "max pool": pool}

    for i, ink in enumerate(images):
        gone = ndimage.shift(ink, (0, 1), order=0, mode="nearest")
        for stage, there in maps(ink).items():
            want = int((there != maps(gone)[stage]).sum())
            assert int(result[stage].counts[i]) == want
            assert result[stage].cells == there.size
    assert result["subsampled"].cells == result["max pool"].cells == 20
    assert result["image"].share == result["image"].mean / 120


@pytest.mark.parametrize("shape", [(4, 4), (1, 3, 9), (1, 1, 9, 9)])
def test_one_pixel_needs_gray_images(shape):
    with pytest.raises(GeometryError, match="gray images"):
        one_pixel_shift(torch.zeros(shape))


def test_a_warp_keeps_its_type():
    x = torch.randn(1, 1, 5, 5, dtype=torch.float64)
    assert partial(warp_affine, x)(((1.0, 0.0), (0.0, 1.0))).dtype == torch.float64
