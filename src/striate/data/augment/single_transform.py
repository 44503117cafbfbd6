"""One change at an exact amount, to look at and to measure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from striate.core.preprocess import ImageSpec
from striate.core.seeds import uniform
from striate.data.augment.augment import Augment
from striate.data.augment.elastic import CONTROLS
from striate.data.augment.random_params import Draws, neutral

# Changes that have an amount; erasing and mixing are no question of how far.
CHANGES = (
    "rotate",
    "shear",
    "warp",
    "mirror horizontal",
    "mirror vertical",
    "crop",
    "color",
    "scale",
    "shift",
)
DIRECTED = ("rotate", "shear", "scale", "shift", "color")  # go two ways
DEGREES = ("rotate", "shear")
WORDS = {
    "rotate": "rotation",
    "shear": "shear",
    "warp": "local warping",
    "mirror horizontal": "mirroring, left and right",
    "mirror vertical": "mirroring, top and bottom",
    "crop": "crop",
    "color": "color shift",
    "scale": "zoom",
    "shift": "shift",
}


@dataclass(frozen=True)
class Trial:
    """A change at an amount: degrees, or a share of side, range or size.

    Args:
        change: One of `CHANGES`.
        amount: Its sign is a direction, where the change has one.
    """

    change: str
    amount: float

    def __str__(self) -> str:
        if self.change.startswith("flip"):
            return "mirrored" if self.amount else "as it is"
        signed = self.change in DIRECTED and self.amount
        size = f"{self.amount:+g}°" if self.change in DEGREES else self._percent
        return size.replace("-", "−") if signed else size.removeprefix("+")

    @property
    def _percent(self) -> str:
        return f"{100 * self.amount:+g} %"

    @property
    def range(self) -> str:
        """Return the amount in words, either way where the change goes two ways.

        Example:
            >>> Trial("rotate", 15).range, Trial("crop", 0.1).range
            ('±15°', '10 %')
        """
        return str(self).replace("+", "±")

    def augment(self, border: str = "reflect") -> Augment:
        """Return the settings that switch on this change alone."""
        name, _, axis = self.change.partition(" ")
        only: dict[str, Any] = {name: axis or abs(self.amount)}
        return Augment(**only, border=border)


def furthest(augment: Augment) -> tuple[Trial, ...]:
    """Return every change that is on, at the end of its range.

    Example:
        >>> [str(trial) for trial in furthest(Augment(rotate=15, flip="both"))]
        ['+15°', 'mirrored', 'mirrored']
    """
    mirrors = {
        f"mirror {axis}": float(augment.flip in (axis, "both"))
        for axis in ("horizontal", "vertical")
    }
    ends = {
        change: mirrors[change] if change in mirrors else getattr(augment, change)
        for change in CHANGES
    }
    return tuple(Trial(change, ends[change]) for change in CHANGES if ends[change])


def coins(count: int, trial: Trial, seed: int = 0) -> np.ndarray:
    """Return signs for every image, one for each number that a change may need."""
    columns = range(2 * CONTROLS**2)
    even = uniform(np.arange(count), columns, seed, "trial", trial.change)
    return np.where(even < 0.5, -1.0, 1.0)


def at(trial: Trial, shape: ImageSpec, signs: np.ndarray) -> Draws:
    """Return draws that change every image by exactly the amount.

    Args:
        trial: What is done, and how far.
        shape: Of an image.
        signs: (N, 2K²) directions, each −1 or 1.

    Example:
        >>> shape = ImageSpec(channels=1, height=8, width=8)
        >>> at(Trial("rotate", 30), shape, np.array([[1.0], [-1.0]])).angle.tolist()
        [30.0, -30.0]
    """
    count, amount = len(signs), trial.amount
    match trial.change:
        case "rotate":
            change = {"angle": amount * signs[:, 0]}
        case "shear":
            change = {"shear": amount * signs[:, :2]}
        case "warp":
            net = amount * signs[:, : 2 * CONTROLS**2]
            change = {"net": net.reshape(count, CONTROLS, CONTROLS, 2)}
        case "crop":
            kept = np.full((count, 1), 1 - amount)
            change = {"crop": np.hstack([kept, signs[:, :2]])}
        case "color":
            change = {"color": amount * signs[:, : shape.channels]}
        case "scale":
            towards = signs[:, 0] * np.sign(amount)
            change = {"zoom": (1 + abs(amount)) ** towards}
        case "shift":
            sides = np.array([shape.width, shape.height])
            change = {"shift": np.rint(amount * sides * signs[:, :2]).astype(int)}
        case _:
            axes = np.array(["horizontal", "vertical"]) == trial.change.split()[1]
            change = {"flip": np.tile(axes & bool(amount), (count, 1))}
    return neutral(count, **change)
