"""Tree of the layers of a network with their constructor arguments, for `--code`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from striate.audit.sketch_parser import Add, Concatenate
from striate.core.errors import SettingError
from striate.layers.inception import Inception
from striate.layers.inverted_residual import InvertedResidual
from striate.layers.residual import Residual
from striate.models.classifier import ImageClassifier
from striate.models.googlenet import GoogLeNet
from striate.workflows.summary.code_layers import SOURCES, special_arguments

# Layers with children whose forward pass `--code` can write.
BLOCKS = (Residual, InvertedResidual, Inception, Concatenate, Add, GoogLeNet)
SEQUENCES = (nn.Sequential, ImageClassifier)


@dataclass(frozen=True, kw_only=True)
class LayerNode:
    """A layer: its module, constructor arguments and child layers."""

    module: nn.Module = field(repr=False)
    arguments: dict[str, Any] = field(default_factory=dict)  # of a layer without code
    defaults: dict[str, Any] = field(default_factory=dict)  # of these arguments
    children: tuple[tuple[str, LayerNode], ...] = ()

    @property
    def is_sequence(self) -> bool:
        """Return whether the layer runs its children one after the other."""
        return isinstance(self.module, SEQUENCES)

    @property
    def structure(self) -> tuple[Any, ...]:
        """Return what equal code needs: types and names, without argument values."""
        inside = tuple((name, child.structure) for name, child in self.children)
        shortcut = getattr(self.module, "use_shortcut", None)
        return type(self.module), shortcut, inside

    def values(self, path: str = "") -> dict[str, Any]:
        """Return all argument values of the layer and its children, by path."""
        values = {f"{path}{name}": value for name, value in self.arguments.items()}
        for name, child in self.children:
            values |= child.values(f"{path}{name}.")
        return values

    def default_values(self, path: str = "") -> dict[str, Any]:
        """Return the default values of arguments that have one, by path."""
        values = {f"{path}{name}": value for name, value in self.defaults.items()}
        for name, child in self.children:
            values |= child.default_values(f"{path}{name}.")
        return values

    def walk(self) -> Iterator[LayerNode]:
        """Yield the layer and all layers below it, parents first."""
        yield self
        for _, child in self.children:
            yield from child.walk()


def layer_tree(module: nn.Module) -> LayerNode:
    """Return the layers of a network as a tree.

    Raises:
        SettingError: A layer is of another library or of the user.

    Example:
        >>> tree = layer_tree(nn.Sequential(nn.Conv2d(1, 4, 3, padding=1)))
        >>> tree.values()["0.kernel_size"], tree.values()["0.padding"]
        (3, 1)
    """
    kind = type(module)
    if kind in BLOCKS or kind in SEQUENCES or isinstance(module, ImageClassifier):
        children = tuple((n, layer_tree(child)) for n, child in module.named_children())
        return LayerNode(module=module, children=children)
    if kind in SOURCES:
        arguments = special_arguments(module)
        return LayerNode(module=module, arguments=arguments)
    if not kind.__module__.startswith("torch.nn.") or list(module.children()):
        what = f"striate has no code for layers of the type {kind.__qualname__}"
        fix = "use a network listed by `striate models`, or a sketch"
        raise SettingError(what, where="--code", fix=fix)
    return _torch_layer(module)


def _torch_layer(module: nn.Module) -> LayerNode:
    """Return a layer of torch; its attributes have the names of its arguments."""
    arguments, defaults = {}, {}
    for name, parameter in inspect.signature(type(module)).parameters.items():
        if name in ("device", "dtype") or not hasattr(module, name):
            continue
        value = getattr(module, name)
        arguments[name] = value is not None if name == "bias" else _plain(value)
        if parameter.default is not inspect.Parameter.empty:
            defaults[name] = parameter.default
    if "stride" in defaults and defaults["stride"] is None:  # of a pooling layer
        defaults["stride"] = arguments["kernel_size"]
    return LayerNode(module=module, arguments=arguments, defaults=defaults)


def _plain(value: Any) -> Any:
    """Return one number for a tuple of equal numbers, as in a square kernel.

    Example:
        >>> _plain((3, 3)), _plain((3, 5)), _plain(0.5)
        (3, (3, 5), 0.5)
    """
    is_square = isinstance(value, tuple) and len(set(value)) == 1 and len(value) == 2
    return value[0] if is_square else value
