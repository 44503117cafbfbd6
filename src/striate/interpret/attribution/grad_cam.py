"""Grad-CAM, Grad-CAM++, LayerCAM and Score-CAM (for CAM see cam.py).

A map is relu(Σₖ wₖ·Aₖ) over the layer's channels k; the methods differ only in w.

| method    | weight of channel k (at position ij)             | source              |
|-----------|--------------------------------------------------|---------------------|
| gradcam   | mean over ij of gₖ                               | Selvaraju 2017      |
| gradcam++ | Σ α·relu(gₖ), α = g²/(2g² + ΣA·g³)               | Chattopadhay 2018   |
| layercam  | relu(gₖ) at position ij                          | Jiang 2021          |
| scorecam  | softmax over k of the score of x masked by Aₖ    | Wang 2020           |

A are the activations, g is the gradient of the score with respect to A.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from striate.core.errors import GeometryError
from striate.core.hooks import evaluation_mode, intercept_outputs
from striate.core.logits import logits_of
from striate.interpret.activations_at import (
    forward,
    images_at_once,
    module_name,
    run_until,
)
from striate.interpret.attribution.target import AttributionTarget
from striate.interpret.gradients import (
    GradientsStayOn,
    gradients_of,
    turn_gradients_on,
)
from striate.interpret.layer_choice import AUTO, TargetLayer, target_layer

Scores = Callable[[Tensor], Tensor]
ChannelWeights = Callable[[Tensor, Tensor, Scores], Tensor]
MASKS_AT_ONCE = 32  # masked images per batch, at most


@dataclass(frozen=True, kw_only=True)
class LayerGradients:
    """Activations of a layer, with the gradients of the class score."""

    activations: Tensor
    gradients: Tensor
    logits: Tensor


def layer_gradients(
    model: nn.Module, x: Tensor, call: str, target: AttributionTarget
) -> LayerGradients:
    """Return activations and gradients of one layer for a batch.

    Gradients are not computed for earlier layers. `.grad` of parameters is not changed.
    The parameters may be frozen.

    Raises:
        GeometryError: The score does not depend on the layer.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2, 3))
        >>> target = AttributionTarget(class_index=0, text="class 0")
        >>> layer_gradients(model, torch.zeros(1, 1, 3, 3), "0", target).gradients.shape
        torch.Size([1, 2, 1, 1])
    """
    captured: list[Tensor] = []

    def capture(name: str, output: object) -> Tensor | None:
        if name != call or not isinstance(output, Tensor):
            return None
        captured.append(output.detach().clone().requires_grad_())
        turn_gradients_on()  # until the end of the caller's no_grad
        # A copy: the next layer may work in place, which is not allowed on a leaf.
        return captured[0].clone()

    with (
        evaluation_mode(model),
        intercept_outputs(model, [module_name(call)], capture),
        torch.inference_mode(False),
        torch.no_grad(),
    ):
        with GradientsStayOn():
            logits = logits_of(forward(model, x.clone()))
        if not captured:
            what = f"{call} returned no tensor for this image"
            raise GeometryError(what, where=call, fix="use another layer")
        score = target.score(logits).sum()
        gradients = gradients_of(score, captured, call, target.text)
    return LayerGradients(
        activations=captured[0].detach(),
        gradients=gradients[0],
        logits=logits.detach(),
    )


def _gradcam(activations: Tensor, gradients: Tensor, scores: Scores) -> Tensor:
    return gradients.mean((2, 3), keepdim=True)


def _gradcam_plus(activations: Tensor, gradients: Tensor, scores: Scores) -> Tensor:
    """Compute Grad-CAM++ weights (paper, eq. 19); α is 0 if its denominator is 0."""
    square = gradients**2
    total = activations.sum((2, 3), keepdim=True)
    denominator = 2 * square + total * square * gradients
    nonzero = denominator != 0
    alpha = torch.where(nonzero, square / torch.where(nonzero, denominator, 1), 0)
    return (alpha * gradients.relu()).sum((2, 3), keepdim=True)


def _layercam(activations: Tensor, gradients: Tensor, scores: Scores) -> Tensor:
    return gradients.relu()


def _scorecam(activations: Tensor, gradients: Tensor, scores: Scores) -> Tensor:
    """Compute Score-CAM weights: the score of the image masked by each channel."""
    low = activations.amin((2, 3), keepdim=True)
    span = activations.amax((2, 3), keepdim=True) - low
    masks = (activations - low) / torch.where(span > 0, span, 1)
    rows = [scores(mask[:, None]).softmax(0) for mask in masks]
    return torch.stack(rows)[..., None, None]


METHODS: dict[str, ChannelWeights] = {
    "gradcam": _gradcam,
    "gradcam++": _gradcam_plus,
    "layercam": _layercam,
    "scorecam": _scorecam,
}


def gradient_layer(
    model: nn.Module, x: Tensor, target: AttributionTarget, layer: str = AUTO
) -> TargetLayer:
    """Return the target layer: the last with maps that the score depends on.

    A transformer with a class token uses the image tokens of its last block only before
    that block, so the block's own output has no gradient at the image tokens.
    """

    def has_gradient(candidate: TargetLayer) -> bool:
        try:
            state = layer_gradients(model, x, candidate.call, target)
        except GeometryError:
            return False
        return bool(candidate.layout.to_maps(state.gradients).any())

    return target_layer(model, x, layer, has_gradient)


def grad_cam_map(
    model: nn.Module,
    x: Tensor,
    layer: TargetLayer,
    target: AttributionTarget,
    method: str,
) -> Tensor:
    """Return the attribution map of one image, at the resolution of the layer.

    Shapes:
        (1, C, H, W) → (h, w)
    """
    scores = partial(_masked_scores, model, x, target)
    if method == "scorecam":  # needs no gradients
        maps = layer.layout.to_maps(layer_output(model, x, layer.call))
        gradients = maps
    else:
        state = layer_gradients(model, x, layer.call, target)
        maps = layer.layout.to_maps(state.activations)
        gradients = layer.layout.to_maps(state.gradients)
    weights = METHODS[method](maps, gradients, scores)
    return (weights * maps).sum(1).relu()[0]


def layer_output(model: nn.Module, x: Tensor, call: str) -> Tensor:
    """Return the output of one layer call for a batch, without gradients."""
    with evaluation_mode(model), torch.no_grad():
        return run_until(model, x, [call])[call]


def _masked_scores(
    model: nn.Module, x: Tensor, target: AttributionTarget, masks: Tensor
) -> Tensor:
    scores = []
    size = int(x.shape[2]), int(x.shape[3])
    with evaluation_mode(model), torch.no_grad():
        for chunk in torch.split(masks, images_at_once(size, MASKS_AT_ONCE)):
            resized = F.interpolate(chunk, size, mode="bilinear")
            scores.append(target.score(logits_of(forward(model, x * resized))))
    return torch.cat(scores)
