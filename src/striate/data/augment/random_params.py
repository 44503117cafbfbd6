"""Random augmentation parameters, determined by seed, epoch and image index."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from striate.core.preprocess_config import ImageSpec
from striate.core.seeds import uniform
from striate.data.augment.augment import Augment
from striate.data.augment.elastic import CONTROL_POINTS
from striate.data.augment.flip import flipped_in_epoch

# Columns of the random numbers of an image. A column is never reused, so that a new
# transform does not change the parameters of the others.
_ROTATE, _SHEAR, _SCALE, _CROP = 0, slice(1, 3), 3, slice(4, 7)
_SHIFT, _ERASE = slice(7, 9), slice(9, 14)
_HEAD = range(14)
_FLIP = range(20, 21)
_NET = range(128, 128 + 2 * CONTROL_POINTS**2)
_COLOR = 256

# Random erasing's own ranges (Zhong et al. 2017, table 1): share of the area, and
# height over width; the area's upper end is lower, for small images.
_ERASED_AREA, _ERASED_ASPECT = (0.02, 0.25), (0.3, 1 / 0.3)


@dataclass(frozen=True, kw_only=True)
class RandomParams:
    """Augmentation parameters of each image; identity values if a transform is off."""

    angle: np.ndarray = field(repr=False)  # (N,) degrees, counter-clockwise
    # (N, 2) degrees: rows along x, then columns along y
    shear: np.ndarray = field(repr=False)
    zoom: np.ndarray = field(repr=False)  # (N,) factors; above 1 enlarges
    # (N, 3): crop size as a fraction of the image size, and position of the crop
    # window: x from −1 (left) to 1 (right), y from −1 (top) to 1 (bottom)
    crop: np.ndarray = field(repr=False)
    shift: np.ndarray = field(repr=False)  # (N, 2) whole pixels to the right and down
    flip: np.ndarray = field(repr=False)  # (N, 2): horizontal flip, vertical flip
    # (N, K, K, 2) shifts of control points to the right and down, as a fraction of the
    # image size; None without elastic deformation
    control_shifts: np.ndarray | None = field(default=None, repr=False)
    # (N, C) shifts, fraction of the value range; None without color shift
    color: np.ndarray | None = field(default=None, repr=False)
    # (N, 4) row start and stop, column start and stop; None without erasing
    erased: np.ndarray | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.angle)


def identity_params(count: int, **values: np.ndarray) -> RandomParams:
    """Return parameters of the identity transform, with some values replaced.

    Example:
        >>> identity_params(2, angle=np.array([0.0, 90.0])).zoom.tolist()
        [1.0, 1.0]
    """
    defaults = {
        "angle": np.zeros(count),
        "shear": np.zeros((count, 2)),
        "zoom": np.ones(count),
        "crop": np.tile([1.0, 0.0, 0.0], (count, 1)),
        "shift": np.zeros((count, 2), int),
        "flip": np.zeros((count, 2), bool),
    }
    return RandomParams(**{**defaults, **values})


def draw_params(
    augment: Augment,
    shape: ImageSpec,
    samples: np.ndarray,
    *,
    count: int,
    seed: int,
    epoch: int,
) -> RandomParams:
    """Draw random augmentation parameters for every image of a batch."""

    def draw(columns: range) -> np.ndarray:
        return uniform(samples, columns, seed, "augment", epoch)

    control_shifts = color = erased = None
    if augment.warp:
        net = augment.warp * (2 * draw(_NET) - 1)
        control_shifts = net.reshape(-1, CONTROL_POINTS, CONTROL_POINTS, 2)
    if augment.color:
        columns = range(_COLOR, _COLOR + shape.channels)
        color = augment.color * (2 * draw(columns) - 1)
    head = draw(_HEAD)
    if augment.erase:
        erased = _rectangles(augment.erase, shape, head[:, _ERASE])
    uniform01 = 2 * head - 1  # −1 to 1
    crop_size, *crop_position = head[:, _CROP].T
    most = np.floor(augment.shift * np.array([shape.width, shape.height]))  # pixels
    return RandomParams(
        angle=augment.rotate * uniform01[:, _ROTATE],
        shear=augment.shear * uniform01[:, _SHEAR],
        zoom=(1 + augment.scale) ** uniform01[:, _SCALE],
        crop=np.stack(
            [1 - augment.crop * crop_size, *(2 * p - 1 for p in crop_position)], axis=1
        ),
        shift=(np.floor(head[:, _SHIFT] * (2 * most + 1)) - most).astype(int),
        flip=_flips(augment.flip, samples, count, seed, epoch),
        control_shifts=control_shifts,
        color=color,
        erased=erased,
    )


def _flips(
    kind: str, samples: np.ndarray, count: int, seed: int, epoch: int
) -> np.ndarray:
    which = np.zeros((len(samples), 2), bool)
    if kind in ("horizontal", "both"):
        which[:, 0] = flipped_in_epoch(count, epoch, seed)[samples]
    if kind in ("vertical", "both"):
        # With `both`, four epochs show an image in all four orientations.
        turn = epoch // 2 if kind == "both" else epoch
        coin = uniform(samples, _FLIP, seed, "augment")[:, 0] < 0.5
        which[:, 1] = coin ^ bool(turn % 2)
    return which


def _rectangles(
    probability: float, shape: ImageSpec, uniform01: np.ndarray
) -> np.ndarray:
    """Return the (N, 4) rectangles to erase; all 0 if an image is not erased."""
    low, high = _ERASED_AREA
    area = (low + (high - low) * uniform01[:, 1]) * shape.height * shape.width
    low_aspect, high_aspect = np.log(_ERASED_ASPECT)
    aspect = np.exp(low_aspect + (high_aspect - low_aspect) * uniform01[:, 2])
    spans = []
    for side, length, position in (
        (shape.height, np.sqrt(area * aspect), uniform01[:, 3]),
        (shape.width, np.sqrt(area / aspect), uniform01[:, 4]),
    ):
        size = np.clip(np.rint(length), 1, side)
        first = np.floor(position * (side - size + 1))
        spans += [first, first + size]
    rectangles: np.ndarray = np.stack(spans, axis=1).astype(int)
    rectangles[uniform01[:, 0] >= probability] = 0
    return rectangles
