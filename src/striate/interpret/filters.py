"""Filters as images: the first layer's in color, later ones kernel by kernel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from striate.interpret.render import diverging_colors, enlarge, tile

MIN_PIXELS = 24  # pixels a filter is drawn high, at least
ROWS, COLUMNS = 16, 32  # filters and input channels drawn of a later layer
_KERNEL_PIXELS = 12  # pixels one of their kernels is drawn high, at least
_DEAD = 1e-3  # of the largest filter's norm: what is smaller does nothing


def first_convolution(model: nn.Module) -> tuple[str, nn.Conv2d] | None:
    """Return the first convolution's name and module, in the order of definition.

    Example:
        >>> first_convolution(nn.Sequential(nn.ReLU(), nn.Conv2d(1, 2, 3)))[0]
        '1'
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            return name, module
    return None


def layers_with_filters(model: nn.Module) -> dict[str, Tensor]:
    """Return every layer's filters by name, in the order of definition.

    Filters are weights of four dimensions, (filters, channels, height, width): those of
    convolutions, ours and others'. A transposed convolution's are turned round.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 5), nn.Flatten(), nn.Linear(4, 2))
        >>> {name: tuple(w.shape) for name, w in layers_with_filters(model).items()}
        {'0': (4, 3, 5, 5)}
    """
    weights = {}
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, Tensor) and weight.ndim == 4 and name:
            transposed = isinstance(module, nn.ConvTranspose2d)
            weights[name] = weight.transpose(0, 1) if transposed else weight
    return weights


@dataclass(frozen=True, kw_only=True)
class FilterStatistics:
    """What a layer's filters are, in numbers.

    Args:
        count: How many.
        kernel: (channels, height, width) of one.
        min_norm: Smallest norm of a filter.
        median_norm: Middle one.
        max_norm: Largest one.
        dead: Filters of less than a thousandth of the largest norm.
        mean_share: Share of the squared weights that lies in the kernels' means: near 0
            kernels tell differences, as edges are; at 1 they only add up.
        max_cosine: Median over filters of the largest |cosine| with another: 1 where every
            filter has its double.
    """

    count: int
    kernel: tuple[int, int, int]
    min_norm: float
    median_norm: float
    max_norm: float
    dead: int
    mean_share: float
    max_cosine: float


def filter_statistics(weight: Tensor) -> FilterStatistics:
    """Measure a layer's filters.

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
        max_cosine=float(cosines.median_norm()),
    )


def kernel_sheet(weight: Tensor) -> tuple[np.ndarray, str]:
    """Draw a later layer's filters: a row a filter, a column an input channel.

    Rows are the first filters, so that they stand for the first maps; columns are
    the channels with the largest weights, in their order. A filter has its own scale.

    Returns:
        The sheet, (H, W, 4) uint8, and what of the layer it shows.

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
    rows = (
        f"{len(shown_filters)} of {filters}"
        if len(shown_filters) < filters
        else f"{filters}"
    )
    cropped = len(columns) < channels
    across = f"the {len(columns)} strongest of {channels}" if cropped else f"{channels}"
    sheet = tile(planes, columns=len(columns), gap=1)
    return sheet, f"{rows} filters × {across} channels"


def filter_tiles(weight: Tensor, limits: Tensor | None = None) -> list[np.ndarray]:
    """Draw each filter: three channels as color, others side by side, signed.

    Args:
        weight: (filters, channels, height, width).
        limits: Largest magnitude of each filter's scale; its own where not given.

    Returns:
        One uint8 image a filter, at least `MIN_PIXELS` pixels high.
    """
    weight = weight.detach().float().cpu()
    limits = filter_limits(weight) if limits is None else limits
    return [
        _draw(kernel.numpy(), float(limit))
        for kernel, limit in zip(weight, limits, strict=True)
    ]


def filter_limits(*weights: Tensor) -> Tensor:
    """Return each filter's largest magnitude over all the versions given."""
    stacked = torch.stack([w.detach().float().cpu() for w in weights])
    return stacked.abs().amax(dim=(0, 2, 3, 4))


def _draw(kernel: np.ndarray, limit: float) -> np.ndarray:
    if len(kernel) == 3:
        levels = 127.5 * (1 + kernel.transpose(1, 2, 0) / (limit or 1.0))
        return enlarge(np.clip(levels, 0, 255).round().astype(np.uint8), MIN_PIXELS)
    planes = [enlarge(diverging_colors(plane, limit), MIN_PIXELS) for plane in kernel]
    return tile(planes, columns=8, gap=1)
