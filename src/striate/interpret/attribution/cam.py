"""Class activation maps: weights for a layer's maps, from activations and gradients.

A map is Σₖ wₖ·Aₖ over the layer's channels; the methods differ in w alone.

| method    | weight of channel k (at position ij)             | source              |
|-----------|--------------------------------------------------|---------------------|
| gradcam   | mean over ij of gₖ                               | Selvaraju 2017      |
| gradcam++ | Σ α·relu(gₖ), α = g²/(2g² + ΣA·g³)               | Chattopadhay 2018   |
| layercam  | relu(gₖ) at each position for itself             | Jiang 2021          |
| scorecam  | softmax over k of the score of x seen through Aₖ | Wang 2020           |

g is the gradient of the score with respect to A. All but CAM itself keep what speaks
for the class: relu(Σ).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from striate.core.errors import GeometryError
from striate.core.hooks import evaluation_mode, intercept_outputs
from striate.interpret.activations_at import forward, module_of, together
from striate.interpret.attribution.target import AttributionTarget, logits_of

Scores = Callable[[Tensor], Tensor]
Weigh = Callable[[Tensor, Tensor, Scores], Tensor]
SCORED = 32  # masked images a batch, at most


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A layer's activations, and the score's gradients with respect to them.

    Args:
        activations: (N, channels, height, width).
        gradients: Likewise.
        logits: The network's answer, (N, classes).
    """

    activations: Tensor
    gradients: Tensor
    logits: Tensor


def see(model: nn.Module, x: Tensor, call: str, question: AttributionTarget) -> Seen:
    """Run a batch and come back as far as one layer.

    Nothing before the layer is differentiated, no parameter's `.grad` is touched, and
    frozen parameters do not matter.

    Raises:
        GeometryError: The layer does not lead to the score.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2, 3))
        >>> question = AttributionTarget(target=0, words="class 0")
        >>> see(model, torch.zeros(1, 1, 3, 3), "0", question).gradients.shape
        torch.Size([1, 2, 1, 1])
    """
    kept: list[Tensor] = []

    def cut(heard: str, output: object) -> Tensor | None:
        if heard != call or not isinstance(output, Tensor):
            return None
        kept.append(output.detach().clone().requires_grad_())
        torch.set_grad_enabled(True)  # until the end of the caller's no_grad
        # A copy: the next layer may write to it, which a leaf does not bear.
        return kept[0].clone()

    with (
        evaluation_mode(model),
        intercept_outputs(model, [module_of(call)], cut),
        torch.inference_mode(False),
        torch.no_grad(),
    ):
        logits = logits_of(forward(model, x))
        score = question.score(logits).sum()
        found = torch.autograd.grad(score, kept, allow_unused=True) if kept else (None,)
    if found[0] is None:
        what = f"{call} does not lead to the score of {question.words}"
        raise GeometryError(what, where=call, fix="name a layer on the way to the end")
    return Seen(
        activations=kept[0].detach(), gradients=found[0], logits=logits.detach()
    )


def _gradcam(activations: Tensor, gradients: Tensor, scores: Scores) -> Tensor:
    return gradients.mean((2, 3), keepdim=True)


def _gradcam_plus(activations: Tensor, gradients: Tensor, scores: Scores) -> Tensor:
    """Weight positions by α of equation 19; where it is 0/0 nothing is there."""
    square = gradients**2
    total = activations.sum((2, 3), keepdim=True)
    below = 2 * square + total * square * gradients
    alpha = torch.where(below != 0, square / torch.where(below != 0, below, 1), 0)
    return (alpha * gradients.relu()).sum((2, 3), keepdim=True)


def _layercam(activations: Tensor, gradients: Tensor, scores: Scores) -> Tensor:
    return gradients.relu()


def _scorecam(activations: Tensor, gradients: Tensor, scores: Scores) -> Tensor:
    """Ask about the image seen through each channel, scaled to 0…1."""
    low = activations.amin((2, 3), keepdim=True)
    spread = activations.amax((2, 3), keepdim=True) - low
    masks = (activations - low) / torch.where(spread > 0, spread, 1)
    rows = [scores(mask[:, None]).softmax(0) for mask in masks]
    return torch.stack(rows)[..., None, None]


METHODS: dict[str, Weigh] = {
    "gradcam": _gradcam,
    "gradcam++": _gradcam_plus,
    "layercam": _layercam,
    "scorecam": _scorecam,
}


def cam_map(
    model: nn.Module, x: Tensor, call: str, question: AttributionTarget, method: str
) -> Tensor:
    """Return one image's map at the layer's own size.

    Args:
        model: Any network; left as it was.
        x: One image, (1, C, H, W).
        call: The layer.
        question: What is asked.
        method: A name of `METHODS`.

    Shapes:
        (1, C, H, W) → (h, w)
    """

    def scores(masks: Tensor) -> Tensor:
        return _masked_scores(model, x, masks, question)

    seen = see(model, x, call, question)
    weights = METHODS[method](seen.activations, seen.gradients, scores)
    return (weights * seen.activations).sum(1).relu()[0]


def _masked_scores(
    model: nn.Module, x: Tensor, masks: Tensor, question: AttributionTarget
) -> Tensor:
    found = []
    size = int(x.shape[2]), int(x.shape[3])
    with evaluation_mode(model), torch.no_grad():
        for part in torch.split(masks, together(*size, SCORED)):
            wide = F.interpolate(part, size, mode="bilinear")
            found.append(question.score(logits_of(forward(model, x * wide))))
    return torch.cat(found)
