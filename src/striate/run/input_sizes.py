"""Whether a network learns from every size that growing images have."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from striate.core.errors import GeometryError
from striate.core.hooks import model_restored, trace_modules
from striate.data.progressive_resize import Side


def check_sides(
    model: nn.Module, channels: int, sides: Sequence[Side], device: torch.device
) -> None:
    """Try two images of each size in training mode, and leave no trace.

    In training mode, because auxiliary heads answer only there.

    Raises:
        GeometryError: The network cannot take one of them; names the layer.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
        >>> check_sides(model, 1, [(8, 8)], torch.device("cpu"))
        >>> check_sides(model, 1, [(4, 4)], torch.device("cpu"))
        Traceback (most recent call last):
        ...
        striate.core.errors.GeometryError: the network cannot learn from 4×4, ...
    """
    begun: list[str] = []

    def enter(name: str, module: nn.Module, inputs: object) -> None:
        begun.append(name or type(module).__name__)

    def leave(name: str, module: nn.Module, output: object) -> None:
        begun.pop()

    # Numbers too are changed in training mode: those of batch norm. Copies take them.
    with model_restored(model, Tensor.clone) as trial, torch.no_grad():
        trial.train()
        for height, width in dict.fromkeys(sides):
            probe = torch.zeros(2, channels, height, width, device=device)
            begun.clear()
            try:
                with trace_modules(trial, enter=enter, leave=leave):
                    trial(probe)
            except (RuntimeError, ValueError, GeometryError) as error:
                raise _refusal(error, height, width, begun) from error


def _refusal(
    error: Exception, height: int, width: int, begun: Sequence[str]
) -> GeometryError:
    """Return what to say; the layer is the last that began and did not end."""
    why = str(error).splitlines()[0]
    size = f"{height}×{width}"
    what = f"the network cannot learn from {size}, as --progressive-resize shows: {why}"
    fix = (
        "leave --progressive-resize away, begin with a larger share, or take a network "
        "with global average pooling: resnet18, antialiased_resnet18, mobilenet_v2"
    )
    return GeometryError(what, where=f"layer {begun[-1]}", fix=fix)
