"""Settings of data augmentation: the range of each random transform.

The preset `six` has rotation, shear, elastic deformation, horizontal flip, random crop
and a color shift of each channel. `random_params` draws the parameters of each image,
`geometry` and `color` apply them, and `mix` does mixup and CutMix.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from striate.core.registry import unknown_name_error
from striate.core.settings import check_settings, setting

FLIPS = ("none", "horizontal", "vertical", "both")
BORDERS = ("reflect", "edge", "background")
# Further control points could fold the image over itself; see `elastic`.
MAX_WARP = 0.12


def _range(high: float, words: str) -> Any:
    """Return the setting for a transform's range: 0 is off, `high` the maximum."""
    return setting(0.0, words, low=0, high=high)


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Settings of data augmentation; a transform with range 0 is off.

    Every image gets new random parameters in every epoch. All geometric transforms are
    composed into one warp, and all color changes into one color map.

    Raises:
        SettingError: A range is out of bounds; the message names the range.

    Example:
        >>> Augment(rotate=15, flip="horizontal").has_geometry
        True
        >>> Augment(warp=0.5)
        Traceback (most recent call last):
        ...
        striate.core.errors.SettingError: warp must be at most 0.12, got 0.5
          where: --warp
    """

    rotate: float = _range(180, "random rotation: maximum angle in degrees")
    shear: float = _range(
        45, "random shear along rows and columns: maximum angle in degrees"
    )
    warp: float = _range(
        MAX_WARP, "elastic deformation: maximum shift, as a fraction of the image size"
    )
    flip: str = setting("none", "direction of the random flip", choices=FLIPS)
    crop: float = _range(0.9, "random crop: maximum fraction of each side to remove")
    color: float = _range(
        1, "random color shift: maximum per channel, as a fraction of the value range"
    )
    scale: float = _range(1, "random zoom in or out; 0.2 means a factor of up to 1.2")
    shift: float = _range(
        0.5, "random shift by whole pixels: maximum, as a fraction of the image size"
    )
    erase: float = _range(
        1,
        "random erasing: probability that a rectangle of the image gets the mean color",
    )
    mixup: float = _range(10, "mixup: alpha of the Beta distribution of mixing weights")
    cutmix: float = _range(10, "CutMix: alpha of the Beta distribution of pasted areas")
    border: str = setting(
        "reflect", "fill mode for pixels beyond the image edge", choices=BORDERS
    )

    def __post_init__(self) -> None:
        check_settings(self)

    @property
    def interpolates(self) -> bool:
        """Return True if an active transform interpolates between pixels."""
        return any((self.rotate, self.shear, self.warp, self.crop, self.scale))

    @property
    def has_geometry(self) -> bool:
        """Return True if any geometric transform is on."""
        return self.interpolates or self.shift > 0 or self.flip != "none"

    @property
    def only_crops(self) -> bool:
        """Return True if random crop is the only transform that interpolates."""
        others = (self.rotate, self.shear, self.warp, self.scale)
        return self.crop > 0 and not any(others)

    @property
    def mixes_images(self) -> bool:
        """Return True if mixup or CutMix is on, which makes targets soft."""
        return self.mixup > 0 or self.cutmix > 0

    @property
    def is_active(self) -> bool:
        """Return True if any transform is on."""
        colors = self.color > 0 or self.erase > 0
        return self.has_geometry or self.mixes_images or colors


# Values of `--augment NAME`; ranges set explicitly override the preset.
AUGMENT_PRESETS: Mapping[str, Mapping[str, Any]] = {
    "none": {},
    "flip": {"flip": "horizontal"},
    "six": {
        **{"rotate": 15.0, "shear": 10.0, "warp": 0.1},
        **{"flip": "horizontal", "crop": 0.15, "color": 0.1},
    },
}
RANGES = tuple(spec.name for spec in fields(Augment))


def augmentation(preset: str = "none", **ranges: float | str | None) -> Augment:
    """Return the augmentation settings of a preset, with some fields overridden.

    Args:
        preset: `none`, `flip` or `six`.
        ranges: Fields of `Augment` to override; None keeps the preset's value.

    Raises:
        SettingError: There is no such preset, or a range is out of bounds.

    Example:
        >>> augmentation("six", rotate=30, flip="none").rotate
        30
    """
    if preset not in AUGMENT_PRESETS:
        raise unknown_name_error("augmentation", preset, AUGMENT_PRESETS)
    overrides = {name: value for name, value in ranges.items() if value is not None}
    return Augment(**{**AUGMENT_PRESETS[preset], **overrides})
