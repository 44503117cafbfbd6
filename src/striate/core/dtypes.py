"""Dtype checks: may a tensor of one dtype be loaded into another."""

from __future__ import annotations

import torch


def dtype_mismatch(
    actual: torch.dtype, expected: torch.dtype, *, convert: bool = False
) -> str:
    """Return why a dtype does not fit, or an empty string if it does.

    Args:
        actual: Dtype in the file.
        expected: Dtype in the network.
        convert: Accept floating-point numbers of any width. Integers and booleans are
            never converted.

    Example:
        >>> dtype_mismatch(torch.int64, torch.float32)
        'holds torch.int64, the network torch.float32'
        >>> dtype_mismatch(torch.float16, torch.float32, convert=True)
        ''
    """
    floats = convert and actual.is_floating_point and expected.is_floating_point
    fits = actual == expected or floats
    return "" if fits else f"holds {actual}, the network {expected}"
