"""Which kinds of numbers may take the place of which in a network."""

from __future__ import annotations

import torch


def misfit(found: torch.dtype, wanted: torch.dtype, *, convert: bool = False) -> str:
    """Say why numbers of a file do not fit a network's; empty where they do.

    Args:
        found: Of the file.
        wanted: Of the network.
        convert: The caller takes floating-point numbers of any width, and says so in
            its own description. Whole numbers and truths never become such, nor one
            another.

    Example:
        >>> misfit(torch.int64, torch.float32)
        'holds torch.int64, the network torch.float32'
        >>> misfit(torch.float16, torch.float32, convert=True)
        ''
    """
    wide = convert and found.is_floating_point and wanted.is_floating_point
    return "" if found == wanted or wide else f"holds {found}, the network {wanted}"
