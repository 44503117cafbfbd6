"""One warp for all geometry: against OpenCV and SciPy, each alone and together."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import BSpline
from scipy.ndimage import map_coordinates

from striate.data.augment.elastic import (
    CELLS,
    CONTROL_POINTS,
    spline_basis,
    spline_rows,
)
from striate.data.augment.geometry import (
    PADDING,
    affine_matrices,
    sampling_field,
    sampling_grid,
    warp_images,
)
from striate.data.augment.random_params import identity_params

HEIGHT, WIDTH = 40, 52
GRID = (CONTROL_POINTS, CONTROL_POINTS, 2)
CENTER = ((WIDTH - 1) / 2, (HEIGHT - 1) / 2)
SCIPY = {"reflect": "reflect", "edge": "nearest"}  # SciPy's names of the borders
OPENCV = {
    "reflect": cv2.BORDER_REFLECT,
    "edge": cv2.BORDER_REPLICATE,
    "background": cv2.BORDER_CONSTANT,
}
# OpenCV's sampling positions are multiples of 1/32 of a pixel.
OPENCV_STEP = 1 / 64


def smooth(seed=0, channels=3, height=HEIGHT, width=WIDTH, cell=8):
    """An image without detail below `cell` pixels, (C, H, W), 0–255."""
    draw = np.random.default_rng(seed)
    coarse = draw.uniform(0, 255, (height // cell + 1, width // cell + 1, channels))
    fine = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.ascontiguousarray(
        fine.reshape(height, width, channels).transpose(2, 0, 1)
    )


def warped(image, border="reflect", back=None, **values):
    """Warp one image by one draw."""
    params = identity_params(
        1, **{name: np.array([value]) for name, value in values.items()}
    )
    sampling = sampling_field(params, *image.shape[1:])
    x = torch.from_numpy(image)[None].float()
    level = None if back is None else torch.full((1, len(image), 1, 1), float(back))
    return warp_images(x, sampling, border, level)[0].numpy()


def opencv(image, matrix, border="reflect", back=0.0):
    """Warp by OpenCV; the matrix says where a pixel of the source goes."""
    displacement = cv2.warpAffine(
        np.ascontiguousarray(image.transpose(1, 2, 0)).astype(np.float32),
        matrix,
        (image.shape[2], image.shape[1]),
        flags=cv2.INTER_LINEAR,
        borderMode=OPENCV[border],
        borderValue=(back,) * 4,
    )
    return displacement.reshape(*image.shape[1:], -1).transpose(2, 0, 1)


def about_center(linear, move=(0.0, 0.0)):
    """A forward matrix of OpenCV from a linear map about the image's center."""
    linear, center = np.array(linear, float), np.array(CENTER)
    return np.hstack([linear, (center - linear @ center + move)[:, None]])


def shears(along, down):
    ta, tb = np.tan(np.deg2rad([along, down]))
    return np.array([[1, ta], [0, 1]]) @ np.array([[1, 0], [tb, 1]])


ALONE = [
    ({"angle": 30.0}, cv2.getRotationMatrix2D(CENTER, 30, 1.0)),
    ({"angle": -100.0}, cv2.getRotationMatrix2D(CENTER, -100, 1.0)),
    ({"zoom": 1.4}, cv2.getRotationMatrix2D(CENTER, 0, 1.4)),
    ({"zoom": 0.7}, cv2.getRotationMatrix2D(CENTER, 0, 0.7)),
    ({"shear": [12.0, 0.0]}, about_center(shears(12, 0))),
    ({"shear": [0.0, -20.0]}, about_center(shears(0, -20))),
    ({"shear": [15.0, 25.0]}, about_center(shears(15, 25))),
    ({"shift": [5, -3]}, about_center(np.eye(2), (5, -3))),
    ({"flip": [True, False]}, about_center(np.diag([-1, 1]))),
    ({"flip": [False, True]}, about_center(np.diag([1, -1]))),
]


@pytest.mark.parametrize("border", PADDING)
@pytest.mark.parametrize(("values", "matrix"), ALONE, ids=[str(d) for d, _ in ALONE])
def test_each_alone_is_opencvs(values, matrix, border):
    """Positive angles turn counter-clockwise; pixels' values stand at their middles."""
    image = smooth()
    back = 90.0 if border == "background" else None
    output = warped(image, border, back, **values)
    expected = opencv(image, matrix, border, back or 0.0)
    steepest = max(np.abs(np.diff(image, axis=axis)).max() for axis in (1, 2))
    if border == "background":  # the edge of a color is as steep as can be
        steepest = np.abs(image - back).max()
    assert np.abs(output - expected).max() <= 2 * steepest * OPENCV_STEP + 1e-3
    assert np.abs(output - image).max() > 20  # something was done at all


def test_a_crop_is_the_window_enlarged():
    """Against OpenCV's resize of the same window; edges aside, where borders differ."""
    image = smooth(channels=1, height=64, width=64)
    window = image[0, 12:44, 28:60]  # half the side; 12 of 32 down, 28 of 32 right
    expected = cv2.resize(window, (64, 64), interpolation=cv2.INTER_LINEAR)
    places = (2 * 28 / 32 - 1, 2 * 12 / 32 - 1)
    output = warped(image, crop=[0.5, *places])[0]
    assert np.abs(output - expected)[2:-2, 2:-2].max() < 1e-3


@pytest.mark.parametrize("border", SCIPY)
def test_everything_at_once_is_scipys(border):
    """The whole composition, bend included, against SciPy's sampling in float64."""
    image = smooth(5)
    draw = np.random.default_rng(2)
    shifts = draw.uniform(-0.1, 0.1, GRID)
    values = {
        "angle": 20.0,
        "shear": [8.0, -6.0],
        "zoom": 0.9,
        "crop": [0.85, 0.4, -0.7],
        "shift": [2, -4],
        "flip": [True, False],
        "control_shifts": shifts,
    }
    rows, columns = np.mgrid[:HEIGHT, :WIDTH].astype(float)
    position = np.stack([columns - CENTER[0], rows - CENTER[1]])
    position += bend(shifts) * np.array([WIDTH, HEIGHT])[:, None, None]
    position -= np.array([2, -4])[:, None, None]
    angle = np.deg2rad(20)
    turned = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    forward = shears(8, -6) @ turned @ (0.9 * np.diag([-1, 1])) / 0.85
    source = np.einsum("ij,jhw->ihw", np.linalg.inv(forward), position)
    source += (0.5 * 0.15 * np.array([0.4 * WIDTH, -0.7 * HEIGHT]) + CENTER)[
        :, None, None
    ]
    expected = [
        map_coordinates(plane, source[::-1], order=1, mode=SCIPY[border])
        for plane in image
    ]
    # The bend's factors are rounded: a hundredth of a pixel, see `spline`.
    assert np.abs(warped(image, border, **values) - expected).max() < 1.0


def bend(shifts, height=HEIGHT, width=WIDTH):
    """SciPy's cubic B-spline over the control points, in float64: (2, H, W)."""
    cubic = BSpline.basis_element(np.arange(-2, 3), extrapolate=False)

    def weights(side):
        position = (np.arange(side) + 0.5) / side * CELLS
        return np.nan_to_num(cubic(position[:, None] - (np.arange(CONTROL_POINTS) - 1)))

    return np.einsum("hk,kld,wl->dhw", weights(height), shifts, weights(width))


def test_the_bend_is_scipys_cubic_spline():
    shifts = np.random.default_rng(0).uniform(-0.12, 0.12, (3, *GRID))
    sampling = sampling_field(identity_params(3, control_shifts=shifts), 48, 30)
    straight = sampling_grid(sampling_field(identity_params(3), 48, 30), 48)
    displacement = (
        sampling_grid(sampling, 48) - straight
    ).numpy() / 2  # in shares of the side
    for output, own in zip(displacement, shifts, strict=True):
        expected = bend(own, 48, 30).transpose(1, 2, 0)
        assert np.abs(output - expected).max() < 0.12 * 2**-9
        assert np.abs(expected).max() > 0.02


@given(st.integers(1, 300))
def test_control_points_share_every_pixel(side):
    weights = spline_basis(side).numpy()
    assert weights.min() >= 0
    assert np.abs(weights.sum(1) - 1).max() <= 4 * 2.0**-12
    assert ((weights > 0).sum(1) <= 4).all()


@given(st.integers(0, 99), st.integers(1, 300), st.integers(1, 300), st.floats(1e-6, 9))
def test_the_bends_sums_are_exact_in_any_order(seed, height, width, largest):
    """Every partial sum fits float32, so no processor and no batch can round it."""
    draw = np.random.default_rng(seed)
    shifts = draw.uniform(-largest, largest, (2, *GRID))
    rows = spline_rows(shifts, width).reshape(2, CONTROL_POINTS, -1)
    terms = spline_basis(height).numpy()[:, :, None] * rows[:, None].astype(np.float64)
    for order in (range(CONTROL_POINTS), draw.permutation(CONTROL_POINTS)):
        total = np.zeros_like(terms[:, :, 0])
        for k in order:
            total += terms[:, :, k]
            assert (total.astype(np.float32) == total).all()
    # And the rounding of the net is far below what can be seen.
    exact = np.einsum("wl,nklj->nkwj", spline_basis(width).numpy(), shifts).reshape(
        rows.shape
    )
    assert np.abs(rows - exact).max() <= 2 * largest * 2.0**-12


@given(st.integers(0, 10_000), st.integers(8, 64), st.integers(8, 64))
def test_the_largest_warp_never_folds(seed, height, width):
    """Neighbors stay in order, so no point of the image is seen twice."""
    draw = np.random.default_rng(seed)
    shifts = 0.12 * draw.choice([-1.0, 1.0], (1, *GRID))
    grid = sampling_grid(
        sampling_field(identity_params(1, control_shifts=shifts), height, width),
        height,
    )[0]
    right = (grid[:, 1:] - grid[:, :-1])[:-1].numpy()
    down = (grid[1:] - grid[:-1])[:, :-1].numpy()
    area = right[..., 0] * down[..., 1] - right[..., 1] * down[..., 0]
    assert area.min() > 0


def test_one_warp_equals_the_steps_in_turn():
    """Within interpolation error on a smooth image, where no step saw a border."""
    image = smooth(3, height=144, width=144, cell=24)
    shifts = np.random.default_rng(1).uniform(-0.05, 0.05, GRID)
    steps = [
        {"crop": [0.9, 0.3, -0.5]},
        {"flip": [True, False]},
        {"zoom": 1.1},
        {"angle": 12.0},
        {"shear": [5.0, -4.0]},
        {"shift": [3, 2]},
        {"control_shifts": shifts},
    ]
    angle = image
    for step in steps:
        angle = warped(angle, **step).astype(float)
    together = warped(image, **{key: step[key] for step in steps for key in step})
    inner = (slice(None), slice(36, -36), slice(36, -36))
    error = np.abs(together - angle)[inner]
    # A sampling is off by an eighth of the second difference at most; six are not
    # at whole pixels, and one is what is left.
    bent = max(np.abs(np.diff(image, 2, axis=axis)).max() for axis in (1, 2))
    assert error.max() <= 6 * 2 * bent / 8
    assert error.mean() < 0.3  # of 255
    # The order matters: another one is another image.
    other = image
    for step in reversed(steps):
        other = warped(other, **step).astype(float)
    assert np.abs(together - other)[inner].max() > 20


def test_what_a_crop_hides_is_still_seen_by_a_later_turn():
    """Composed, a turned crop shows the image and no border of the window."""
    image = np.tile(np.linspace(0, 255, 64), (64, 1))[None]
    output = warped(image, crop=[0.5, 0.0, 0.0], angle=45.0)
    row, column = output[0, 32], output[0, :, 32]
    assert (np.diff(row) > 0).all()
    assert (np.diff(column) < 0).all() or (np.diff(column) > 0).all()


@pytest.mark.parametrize("side", [1, 2, 3, 7, 32, 50, 224])
def test_neutral_draws_leave_images(side):
    image = np.random.default_rng(side).uniform(0, 255, (2, side, side + 1))
    shifts = np.zeros(GRID)
    for border in ("reflect", "edge"):
        assert (
            np.abs(warped(image, border, control_shifts=shifts) - image).max()
            < 255 * 1e-4
        )


def test_a_turn_and_back_again():
    values = identity_params(2, angle=np.array([30.0, -30.0]))
    a, _ = affine_matrices(values, 8, 8)
    assert np.allclose(a[0] @ a[1], np.eye(2))
