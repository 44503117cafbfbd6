"""Images as the network sees them in one epoch: changed as drawn, and normalized."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from striate.core.errors import SettingError
from striate.core.spec import Preprocess
from striate.data.augment.augment import Augment
from striate.data.augment.color import ColorMap
from striate.data.augment.geometry import course_of, warp
from striate.data.augment.mix import blank, blend, pairs, shared_targets
from striate.data.augment.pixel_shift import Tape, whole_pixels
from striate.data.augment.random_crop import cut, windows
from striate.data.augment.random_params import Draws, draw
from striate.data.cache import free_memory as memory
from striate.data.cache.pixel_rows import IndexedRows, PixelRows, index_rows
from striate.data.decode.preprocess import normalize
from striate.data.subset import Subset

TAPE = 1 << 30  # bytes of a part with borders and its mirror image, at most
Batch = tuple[Tensor, Tensor]
# Pixels that a thread warps at a time.
_CHUNK = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Views:
    """Augmented images of a part, whatever batches they are asked for in.

    A view is a function of (seed, epoch, number of the image in the part).

    Raises:
        SettingError: Images are mixed and `classes` is not given.

    Example:
        >>> pixels = torch.zeros(5, 2, 2, 1, dtype=torch.uint8)
        >>> subset = Subset.of(pixels, [0, 1, 0, 1, 0], list("abcde"))
        >>> p = Preprocess(channels=1, height=2, width=2, mean=(0.0,), std=(1.0,))
        >>> views = Views(subset=subset, preprocess=p, augment=Augment(color=0.2))
        >>> index = torch.tensor([4, 1])
        >>> x, y = views(subset.gather(index), index, epoch=0)
        >>> x.shape, y
        (torch.Size([2, 1, 2, 2]), tensor([0, 1]))
    """

    subset: Subset = field(repr=False)
    preprocess: Preprocess
    augment: Augment
    seed: int = 0
    classes: int = 0
    device: torch.device | str = "cpu"

    def __post_init__(self) -> None:
        if self.augment.mixes and self.classes < 1:
            what = "mixed images have shares of classes, and their number is unknown"
            raise SettingError(what, where="classes", fix="give classes=…")

    @cached_property
    def tape(self) -> Tape | None:
        """Return a tape of the whole part and its mirror image, made once for a run.

        Gathering, moving and mirroring a batch is then one copy an image. None where
        something else is to be done too, or where it would take too much memory.
        """
        augment, pixels = self.augment, self.subset.pixels
        others = augment.bends or augment.mixes or augment.color or augment.erase
        if others or augment.flip in ("vertical", "both"):
            return None
        if not isinstance(pixels, Tensor) or torch.device(self.device).type != "cpu":
            return None
        right = int(augment.shift * pixels.shape[2])
        down = int(augment.shift * pixels.shape[1])
        weight = 2 * Tape.weight(pixels, right, down)
        if weight > TAPE or not memory.fits_in_memory(2 * weight):
            return None
        both = torch.cat([pixels, pixels.flip(2)])
        return Tape(both, right, down, augment.border, self.preprocess.background)

    def moved(self, epoch: int) -> Callable[[Tensor], Batch]:
        """Return what makes a batch of an index from the tape, in an epoch."""
        tape = self.tape
        assert tape is not None  # noqa: S101 - asked only where there is one
        count = len(self.subset)
        every = np.arange(count)
        draws = draw(
            self.augment,
            self.preprocess.spec,
            every,
            count=count,
            seed=self.seed,
            epoch=epoch,
        )
        places = tape.places(every + count * draws.mirror[:, 0], draws.shift)

        def batch(index: Tensor) -> Batch:
            pixels = tape.cut(places[index])
            return normalize(pixels, self.preprocess), self.subset.labels[index]

        return batch

    @property
    def held(self) -> PixelRows:
        """Return the images that views are made of: with room for crops, if any."""
        larger = self.subset.larger if self.augment.only_crops else None
        return self.subset.pixels if larger is None else larger

    @property
    def cuts(self) -> bool:
        """Tell whether crops are cut out of larger images rather than warped."""
        size = self.preprocess.height, self.preprocess.width
        return self.augment.only_crops and tuple(self.held.shape[1:3]) != size

    def ready(self, held: IndexedRows, index: Tensor, epoch: int) -> Tensor:
        """Bring images as they are held to the input's size, by their crops.

        What is cut is mirrored at once.
        """
        if not self.cuts:
            return held[:]
        draws = self._draws(index, epoch)
        places = windows(draws.crop, *held.shape[1:3])
        size = self.preprocess.height, self.preprocess.width
        return cut(held.pixels, places, size, draws.mirror, held.rows)

    def __call__(
        self, pixels: Tensor, index: Tensor, epoch: int
    ) -> tuple[Tensor, Tensor]:
        """Return inputs (N, C, H, W) and targets.

        Targets are class numbers (N,); shares of classes (N, classes) where images
        are mixed.

        Args:
            pixels: (N, H, W, C) uint8, the images of that index, as `ready` made.
            index: (N,) their numbers in the part.
            epoch: From 0.
        """
        labels = self.subset.labels[index]
        x = self._changed(pixels, index, epoch)
        if not self.augment.mixes:
            return x, labels.to(self.device, non_blocking=True)
        mixed = pairs(
            self.augment,
            self.preprocess.spec,
            index.numpy(),
            count=len(self.subset),
            seed=self.seed,
            epoch=epoch,
        )
        others = torch.from_numpy(mixed.partner)
        y = shared_targets(labels, self.subset.labels[others], mixed.kept, self.classes)
        partners = self.ready(index_rows(self.held, others), others, epoch)
        other = self._changed(partners, others, epoch)
        return blend(x, other, mixed), y.to(self.device, non_blocking=True)

    def _changed(self, pixels: Tensor, index: Tensor, epoch: int) -> Tensor:
        draws = self._draws(index, epoch)
        sent = pixels.to(self.device, non_blocking=True)
        if self.cuts:
            draws = replace(draws, mirror=np.zeros_like(draws.mirror))
            straight = _straight(sent, draws, self.preprocess, self.augment)
            return _finished(straight, draws)
        return changed(sent, draws, self.preprocess, self.augment)

    def _draws(self, index: Tensor, epoch: int) -> Draws:
        return draw(
            self.augment,
            self.preprocess.spec,
            index.numpy(),
            count=len(self.subset),
            seed=self.seed,
            epoch=epoch,
        )


def changed(
    pixels: Tensor, draws: Draws, preprocess: Preprocess, augment: Augment
) -> Tensor:
    """Change images as drawn and normalize them.

    Where nothing bends, pixels are copied, and what is not colored is normalized as
    for evaluation: a change that is off leaves every bit as it was.

    Shapes:
        (N, H, W, C) uint8 → (N, C, H, W) float32, channels last
    """
    if augment.bends:
        x = _bent(pixels, draws, preprocess, augment.border)
    else:
        x = _straight(pixels, draws, preprocess, augment)
    return _finished(x, draws)


def _finished(x: Tensor, draws: Draws) -> Tensor:
    return x if draws.erased is None else blank(x, draws.erased)


def _straight(
    pixels: Tensor, draws: Draws, preprocess: Preprocess, augment: Augment
) -> Tensor:
    if augment.moves:
        back = preprocess.background
        pixels = whole_pixels(pixels, draws.shift, draws.mirror, augment.border, back)
    return _colored(pixels, draws, preprocess)


def _colored(pixels: Tensor, draws: Draws, preprocess: Preprocess) -> Tensor:
    if draws.color is None:
        return normalize(pixels, preprocess)
    return ColorMap(preprocess, draws.color, pixels.device)(pixels)


def _bent(pixels: Tensor, draws: Draws, preprocess: Preprocess, border: str) -> Tensor:
    """Color and warp; on a CPU a few images at a time, which stay in its cache."""
    count, height, width, channels = pixels.shape
    device = pixels.device
    course = course_of(draws, height, width, device)
    colors = ColorMap(preprocess, draws.color, device)
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
        back = colors.background(some) if border == "background" else None
        colored = colors(pixels[some], some)
        out[some].copy_(warp(colored, course.some(some), border, back))
    return out
