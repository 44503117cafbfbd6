"""Lazy layers of torch, such as `nn.LazyLinear`: give their parameters a shape."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from striate.core.errors import GeometryError
from striate.core.layer_names import named_layers


def lazy_layer_names(model: nn.Module) -> list[str]:
    """Return the names of the layers whose parameters have no shape yet.

    Example:
        >>> lazy_layer_names(nn.Sequential(nn.Flatten(), nn.LazyLinear(2)))
        ['1']
    """
    return [
        name or type(module).__name__
        for name, module in named_layers(model)
        if any(is_lazy(value) for value in module.parameters(recurse=False))
        or any(is_lazy(value) for value in module.buffers(recurse=False))
    ]


def materialize_lazy(model: nn.Module, shape: tuple[int, int, int]) -> None:
    """Give the lazy layers of a network their shapes, in place, by a run on zeros.

    A network without lazy layers is not run.

    Args:
        model: Any network, in any mode; modes and random states stay the same.
        shape: Channels, height and width of an image.

    Raises:
        GeometryError: The network does not accept these images, or does not run one of
            its lazy layers.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.LazyLinear(2))
        >>> materialize_lazy(model, (1, 4, 4))
        >>> model[1]
        Linear(in_features=16, out_features=2, bias=True)
    """
    if not lazy_layer_names(model):
        return
    channels, height, width = shape
    size = f"{height}×{width}×{channels}"
    try:
        _run(model, torch.zeros(1, *shape))
    except Exception as error:  # the code of a user may raise anything
        text = str(error).partition("\n")[0]
        what = f"lazy layers need a run, which fails on images of {size}: {text}"
        fix = "change the image size or the number of channels"
        raise GeometryError(what, where=type(model).__name__, fix=fix) from error
    if names := lazy_layer_names(model):
        what = f"the lazy layer {names[0]} has no shape: the forward pass does not run"
        fix = "replace it by a layer with a fixed input size, or remove it"
        raise GeometryError(f"{what} it", where=names[0], fix=fix)


def _run(model: nn.Module, x: torch.Tensor) -> None:
    """Run a network once; its initial weights come from torch's random state."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            model(x)
    finally:
        for module, training in modes:
            module.training = training
