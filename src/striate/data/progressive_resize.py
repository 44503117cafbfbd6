"""Images that begin small and grow: early epochs cost less (progressive size).

Products fall with the area: a network that averages over any size learns edges and
colors from small images as well, and details at the end. Touvron et al. 2019 found
that what is learned at one size answers best near it, hence the last epochs at full
size; Howard's fast.ai entry to DAWNBench (2018) and EfficientNetV2 (Tan, Le 2021,
section 4) grow in steps as here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from striate.data.augment.pipeline import Batch
from striate.data.batches import Batches
from striate.data.subset import Subset

MULTIPLE = 16  # sides a network halves four times without a rest
GROWN = 0.8  # of the epochs, from which on images have their full size

Side = tuple[int, int]


def growing_sides(full: Side, share: float, epochs: int) -> tuple[Side, ...]:
    """Return height and width of the images in each epoch.

    Sides grow linearly from `share` of the full ones, in multiples of 16, and are full
    from 80 % of the epochs on; in the last epoch at any rate.

    Args:
        full: Height and width at the end.
        share: Of them at the beginning; 1 does not grow.
        epochs: How many there are.

    Example:
        >>> [height for height, _ in growing_sides((96, 64), 0.5, 6)]
        [48, 64, 64, 80, 96, 96]
    """
    grown = min(GROWN * epochs, epochs - 1)
    return tuple(
        (_side(full[0], now), _side(full[1], now))
        for epoch in range(epochs)
        for now in [share + (1 - share) * (epoch / grown if epoch < grown else 1)]
    )


def _side(full: int, share: float) -> int:
    """Return a share of a side, in multiples of 16, and never more than all of it."""
    if share >= 1:
        return full
    return min(full, max(1, round(full * share / MULTIPLE)) * MULTIPLE)


@dataclass(frozen=True, kw_only=True)
class ProgressiveResize:
    """Batches whose images have another size in each epoch; else what they were.

    Which images a batch holds and how they were changed does not depend on the size:
    whole batches are resized at their end.

    Args:
        batches: At full size.
        sides: Height and width in each epoch; later epochs are as the last.
    """

    batches: Batches
    sides: Sequence[Side]

    def __call__(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """Yield the (input, label) batches of an epoch, the first `start` left out."""
        size = self.sides[min(epoch, len(self.sides) - 1)]
        for x, y in self.batches(epoch, start):
            yield resized(x, size), y

    def indices(self, epoch: int = 0, start: int = 0) -> Iterable[Tensor]:
        """Return the image numbers of each batch of an epoch."""
        return self.batches.indices(epoch, start)

    def __len__(self) -> int:
        return len(self.batches)

    @property
    def subset(self) -> Subset:
        """Return the part that the images are of."""
        return self.batches.subset

    @property
    def images(self) -> int:
        """Return how many images an epoch shows."""
        return self.batches.images


def resized(x: Tensor, size: Side) -> Tensor:
    """Bring a batch to a size, each new pixel a mean over all that it covers.

    Shapes:
        (N, C, H, W) → (N, C, height, width); N may be 0

    Example:
        >>> import torch
        >>> resized(torch.tensor([[[[0.0, 4.0], [4.0, 8.0]]]]), (1, 1)).item()
        4.0
    """
    if tuple(x.shape[-2:]) == size:
        return x
    if not len(x):  # a process that got no image of this batch
        return x.new_empty(*x.shape[:2], *size)
    return F.interpolate(x, size, mode="bilinear", antialias=True)
