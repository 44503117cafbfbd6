"""Check whether a tensor can be loaded into a parameter of another dtype."""

from __future__ import annotations

import torch


def dtype_mismatch(
    actual: torch.dtype, expected: torch.dtype, *, convert: bool = False
) -> str:
    """Return the reason why a stored dtype cannot be loaded; empty if it can be loaded.

    Args:
        actual: Dtype of the tensor in the file.
        expected: Dtype of the tensor in the network.
        convert: Accept floating-point numbers of any width. Integers and booleans are
            never converted.

    Example:
        >>> dtype_mismatch(torch.int64, torch.float32)
        'has dtype torch.int64, expected torch.float32'
        >>> dtype_mismatch(torch.float16, torch.float32, convert=True)
        ''
    """
    floats = convert and actual.is_floating_point and expected.is_floating_point
    fits = actual == expected or floats
    return "" if fits else f"has dtype {actual}, expected {expected}"
