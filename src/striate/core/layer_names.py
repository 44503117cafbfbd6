"""Dotted names of the layers of a network, without the wrappers of `torch.compile`."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

_WRAPPED = "_orig_mod"  # name of a network inside of what `torch.compile` returns


def layer_name(name: str) -> str:
    """Return a dotted name of a layer without the parts that `torch.compile` adds.

    Example:
        >>> layer_name("_orig_mod.body._orig_mod.0"), layer_name("body.0")
        ('body.0', 'body.0')
    """
    if _WRAPPED not in name:
        return name
    return ".".join(part for part in name.split(".") if part != _WRAPPED)


def named_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield names and modules like `named_modules`, but no wrappers of `torch.compile`.

    Example:
        >>> [name for name, _ in named_layers(nn.Sequential(nn.ReLU()))]
        ['', '0']
    """
    for name, module in model.named_modules():
        inner = module._modules
        # A TorchScript module has another kind of table.
        if not (isinstance(inner, dict) and inner.get(_WRAPPED) is not None):
            yield layer_name(name), module


def layer_at(model: nn.Module, name: str) -> nn.Module:
    """Return the layer with a dotted name, like `get_submodule`.

    Example:
        >>> layer_at(nn.Sequential(nn.ReLU()), "0")
        ReLU()
    """
    return dict(named_layers(model))[name]
