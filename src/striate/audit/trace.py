"""Shapes and parameters of every layer, found without weights or arithmetic."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from striate.core.errors import GeometryError
from striate.core.taps import tapped, untouched


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer as it ran: where it stands, what it is, what it gave out.

    Args:
        name: Dotted name in the model.
        kind: The module's class.
        output: Shape of one picture's output, without the batch.
        parameters: Numbers it holds, trainable or not, counted at first use.
        trainable: Those of them that learn.
    """

    name: str
    kind: str
    output: tuple[int, ...]
    parameters: int
    trainable: int


def trace(model: nn.Module, shape: tuple[int, int, int]) -> tuple[Layer, ...]:
    """Return a network's layers in the order they run.

    A layer is a module without modules inside, or one with parameters of its own.

    A copy on torch's meta device runs, so no arithmetic is done and the model is
    neither changed nor moved.

    Args:
        model: Any network.
        shape: (channels, height, width) of one picture.

    Raises:
        GeometryError: The network refuses a picture of this shape.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten())
        >>> [layer.output for layer in trace(model, (1, 5, 5))]
        [(4, 3, 3), (36,)]
    """
    ghost = copy.deepcopy(model).to("meta")
    modules = dict(ghost.named_modules())
    rows: list[Layer] = []
    counted: set[int] = set()

    def note(name: str, output: Tensor) -> None:
        rows.append(_layer(name, modules[name], output, counted))

    holders = [name for name, module in modules.items() if _holds(module)]
    with untouched(ghost), tapped(ghost, holders, note), torch.no_grad():
        try:
            ghost(torch.empty(1, *shape, device="meta"))
        except (RuntimeError, ValueError) as error:
            place = f"after {rows[-1].name}" if rows else "at the first layer"
            size = "×".join(map(str, shape))
            reason = str(error).splitlines()[0]
            what = f"the network cannot take pictures of {size}: {reason}"
            raise GeometryError(what, where=place) from error
    return tuple(rows)


def _holds(module: nn.Module) -> bool:
    """Tell a layer from a mere container: no modules inside, or numbers of its own."""
    own = next(module.parameters(recurse=False), None)
    return own is not None or not any(module.children())


def _layer(name: str, module: nn.Module, output: Tensor, counted: set[int]) -> Layer:
    own = list(_uncounted(module, counted))
    return Layer(
        name=name or "(model)",
        kind=type(module).__name__,
        output=tuple(output.shape[1:]),
        parameters=sum(p.numel() for p in own),
        trainable=sum(p.numel() for p in own if p.requires_grad),
    )


def _uncounted(module: nn.Module, counted: set[int]) -> Iterator[nn.Parameter]:
    for parameter in module.parameters(recurse=False):
        if id(parameter) not in counted:
            counted.add(id(parameter))
            yield parameter
