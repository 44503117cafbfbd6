"""Pictures as the network sees them in one epoch: changed as drawn, and normalised."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from striate.core.errors import SettingError
from striate.core.spec import Preprocess
from striate.data.augment import Augment
from striate.data.colour import ColourMap
from striate.data.draws import Draws, draw
from striate.data.geometry import course_of, warp
from striate.data.mix import blank, blend, pairs, shared_targets
from striate.data.part import Part
from striate.data.preprocess import normalise
from striate.data.shift import whole_pixels

# Pixels that a thread warps at a time.
_CHUNK = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Views:
    """Augmented pictures of a part, whatever batches they are asked for in.

    A view is a function of (seed, epoch, number of the picture in the part).

    Raises:
        SettingError: Pictures are mixed and `classes` is not given.

    Example:
        >>> pixels = torch.zeros(5, 2, 2, 1, dtype=torch.uint8)
        >>> part = Part.of(pixels, [0, 1, 0, 1, 0], list("abcde"))
        >>> p = Preprocess(channels=1, height=2, width=2, mean=(0.0,), std=(1.0,))
        >>> views = Views(part=part, preprocess=p, augment=Augment(colour=0.2))
        >>> index = torch.tensor([4, 1])
        >>> x, y = views(part.take(index), index, epoch=0)
        >>> x.shape, y
        (torch.Size([2, 1, 2, 2]), tensor([0, 1]))
    """

    part: Part = field(repr=False)
    preprocess: Preprocess
    augment: Augment
    seed: int = 0
    classes: int = 0
    device: torch.device | str = "cpu"

    def __post_init__(self) -> None:
        if self.augment.mixes and self.classes < 1:
            what = "mixed pictures have shares of classes, and their number is unknown"
            raise SettingError(what, where="classes", fix="give classes=…")

    def __call__(
        self, pixels: Tensor, index: Tensor, epoch: int
    ) -> tuple[Tensor, Tensor]:
        """Return inputs (N, C, H, W) and targets.

        Targets are class numbers (N,); shares of classes (N, classes) where pictures
        are mixed.

        Args:
            pixels: (N, H, W, C) uint8, the part's pictures of that index.
            index: (N,) their numbers in the part.
            epoch: From 0.
        """
        labels = self.part.labels[index]
        x = self._changed(pixels, index, epoch)
        if not self.augment.mixes:
            return x, labels.to(self.device, non_blocking=True)
        mixed = pairs(
            self.augment,
            self.preprocess.spec,
            index.numpy(),
            count=len(self.part),
            seed=self.seed,
            epoch=epoch,
        )
        others = torch.from_numpy(mixed.partner)
        y = shared_targets(labels, self.part.labels[others], mixed.kept, self.classes)
        other = self._changed(self.part.take(others), others, epoch)
        return blend(x, other, mixed), y.to(self.device, non_blocking=True)

    def _changed(self, pixels: Tensor, index: Tensor, epoch: int) -> Tensor:
        draws = draw(
            self.augment,
            self.preprocess.spec,
            index.numpy(),
            count=len(self.part),
            seed=self.seed,
            epoch=epoch,
        )
        sent = pixels.to(self.device, non_blocking=True)
        return changed(sent, draws, self.preprocess, self.augment)


def changed(
    pixels: Tensor, draws: Draws, preprocess: Preprocess, augment: Augment
) -> Tensor:
    """Change pictures as drawn and normalise them.

    Where nothing bends, pixels are copied, and what is not coloured is normalised as
    for evaluation: a change that is off leaves every bit as it was.

    Shapes:
        (N, H, W, C) uint8 → (N, C, H, W) float32, channels last
    """
    if augment.bends:
        x = _bent(pixels, draws, preprocess, augment.border)
    else:
        x = _straight(pixels, draws, preprocess, augment)
    return x if draws.erased is None else blank(x, draws.erased)


def _straight(
    pixels: Tensor, draws: Draws, preprocess: Preprocess, augment: Augment
) -> Tensor:
    if augment.moves:
        back = preprocess.background
        pixels = whole_pixels(pixels, draws.shift, draws.mirror, augment.border, back)
    if draws.colour is None:
        return normalise(pixels, preprocess)
    return ColourMap(preprocess, draws.colour, pixels.device)(pixels)


def _bent(pixels: Tensor, draws: Draws, preprocess: Preprocess, border: str) -> Tensor:
    """Colour and warp; on a CPU a few pictures at a time, which stay in its cache."""
    count, height, width, channels = pixels.shape
    device = pixels.device
    course = course_of(draws, height, width, device)
    colours = ColourMap(preprocess, draws.colour, device)
    out = torch.empty(
        (count, channels, height, width),
        device=device,
        memory_format=torch.channels_last,
    )
    step = count
    if device.type == "cpu":
        step = torch.get_num_threads() * max(1, _CHUNK // (height * width))
    for first in range(0, count, step):
        some = slice(first, first + step)
        back = colours.background(some) if border == "background" else None
        coloured = colours(pixels[some], some)
        out[some].copy_(warp(coloured, course.some(some), border, back))
    return out
