"""Choose the target layer of CAM methods, list output shapes, check unit indices."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from striate.core.errors import GeometryError, SettingError
from striate.core.format import count_text
from striate.core.hooks import evaluation_mode, intercept_outputs, leaf_module_names
from striate.core.layer_names import layer_name, named_layers
from striate.interpret.activations_at import (
    check_image_batch,
    match_layers,
    module_name,
    run_model,
)
from striate.interpret.spatial_layout import PositionTracker, SpatialLayout
from striate.interpret.trace import attention_as_operations

AUTO = "auto"
MIN_SIDE = 4  # smallest map, 4×4 cells, that is chosen automatically
# Layout of outputs with the shape (N, channels, height, width).
NCHW = SpatialLayout(channel_axis=1, size=(0, 0))


@dataclass(frozen=True, kw_only=True)
class TargetLayer:
    """Target layer of a CAM method, with output shape and reason for the choice."""

    call: str
    shape: tuple[int, ...]
    reason: str
    layout: SpatialLayout = field(default=NCHW, repr=False)


@dataclass(frozen=True, kw_only=True)
class _LayerOutputs:
    """Output shapes and spatial layouts of all module calls of one forward pass."""

    shapes: dict[str, tuple[int, ...]]  # without the batch, in the order of call ends
    layouts: dict[str, SpatialLayout]  # of the calls whose output has height and width
    new: tuple[str, ...]  # calls with maps that no inner module returned before

    def text(self, call: str) -> str:
        """Return the shape of a layer's maps as text."""
        layout, shape = self.layouts[call], self.shapes[call]
        channels = shape[layout.channel_axis - 1]
        if len(shape) == 2:
            return f"{count_text(channels, 'channel')} of {_text(layout.size)} tokens"
        text = _text((channels, *layout.size))
        if layout.assumed:
            return f"{text} (assumed to be channels × height × width)"
        return text


def layer_shapes(model: nn.Module, x: Tensor) -> dict[str, tuple[int, ...]]:
    """Return the output shape of every module call, in the order in which calls end.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten())
        >>> layer_shapes(model, torch.zeros(1, 1, 5, 5))
        {'0': (2, 3, 3), '1': (18,)}
    """
    return _run_once(model, x).shapes


def layers_with_maps(model: nn.Module, x: Tensor) -> list[str]:
    """Return the layers with feature maps in forward order, without containers.

    Feature maps have the shape (channels, height, width). Outputs with the channels
    last, tokens and attention weights are left out.

    Example:
        >>> model = nn.Sequential(nn.Sequential(nn.Conv2d(1, 2, 3)), nn.Flatten())
        >>> layers_with_maps(model, torch.zeros(1, 1, 5, 5))
        ['0.0']
    """
    outputs = _run_once(model, x)
    maps = [
        call
        for call, layout in outputs.layouts.items()
        if layout.channels_first(len(outputs.shapes[call]) + 1)
    ]
    return [call for call in maps if not any(m.startswith(f"{call}.") for m in maps)]


def _run_once(model: nn.Module, x: Tensor) -> _LayerOutputs:
    """Run one image; return the shapes and the spatial layouts of all layer outputs."""
    check_image_batch(x)
    shapes: dict[str, tuple[int, ...]] = {}
    layouts: dict[str, SpatialLayout] = {}
    new: list[str] = []
    last: list[Tensor] = []
    inner = set(leaf_module_names(model))

    def record(call: str, output: object) -> None:
        if not isinstance(output, Tensor):
            return
        shapes[call] = tuple(output.shape[1:])
        layout = tracker.layout(output)
        if layout is None or layout.size[0] * layout.size[1] < 2:
            return
        layouts[call] = layout
        # A container that returns its last layer's maps made no new ones.
        if module_name(call) in inner or not last or last[0] is not output:
            last[:] = [output]
            new.append(call)

    names = [name for name, _ in named_layers(model) if name]
    with (
        evaluation_mode(model),
        attention_as_operations(),
        intercept_outputs(model, names, record),
        torch.inference_mode(False),
        torch.no_grad(),
    ):
        x = x[:1].clone()
        with PositionTracker(x) as tracker:
            run_model(model, x)
    return _LayerOutputs(shapes=shapes, layouts=layouts, new=tuple(new))


def target_layer(
    model: nn.Module,
    x: Tensor,
    layer: str = AUTO,
    is_useful: Callable[[TargetLayer], bool] = lambda layer: True,
) -> TargetLayer:
    """Return the named layer, or the last layer with maps of at least 4×4 cells.

    If no map is that large, the last layer with height and width is returned. Tokens
    count as maps only if they are the output of a block, such as `blocks.10`.

    Args:
        model: Any network; not modified.
        x: Images, (N, C, H, W); the first is used.
        layer: Dotted name, or `auto`.
        is_useful: With `auto`, layers of a transformer are passed over until this
            function returns True: the score may depend on a class token only.

    Raises:
        UnknownNameError: No layer has this name; the message lists the names.
        GeometryError: The output has no height and width.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten())
        >>> target_layer(model, torch.zeros(1, 1, 5, 5)).call
        '1'
    """
    outputs = _run_once(model, x)
    if layer != AUTO:
        return _layer_by_name(layer, outputs, model)
    leaves = set(leaf_module_names(model))
    has_tokens = any(len(outputs.shapes[call]) == 2 for call in outputs.layouts)
    for call in _candidates(outputs, leaves):
        layout, shape = outputs.layouts[call], outputs.shapes[call]
        is_coarse = min(layout.size) < MIN_SIDE
        fine = f"with maps of {MIN_SIDE}×{MIN_SIDE} or finer"
        what = "with height and width" if is_coarse else fine
        reason = f"the last layer {what}, {outputs.text(call)}"
        candidate = TargetLayer(call=call, shape=shape, reason=reason, layout=layout)
        if not has_tokens or is_useful(candidate):
            return candidate
    what = "no layer's output has height and width"
    fix = "use occlusion or integrated_gradients, which need no layer"
    raise GeometryError(what, fix=fix)


def _candidates(outputs: _LayerOutputs, leaves: set[str]) -> list[str]:
    """Return the layers with maps, best first: fine maps before coarse, last first."""
    calls = [
        call
        for call in reversed(outputs.new)
        if len(outputs.shapes[call]) == 3 or module_name(call) not in leaves
    ]
    known = [call for call in calls if not outputs.layouts[call].assumed] or calls
    fine = [c for c in known if min(outputs.layouts[c].size) >= MIN_SIDE]
    return [*fine, *(call for call in known if call not in set(fine))]


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
    check_layer(call, shapes, model)
    check_index(call, unit, shapes[call])


def check_layer(
    call: str, shapes: Mapping[str, tuple[int, ...]], model: nn.Module
) -> None:
    """Raise an error if a layer did not return a tensor.

    Raises:
        UnknownNameError: No layer has this name; the message lists the names.
        GeometryError: The layer returned no tensor.
    """
    if call not in shapes:
        match_layers(model, call)  # raises for a name that no module has
        raise GeometryError(f"{call} returned no tensor for this image", where=call)


def check_index(call: str, unit: Sequence[int], shape: Sequence[int]) -> None:
    """Raise an error with the valid index ranges if an index is outside of a tensor."""
    outside = any(not 0 <= i < n for i, n in zip(unit, shape, strict=False))
    if len(unit) != len(shape) or outside:
        ranges = " × ".join(f"0…{n - 1}" for n in shape)
        what = f"{call} has no unit {tuple(unit)}"
        raise SettingError(what, where=call, fix=f"valid units: {ranges}")


def _layer_by_name(layer: str, outputs: _LayerOutputs, model: nn.Module) -> TargetLayer:
    shapes, layouts = outputs.shapes, outputs.layouts
    layer = layer_name(layer)
    if layer in layouts:
        reason = f"given by name, {outputs.text(layer)}"
        return TargetLayer(
            call=layer, shape=shapes[layer], reason=reason, layout=layouts[layer]
        )
    match_layers(model, layer)  # raises for a name that no module has
    fix = f"layers with maps: {', '.join(layouts)}"
    what = f"{layer} returned no tensor for this image"
    if layer in shapes:
        output = "×".join(map(str, shapes[layer])) or "a scalar"
        what = f"{layer} has the output {output}, which is not a feature map"
    raise GeometryError(what, where=layer, fix=fix)


def _text(shape: tuple[int, ...]) -> str:
    ordered = (*shape[1:], shape[0]) if len(shape) == 3 else shape
    return "×".join(map(str, ordered)) or "a scalar"
