"""What a picture is to a network: its shape, its preprocessing, its class names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from striate.core.errors import DataError, SettingError
from striate.core.registry import unknown

RESIZES = ("squash", "crop", "pad")


@dataclass(frozen=True, kw_only=True)
class ImageSpec:
    """The shape of one input picture, without the batch.

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
    """Everything between a picture file and the network's input, as one value.

    Training, evaluation and prediction share it, which makes their input tensors
    identical to the bit. Colours go to `channels` (1 grey, 3 RGB); transparency is
    laid on `background`; 16-bit values are scaled as v·255/65535; EXIF orientation
    is applied; then `resize`, then (v/255 − mean)/std for each channel.

    Args:
        channels: 1 for grey, 3 for RGB; sets held as arrays may have any number.
        height: Rows of the network's input.
        width: Columns of the network's input.
        resize: `squash` keeps everything and bends the aspect, `crop` keeps the
            aspect and cuts the longer side, `pad` keeps both and adds background.
        background: Grey level 0–255 under transparency and padding.
        mean: One value a channel, of v/255, from the training part.
        std: Likewise.
    """

    channels: int
    height: int
    width: int
    resize: str = "squash"
    background: int = 255
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.resize not in RESIZES:
            raise unknown("resize mode", self.resize, RESIZES)
        if min(self.channels, self.height, self.width) < 1:
            what = f"channels and sides must be at least 1, got {self.spec}"
            raise SettingError(what, where="preprocess")

    @property
    def spec(self) -> ImageSpec:
        """The shape this makes of every picture."""
        return ImageSpec(channels=self.channels, height=self.height, width=self.width)

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
