"""Filters (convolution weights) as images and statistics."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from striate.core.format import count_text
from striate.core.layer_names import named_layers
from striate.interpret.render import diverging_colors, enlarge, tile

MIN_PIXELS = 24  # minimum height of a drawn filter, in pixels
ROWS, COLUMNS = 16, 32  # filters and input channels drawn for a later layer
_KERNEL_PIXELS = 12  # minimum height of one kernel of a later layer, in pixels
_DEAD = 1e-3  # share of the largest norm: a filter below it is dead


def first_convolution(model: nn.Module) -> tuple[str, nn.Conv2d] | None:
    """Return the first convolution as (name, module), in definition order.

    Example:
        >>> first_convolution(nn.Sequential(nn.ReLU(), nn.Conv2d(1, 2, 3)))[0]
        '1'
    """
    for name, module in named_layers(model):
        if isinstance(module, nn.Conv2d):
            return name, module
    return None


def layers_with_filters(model: nn.Module) -> dict[str, Tensor]:
    """Return the filters of every convolution by layer name, in definition order.

    Filters are weights with four dimensions, (filters, channels, height, width). Those
    of a transposed convolution are transposed to this order.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 5), nn.Flatten(), nn.Linear(4, 2))
        >>> {name: tuple(w.shape) for name, w in layers_with_filters(model).items()}
        {'0': (4, 3, 5, 5)}
    """
    weights = {}
    for name, module in named_layers(model):
        weight = getattr(module, "weight", None)
        if isinstance(weight, Tensor) and weight.ndim == 4 and name:
            transposed = isinstance(module, nn.ConvTranspose2d)
            weights[name] = weight.transpose(0, 1) if transposed else weight
    return weights


@dataclass(frozen=True, kw_only=True)
class FilterStatistics:
    """Statistics of the filters of one layer."""

    count: int  # number of filters
    kernel: tuple[int, int, int]  # (channels, height, width) of one filter
    min_norm: float  # smallest norm of a filter
    median_norm: float
    max_norm: float  # largest norm
    dead: int  # filters with a norm below a thousandth of the largest
    # Share of the squared weights in the kernels' means (DC share): 0 for edge
    # detectors, 1 for kernels that only average.
    mean_share: float
    # Largest |cosine| of a filter with another filter, median over filters: 1 if every
    # filter has a duplicate.
    max_cosine: float


def filter_statistics(weight: Tensor) -> FilterStatistics:
    """Compute the statistics of a layer's filters.

    Shapes:
        (filters, channels, height, width)

    Example:
        >>> edge = torch.tensor([[-1.0, 1.0], [-1.0, 1.0]]).view(1, 1, 2, 2)
        >>> facts = filter_statistics(torch.cat([edge, -2 * edge]))
        >>> facts.max_norm, facts.mean_share, round(facts.max_cosine, 3)
        (4.0, 0.0, 1.0)
    """
    weight = weight.detach().double().cpu()
    flat = weight.flatten(1)
    norms = flat.norm(dim=1)
    max_norm = float(norms.max())
    means = weight.mean((2, 3), keepdim=True).expand_as(weight)
    total = float(weight.square().sum()) or 1.0
    unit_norm = flat / norms.clamp(min=1e-30)[:, None]
    cosines = (unit_norm @ unit_norm.T).abs().fill_diagonal_(0).amax(1)
    channels, height, width = weight.shape[1:]
    return FilterStatistics(
        count=len(weight),
        kernel=(channels, height, width),
        min_norm=float(norms.min()),
        median_norm=float(norms.median()),
        max_norm=max_norm,
        dead=int((norms < _DEAD * max_norm).sum()),
        mean_share=float(means.square().sum()) / total,
        max_cosine=float(cosines.median()),
    )


def kernel_sheet(weight: Tensor) -> tuple[np.ndarray, str]:
    """Draw the filters of a convolution: one row per filter, one column per channel.

    Rows are the first filters, which make the first feature maps. Columns are the input
    channels with the largest weights, in order. Each filter has its own color scale.

    Returns:
        The image, (H, W, 4) uint8, and a text that describes the filters in the image.

    Example:
        >>> sheet, words = kernel_sheet(torch.randn(40, 50, 3, 3))
        >>> words
        '16 of 40 filters × the 32 strongest of 50 channels'
    """
    weight = weight.detach().float().cpu()
    filters, channels = weight.shape[:2]
    strongest = weight.square().sum((0, 2, 3)).argsort(descending=True, stable=True)
    columns = sorted(strongest[:COLUMNS].tolist())
    shown_filters = weight[:ROWS][:, columns]
    limits = filter_limits(shown_filters)
    planes = [
        enlarge(diverging_colors(plane, float(limit)), _KERNEL_PIXELS)
        for kernel, limit in zip(shown_filters.numpy(), limits, strict=True)
        for plane in kernel
    ]
    rows, across = count_text(filters, "filter"), count_text(channels, "channel")
    if len(shown_filters) < filters:
        rows = f"{len(shown_filters)} of {rows}"
    if len(columns) < channels:
        across = f"the {len(columns)} strongest of {across}"
    sheet = tile(planes, columns=len(columns), gap=1)
    return sheet, f"{rows} × {across}"


def filter_tiles(weight: Tensor, limits: Tensor | None = None) -> list[np.ndarray]:
    """Draw each filter: as RGB for three channels, otherwise channel by channel.

    Returns:
        One uint8 image per filter, at least `MIN_PIXELS` pixels high.
    """
    weight = weight.detach().float().cpu()
    limits = filter_limits(weight) if limits is None else limits
    return [
        _draw(kernel.numpy(), float(limit))
        for kernel, limit in zip(weight, limits, strict=True)
    ]


def filter_limits(*weights: Tensor) -> Tensor:
    """Return each filter's largest absolute weight, over one or more weight tensors."""
    stacked = torch.stack([w.detach().float().cpu() for w in weights])
    return stacked.abs().amax(dim=(0, 2, 3, 4))


def _draw(kernel: np.ndarray, limit: float) -> np.ndarray:
    if len(kernel) == 3:
        levels = 127.5 * (1 + kernel.transpose(1, 2, 0) / (limit or 1.0))
        return enlarge(np.clip(levels, 0, 255).round().astype(np.uint8), MIN_PIXELS)
    planes = [enlarge(diverging_colors(plane, limit), MIN_PIXELS) for plane in kernel]
    return tile(planes, columns=8, gap=1)
