"""Modes of torch that a caller may have set, and that an analysis must not inherit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

DEVICES = ("cpu", "cuda", "mps")


@contextmanager
def own_torch_modes() -> Iterator[None]:
    """Context manager: gradients are on, `inference_mode` and `autocast` are off.

    Use it as a decorator of functions that train or explain a network. Otherwise they
    would fail if the caller has switched gradients off, for example in a notebook.

    Example:
        >>> with torch.inference_mode(), own_torch_modes():
        ...     torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        (True, False)
    """
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for device in DEVICES:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield
