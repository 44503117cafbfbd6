"""Augmentation pipeline: random transforms and normalization of batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from striate.core.errors import SettingError
from striate.core.preprocess_config import Preprocess
from striate.data.augment.augment import Augment
from striate.data.augment.color import ColorMap
from striate.data.augment.geometry import sampling_field, warp_images
from striate.data.augment.mix import (
    draw_mix_pairs,
    erase_rectangles,
    mix_batches,
    mixed_targets,
)
from striate.data.augment.pixel_shift import ShiftBuffer, shift_whole_pixels
from striate.data.augment.random_crop import crop_and_resize, crop_windows
from striate.data.augment.random_params import RandomParams, draw_params
from striate.data.cache import free_memory as memory
from striate.data.cache.image_rows import IndexedRows, PixelRows, index_rows
from striate.data.decode.preprocess import normalize
from striate.data.subset import Subset

SHIFT_BUFFER_LIMIT = 1 << 30  # bytes: subset with borders, and its flipped copy
Batch = tuple[Tensor, Tensor]
_CHUNK = 1 << 16  # pixels that a thread warps at a time


@dataclass(frozen=True, kw_only=True)
class AugmentPipeline:
    """Augmentation of a subset, reproducible for any batch size and order.

    An input is a function of (seed, epoch, index of the image in the subset).

    Raises:
        SettingError: mixup or CutMix is on, and `classes` is 0.

    Example:
        >>> pixels = torch.zeros(5, 2, 2, 1, dtype=torch.uint8)
        >>> subset = Subset.of(pixels, [0, 1, 0, 1, 0], list("abcde"))
        >>> p = Preprocess(channels=1, height=2, width=2, mean=(0.0,), std=(1.0,))
        >>> augment = Augment(color=0.2)
        >>> pipeline = AugmentPipeline(subset=subset, preprocess=p, augment=augment)
        >>> index = torch.tensor([4, 1])
        >>> x, y = pipeline(subset.gather(index), index, epoch=0)
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
        if self.augment.mixes_images and self.classes < 1:
            what = "mixup and CutMix need the number of classes, which is not set"
            raise SettingError(what, where="classes", fix="pass classes=…")

    @cached_property
    def shift_buffer(self) -> ShiftBuffer | None:
        """Return the cached shift buffer with the subset's images and flipped copies.

        With the buffer, gathering, shifting and flipping a batch is one copy per image.
        Return None if other transforms are on, or if the buffer needs too much memory.
        """
        augment, pixels = self.augment, self.subset.pixels
        others = (augment.interpolates, augment.mixes_images, augment.color)
        if any((*others, augment.erase, augment.flip in ("vertical", "both"))):
            return None
        if _fills_float_border(augment, self.preprocess):
            return None
        if not isinstance(pixels, Tensor) or torch.device(self.device).type != "cpu":
            return None
        right = int(augment.shift * pixels.shape[2])
        down = int(augment.shift * pixels.shape[1])
        nbytes = 2 * ShiftBuffer.nbytes(pixels, right, down)
        if nbytes > SHIFT_BUFFER_LIMIT or not memory.fits_in_memory(2 * nbytes):
            return None
        both, level = torch.cat([pixels, pixels.flip(2)]), self.preprocess.background
        return ShiftBuffer(both, right, down, augment.border, level)

    def shifted_batches(self, epoch: int) -> Callable[[Tensor], Batch]:
        """Return a function that maps image indices to a batch of shifted images."""
        shift_buffer = self.shift_buffer
        assert shift_buffer is not None  # noqa: S101 - asked only where there is one
        count = len(self.subset)
        index_all = np.arange(count)
        params = self._params(index_all, epoch)
        flipped = index_all + count * params.flip[:, 0]
        places = shift_buffer.offsets(flipped, params.shift)

        def batch(index: Tensor) -> Batch:
            pixels = shift_buffer.gather(places[index])
            return normalize(pixels, self.preprocess), self.subset.labels[index]

        return batch

    @property
    def source_pixels(self) -> PixelRows:
        """Return the images to augment: for random crop, larger than the input."""
        larger = self.subset.larger if self.augment.only_crops else None
        return self.subset.pixels if larger is None else larger

    @property
    def crops_larger(self) -> bool:
        """Return True if crops are cut from images larger than the network input."""
        size = self.preprocess.height, self.preprocess.width
        return self.augment.only_crops and tuple(self.source_pixels.shape[1:3]) != size

    def crop_to_input(
        self, source_pixels: IndexedRows, index: Tensor, epoch: int
    ) -> Tensor:
        """Crop images that are larger than the input, resize the crops, and flip them.

        Images that need no crop are returned unchanged.
        """
        if not self.crops_larger:
            return source_pixels[:]
        params = self._params(index.numpy(), epoch)
        height, width = source_pixels.shape[1:3]
        places = crop_windows(params.crop, height, width)
        size = self.preprocess.height, self.preprocess.width
        return crop_and_resize(
            source_pixels.pixels, places, size, params.flip, source_pixels.rows
        )

    def __call__(self, pixels: Tensor, index: Tensor, epoch: int) -> Batch:
        """Return the augmented inputs (N, C, H, W) and their targets.

        Targets are class indices (N,), or soft targets (N, classes) with mixup or
        CutMix.

        Args:
            pixels: (N, H, W, C) uint8 from `crop_to_input`.
            index: (N,) indices in the subset.
            epoch: Epoch, counted from 0.
        """
        labels = self.subset.labels[index]
        x = self._augmented(pixels, index, epoch)
        if not self.augment.mixes_images:
            return x, labels.to(self.device, non_blocking=True)
        mix = draw_mix_pairs(
            self.augment,
            self.preprocess.spec,
            index.numpy(),
            count=len(self.subset),
            seed=self.seed,
            epoch=epoch,
        )
        others = torch.from_numpy(mix.partner)
        other_labels = self.subset.labels[others]
        y = mixed_targets(labels, other_labels, mix.target_share, self.classes)
        rows = index_rows(self.source_pixels, others)
        partners = self.crop_to_input(rows, others, epoch)
        other = self._augmented(partners, others, epoch)
        return mix_batches(x, other, mix), y.to(self.device, non_blocking=True)

    def _augmented(self, pixels: Tensor, index: Tensor, epoch: int) -> Tensor:
        params = self._params(index.numpy(), epoch)
        pixels = pixels.to(self.device, non_blocking=True)
        if self.crops_larger:
            params = replace(params, flip=np.zeros_like(params.flip))
            straight = _shift_and_color(pixels, params, self.preprocess, self.augment)
            return _erase(straight, params)
        return augment_batch(pixels, params, self.preprocess, self.augment)

    def _params(self, samples: np.ndarray, epoch: int) -> RandomParams:
        return draw_params(
            self.augment,
            self.preprocess.spec,
            samples,
            count=len(self.subset),
            seed=self.seed,
            epoch=epoch,
        )


def augment_batch(
    pixels: Tensor, params: RandomParams, preprocess: Preprocess, augment: Augment
) -> Tensor:
    """Augment images with the given random parameters, and normalize the result.

    A transform that is off changes no bit of the result. Without interpolation, pixels
    are copied; without color shift, images are normalized as for evaluation.

    Shapes:
        (N, H, W, C) uint8 → (N, C, H, W) float32, channels last
    """
    if augment.interpolates or _fills_float_border(augment, preprocess):
        x = _warp_and_color(pixels, params, preprocess, augment.border)
    else:
        x = _shift_and_color(pixels, params, preprocess, augment)
    return _erase(x, params)


def _fills_float_border(augment: Augment, preprocess: Preprocess) -> bool:
    """Return whether a shift fills borders of float images with a background color."""
    return preprocess.is_float and augment.border == "background" and augment.shift > 0


def _erase(x: Tensor, params: RandomParams) -> Tensor:
    return x if params.erased is None else erase_rectangles(x, params.erased)


def _shift_and_color(
    pixels: Tensor, params: RandomParams, preprocess: Preprocess, augment: Augment
) -> Tensor:
    if augment.has_geometry:
        background = preprocess.background
        pixels = shift_whole_pixels(
            pixels, params.shift, params.flip, augment.border, background
        )
    if params.color is None:
        return normalize(pixels, preprocess)
    return ColorMap(preprocess, params.color, pixels.device)(pixels)


def _warp_and_color(
    pixels: Tensor, params: RandomParams, preprocess: Preprocess, border: str
) -> Tensor:
    """Shift colors and warp images; on a CPU, in chunks that fit into its cache."""
    count, height, width, channels = pixels.shape
    device = pixels.device
    field = sampling_field(params, height, width, device)
    colors = ColorMap(preprocess, params.color, device)
    out = torch.empty(
        (count, channels, height, width),
        device=device,
        memory_format=torch.channels_last,
    )
    step = count
    if device.type == "cpu":
        step = torch.get_num_threads() * max(1, _CHUNK // (height * width))
    for first in range(0, count, step):
        chunk = slice(first, first + step)
        background = colors.background(chunk) if border == "background" else None
        colored = colors(pixels[chunk], chunk)
        out[chunk].copy_(warp_images(colored, field.take(chunk), border, background))
    return out
