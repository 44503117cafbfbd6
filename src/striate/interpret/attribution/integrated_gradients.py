"""Integrated gradients (Sundararajan, Taly, Yan 2017)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from striate.core.hooks import evaluation_mode
from striate.core.logits import logits_of
from striate.interpret.activations_at import check_image_batch, forward, images_at_once
from striate.interpret.attribution.target import AttributionTarget
from striate.interpret.gradients import GradientsStayOn, gradients_of

STEPS = 50
AT_ONCE = 16  # images per backward pass, which stores all activations
_GRADIENT_MEMORY = 8  # memory per image, relative to a forward pass


def integrated_gradients(
    model: nn.Module,  # any network; not modified
    x: Tensor,  # one preprocessed image, (1, C, H, W)
    target: AttributionTarget,  # the class score to explain
    steps: int = STEPS,  # points of the quadrature
) -> tuple[Tensor, float]:
    """Return the attribution of every input value, and the convergence error.

    Attributions are x·∫ ∂score/∂x on the straight path from 0 to x, by Gauss–Legendre
    quadrature; 0 is the mean color of a normalized dataset. Exact attributions add up
    to score(x) − score(0).

    Returns:
        Attributions (C, H, W), and their sum minus (score(x) − score(0)).

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> target = AttributionTarget(class_index=1, text="1")
        >>> x = torch.ones(1, 1, 2, 2)
        >>> values, delta = integrated_gradients(model, x, target)
        >>> torch.allclose(values.flatten(), model[1].weight[1]), abs(delta) < 1e-5
        (True, True)
    """
    check_image_batch(x)
    points, weights = np.polynomial.legendre.leggauss(steps)
    with evaluation_mode(model), torch.inference_mode(False), torch.enable_grad():
        x = x.detach().clone()  # a tensor of inference mode cannot be differentiated
        start = torch.zeros_like(x)
        total = torch.zeros_like(x[0])
        alphas = torch.as_tensor((1 + points) / 2, dtype=x.dtype, device=x.device)
        step_weights = torch.as_tensor(weights / 2, dtype=x.dtype, device=x.device)
        most = images_at_once(x.shape, AT_ONCE, _GRADIENT_MEMORY)
        batches = torch.split(alphas, most), torch.split(step_weights, most)
        for alpha, weight in zip(*batches, strict=True):
            path = start + alpha.view(-1, 1, 1, 1) * (x - start)
            path.requires_grad_()
            with GradientsStayOn():
                logits = logits_of(forward(model, path))
            score = target.score(logits).sum()
            (gradient,) = gradients_of(score, [path], "the image")
            total += torch.einsum("n,nchw->chw", weight, gradient)
        with torch.no_grad():
            ends = torch.cat([x, start])
            first, last = target.score(logits_of(forward(model, ends))).tolist()
        attributions = total * (x - start)[0]
        return attributions, float(attributions.sum()) - (first - last)
