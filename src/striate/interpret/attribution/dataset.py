"""The evidence of a whole set: where a class's answers look, and whether they should.

Grad-CAM of every image's own answer, each map scaled to sum to one, so that no
image outweighs another.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from striate.core.errors import DataError
from striate.interpret.activations_at import check_images
from striate.interpret.attribution.grad_cam import layer_gradients
from striate.interpret.attribution.target import AttributionTarget
from striate.interpret.layer_choice import AUTO, TargetLayer, target_layer

BORDER_WIDTH = 0.1  # of each side, on either end: what counts as the border
_OTHER = 0.25  # of an image's range: what stands out from its border's color


@dataclass(frozen=True, kw_only=True)
class PredictedClass(AttributionTarget):
    """Each image's own answer."""

    target: int = -1
    words: str = "the answer"

    def score(self, logits: Tensor) -> Tensor:
        """Return the largest logit of each image."""
        return logits.max(1).values


@dataclass(frozen=True, kw_only=True)
class DatasetAttribution:
    """Evidence by answered class.

    Args:
        place: Whose maps it is made of.
        counts: (classes,): images answered so and with any evidence.
        heat: (classes, H, W): mean map of each; sums to one.
        border: (classes,): mean share of evidence on the border.
        ground: (classes,): mean share of evidence on the ground, which is what has
            about the color of the image's own border.
        border_area: The border's share of an image.
        ground_area: (classes,): the ground's share of the images.
        flat: Images whose map is empty.
    """

    target_layer: TargetLayer
    counts: Tensor
    heat: Tensor
    border: Tensor
    ground: Tensor
    border_area: float
    ground_area: Tensor
    flat: int


def dataset_attribution(
    model: nn.Module, batches: Iterable[Tensor], classes: int, layer: str = AUTO
) -> DatasetAttribution:
    """Return where the evidence for a network's own answers lies, over a set.

    Memory holds one batch's maps of one layer, and one mean map a class.

    Args:
        model: Any classifier; left as it was.
        batches: Images as the network takes them.
        classes: How many outputs it has.
        layer: A dotted name; `auto` is the last whose maps have 4×4 cells.

    Raises:
        DataError: There are no images.
        GeometryError: The layer has no maps.

    Example:
        >>> tail = nn.AdaptiveAvgPool2d(1), nn.Flatten()
        >>> x = torch.zeros(1, 2, 10, 10)
        >>> x[0, 1, 0, 5] = 4.0
        >>> found = dataset_attribution(nn.Sequential(nn.Identity(), *tail), [x], 2)
        >>> found.counts.tolist(), found.border.tolist(), found.border_area
        ([0, 1], [0.0, 1.0], 0.36)
    """
    sums: _Sums | None = None
    for x in batches:
        check_images(x)
        if sums is None:
            sums = _Sums(target_layer(model, x, layer), classes, x)
        seen = layer_gradients(model, x, sums.target_layer.call, PredictedClass())
        weights = seen.gradients.mean((2, 3), keepdim=True)
        own = (weights * seen.activations).sum(1, keepdim=True).relu()
        size = (int(x.shape[2]), int(x.shape[3]))
        heat = (
            own if own.shape[2:] == size else F.interpolate(own, size, mode="bilinear")
        )
        sums.add(x, heat[:, 0].double().cpu(), seen.logits.argmax(1).cpu())
    if sums is None:
        raise DataError("there are no images to look at", where="batches")
    return sums.found()


class _Sums:
    def __init__(self, where: TargetLayer, classes: int, x: Tensor) -> None:
        height, width = x.shape[2:]
        self.target_layer = where
        self._ring = border_mask(height, width)
        self._counts = torch.zeros(classes, dtype=torch.int64)
        self._heat = torch.zeros(classes, height, width, dtype=torch.float64)
        self._shares = torch.zeros(classes, 3, dtype=torch.float64)
        self._flat = 0

    def add(self, x: Tensor, heat: Tensor, answers: Tensor) -> None:
        """Take in a batch: (N, C, H, W), (N, H, W), (N,)."""
        totals = heat.sum((1, 2))
        alive = totals > 0
        self._flat += int((~alive).sum())
        heat = heat[alive] / totals[alive, None, None]
        answers = answers[alive]
        ground = ~foreground_mask(x.cpu(), self._ring)[alive]
        shares = torch.stack(
            [
                (heat * self._ring).sum((1, 2)),
                (heat * ground).sum((1, 2)),
                ground.double().mean((1, 2)),
            ],
            1,
        )
        self._counts += torch.bincount(answers, minlength=len(self._counts))
        self._heat.index_add_(0, answers, heat)
        self._shares.index_add_(0, answers, shares)

    def found(self) -> DatasetAttribution:
        """Return the means."""
        count = self._counts.clamp(min=1).double()
        means = self._shares / count[:, None]
        return DatasetAttribution(
            target_layer=self.target_layer,
            counts=self._counts,
            heat=self._heat / count[:, None, None],
            border=means[:, 0],
            ground=means[:, 1],
            border_area=round(float(self._ring.double().mean()), 6),
            ground_area=means[:, 2],
            flat=self._flat,
        )


def border_mask(height: int, width: int) -> Tensor:
    """Return which pixels are border: a tenth of each side at either end, one at least.

    Example:
        >>> int(border_mask(10, 10).sum())
        36
    """
    inside = torch.ones(height, width, dtype=torch.bool)
    down, across = (
        max(1, round(BORDER_WIDTH * height)),
        max(1, round(BORDER_WIDTH * width)),
    )
    inside[down : height - down, across : width - across] = False
    return inside


def foreground_mask(x: Tensor, border: Tensor) -> Tensor:
    """Return which pixels are of another color than most of the image's border.

    A rough guess at the object: right for things on plain ground, no more.

    Shapes:
        (N, C, H, W) and (H, W) → (N, H, W)

    Example:
        >>> x = torch.zeros(1, 1, 5, 5)
        >>> x[0, 0, 2, 2] = 1
        >>> int(foreground_mask(x, border_mask(5, 5)).sum())
        1
    """
    ground = x[:, :, border].median(2).values[..., None, None]
    span = x.amax((1, 2, 3)) - x.amin((1, 2, 3))
    return (x - ground).abs().amax(1) > _OTHER * span[:, None, None]
