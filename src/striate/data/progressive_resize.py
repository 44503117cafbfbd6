"""Progressive resizing: early epochs train on smaller images, which is faster.

The number of multiply-adds (MACs) is proportional to the image area. A network with
global pooling learns edges and colors from small images as well, and details at the
end. Touvron et al. 2019 found that a network predicts best near the image size of its
training; therefore the last epochs use the full size. Howard's fast.ai entry to
DAWNBench (2018) and EfficientNetV2 (Tan, Le 2021, section 4) also increase the size in
steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from striate.data.augment.pipeline import Batch
from striate.data.batches import Batches
from striate.data.subset import Subset

MULTIPLE = 16  # such sides can be halved four times without a remainder
FULL_SIZE_FROM = 0.8  # share of the epochs after which images have their full size

Side = tuple[int, int]


def sides_by_epoch(full: Side, share: float, epochs: int) -> tuple[Side, ...]:
    """Return the image height and width of each epoch.

    The size grows linearly from `share` of the full size, in multiples of 16. From 80 %
    of the epochs on, and in the last epoch, the images have full size.

    Example:
        >>> [height for height, _ in sides_by_epoch((96, 64), 0.5, 6)]
        [48, 64, 64, 80, 96, 96]
    """
    full_from = min(FULL_SIZE_FROM * epochs, epochs - 1)
    sides = []
    for epoch in range(epochs):
        grown = epoch / full_from if epoch < full_from else 1
        now = share + (1 - share) * grown
        sides.append((_side(full[0], now), _side(full[1], now)))
    return tuple(sides)


def _side(full: int, share: float) -> int:
    """Return the side `share`·`full` rounded to a multiple of 16, at most `full`."""
    if share >= 1:
        return full
    return min(full, max(1, round(full * share / MULTIPLE)) * MULTIPLE)


@dataclass(frozen=True, kw_only=True)
class ProgressiveResize:
    """Data loader whose image size depends on the epoch.

    The images of a batch and their augmentation do not depend on the size: whole
    batches are resized at the end.
    """

    batches: Batches  # batches at full size
    # height and width in each epoch; later epochs use the last size
    sides: Sequence[Side]

    def __call__(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """Yield the (input, label) batches of an epoch, from batch `start` on."""
        size = self.sides[min(epoch, len(self.sides) - 1)]
        for x, y in self.batches(epoch, start):
            yield resize_batch(x, size), y

    def indices(self, epoch: int = 0, start: int = 0) -> Iterable[Tensor]:
        """Return the image indices of each batch in an epoch."""
        return self.batches.indices(epoch, start)

    def __len__(self) -> int:
        return len(self.batches)

    @property
    def subset(self) -> Subset:
        """Return the subset that the images belong to."""
        return self.batches.subset

    @property
    def images(self) -> int:
        """Return the number of images in an epoch."""
        return self.batches.images


def resize_batch(x: Tensor, size: Side) -> Tensor:
    """Resize a batch by area averaging.

    Shapes:
        (N, C, H, W) → (N, C, height, width); N may be 0

    Example:
        >>> import torch
        >>> resize_batch(torch.tensor([[[[0.0, 4.0], [4.0, 8.0]]]]), (1, 1)).item()
        4.0
    """
    if tuple(x.shape[-2:]) == size:
        return x
    if not len(x):  # this process has no image of the batch
        return x.new_empty(*x.shape[:2], *size)
    return F.interpolate(x, size, mode="bilinear", antialias=True)
