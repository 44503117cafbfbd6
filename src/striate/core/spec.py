"""What an image is to a network: its shape, its preprocessing, its class names."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from striate.core.errors import DataError, SettingError
from striate.core.registry import unknown

RESIZES = ("stretch", "crop", "pad")
JPEGS = ("full", "reduced")
WHITE = 65_535

# Mean and deviation of v/255 by name; `data` measures them on the training split. Those
# of ImageNet are the ones public weights were trained with (He et al. 2015); its gray
# ones are the means over the three channels, as the field uses them.
NORMALIZATIONS: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]] | None] = {
    "data": None,
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "none": ((0.0,), (1.0,)),
}
_IMAGENET_GRAY = ((0.449,), (0.226,))


@dataclass(frozen=True, kw_only=True)
class ImageSpec:
    """The shape of one input image, without the batch.

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
        """Channels, height, width: the order of tensors."""
        return self.channels, self.height, self.width


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """Everything between an image file and the network's input, as one value.

    Training, evaluation and prediction share it, which makes their input tensors
    identical to the bit. Colors go to `channels` (1 gray, 3 RGB); transparency is
    laid on `background`; 16-bit gray is scaled as v·255/`white`; EXIF orientation is
    applied; then `resize`, then (v/255 − mean)/std for each channel.

    Args:
        channels: 1 for gray, 3 for RGB; sets held as arrays may have any number.
        height: Rows of the network's input.
        width: Columns of the network's input.
        resize: `stretch` keeps everything and bends the aspect, `crop` keeps the
            aspect and cuts the longer side, `pad` keeps both and adds background.
        background: Gray level 0–255 under transparency and padding.
        white_level: The 16-bit value that becomes 255; above it an image is refused.
        jpeg: `full` decodes every pixel; `reduced` lets a large JPEG be decoded at a
            half, quarter or eighth while that leaves twice the input's sides.
        mean: One value a channel, of v/255, from the training split or given.
        std: Likewise.
    """

    channels: int
    height: int
    width: int
    resize: str = "stretch"
    background: int = 255
    white_level: int = WHITE
    jpeg: str = "full"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for kind, value, known in (
            ("resize mode", self.resize, RESIZES),
            ("JPEG decoding", self.jpeg, JPEGS),
        ):
            if value not in known:
                raise unknown(kind, value, known)
        if min(self.channels, self.height, self.width) < 1:
            what = f"channels and sides must be at least 1, got {self.spec}"
            raise SettingError(what, where="preprocess")
        for name, level, low, high in (
            ("background", self.background, 0, 255),
            ("white_level", self.white_level, 255, WHITE),
        ):
            if not low <= level <= high:
                what = f"{name} must be {low}–{high}, got {level}"
                raise SettingError(what, where="preprocess")
        _check_normalization(self.mean, self.std, self.channels)

    @property
    def spec(self) -> ImageSpec:
        """The shape this makes of every image."""
        return ImageSpec(channels=self.channels, height=self.height, width=self.width)

    @property
    def geometry(self) -> dict[str, Any]:
        """What decides the 8-bit pixels: every field but mean and deviation."""
        fields = self.as_dict()
        return {key: fields[key] for key in fields if key not in ("mean", "std")}

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width, channels: the order of 8-bit pixels."""
        return self.height, self.width, self.channels

    @property
    def weight(self) -> int:
        """Bytes of one 8-bit image."""
        return self.height * self.width * self.channels

    def at(self, height: int, width: int) -> Preprocess:
        """Return the same for another input size."""
        return replace(self, height=height, width=width)

    def enlarged(self, margin: float) -> Preprocess:
        """Return the same at `margin` times the sides, to leave crops room.

        Example:
            >>> Preprocess(channels=3, height=160, width=120).enlarged(1.25).spec
            ImageSpec(channels=3, height=200, width=150)
        """
        return self.at(round(self.height * margin), round(self.width * margin))

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values, in order."""
        return asdict(self) | {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Preprocess:
        """Read what `as_dict` wrote.

        Example:
            >>> p = Preprocess(channels=1, height=8, width=8, mean=(0.3,), std=(0.4,))
            >>> Preprocess.from_dict(p.as_dict()) == p
            True
        """
        tuples = {key: tuple(fields.get(key, ())) for key in ("mean", "std")}
        try:
            return cls(**{**fields, **tuples})
        except TypeError as error:
            what = f"unknown or missing field: {error}"
            raise SettingError(what, where="preprocess.json") from error


def _check_normalization(
    mean: tuple[float, ...], std: tuple[float, ...], channels: int
) -> None:
    if not mean and not std:
        return  # not measured yet
    if not len(mean) == len(std) == channels:
        what = f"{len(mean)} means and {len(std)} deviations for {channels} channels"
        fix = "give both, one value for each channel"
        raise SettingError(what, where="preprocess", fix=fix)
    if not all(map(math.isfinite, (*mean, *std))) or min(std) <= 0:
        what = f"means must be finite and deviations above 0, got {mean} and {std}"
        raise SettingError(what, where="preprocess")


def normalization(
    name: str, mean: Sequence[float] | None, std: Sequence[float] | None, channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and deviation for a name or for given values; empty: to be measured.

    One given value counts for every channel.

    Raises:
        SettingError: Only one of the two is given, or they do not fit the channels.

    Example:
        >>> normalization("none", None, None, 3)
        ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        >>> normalization("data", [0.5], [0.25], 1)
        ((0.5,), (0.25,))
    """
    if name not in NORMALIZATIONS:
        raise unknown("normalization", name, NORMALIZATIONS)
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


@dataclass(frozen=True)
class Labels:
    """Class names in the order of a network's outputs; looked up by name.

    Example:
        >>> labels = Labels(("cat", "dog"))
        >>> labels.index("dog"), labels[0], len(labels)
        (1, 'cat', 2)
    """

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(set(self.names)) != len(self.names):
            raise DataError("two classes have the same name", where=self.names)

    @classmethod
    def of(cls, labels: Sequence[str]) -> Labels:
        """Collect the distinct labels; numbers sort as numbers, names as names.

        Example:
            >>> Labels.of(["10", "9", "9"]).names
            ('9', '10')
        """
        names = set(labels)
        numeric = all(name.isdecimal() for name in names)
        # The name second: '1' and '01' are one number, and sets have no order.
        return cls(tuple(sorted(names, key=lambda n: (int(n) if numeric else 0, n))))

    def index(self, name: str | int) -> int:
        """Return the output position of a class; an index passes through.

        Raises:
            UnknownNameError: No class has this name; lists the nearest.
        """
        if isinstance(name, int):
            if not 0 <= name < len(self.names):
                raise unknown("class index", str(name), map(str, range(len(self))))
            return name
        if name not in self.names:
            raise unknown("class", name, self.names)
        return self.names.index(name)

    def __getitem__(self, index: int) -> str:
        return self.names[index]

    def __len__(self) -> int:
        return len(self.names)
