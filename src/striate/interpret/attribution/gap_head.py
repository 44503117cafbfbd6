"""Networks that end in global average pooling, whose class maps are exact (CAM)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from striate.core.errors import GeometryError
from striate.core.hooks import call_name, evaluation_mode, trace_modules
from striate.interpret.activations_at import check_batch, forward
from striate.interpret.attribution.target import logits_of

_RELATIVE, _ABSOLUTE = 1e-4, 1e-6  # rounding of the mean, taken in another order


@dataclass(frozen=True, kw_only=True)
class Ending:
    """The last maps, and the layer that makes class scores of their means.

    Args:
        call: The layer that gave the maps.
        maps: (N, channels, height, width).
        weight: (classes, channels) of the last layer.
        bias: (classes,), or one zero where there is none.
        logits: (N, classes).
    """

    call: str
    maps: Tensor
    weight: Tensor
    bias: Tensor
    logits: Tensor

    def class_maps(self, classes: Tensor | None = None) -> Tensor:
        """Return CAMs: each cell's share of the logit (Zhou et al. 2016, equation 2).

        A class's map, added up, and its bias make its logit.

        Args:
            classes: Which; all where None.

        Shapes:
            → (N, classes, height, width)
        """
        weight = self.weight if classes is None else self.weight[classes]
        cells = self.maps.shape[2] * self.maps.shape[3]
        return torch.einsum("ck,nkhw->nchw", weight, self.maps / cells)


def ending(model: nn.Module, x: Tensor) -> Ending:
    """Run a batch once; find the pooled maps by what was computed, not by names.

    It ends so where the last linear layer gives the logits and was given the means of
    the last maps, or where the means are the logits; how they were taken, by a module
    or `x.mean((2, 3))`, does not matter.

    Raises:
        GeometryError: The network does not end in global average pooling.

    Example:
        >>> tail = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3)
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), *tail)
        >>> found = ending(model, torch.rand(1, 1, 6, 6))
        >>> found.call, tuple(found.class_maps().shape)
        ('0', (1, 3, 4, 4))
    """
    check_batch(x)
    listener = _Listener()
    with (
        evaluation_mode(model),
        # One hook for all: a handle for each layer takes as long as a small network.
        trace_modules(model, leave=listener.hear),
        torch.inference_mode(False),  # whose tensors do not count their versions
        torch.no_grad(),
    ):
        logits = logits_of(forward(model, x))
    return listener.found(logits)


class _Listener:
    """Keeps the last maps and what the last dense layer made.

    It hears every layer of every image, so names are put together at the end.
    """

    def __init__(self) -> None:
        self._order: list[str] = []
        self._maps: Tensor | None = None
        self._when = self._version = 0
        self._dense: tuple[nn.Linear, Tensor] | None = None

    def hear(self, name: str, module: nn.Module, output: object) -> None:
        """Take note of one call."""
        self._order.append(name)
        if not name or not isinstance(output, Tensor):
            return
        shape = output.shape
        if len(shape) == 4 and (shape[2] > 1 or shape[3] > 1):
            # A container that hands its last layer's maps on gives them no new name.
            if output is not self._maps or not module._modules:
                self._maps, self._version = output, output._version
                self._when = len(self._order)
        elif isinstance(module, nn.Linear):
            self._dense = module, output

    def found(self, logits: Tensor) -> Ending:
        """Return the ending, checked on the numbers.

        Raises:
            GeometryError: The numbers do not agree.
        """
        if self._maps is None:
            raise _other("there are no maps")
        maps, heard = self._maps, self._order[: self._when]
        call = call_name(heard[-1], heard.count(heard[-1]))
        if maps._version != self._version:
            raise _other(f"{call} is written to before it is averaged")
        means = maps.mean((2, 3))
        if _same(means, logits):
            weight, bias = torch.eye(means.shape[1]).to(means), means.new_zeros(1)
            return Ending(call=call, maps=maps, weight=weight, bias=bias, logits=logits)
        if self._dense is None or self._dense[0].in_features != means.shape[1]:
            raise _other(f"no linear layer takes the means of {call}")
        module, output = self._dense
        weight = module.weight.detach()
        bias = weight.new_zeros(1) if module.bias is None else module.bias.detach()
        weighed = F.linear(means, weight) + bias
        if not (_same(output, logits) and _same(weighed, logits)):
            raise _other("its last layer does more than average maps and weigh them")
        return Ending(call=call, maps=maps, weight=weight, bias=bias, logits=logits)


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=_RELATIVE, atol=_ABSOLUTE)


def _other(why: str) -> GeometryError:
    what = f"the network does not end in global average pooling: {why}"
    return GeometryError(what, fix="use gradcam, which needs none and equals CAM there")
