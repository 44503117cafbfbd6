"""Order of weights in memory, as the C kernels read them."""

from __future__ import annotations

import numpy as np

BLOCK = 16  # output channels of a block: two vectors of AVX


def _padded_channels(values: np.ndarray) -> np.ndarray:
    """Append zeros to the last dimension up to a whole block."""
    missing = -values.shape[-1] % BLOCK
    return np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, missing)])


def pack_blocks(weight: np.ndarray, groups: int) -> np.ndarray:
    """Order the weights of a convolution by blocks of output channels.

    Shapes:
        (outputs, depth, height, width) →
        (groups, blocks, height·width, depth, BLOCK)

    Example:
        >>> pack_blocks(np.ones((20, 3, 1, 2)), 1).shape
        (1, 2, 2, 3, 16)
    """
    outputs, depth, height, width = weight.shape
    grouped = weight.reshape(groups, outputs // groups, depth, height * width)
    blocks = _padded_channels(grouped.transpose(0, 3, 2, 1))
    split = blocks.reshape(groups, height * width, depth, -1, BLOCK)
    return np.ascontiguousarray(split.transpose(0, 3, 1, 2, 4))


def pack_depthwise(weight: np.ndarray) -> np.ndarray:
    """Order the weights of a depthwise convolution: taps, then padded channels.

    Example:
        >>> pack_depthwise(np.ones((20, 1, 3, 3))).shape
        (9, 32)
    """
    return _padded_channels(weight.reshape(len(weight), -1).T)


def pack_bias(bias: np.ndarray) -> np.ndarray:
    """Append zeros, so that a block may be read from any group on."""
    padded = _padded_channels(bias)
    return np.pad(padded, (0, BLOCK))
