"""Which layers still have height and width, and which of them to ask by default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from striate.core.errors import GeometryError, SettingError
from striate.core.hooks import evaluation_mode, intercept_outputs, leaf_module_names
from striate.interpret.activations_at import check_batch, chosen, forward, module_of

AUTO = "auto"
FINE = 4  # cells a side: maps of fewer say little about where


@dataclass(frozen=True, kw_only=True)
class TargetLayer:
    """A layer's call, the shape of its output, and why it was taken.

    Args:
        call: Such as `conv5.1.relu`, or `relu #2`.
        shape: (channels, height, width).
        why: In words.
    """

    call: str
    shape: tuple[int, ...]
    why: str


def calls_of(model: nn.Module, x: Tensor) -> dict[str, tuple[int, ...]]:
    """Return every call of every module and its output's shape, as they end.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten())
        >>> calls_of(model, torch.zeros(1, 1, 5, 5))
        {'0': (2, 3, 3), '1': (18,)}
    """
    return _heard(model, x)[0]


def _heard(
    model: nn.Module, x: Tensor
) -> tuple[dict[str, tuple[int, ...]], str | None]:
    """Return all calls and shapes, and the last call that made a fine map, or any."""
    check_batch(x)
    shapes: dict[str, tuple[int, ...]] = {}
    last: list[tuple[str, Tensor]] = []
    fine: list[str] = []
    inner = set(leaf_module_names(model))

    def note(call: str, output: object) -> None:
        if not isinstance(output, Tensor):
            return
        shapes[call] = tuple(output.shape[1:])
        # A container that hands its last layer's map on has made none.
        own = module_of(call) in inner or not last or last[0][1] is not output
        if not _is_map(shapes[call]):
            return
        if own:
            last[:] = [(call, output)]
        if own and min(shapes[call][1:]) >= FINE:
            fine[:] = [call]

    names = [name for name, _ in model.named_modules() if name]
    with evaluation_mode(model), intercept_outputs(model, names, note), torch.no_grad():
        forward(model, x[:1])
    if not fine:
        return shapes, last[0][0] if last else None
    return shapes, fine[0]


def _is_map(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and shape[1] * shape[2] > 1


def place(model: nn.Module, x: Tensor, layer: str = AUTO) -> TargetLayer:
    """Return the layer to look at: the one named, or the last whose maps are fine.

    Fine is 4×4 cells or more; where no layer has that, the last with height and width.

    Raises:
        UnknownNameError: No layer has this name; lists the right ones.
        GeometryError: Its output has no height and width, or no layer's has.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten())
        >>> place(model, torch.zeros(1, 1, 5, 5)).call
        '1'
    """
    shapes, call = _heard(model, x)
    spatial = {name: shape for name, shape in shapes.items() if _is_map(shape)}
    if layer != AUTO:
        return _named(layer, shapes, spatial, model)
    if call is None:
        what = "no layer's output has height and width"
        raise GeometryError(what, fix="occlusion and integrated gradients need none")
    few = min(spatial[call][1:]) < FINE
    what = "with height and width" if few else f"with maps of {FINE}×{FINE} or finer"
    why = f"the last layer {what}, {_text(spatial[call])}"
    return TargetLayer(call=call, shape=spatial[call], why=why)


def check_unit(
    call: str,
    unit: Sequence[int],
    shapes: Mapping[str, tuple[int, ...]],
    model: nn.Module,
) -> None:
    """Refuse a unit that a network does not have.

    Args:
        call: The layer.
        unit: (channel, row, column), or (number,) of a row of numbers.
        shapes: What `calls_of` returned.
        model: The network.

    Raises:
        UnknownNameError: No layer has this name; lists the right ones.
        SettingError: The layer has no such unit; says which it has.

    Example:
        >>> check_unit("0", (1,), {"0": (2,)}, nn.Sequential(nn.Flatten()))
    """
    if call not in shapes:
        chosen(model, call)  # refuses a name that no module has
        raise GeometryError(f"{call} gave no tensor here", where=call)
    shape = shapes[call]
    outside = any(not 0 <= i < n for i, n in zip(unit, shape, strict=False))
    if len(unit) != len(shape) or outside:
        ranges = " × ".join(f"0…{n - 1}" for n in shape)
        what = f"{call} has no unit {tuple(unit)}"
        raise SettingError(what, where=call, fix=f"units are {ranges}")


def _named(
    layer: str,
    shapes: Mapping[str, tuple[int, ...]],
    spatial: Mapping[str, tuple[int, ...]],
    model: nn.Module,
) -> TargetLayer:
    if layer in spatial:
        return TargetLayer(call=layer, shape=spatial[layer], why="as asked")
    chosen(model, layer)  # refuses a name that no module has
    fix = f"these have: {', '.join(spatial)}"
    if layer in shapes:
        what = f"{layer} gives {_text(shapes[layer])}, which is no map"
        raise GeometryError(what, where=layer, fix=fix)
    raise GeometryError(f"{layer} gave no tensor here", where=layer, fix=fix)


def _text(shape: tuple[int, ...]) -> str:
    ordered = (*shape[1:], shape[0]) if len(shape) == 3 else shape
    return "×".join(map(str, ordered)) or "a single number"
