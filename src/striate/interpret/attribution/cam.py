"""CAM: exact class activation maps for networks with global average pooling.

The map of class c is M_c(i, j) = Σₖ w_ck·A_k(i, j) / (height·width), with the last
activations A and the weights w of the linear layer after the pooling (Zhou et al. 2016,
equation 2). Its cells and the class's bias add up to the logit.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from striate.core.errors import GeometryError
from striate.core.hooks import call_name, evaluation_mode, trace_modules
from striate.core.logits import logits_of
from striate.interpret.activations_at import check_image_batch, forward
from striate.interpret.attribution.target import AttributionTarget
from striate.interpret.spatial_layout import SpatialLayout

_RELATIVE, _ABSOLUTE = 1e-4, 1e-6  # tolerance: the mean is summed in another order
_HALF_STEPS = 4  # tolerance for float16 and bfloat16, in rounding steps


@dataclass(frozen=True, kw_only=True)
class GapHead:
    """Inputs of a CAM: feature maps before global average pooling, and linear layer."""

    call: str  # name of the layer that returned the maps
    shape: tuple[int, ...]  # shape of its output, without the batch
    layout: SpatialLayout  # NCHW or channels-last
    maps: Tensor  # (N, channels, height, width)
    weight: Tensor  # (classes, channels) of the last linear layer
    bias: Tensor  # (classes,), or one zero if there is none
    logits: Tensor  # (N, classes)

    def class_maps(self, classes: Tensor | None = None) -> Tensor:
        """Return the CAMs: contributions of all map cells to the logits of classes.

        The sum over a class's map, plus its bias, is its logit.

        Shapes:
            → (N, classes, height, width)
        """
        weight = self.weight if classes is None else self.weight[classes]
        cells = self.maps.shape[2] * self.maps.shape[3]
        return torch.einsum("ck,nkhw->nchw", weight, self.maps / cells)


def find_gap_head(model: nn.Module, x: Tensor) -> GapHead:
    """Find the feature maps before global average pooling, and the last linear layer.

    The network is supported if the last linear layer takes the means of the last
    feature maps and returns the logits, or if the means are the logits. A module or
    `x.mean((2, 3))` may compute the means.

    Raises:
        GeometryError: The network does not end in global average pooling.

    Example:
        >>> tail = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3)
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), *tail)
        >>> gap_head = find_gap_head(model, torch.rand(1, 1, 6, 6))
        >>> gap_head.call, tuple(gap_head.class_maps().shape)
        ('0', (1, 3, 4, 4))
    """
    check_image_batch(x)
    recorder = _Recorder()
    with (
        evaluation_mode(model),
        # One hook for all layers: a hook per layer takes as long as a small network.
        trace_modules(model, leave=recorder.record),
        torch.inference_mode(False),  # inference tensors have no version counter
        torch.no_grad(),
    ):
        logits = logits_of(forward(model, x))
    return recorder.gap_head(logits)


class _Recorder:
    """Recorder of the last feature maps and of the last linear layer's output.

    The hook runs for every layer of every image, so call names are built at the end.
    """

    def __init__(self) -> None:
        self._order: list[str] = []
        self._maps: Tensor | None = None
        self._maps_position = self._version = 0
        self._dense: tuple[nn.Linear, Tensor] | None = None

    def record(self, name: str, module: nn.Module, output: object) -> None:
        """Record the output of one layer call."""
        self._order.append(name)
        if not name or not isinstance(output, Tensor):
            return
        shape = output.shape
        if len(shape) == 4 and (shape[2] > 1 or shape[3] > 1):
            # A container that returns its last layer's maps does not rename them.
            if output is not self._maps or not module._modules:
                self._maps, self._version = output, _version(output)
                self._maps_position = len(self._order)
        elif isinstance(module, nn.Linear):
            self._dense = module, output

    def gap_head(self, logits: Tensor) -> GapHead:
        """Return the recorded maps and linear layer; check the logits."""
        if self._maps is None:
            raise _no_gap_head("no layer has feature maps")
        output, calls_so_far = self._maps, self._order[: self._maps_position]
        call = call_name(calls_so_far[-1], calls_so_far.count(calls_so_far[-1]))
        if _version(output) != self._version:
            raise _no_gap_head(f"{call} is changed in place before the pooling")
        reasons = []
        for axis in (1, 3):
            layout = SpatialLayout(channel_axis=axis, size=_sides(output, axis))
            maps = layout.to_maps(output).float()
            result = self._weights(call, maps.mean((2, 3)), logits)
            if not isinstance(result, str):
                weight, bias = result
                return GapHead(
                    call=call,
                    shape=tuple(output.shape[1:]),
                    layout=layout,
                    maps=maps,
                    weight=weight,
                    bias=bias,
                    logits=logits,
                )
            reasons.append(result)
        raise _no_gap_head(reasons[0])

    def _weights(
        self, call: str, means: Tensor, logits: Tensor
    ) -> tuple[Tensor, Tensor] | str:
        """Return weight and bias from means to logits; else the reason as text."""
        if _close(means, logits):
            return torch.eye(means.shape[1]).to(means), means.new_zeros(1)
        if self._dense is None or self._dense[0].in_features != means.shape[1]:
            return f"no linear layer follows the pooling of {call}"
        module, output = self._dense
        weight = module.weight.detach().float()
        bias = weight.new_zeros(1) if module.bias is None else module.bias.detach()
        weighted = F.linear(means, weight) + bias
        if not (_close(output, logits) and _close(weighted, logits)):
            return "there are other operations between pooling and logits"
        return weight, bias


def _version(tensor: Tensor) -> int:
    """Return the number of writes into a tensor; 0 in inference mode."""
    return 0 if tensor.is_inference() else tensor._version


def _sides(output: Tensor, channel_axis: int) -> tuple[int, int]:
    height, width = (n for i, n in enumerate(output.shape[1:], 1) if i != channel_axis)
    return height, width


def _close(a: Tensor, b: Tensor) -> bool:
    """Return whether two results are equal, up to the rounding of their precision."""
    if a.shape != b.shape:
        return False
    rounding = max(torch.finfo(t.dtype).eps for t in (a, b))
    if rounding < _RELATIVE:
        return torch.allclose(a.double(), b.double(), rtol=_RELATIVE, atol=_ABSOLUTE)
    a, b = a.float(), b.float()
    return bool((a - b).abs().max() <= _HALF_STEPS * rounding * b.abs().max())


def _no_gap_head(reason: str) -> GeometryError:
    what = f"the network does not end in global average pooling: {reason}"
    return GeometryError(what, fix="use gradcam, which works for any network")


def cam_map(model: nn.Module, x: Tensor, target: AttributionTarget) -> Tensor:
    """Return the CAM of one image for a class, or for the difference of two classes.

    Shapes:
        (1, C, H, W) → (h, w)
    """
    gap_head = find_gap_head(model, x)

    def class_map(index: int) -> Tensor:
        return gap_head.class_maps(torch.tensor([index], device=x.device))[0, 0]

    own = class_map(target.class_index)
    return (
        own if target.against_index is None else own - class_map(target.against_index)
    )
