"""Weights, windows and MACs of networks that torch has quantized to int8.

Their weights are packed in objects of C++, so they are no parameters, and their
operations have no rule for the meta device: such a network runs with real values.
"""

from __future__ import annotations

from math import prod
from typing import Any

from torch import Tensor, nn

_PACKAGES = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized")


def is_quantized(module: nn.Module) -> bool:
    """Return whether a layer is a quantized layer of torch.

    Example:
        >>> is_quantized(nn.Linear(2, 2))
        False
    """
    return type(module).__module__.startswith(_PACKAGES)


def quantized_weights(module: nn.Module) -> list[Tensor]:
    """Return the packed weights and biases of one quantized layer, unpacked.

    Example:
        >>> quantized_weights(nn.Linear(2, 2))
        []
    """
    if not is_quantized(module):
        return []
    if hasattr(module, "get_weight"):  # a recurrent layer
        layer: Any = module
        tables = layer.get_weight(), layer.get_bias()
        return [tensor.detach() for table in tables for tensor in table.values()]
    # The layer is meant, not the container of its packed weights.
    if not hasattr(module, "_weight_bias") or not hasattr(module, "from_float"):
        return []
    pair: Any = module._weight_bias
    return [tensor.detach() for tensor in pair() if tensor is not None]


def packed_weight(packed: Any) -> Tensor:
    """Return the weight in the packed argument of a quantized operation."""
    weight: Tensor = packed.unpack()[0]
    return weight


def packed_macs(args: tuple[Any, ...], shape: tuple[int, ...]) -> int:
    """Return the MACs of a quantized convolution or matrix product."""
    return int(prod(shape) * prod(packed_weight(args[1]).shape[1:]))


CONVOLUTIONS = ("conv2d", "conv2d_relu", "conv1d", "conv1d_relu")
PRODUCTS = ("linear", "linear_relu", "linear_dynamic", "linear_relu_dynamic")


def is_quantized_operation(func: Any) -> bool:
    """Return whether an operation takes packed weights.

    Example:
        >>> import torch
        >>> is_quantized_operation(torch.ops.aten.relu.default)
        False
    """
    name = func.overloadpacket.__name__
    return func.namespace == "quantized" and name in (*CONVOLUTIONS, *PRODUCTS)
