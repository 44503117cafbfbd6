"""A single augmentation of fixed strength, for previews and robustness tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from striate.core.preprocess_config import ImageSpec
from striate.core.seeds import uniform
from striate.data.augment.augment import Augment
from striate.data.augment.elastic import CONTROL_POINTS
from striate.data.augment.random_params import RandomParams, identity_params

# Transforms that have an amount; erasing and mixing have none.
TRANSFORM_NAMES = {
    "rotate": "rotation",
    "shear": "shear",
    "warp": "elastic deformation",
    "flip horizontal": "horizontal flip",
    "flip vertical": "vertical flip",
    "crop": "crop",
    "color": "color shift",
    "scale": "zoom",
    "shift": "shift",
}
SIGNED = ("rotate", "shear", "scale", "shift", "color")  # with two directions
DEGREES = ("rotate", "shear")


@dataclass(frozen=True)
class SingleTransform:
    """A single augmentation transform of fixed strength."""

    name: str  # a key of `TRANSFORM_NAMES`
    amount: float  # degrees, or a fraction of the image size or value range; has a sign

    def __str__(self) -> str:
        if self.name.startswith("flip"):
            return "flipped" if self.amount else "original"
        signed = self.name in SIGNED and self.amount
        degrees = self.name in DEGREES
        size = f"{self.amount:+g}°" if degrees else f"{100 * self.amount:+g} %"
        return size.replace("-", "−") if signed else size.removeprefix("+")

    @property
    def range(self) -> str:
        """Return the amount as text, with ± for signed transforms.

        Example:
            >>> SingleTransform("rotate", 15).range, SingleTransform("crop", 0.1).range
            ('±15°', '10 %')
        """
        return str(self).replace("+", "±")

    def augment(self, border: str = "reflect") -> Augment:
        """Return augmentation settings with only this transform switched on."""
        name, _, axis = self.name.partition(" ")
        settings: dict[str, Any] = {name: axis or abs(self.amount)}
        return Augment(**settings, border=border)


def range_ends(augment: Augment) -> tuple[SingleTransform, ...]:
    """Return each active transform with the largest amount that the settings allow.

    Example:
        >>> [str(end) for end in range_ends(Augment(rotate=15, flip="both"))]
        ['+15°', 'flipped', 'flipped']
    """
    ends = {}
    for transform in TRANSFORM_NAMES:
        name, _, axis = transform.partition(" ")
        value = getattr(augment, name)
        ends[transform] = float(value in (axis, "both")) if axis else value
    return tuple(SingleTransform(name, end) for name, end in ends.items() if end)


def random_signs(count: int, transform: SingleTransform, seed: int = 0) -> np.ndarray:
    """Return random signs (−1 or 1) for a transform's parameters, one row per image."""
    columns = range(2 * CONTROL_POINTS**2)
    uniform01 = uniform(np.arange(count), columns, seed, "trial", transform.name)
    return np.where(uniform01 < 0.5, -1.0, 1.0)


def single_params(
    transform: SingleTransform, shape: ImageSpec, signs: np.ndarray
) -> RandomParams:
    """Return parameters that apply a transform with a fixed amount to all images.

    Example:
        >>> shape = ImageSpec(channels=1, height=8, width=8)
        >>> turn, signs = SingleTransform("rotate", 30), np.array([[1.0], [-1.0]])
        >>> single_params(turn, shape, signs).angle.tolist()
        [30.0, -30.0]
    """
    count, amount = len(signs), transform.amount
    match transform.name:
        case "rotate":
            values = {"angle": amount * signs[:, 0]}
        case "shear":
            values = {"shear": amount * signs[:, :2]}
        case "warp":
            shape_of_grid = (count, CONTROL_POINTS, CONTROL_POINTS, 2)
            control_shifts = amount * signs[:, : 2 * CONTROL_POINTS**2]
            values = {"control_shifts": control_shifts.reshape(shape_of_grid)}
        case "crop":
            crop_share = np.full((count, 1), 1 - amount)
            values = {"crop": np.hstack([crop_share, signs[:, :2]])}
        case "color":
            values = {"color": amount * signs[:, : shape.channels]}
        case "scale":
            signed = signs[:, 0] * np.sign(amount)
            values = {"zoom": (1 + abs(amount)) ** signed}
        case "shift":
            sides = np.array([shape.width, shape.height])
            values = {"shift": np.rint(amount * sides * signs[:, :2]).astype(int)}
        case _:
            axes = np.array(["horizontal", "vertical"]) == transform.name.split()[1]
            values = {"flip": np.tile(axes & bool(amount), (count, 1))}
    return identity_params(count, **values)
