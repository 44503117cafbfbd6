"""Choose the target layer of CAM methods, list output shapes, check unit indices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from striate.core.errors import GeometryError, SettingError
from striate.core.hooks import evaluation_mode, intercept_outputs, leaf_module_names
from striate.interpret.activations_at import (
    check_image_batch,
    forward,
    match_layers,
    module_name,
)

AUTO = "auto"
MIN_SIDE = 4  # smallest map, 4×4 cells, that is chosen automatically


@dataclass(frozen=True, kw_only=True)
class TargetLayer:
    """Target layer of a CAM method, with output shape and reason for the choice."""

    call: str
    shape: tuple[int, ...]
    reason: str


def layer_shapes(model: nn.Module, x: Tensor) -> dict[str, tuple[int, ...]]:
    """Return the output shape of every module call, in the order in which calls end.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten())
        >>> layer_shapes(model, torch.zeros(1, 1, 5, 5))
        {'0': (2, 3, 3), '1': (18,)}
    """
    return _run_once(model, x)[0]


def layers_with_maps(model: nn.Module, x: Tensor) -> list[str]:
    """Return the layers with feature maps in forward order, without containers.

    Example:
        >>> model = nn.Sequential(nn.Sequential(nn.Conv2d(1, 2, 3)), nn.Flatten())
        >>> layers_with_maps(model, torch.zeros(1, 1, 5, 5))
        ['0.0']
    """
    maps = [call for call, shape in layer_shapes(model, x).items() if _is_map(shape)]
    return [call for call in maps if not any(m.startswith(f"{call}.") for m in maps)]


def _run_once(
    model: nn.Module, x: Tensor
) -> tuple[dict[str, tuple[int, ...]], str | None]:
    """Return all calls' output shapes, and the last call with a map of at least 4×4."""
    check_image_batch(x)
    shapes: dict[str, tuple[int, ...]] = {}
    last: list[tuple[str, Tensor]] = []
    fine_calls: list[str] = []
    inner = set(leaf_module_names(model))

    def record(call: str, output: object) -> None:
        if not isinstance(output, Tensor):
            return
        shapes[call] = tuple(output.shape[1:])
        # A container that returns its last layer's map made no new one.
        is_new = module_name(call) in inner or not last or last[0][1] is not output
        if not _is_map(shapes[call]):
            return
        if is_new:
            last[:] = [(call, output)]
        if is_new and min(shapes[call][1:]) >= MIN_SIDE:
            fine_calls[:] = [call]

    names = [name for name, _ in model.named_modules() if name]
    with (
        evaluation_mode(model),
        intercept_outputs(model, names, record),
        torch.no_grad(),
    ):
        forward(model, x[:1])
    if not fine_calls:
        return shapes, last[0][0] if last else None
    return shapes, fine_calls[0]


def _is_map(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and shape[1] * shape[2] > 1


def target_layer(model: nn.Module, x: Tensor, layer: str = AUTO) -> TargetLayer:
    """Return the named layer, or the last layer with maps of at least 4×4 cells.

    If no map is that large, the last layer with height and width is returned.

    Raises:
        UnknownNameError: No layer has this name; the message lists the names.
        GeometryError: The output has no height and width.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten())
        >>> target_layer(model, torch.zeros(1, 1, 5, 5)).call
        '1'
    """
    shapes, call = _run_once(model, x)
    spatial = {name: shape for name, shape in shapes.items() if _is_map(shape)}
    if layer != AUTO:
        return _layer_by_name(layer, shapes, spatial, model)
    if call is None:
        what = "no layer's output has height and width"
        fix = "use occlusion or integrated_gradients, which need no layer"
        raise GeometryError(what, fix=fix)
    is_coarse = min(spatial[call][1:]) < MIN_SIDE
    fine = f"with maps of {MIN_SIDE}×{MIN_SIDE} or finer"
    what = "with height and width" if is_coarse else fine
    reason = f"the last layer {what}, {_text(spatial[call])}"
    return TargetLayer(call=call, shape=spatial[call], reason=reason)


def check_unit(
    call: str,
    unit: Sequence[int],
    shapes: Mapping[str, tuple[int, ...]],
    model: nn.Module,
) -> None:
    """Raise an error if a layer has no unit with this index.

    Raises:
        UnknownNameError: No layer has this name; the message lists the names.
        SettingError: The layer has no such unit; the message gives the ranges.

    Example:
        >>> check_unit("0", (1,), {"0": (2,)}, nn.Sequential(nn.Flatten()))
    """
    if call not in shapes:
        match_layers(model, call)  # raises for a name that no module has
        raise GeometryError(f"{call} returned no tensor for this image", where=call)
    check_index(call, unit, shapes[call])


def check_index(call: str, unit: Sequence[int], shape: Sequence[int]) -> None:
    """Raise an error with the valid index ranges if an index is outside of a tensor."""
    outside = any(not 0 <= i < n for i, n in zip(unit, shape, strict=False))
    if len(unit) != len(shape) or outside:
        ranges = " × ".join(f"0…{n - 1}" for n in shape)
        what = f"{call} has no unit {tuple(unit)}"
        raise SettingError(what, where=call, fix=f"valid units: {ranges}")


def _layer_by_name(
    layer: str,
    shapes: Mapping[str, tuple[int, ...]],
    spatial: Mapping[str, tuple[int, ...]],
    model: nn.Module,
) -> TargetLayer:
    if layer in spatial:
        return TargetLayer(call=layer, shape=spatial[layer], reason="given by name")
    match_layers(model, layer)  # raises for a name that no module has
    fix = f"layers with maps: {', '.join(spatial)}"
    what = f"{layer} returned no tensor for this image"
    if layer in shapes:
        output = _text(shapes[layer])
        what = f"{layer} has the output {output}, which is not a feature map"
    raise GeometryError(what, where=layer, fix=fix)


def _text(shape: tuple[int, ...]) -> str:
    ordered = (*shape[1:], shape[0]) if len(shape) == 3 else shape
    return "×".join(map(str, ordered)) or "a scalar"
