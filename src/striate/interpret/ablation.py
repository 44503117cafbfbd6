"""Ablation of channels: replace channels of a layer, and compare the logits.

A channel is set to zero or to its mean over the images. The change of the logits shows
how much the network depends on the channel (Morcos et al. 2018).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from striate.core.errors import GeometryError, SettingError
from striate.core.hooks import Visit, evaluation_mode, intercept_outputs
from striate.core.logits import logits_of
from striate.interpret.activations_at import forward, module_name
from striate.interpret.layer_choice import check_layer, layer_shapes, target_layer

REPLACEMENTS = ("zero", "mean")


@dataclass(frozen=True, kw_only=True)
class ChannelAblation:
    """Logits of a network before and after the ablation of channels."""

    layer: str
    channels: tuple[int, ...]
    replacement: str  # `zero` or `mean`
    values: tuple[float, ...]  # value that replaces each channel
    before: Tensor  # (N, classes): logits of the network
    after: Tensor  # (N, classes): logits with the channels replaced

    @property
    def logit_change(self) -> Tensor:
        """Return the mean change of each logit, (classes,)."""
        return (self.after - self.before).mean(0)

    @property
    def changed_predictions(self) -> int:
        """Return the number of images whose predicted class changes."""
        return int((self.before.argmax(1) != self.after.argmax(1)).sum())

    def accuracy(self, labels: Tensor) -> tuple[float, float]:
        """Return the accuracy before and after the ablation."""
        correct = [
            logits.argmax(1) == labels.cpu() for logits in (self.before, self.after)
        ]
        before, after = (float(part.double().mean()) for part in correct)
        return before, after


def ablate_channels(
    model: nn.Module,
    batches: Sequence[Tensor],
    layer: str,
    channels: int | Sequence[int],
    replacement: str = "zero",
) -> ChannelAblation:
    """Replace channels of a layer by a constant; return the logits before and after.

    Args:
        model: Any classifier; not modified.
        batches: Preprocessed images, (N, C, H, W) each.
        layer: Dotted name of a layer, or `relu #2` for a later call.
        channels: Channel number or numbers, from 0.
        replacement: `zero`, or `mean`: the mean of the channel over images and
            positions.

    Raises:
        UnknownNameError: No layer has this name; the message lists the names.
        SettingError: The channel or the replacement does not exist.
        GeometryError: The output of the layer has no channels.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2))
        >>> x = torch.tensor([[[[1.0, 3.0]]]])
        >>> result = ablate_channels(model, [x], "0", 1)
        >>> change = result.logit_change + 3 * model[1].weight[:, 1]
        >>> bool(change.abs().max() < 1e-6)
        True
    """
    if replacement not in REPLACEMENTS:
        what = f"'{replacement}' is not a replacement of a channel"
        raise SettingError(what, where="replacement", fix="use zero or mean")
    numbers = (channels,) if isinstance(channels, int) else tuple(channels)
    axis = _channel_axis(model, batches[0], layer, numbers)
    means = torch.zeros(len(numbers), dtype=torch.float64)
    before, count = [], 0

    def measure(call: str, output: object) -> None:
        if call == layer and isinstance(output, Tensor):
            picked = output.detach().movedim(axis, 0)[list(numbers)].flatten(1)
            means.add_(picked.double().mean(1).cpu(), alpha=len(output))

    def replace(call: str, output: object) -> Tensor | None:
        if call != layer or not isinstance(output, Tensor):
            return None
        changed = output.clone()
        for number, value in zip(numbers, values, strict=True):
            changed.select(axis, number).fill_(value)
        return changed

    with evaluation_mode(model), torch.no_grad():
        for x in batches:
            before.append(_logits(model, x, layer, measure))
            count += len(x)
        is_mean = replacement == "mean"
        values = (means / count).tolist() if is_mean else [0.0] * len(numbers)
        after = [_logits(model, x, layer, replace) for x in batches]
    return ChannelAblation(
        layer=layer,
        channels=numbers,
        replacement=replacement,
        values=tuple(values),
        before=torch.cat(before),
        after=torch.cat(after),
    )


def _logits(model: nn.Module, x: Tensor, layer: str, visit: Visit) -> Tensor:
    """Return the logits of a batch; `visit` sees the outputs of a layer."""
    with intercept_outputs(model, [module_name(layer)], visit):
        return logits_of(forward(model, x)).float().cpu()


def _channel_axis(
    model: nn.Module, x: Tensor, layer: str, channels: Sequence[int]
) -> int:
    """Return the axis of the channels in a layer's output; check the channels."""
    shapes = layer_shapes(model, x[:1])
    check_layer(layer, shapes, model)
    shape = shapes[layer]
    axis = 1
    if len(shape) > 1:
        axis = target_layer(model, x[:1], layer).layout.channel_axis
    if not shape:
        raise GeometryError(f"the output of {layer} has no channels", where=layer)
    count = shape[axis - 1]
    for channel in channels:
        if not 0 <= channel < count:
            what = f"{layer} has no channel {channel}"
            raise SettingError(what, where=layer, fix=f"valid channels: 0…{count - 1}")
    return axis
