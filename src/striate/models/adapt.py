"""A first convolution for other channels than its weights were made for."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from striate.core.preprocess import Preprocess


def adapted(weight: Tensor, channels: int) -> Tensor:
    """Return the weights of a convolution for another number of input channels.

    One channel takes the sum over the old ones: a grey picture gives what its equal
    channels gave. k channels take the c old ones in turn, times c/k: inputs of equal
    statistics give outputs of equal size.

    Shapes:
        (filters, c, h, w) → (filters, channels, h, w)

    Example:
        >>> rgb = torch.tensor([1.0, 2.0, 6.0]).view(1, 3, 1, 1)
        >>> adapted(rgb, 1).flatten().tolist(), adapted(rgb, 4).flatten().tolist()
        ([9.0], [0.75, 1.5, 4.5, 0.75])
    """
    have = weight.shape[1]
    if channels == 1:
        return weight.sum(1, keepdim=True)
    turn = torch.arange(channels) % have
    return weight.index_select(1, turn) * (have / channels)


def adapted_statistics(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """Return means or deviations for another number of channels, by the same rule.

    Example:
        >>> adapted_statistics((0.485, 0.456, 0.406), 1)
        (0.449,)
        >>> adapted_statistics((0.1, 0.2, 0.3), 4)
        (0.1, 0.2, 0.3, 0.1)
    """
    if not values or channels == len(values):
        return values
    if channels == 1:
        return (round(sum(values) / len(values), 6),)
    return tuple(values[i % len(values)] for i in range(channels))


def rule(have: int, channels: int) -> str:
    """Say in words what `adapted` does; empty where nothing is to be done.

    Example:
        >>> rule(3, 1)
        'the first convolution sums its weights over 3 channels for grey pictures'
    """
    if have == channels:
        return ""
    if channels == 1:
        return (
            f"the first convolution sums its weights over {have} channels for grey "
            "pictures"
        )
    taken = f"takes the weights of {have} channels in turn"
    return f"the first convolution {taken} for {channels}, times {have}/{channels}"


def first_kernel(
    found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> tuple[str, int] | None:
    """Return the name and channels of a first convolution that other channels met.

    Nothing but the number of input channels of the network's first kernel may differ.
    """
    name = next((name for name, value in wanted.items() if value.ndim == 4), "")
    if name not in found or found[name].ndim != 4:
        return None
    have, want = found[name].shape, wanted[name].shape
    if have[1] == want[1] or (have[0], *have[2:]) != (want[0], *want[2:]):
        return None
    return name, have[1]


def fitted(
    preprocess: Preprocess, channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and deviation of a preprocessing for other channels."""
    mean = adapted_statistics(preprocess.mean, channels)
    return mean, adapted_statistics(preprocess.std, channels)
