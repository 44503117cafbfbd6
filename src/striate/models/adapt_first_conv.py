"""Adapt pretrained weights to another number of input channels."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from striate.core.format import count_text
from striate.core.preprocess_config import Preprocess


def adapted(weight: Tensor, channels: int) -> Tensor:
    """Return convolution weights for another number of input channels.

    For 1 channel, the weights are summed over the old channels: a gray image then gives
    the same output as this image repeated in all channels. For k channels, the c old
    channels are repeated in order, times c/k, which keeps the size of the outputs.

    Shapes:
        (filters, c, h, w) → (filters, channels, h, w)

    Example:
        >>> rgb = torch.tensor([1.0, 2.0, 6.0]).view(1, 3, 1, 1)
        >>> adapted(rgb, 1).flatten().tolist(), adapted(rgb, 4).flatten().tolist()
        ([9.0], [0.75, 1.5, 4.5, 0.75])
    """
    old_channels = weight.shape[1]
    if channels == 1:
        return weight.sum(1, keepdim=True)
    sources = torch.arange(channels) % old_channels
    return weight.index_select(1, sources) * (old_channels / channels)


def adapted_statistics(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """Return channel means or stds for another number of input channels.

    The channels are averaged or repeated as in `adapted`.

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


def adaptation_text(old_channels: int, channels: int) -> str:
    """Describe how the first convolution is adapted; empty for equal channel counts.

    Example:
        >>> adaptation_text(3, 1)
        'the first convolution sums its weights over 3 channels for gray images'
    """
    if old_channels == channels:
        return ""
    if channels == 1:
        return (
            "the first convolution sums its weights over "
            f"{count_text(old_channels, 'channel')} for "
            "gray images"
        )
    text = (
        "the first convolution repeats the weights of "
        f"{count_text(old_channels, 'channel')}"
    )
    return (
        f"{text} for {count_text(channels, 'channel')}, times {old_channels}/{channels}"
    )


def first_kernel(
    state: Mapping[str, Tensor], target: Mapping[str, Tensor]
) -> tuple[str, int] | None:
    """Return (name, channels) of a file's first kernel if it must be adapted, or None.

    Only the number of input channels of the network's first kernel may differ.
    """
    name = next((name for name, value in target.items() if value.ndim == 4), "")
    if name not in state or state[name].ndim != 4:
        return None
    old, new = state[name].shape, target[name].shape
    if old[1] == new[1] or (old[0], *old[2:]) != (new[0], *new[2:]):
        return None
    return name, old[1]


def fitted(
    preprocess: Preprocess, channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return a preprocessing's mean and std for another number of channels."""
    mean = adapted_statistics(preprocess.mean, channels)
    return mean, adapted_statistics(preprocess.std, channels)
