"""Preprocessing: image size, resize mode, color channels, normalization."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from striate.core.errors import SettingError
from striate.core.format import count_text
from striate.core.registry import unknown_name_error

RESIZE_MODES = ("stretch", "crop", "pad")
JPEG_MODES = ("full", "reduced")
DTYPES = ("uint8", "float32")
MAX_WHITE_LEVEL = 65_535

# Mean and std of v/255 by name; `data` measures them on the training split. Public
# weights were trained with the ImageNet values (He et al. 2015). For gray images, the
# usual values are the means over the three channels.
NORMALIZATIONS: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]] | None] = {
    "data": None,
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "none": ((0.0,), (1.0,)),
}
_IMAGENET_GRAY = ((0.449,), (0.226,))


@dataclass(frozen=True, kw_only=True)
class ImageSpec:
    """Shape of one input image: channels, height, width.

    Example:
        >>> ImageSpec(channels=3, height=32, width=48)
        ImageSpec(channels=3, height=32, width=48)
        >>> print(ImageSpec(channels=1, height=28, width=28))
        28×28×1
    """

    channels: int
    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.height}×{self.width}×{self.channels}"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return (channels, height, width), the order of tensors."""
        return self.channels, self.height, self.width


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """Settings of the conversion from an image file to a network input.

    Training, evaluation and prediction use the same instance, so their input tensors
    are bitwise identical. Steps in order: EXIF orientation; conversion to `channels`;
    alpha blending with `background`; scaling of 16-bit gray values to
    v·255/`white_level`; `resize`; normalization (v/255 − mean)/std per channel.
    """

    channels: int  # 1 for gray, 3 for RGB; data given as arrays may have any number
    height: int  # height of the network input in pixels
    width: int  # width of the network input in pixels
    # `stretch` ignores the aspect ratio, `crop` keeps it and crops the longer side,
    # `pad` keeps it and adds background
    resize: str = "stretch"
    background: int = 255  # gray level 0–255 of transparent pixels and padding
    # 16-bit value that is mapped to 255; larger values are an error
    white_level: int = MAX_WHITE_LEVEL
    # `full` decodes at full size; `reduced` may decode a large JPEG at 1/2, 1/4 or 1/8
    # of its size, but at least at twice the input size
    jpeg: str = "full"
    # mean of v/255 per channel, measured on the training split or given
    mean: tuple[float, ...] = ()
    # standard deviation of v/255 per channel, measured or given
    std: tuple[float, ...] = ()
    # `uint8` pixels are normalized; `float32` images (from a torch Dataset) are network
    # inputs already. Their `mean` and `std` map the value range to 0–1: the images of a
    # report and color augmentation need the range.
    dtype: str = "uint8"

    def __post_init__(self) -> None:
        for kind, value, choices in (
            ("resize mode", self.resize, RESIZE_MODES),
            ("JPEG decoding", self.jpeg, JPEG_MODES),
            ("image dtype", self.dtype, DTYPES),
        ):
            if value not in choices:
                raise unknown_name_error(kind, value, choices)
        if min(self.channels, self.height, self.width) < 1:
            what = f"channels, height and width must be at least 1, got {self.spec}"
            raise SettingError(what, where="preprocess")
        for name, level, low, high in (
            ("background", self.background, 0, 255),
            ("white_level", self.white_level, 255, MAX_WHITE_LEVEL),
        ):
            if not low <= level <= high:
                what = f"{name} must be {low}–{high}, got {level}"
                raise SettingError(what, where="preprocess")
        _check_normalization(self.mean, self.std, self.channels)

    @property
    def spec(self) -> ImageSpec:
        """Return the image shape after preprocessing."""
        return ImageSpec(channels=self.channels, height=self.height, width=self.width)

    @property
    def geometry(self) -> dict[str, Any]:
        """Return the fields that affect the 8-bit pixels: all except mean and std."""
        fields = self.as_dict()
        return {key: fields[key] for key in fields if key not in ("mean", "std")}

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return (height, width, channels), the order of 8-bit pixel arrays."""
        return self.height, self.width, self.channels

    @property
    def is_float(self) -> bool:
        """Return whether stored images are float32 network inputs, not 8-bit pixels."""
        return self.dtype == "float32"

    @property
    def nbytes(self) -> int:
        """Return the size of one stored image in bytes."""
        return self.height * self.width * self.channels * (4 if self.is_float else 1)

    def at(self, height: int, width: int) -> Preprocess:
        """Return a copy with another input size."""
        return replace(self, height=height, width=width)

    def enlarged(self, margin: float) -> Preprocess:
        """Return a copy with height and width multiplied by `margin`, for random crops.

        Example:
            >>> Preprocess(channels=3, height=160, width=120).enlarged(1.25).spec
            ImageSpec(channels=3, height=200, width=150)
        """
        return self.at(round(self.height * margin), round(self.width * margin))

    def as_dict(self) -> dict[str, Any]:
        """Return all fields as JSON values; `dtype` only if it is not `uint8`."""
        fields = asdict(self) | {"mean": list(self.mean), "std": list(self.std)}
        if not self.is_float:  # so that caches and older runs stay valid
            del fields["dtype"]
        return fields

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Preprocess:
        """Create an instance from the result of `as_dict`.

        Example:
            >>> p = Preprocess(channels=1, height=8, width=8, mean=(0.3,), std=(0.4,))
            >>> Preprocess.from_dict(p.as_dict()) == p
            True
        """
        tuples = {key: tuple(fields.get(key, ())) for key in ("mean", "std")}
        try:
            return cls(**{**fields, **tuples})
        except TypeError as error:
            what = f"unknown or missing key: {error}"
            raise SettingError(what, where="preprocess.json") from error


def scaled_sides(preprocess: Preprocess, height: int, width: int) -> tuple[int, int]:
    """Return an image's (height, width) after resizing, before cropping or padding.

    Example:
        >>> p = Preprocess(channels=3, height=8, width=8, resize="crop")
        >>> scaled_sides(p, 16, 32)
        (8, 16)
    """
    rows, columns = preprocess.height, preprocess.width
    if preprocess.resize == "stretch":
        return rows, columns
    ratios = rows / height, columns / width
    ratio = max(ratios) if preprocess.resize == "crop" else min(ratios)
    return max(1, round(height * ratio)), max(1, round(width * ratio))


def _check_normalization(
    mean: tuple[float, ...], std: tuple[float, ...], channels: int
) -> None:
    if not mean and not std:
        return  # not measured yet
    if not len(mean) == len(std) == channels:
        what = (
            f"{len(mean)} means and {len(std)} stds for "
            f"{count_text(channels, 'channel')}"
        )
        fix = "give mean and std, each with one value per channel"
        raise SettingError(what, where="preprocess", fix=fix)
    if not all(map(math.isfinite, (*mean, *std))) or min(std) <= 0:
        what = f"mean must be finite and std above 0, got {mean} and {std}"
        raise SettingError(what, where="preprocess")


def normalization(
    name: str, mean: Sequence[float] | None, std: Sequence[float] | None, channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the given (mean, std), or those of `name`; empty tuples if not measured.

    A single value applies to every channel.

    Raises:
        SettingError: Only mean or only std is given, or the channel count differs.

    Example:
        >>> normalization("none", None, None, 3)
        ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        >>> normalization("data", [0.5], [0.25], 1)
        ((0.5,), (0.25,))
    """
    if name not in NORMALIZATIONS:
        raise unknown_name_error("normalization", name, NORMALIZATIONS)
    pair = NORMALIZATIONS[name]
    if mean or std:
        pair = tuple(mean or ()), tuple(std or ())
    elif name == "imagenet" and channels == 1:
        pair = _IMAGENET_GRAY
    if pair is None:
        return (), ()
    means, stds = (v * channels if len(v) == 1 else v for v in pair)
    _check_normalization(means, stds, channels)
    return means, stds
