"""Settings of the images: `DataConfig` and `AugmentConfig`."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from striate.core.preprocess_config import (
    JPEG_MODES,
    MAX_WHITE_LEVEL,
    NORMALIZATIONS,
    RESIZE_MODES,
)
from striate.core.settings import SeedConfig, SettingsBase, setting
from striate.data.augment.augment import AUGMENT_PRESETS, RANGES, Augment, augmentation
from striate.data.split.hash_split import SplitConfig


@dataclass(frozen=True, kw_only=True)
class DataConfig(SeedConfig):
    """Settings of reading, preprocessing, splitting and caching the images.

    Raises:
        SettingError: A value is out of range, or fractions and folds do not fit.

    Example:
        >>> DataConfig(image_size=32, val_fraction=0.2).split_config.val
        0.2
    """

    image_size: int | tuple[int, int] | None = setting(
        None,
        "input size in pixels: one side, or HEIGHTxWIDTH (default: as the pretrained "
        "weights expect, else the size of the images if all sizes are equal, else 64)",
    )
    in_chans: int | None = setting(
        None,
        "number of input channels: 1 gray, 3 color (default: 1 if all images are gray, "
        "else 3)",
        low=1,
    )
    resize: str | None = setting(
        None,
        "resize mode; stretch: change the aspect ratio; crop: cut the longer side; "
        "pad: add background (default: as the pretrained weights expect, else stretch)",
        choices=RESIZE_MODES,
    )
    background: int | None = setting(
        None,
        "gray level 0-255 for transparent pixels and padding (default: as the "
        "pretrained weights expect, else 255)",
        low=0,
        below=256,
    )
    white_level: int | None = setting(
        None,
        "for 16-bit images: pixel value that is mapped to white (default: as the "
        "pretrained weights expect, else 65535)",
        low=255,
        below=MAX_WHITE_LEVEL + 1,
    )
    jpeg: str = setting(
        "reduced",
        "resolution for decoding large JPEGs; full: all pixels; reduced: faster",
        choices=JPEG_MODES,
    )
    normalize: str = setting(
        "auto",
        "input normalization; data: mean and std of the training split; imagenet: mean "
        "and std of ImageNet; none: off; auto: as pretrained weights expect, else data",
        choices=("auto", *NORMALIZATIONS),
    )
    mean: tuple[float, ...] | None = setting(
        None,
        "mean of each channel for pixel values scaled to 0-1, e.g. 0.485,0.456,0.406; "
        "needs --std (default: see --normalize)",
    )
    std: tuple[float, ...] | None = setting(
        None,
        "standard deviation of each channel for pixel values scaled to 0-1, e.g. "
        "0.229,0.224,0.225; needs --mean (default: see --normalize)",
    )
    val_fraction: float = setting(
        0.15,
        "fraction of the images for the validation split, if the data has no "
        "validation split",
        above=0,
    )
    test_fraction: float = setting(
        0.25,
        "fraction of the images for the test split, if the data has no test split",
        low=0,
    )
    fraction: float = setting(
        1.0,
        "train on this fraction of the training split, stratified by class",
        above=0,
    )
    folds: int | None = setting(
        None, "number of cross-validation folds; needs --fold (default: none)", low=2
    )
    fold: int | None = setting(
        None,
        "index of the cross-validation fold to use as the test split, from 0; needs "
        "--folds",
        low=0,
    )
    split: str | None = setting(
        None,
        "reuse an earlier split: a run folder, or a CSV file with the columns "
        "image_path and split (default: a new split from --seed)",
    )
    cache: str = setting(
        "auto",
        "cache folder for decoded images; auto: ~/.cache/striate; off: no cache",
        incidental=True,
    )
    cache_gb: float = setting(
        20.0, "maximum size of the image cache in GB", low=0, incidental=True
    )
    workers: int = setting(
        0,
        "number of processes that decode images, if the data does not fit in memory; "
        "0: use threads",
        low=0,
        incidental=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.split_config

    @property
    def background_or_white(self) -> int:
        """Return the gray level behind transparent pixels; white is the default."""
        return 255 if self.background is None else self.background

    @property
    def white_level_or_full(self) -> int:
        """Return the 16-bit value that means white; the default is the maximum."""
        return MAX_WHITE_LEVEL if self.white_level is None else self.white_level

    @property
    def split_config(self) -> SplitConfig:
        """Return the settings of the split; invalid fractions are an error."""
        return SplitConfig(
            val=self.val_fraction,
            test=self.test_fraction,
            fraction=self.fraction,
            folds=self.folds,
            fold=self.fold,
            seed=self.seed,
        )


def _augment(name: str) -> Any:
    """Create a setting for a field of `Augment`; None means the value of the preset."""
    (spec,) = [spec for spec in fields(Augment) if spec.name == name]
    return field(default=None, metadata=spec.metadata)


@dataclass(frozen=True, kw_only=True)
class AugmentConfig(SettingsBase):
    """Settings of data augmentation: a preset, and ranges that override its values.

    Example:
        >>> AugmentConfig(augment="flip", rotate=10.0).augmentation.rotate
        10.0
    """

    augment: str = setting(
        "none",
        "augmentation preset; each flag from --rotate to --border overrides one of its "
        "values",
        choices=tuple(AUGMENT_PRESETS),
    )
    rotate: float | None = _augment("rotate")
    shear: float | None = _augment("shear")
    warp: float | None = _augment("warp")
    flip: str | None = _augment("flip")
    crop: float | None = _augment("crop")
    color: float | None = _augment("color")
    scale: float | None = _augment("scale")
    shift: float | None = _augment("shift")
    erase: float | None = _augment("erase")
    mixup: float | None = _augment("mixup")
    cutmix: float | None = _augment("cutmix")
    border: str | None = _augment("border")

    @property
    def augmentation(self) -> Augment:
        """Return the augmentation settings: the preset with the overriding ranges."""
        ranges = {name: getattr(self, name) for name in RANGES}
        return augmentation(self.augment, **ranges)
