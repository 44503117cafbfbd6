"""Mean Grad-CAM map per predicted class; share of the map on border and background.

The map of each image explains its predicted class. Each map is scaled to the sum one,
so that all images have equal weight.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from striate.core.errors import DataError
from striate.interpret.activations_at import check_image_batch
from striate.interpret.attribution.grad_cam import gradient_layer, layer_gradients
from striate.interpret.attribution.target import AttributionTarget
from striate.interpret.layer_choice import TargetLayer

BORDER_WIDTH = 0.1  # width of the border on each side, as a share of that side
_CONTRAST = 0.25  # share of an image's value range: larger differences are foreground


@dataclass(frozen=True, kw_only=True)
class PredictedClass(AttributionTarget):
    """Attribution target: for each image, the score of the predicted class."""

    class_index: int = -1
    text: str = "the predicted class"

    def score(self, logits: Tensor) -> Tensor:
        """Return the largest logit of each image."""
        return logits.max(1).values


@dataclass(frozen=True, kw_only=True)
class DatasetAttribution:
    """Mean attribution maps over a dataset, by predicted class."""

    layer: TargetLayer
    counts: Tensor  # (classes,): images predicted as this class, with a nonzero map
    heatmap: Tensor  # (classes, H, W): mean map of each class; the sum is one
    border: Tensor  # (classes,): mean share of the attribution on the image border
    # (classes,): mean share of the attribution on the background, the pixels with about
    # the color of the image border.
    background: Tensor
    border_area: float  # share of the image area that is border
    background_area: Tensor  # (classes,): share of the image area that is background
    empty: int  # number of images with an all-zero map


def dataset_attribution(
    model: nn.Module, batches: Iterable[Tensor], classes: int
) -> DatasetAttribution:
    """Compute the mean Grad-CAM map of each predicted class over a dataset.

    Memory holds one layer's output for one batch, and one mean map per class.

    Raises:
        DataError: There are no images.
        GeometryError: The network has no feature maps.

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
        check_image_batch(x)
        if sums is None:
            layer = gradient_layer(model, x[:1], PredictedClass())
            sums = _Sums(layer, classes, x)
        state = layer_gradients(model, x, sums.layer.call, PredictedClass())
        gradients = sums.layer.layout.to_maps(state.gradients)
        weights = gradients.mean((2, 3), keepdim=True)
        activations = sums.layer.layout.to_maps(state.activations)
        maps = (weights * activations).sum(1, keepdim=True).relu()
        size = (int(x.shape[2]), int(x.shape[3]))
        if maps.shape[2:] != size:
            maps = F.interpolate(maps, size, mode="bilinear")
        sums.add(x, maps[:, 0].double().cpu(), state.logits.argmax(1).cpu())
    if sums is None:
        raise DataError("there are no images", where="batches")
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
        """Add a batch: images (N, C, H, W), maps (N, H, W), predicted classes (N,)."""
        totals = heat.sum((1, 2))
        nonzero = totals > 0
        self._empty += int((~nonzero).sum())
        heat = heat[nonzero] / totals[nonzero, None, None]
        predicted = predicted[nonzero]
        background = ~foreground_mask(x.cpu(), self._border)[nonzero]
        on_border, on_background = heat * self._border, heat * background
        columns = on_border.sum((1, 2)), on_background.sum((1, 2))
        shares = torch.stack([*columns, background.double().mean((1, 2))], 1)
        self._counts += torch.bincount(predicted, minlength=len(self._counts))
        self._heat.index_add_(0, predicted, heat)
        self._shares.index_add_(0, predicted, shares)

    def result(self) -> DatasetAttribution:
        """Return mean maps and mean shares on border and background, by class."""
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
    """Return a mask of the border: 10 % of height and width, at least one pixel wide.

    Example:
        >>> int(border_mask(10, 10).sum())
        36
    """
    inside = torch.ones(height, width, dtype=torch.bool)
    down, across = (max(1, round(BORDER_WIDTH * side)) for side in (height, width))
    inside[down : height - down, across : width - across] = False
    return inside


def foreground_mask(x: Tensor, border: Tensor) -> Tensor:
    """Return a mask of the pixels that differ from the median border color.

    The mask is a rough estimate of the object, useful on a plain background.

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
