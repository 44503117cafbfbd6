"""Changes to training images that keep their label: which, and how far they go.

Six are those of the study notes: rotation, shear, local warping, mirroring, random
crop, color shift for each channel. What is drawn for an image stands in
`draws`, how geometry is applied in `geometry`, color in `color`,
mixing in `mix`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from striate.core.registry import unknown_name_error
from striate.core.settings import check_settings, setting

MIRRORS = ("none", "horizontal", "vertical", "both")
BORDERS = ("reflect", "edge", "background")
# Further control points could fold the image over itself; see `data.spline`.
LARGEST_WARP = 0.12


@dataclass(frozen=True, kw_only=True)
class Augment:
    """How far training images may be changed; at 0 a change is off and costs nothing.

    Every image gets draws of its own in every epoch. All geometry becomes one warp
    and all color one map, applied together.

    Raises:
        SettingError: A range makes no sense; the message names it.

    Example:
        >>> Augment(rotate=15, flip="horizontal").moves
        True
        >>> Augment(warp=0.5)
        Traceback (most recent call last):
        ...
        striate.core.errors.SettingError: warp must be at most 0.12, got 0.5
          where: --warp
    """

    rotate: float = setting(0.0, "rotation, up to ± so many degrees", low=0, high=180)
    shear: float = setting(
        0.0, "shear along rows and columns, up to ± so many degrees", low=0, high=45
    )
    warp: float = setting(
        0.0,
        "local warping: control points move up to ± this share of the side",
        low=0,
        high=LARGEST_WARP,
    )
    flip: str = setting("none", "exchange sides in every other epoch", choices=MIRRORS)
    crop: float = setting(
        0.0, "random crop: up to this share of the side is cut away", low=0, high=0.9
    )
    color: float = setting(
        0.0,
        "color shift of each channel, up to ± this share of its range",
        low=0,
        high=1,
    )
    scale: float = setting(
        0.0, "zoom in or out, up to a factor of 1 + this", low=0, high=1
    )
    shift: float = setting(
        0.0, "move by whole pixels, up to ± this share of the side", low=0, high=0.5
    )
    erase: float = setting(
        0.0, "share of views in which a rectangle is made gray", low=0, high=1
    )
    mixup: float = setting(
        0.0, "blend pairs: parameter of the beta distribution of shares", low=0, high=10
    )
    cutmix: float = setting(
        0.0, "paste a rectangle of another image: likewise", low=0, high=10
    )
    border: str = setting(
        "reflect", "what geometry finds beyond the image's edge", choices=BORDERS
    )

    def __post_init__(self) -> None:
        check_settings(self)

    @property
    def bends(self) -> bool:
        """Tell whether pixels land between pixels, so that values are interpolated."""
        ranges = (self.rotate, self.shear, self.warp, self.crop, self.scale)
        return any(ranges)

    @property
    def moves(self) -> bool:
        """Tell whether any geometry is on."""
        return self.bends or self.shift > 0 or self.flip != "none"

    @property
    def only_crops(self) -> bool:
        """Tell whether windows along the axes are all that bends: those are resized."""
        others = (self.rotate, self.shear, self.warp, self.scale)
        return self.crop > 0 and not any(others)

    @property
    def mixes(self) -> bool:
        """Tell whether targets are shared between two classes."""
        return self.mixup > 0 or self.cutmix > 0

    @property
    def acts(self) -> bool:
        """Tell whether anything is on."""
        return self.moves or self.mixes or self.color > 0 or self.erase > 0


# What `--augment NAME` means; single ranges given beside it win.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "none": {},
    "flip": {"flip": "horizontal"},
    "six": {
        "rotate": 15.0,
        "shear": 10.0,
        "warp": 0.1,
        "flip": "horizontal",
        "crop": 0.15,
        "color": 0.1,
    },
}
RANGES = tuple(spec.name for spec in fields(Augment))


def augmentation(preset: str = "none", **ranges: float | str | None) -> Augment:
    """Return a preset with the ranges that are given beside it.

    Args:
        preset: `none`, `mirror` or `six`.
        ranges: Fields of `Augment`; None leaves the preset's.

    Raises:
        SettingError: No such preset, or a range makes no sense.

    Example:
        >>> augmentation("six", rotate=30, flip="none").rotate
        30
    """
    if preset not in PRESETS:
        raise unknown_name_error("augmentation", preset, PRESETS)
    given = {name: value for name, value in ranges.items() if value is not None}
    return Augment(**{**PRESETS[preset], **given})
