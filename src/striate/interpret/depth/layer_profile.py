"""Magnitude of activations and gradients by layer, to find vanishing gradients.

A gradient that passed L layers is a product of L Jacobians (Glorot and Bengio 2010,
section 4.2.1). If each is smaller than one, the first layers do not learn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log, nan

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from striate.core.aux_heads import HeadOutputs, total_loss
from striate.core.hooks import evaluation_mode, intercept_outputs
from striate.core.layer_names import named_layers
from striate.core.logits import logits_of
from striate.interpret.activations_at import check_image_batch, forward


@dataclass(frozen=True, kw_only=True)
class LayerProfile:
    """Magnitude of activation, gradient and update of one layer, for a batch."""

    name: str  # name of the call, such as `conv1` or `again #2`
    depth: int  # number of the layer, 1 at the input
    activation: float  # root mean square (RMS) of the layer's output
    # RMS of the gradient of one image's loss with respect to the output.
    gradient: float
    # Norm of the weight's gradient divided by the norm of the weight: the relative
    # change by a step with learning rate 1; nan for frozen weights.
    update: float


def depth_profile(
    model: nn.Module,  # any classifier; not modified
    x: Tensor,  # preprocessed images
    labels: Tensor,  # class indices
    # Run in training mode, with batch statistics in batch norm; running statistics are
    # restored.
    training: bool = False,
) -> list[LayerProfile]:
    """Measure activations and gradients of every layer with weights, for one batch.

    `.grad` is not changed. Gradients also pass through frozen layers.

    Shapes:
        x: (N, C, H, W); labels: (N,)

    Raises:
        GeometryError: The network rejects the batch, or its output is not class scores.

    Example:
        >>> pairs = [(nn.Linear(4, 4), nn.Sigmoid()) for _ in range(8)]
        >>> deep = [layer for pair in pairs for layer in pair]
        >>> model = nn.Sequential(nn.Flatten(), *deep, nn.Linear(4, 2))
        >>> x, labels = torch.rand(5, 1, 2, 2), torch.zeros(5).long()
        >>> layers = depth_profile(model, x, labels)
        >>> len(layers), layers[0].gradient < layers[-1].gradient / 1000
        (9, True)
    """
    check_image_batch(x)
    modules = dict(named_layers(model))
    weighted = [name for name, m in modules.items() if name and _weight(m) is not None]
    outputs: list[tuple[str, float]] = []
    gradients: dict[str, float] = {}

    def record(call: str, output: object) -> None:
        if not isinstance(output, Tensor) or not output.requires_grad:
            return
        outputs.append((call, _rms(output)))
        # On the tensor before an in-place activation changes it.
        output.register_hook(  # type: ignore[no-untyped-call]
            lambda g: gradients.__setitem__(call, _rms(g) * len(x))
        )

    with (
        evaluation_mode(model),
        intercept_outputs(model, weighted, record),
        torch.inference_mode(False),
        torch.enable_grad(),
    ):
        model.train(training)
        inputs = x.detach().clone().requires_grad_()
        loss = _loss(forward(model, inputs), labels)
        weights = {name: _weight(modules[name]) for name in weighted}
        trainable = {
            n: w for n, w in weights.items() if w is not None and w.requires_grad
        }
        weight_gradients = torch.autograd.grad(
            loss, [inputs, *trainable.values()], allow_unused=True
        )[1:]
    updates = {}
    for (name, weight), gradient in zip(
        trainable.items(), weight_gradients, strict=True
    ):
        if gradient is not None:
            norm = weight.detach().norm().clamp(min=1e-30)
            updates[name] = float(gradient.norm() / norm)
    return [
        LayerProfile(
            name=call,
            depth=depth,
            activation=size,
            gradient=gradients.get(call, 0.0),
            update=updates.get(call.partition(" #")[0], nan),
        )
        for depth, (call, size) in enumerate(outputs, 1)
    ]


def _loss(output: object, labels: Tensor) -> Tensor:
    """Return the mean loss of a batch, including auxiliary heads in training mode."""
    if not isinstance(output, HeadOutputs):
        output = logits_of(output)
    top = output.logits if isinstance(output, HeadOutputs) else output
    if labels.ndim == 2:  # several labels per image
        target = labels.to(top.device, top.dtype)
        return total_loss(F.binary_cross_entropy_with_logits, output, target)
    return total_loss(F.cross_entropy, output, labels.to(top.device))


def _weight(module: nn.Module) -> nn.Parameter | None:
    """Return a layer's weight matrix or kernel; None for layers such as batch norm."""
    weight = module._parameters.get("weight")
    return weight if weight is not None and weight.ndim > 1 else None


def _rms(values: Tensor) -> float:
    return float(values.detach().double().square().mean().sqrt())


def gradient_factor(layers: Sequence[LayerProfile]) -> float:
    """Return the mean factor by which the gradient changes per layer.

    A line is fitted to log gradient against depth. A factor of 0.5 means half the
    gradient per layer; 1 means that all layers have equal gradients.

    Example:
        >>> from types import SimpleNamespace as Layer
        >>> layers = [Layer(depth=d, gradient=2.0**d) for d in (1, 2, 3)]
        >>> round(gradient_factor(layers), 9)
        0.5
    """
    points = [(p.depth, log(p.gradient)) for p in layers if p.gradient > 0]
    if len(points) < 2:
        return nan
    mean_depth = sum(d for d, _ in points) / len(points)
    mean_log = sum(g for _, g in points) / len(points)
    spread = sum((d - mean_depth) ** 2 for d, _ in points)
    return exp(-sum((d - mean_depth) * (g - mean_log) for d, g in points) / spread)
