"""What chance decides for each image: a function of (seed, epoch, image) alone."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from striate.core.preprocess import ImageSpec
from striate.core.seeds import uniform
from striate.data.augment.augment import Augment
from striate.data.augment.elastic import CONTROLS
from striate.data.augment.flip import mirrored

# Where an image's draws stand. A place is never given to anything else, so that a
# further change leaves the draws of those before it as they were.
_ROTATE, _SHEAR, _SCALE, _CROP = 0, slice(1, 3), 3, slice(4, 7)
_SHIFT, _ERASE = slice(7, 9), slice(9, 14)
_HEAD = range(14)
_FLIP = range(20, 21)
_NET = range(128, 128 + 2 * CONTROLS**2)
_COLOR = 256

# Random erasing's own ranges (Zhong et al. 2017, table 1): share of the area, and
# height over width; the area's upper end is lower, for small images.
_ERASED_AREA, _ERASED_ASPECT = (0.02, 0.25), (0.3, 1 / 0.3)


@dataclass(frozen=True, kw_only=True)
class Draws:
    """One entry an image; neutral values where a change is off.

    Args:
        angle: (N,) degrees, counter-clockwise as seen.
        shear: (N, 2) degrees: rows along x, then columns along y.
        zoom: (N,) factors; above 1 things get larger.
        crop: (N, 3): share of the side that is kept, and where the window stands in
            its room, −1 to 1 from left to right and from top to bottom.
        shift: (N, 2) whole pixels to the right and down.
        mirror: (N, 2): left and right exchanged, top and bottom exchanged.
        net: (N, K, K, 2) moves of control points to the right and down, in shares of
            the sides; None where there is no local warping.
        color: (N, C) shifts, in shares of the range; None where there are none.
        erased: (N, 4) rows from, to, columns from, to; None where nothing is erased.
    """

    angle: np.ndarray = field(repr=False)
    shear: np.ndarray = field(repr=False)
    zoom: np.ndarray = field(repr=False)
    crop: np.ndarray = field(repr=False)
    shift: np.ndarray = field(repr=False)
    mirror: np.ndarray = field(repr=False)
    net: np.ndarray | None = field(default=None, repr=False)
    color: np.ndarray | None = field(default=None, repr=False)
    erased: np.ndarray | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.angle)


def neutral(count: int, **changes: np.ndarray) -> Draws:
    """Return draws that change nothing but what is given.

    Example:
        >>> neutral(2, angle=np.array([0.0, 90.0])).zoom.tolist()
        [1.0, 1.0]
    """
    plain = {
        "angle": np.zeros(count),
        "shear": np.zeros((count, 2)),
        "zoom": np.ones(count),
        "crop": np.tile([1.0, 0.0, 0.0], (count, 1)),
        "shift": np.zeros((count, 2), int),
        "flip": np.zeros((count, 2), bool),
    }
    return Draws(**{**plain, **changes})


def draw(
    augment: Augment,
    shape: ImageSpec,
    samples: np.ndarray,
    *,
    count: int,
    seed: int,
    epoch: int,
) -> Draws:
    """Decide for every image of a batch.

    Args:
        augment: The ranges.
        shape: Of an image.
        samples: (N,) the images' numbers in their part.
        count: Images in the part.
        seed: Of the run.
        epoch: From 0.
    """
    key = (seed, "augment", epoch)
    head = uniform(samples, _HEAD, *key)
    even = 2 * head - 1  # −1 to 1
    return Draws(
        angle=augment.rotate * even[:, _ROTATE],
        shear=augment.shear * even[:, _SHEAR],
        zoom=(1 + augment.scale) ** even[:, _SCALE],
        crop=_windows(augment.crop, head[:, _CROP]),
        shift=_whole(augment.shift, shape, head[:, _SHIFT]),
        mirror=_mirrors(augment.flip, samples, count, seed, epoch),
        net=_net(augment.warp, samples, key) if augment.warp else None,
        color=_colors(augment.color, shape.channels, samples, key)
        if augment.color
        else None,
        erased=_rectangles(augment.erase, shape, head[:, _ERASE])
        if augment.erase
        else None,
    )


def _windows(most: float, even: np.ndarray) -> np.ndarray:
    places = 2 * even[:, 1:] - 1
    return np.concatenate([1 - most * even[:, :1], places], axis=1)


def _whole(most: float, shape: ImageSpec, even: np.ndarray) -> np.ndarray:
    """Whole pixels, −k to k with equal chances."""
    largest = np.floor(most * np.array([shape.width, shape.height]))
    steps: np.ndarray = (np.floor(even * (2 * largest + 1)) - largest).astype(int)
    return steps


def _mirrors(
    kind: str, samples: np.ndarray, count: int, seed: int, epoch: int
) -> np.ndarray:
    which = np.zeros((len(samples), 2), bool)
    if kind in ("horizontal", "both"):
        which[:, 0] = mirrored(count, epoch, seed)[samples]
    if kind in ("vertical", "both"):
        # With `both`, an image is seen all four ways in four epochs.
        turn = epoch // 2 if kind == "both" else epoch
        coin = uniform(samples, _FLIP, seed, "augment")[:, 0] < 0.5
        which[:, 1] = coin ^ bool(turn % 2)
    return which


def _net(most: float, samples: np.ndarray, key: tuple[object, ...]) -> np.ndarray:
    even = 2 * uniform(samples, _NET, *key) - 1
    return most * even.reshape(-1, CONTROLS, CONTROLS, 2)


def _colors(
    most: float, channels: int, samples: np.ndarray, key: tuple[object, ...]
) -> np.ndarray:
    columns = range(_COLOR, _COLOR + channels)
    shifts: np.ndarray = most * (2 * uniform(samples, columns, *key) - 1)
    return shifts


def _rectangles(chance: float, shape: ImageSpec, even: np.ndarray) -> np.ndarray:
    """Rows and columns of the rectangles; from 0 to 0 where none is erased."""
    low, high = _ERASED_AREA
    area = (low + (high - low) * even[:, 1]) * shape.height * shape.width
    flat, tall = np.log(_ERASED_ASPECT)
    aspect = np.exp(flat + (tall - flat) * even[:, 2])
    spans = []
    for side, length, place in (
        (shape.height, np.sqrt(area * aspect), even[:, 3]),
        (shape.width, np.sqrt(area / aspect), even[:, 4]),
    ):
        long = np.clip(np.rint(length), 1, side)
        first = np.floor(place * (side - long + 1))
        spans += [first, first + long]
    rectangles: np.ndarray = np.stack(spans, axis=1).astype(int)
    rectangles[even[:, 0] >= chance] = 0
    return rectangles
