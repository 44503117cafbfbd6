"""Integrated gradients (Sundararajan, Taly, Yan 2017)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from striate.core.hooks import evaluation_mode
from striate.interpret.activations_at import check_batch, forward, together
from striate.interpret.attribution.target import AttributionTarget, logits_of

STEPS = 50
AT_ONCE = 16  # images on the way back together, which keeps all their numbers
_KEPT = 8  # times as much of each as where nothing is kept


def integrated_gradients(
    model: nn.Module,
    x: Tensor,
    question: AttributionTarget,
    baseline: Tensor | float = 0.0,
    steps: int = STEPS,
) -> tuple[Tensor, float]:
    """Return each input number's share of the score, and what the shares miss.

    (x − b)·∫ ∂score/∂x along the straight way from the baseline b, by Gauss–Legendre
    quadrature. Exactly integrated, the shares add up to score(x) − score(b).

    Args:
        model: Any network; left as it was.
        x: One image, (1, C, H, W).
        question: What is asked.
        baseline: The image that says nothing; zero is the mean of a normalized set.
        steps: Points on the way.

    Returns:
        (C, H, W), and the sum of shares less score(x) − score(b).

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> asked = AttributionTarget(target=1, words="1")
        >>> shares, gap = integrated_gradients(model, torch.ones(1, 1, 2, 2), asked)
        >>> torch.allclose(shares.flatten(), model[1].weight[1]), abs(gap) < 1e-5
        (True, True)
    """
    check_batch(x)
    points, weights = np.polynomial.legendre.leggauss(steps)
    with evaluation_mode(model), torch.inference_mode(False), torch.enable_grad():
        x = x.detach().clone()  # a tensor of inference mode cannot be differentiated
        start = torch.as_tensor(baseline, dtype=x.dtype, device=x.device).expand_as(x)
        total = torch.zeros_like(x[0])
        ways = torch.as_tensor((1 + points) / 2, dtype=x.dtype, device=x.device)
        parts = torch.as_tensor(weights / 2, dtype=x.dtype, device=x.device)
        most = together(x.shape[2], x.shape[3], AT_ONCE, _KEPT)
        batches = torch.split(ways, most), torch.split(parts, most)
        for way, part in zip(*batches, strict=True):
            on_way = (start + way.view(-1, 1, 1, 1) * (x - start)).requires_grad_()
            score = question.score(logits_of(forward(model, on_way))).sum()
            (gradient,) = torch.autograd.grad(score, on_way)
            total += torch.einsum("n,nchw->chw", part, gradient)
        with torch.no_grad():
            ends = torch.cat([x, start])
            first, last = question.score(logits_of(forward(model, ends))).tolist()
        shares = total * (x - start)[0]
        return shares, float(shares.sum()) - (first - last)
