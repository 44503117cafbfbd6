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
_CONTRAST = 0.25  # of an image's range: what stands out from its border's color


@dataclass(frozen=True, kw_only=True)
class PredictedClass(AttributionTarget):
    """Each image's own answer."""

    target: int = -1
    text: str = "the answer"

    def score(self, logits: Tensor) -> Tensor:
        """Return the largest logit of each image."""
        return logits.max(1).values


@dataclass(frozen=True, kw_only=True)
class DatasetAttribution:
    """Evidence by answered class.

    Args:
        layer: Whose maps it is made of.
        counts: (classes,): images answered so and with any evidence.
        heatmap: (classes, H, W): mean map of each; sums to one.
        border: (classes,): mean share of evidence on the border.
        background: (classes,): mean share of evidence on the ground, which is what has
            about the color of the image's own border.
        border_area: The border's share of an image.
        background_area: (classes,): the ground's share of the images.
        empty: Images whose map is empty.
    """

    layer: TargetLayer
    counts: Tensor
    heatmap: Tensor
    border: Tensor
    background: Tensor
    border_area: float
    background_area: Tensor
    empty: int


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
        >>> result = dataset_attribution(nn.Sequential(nn.Identity(), *tail), [x], 2)
        >>> result.counts.tolist(), result.border.tolist(), result.border_area
        ([0, 1], [0.0, 1.0], 0.36)
    """
    sums: _Sums | None = None
    for x in batches:
        check_images(x)
        if sums is None:
            sums = _Sums(target_layer(model, x, layer), classes, x)
        state = layer_gradients(model, x, sums.layer.call, PredictedClass())
        weights = state.gradients.mean((2, 3), keepdim=True)
        maps = (weights * state.activations).sum(1, keepdim=True).relu()
        size = (int(x.shape[2]), int(x.shape[3]))
        heat = (
            maps
            if maps.shape[2:] == size
            else F.interpolate(maps, size, mode="bilinear")
        )
        sums.add(x, heat[:, 0].double().cpu(), state.logits.argmax(1).cpu())
    if sums is None:
        raise DataError("there are no images to look at", where="batches")
    return sums.result()


class _Sums:
    def __init__(self, layer: TargetLayer, classes: int, x: Tensor) -> None:
        height, width = x.shape[2:]
        self.layer = layer
        self._border = border_mask(height, width)
        self._counts = torch.zeros(classes, dtype=torch.int64)
        self._heat = torch.zeros(classes, height, width, dtype=torch.float64)
        self._shares = torch.zeros(classes, 3, dtype=torch.float64)
        self._empty = 0

    def add(self, x: Tensor, heat: Tensor, predicted: Tensor) -> None:
        """Take in a batch: (N, C, H, W), (N, H, W), (N,)."""
        totals = heat.sum((1, 2))
        nonzero = totals > 0
        self._empty += int((~nonzero).sum())
        heat = heat[nonzero] / totals[nonzero, None, None]
        predicted = predicted[nonzero]
        background = ~foreground_mask(x.cpu(), self._border)[nonzero]
        shares = torch.stack(
            [
                (heat * self._border).sum((1, 2)),
                (heat * background).sum((1, 2)),
                background.double().mean((1, 2)),
            ],
            1,
        )
        self._counts += torch.bincount(predicted, minlength=len(self._counts))
        self._heat.index_add_(0, predicted, heat)
        self._shares.index_add_(0, predicted, shares)

    def result(self) -> DatasetAttribution:
        """Return the means."""
        count = self._counts.clamp(min=1).double()
        means = self._shares / count[:, None]
        return DatasetAttribution(
            layer=self.layer,
            counts=self._counts,
            heatmap=self._heat / count[:, None, None],
            border=means[:, 0],
            background=means[:, 1],
            border_area=round(float(self._border.double().mean()), 6),
            background_area=means[:, 2],
            empty=self._empty,
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
    background = x[:, :, border].median(2).values[..., None, None]
    value_range = x.amax((1, 2, 3)) - x.amin((1, 2, 3))
    return (x - background).abs().amax(1) > _CONTRAST * value_range[:, None, None]
