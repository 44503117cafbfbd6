"""Muon optimizer: SGD with momentum, where each update matrix is orthogonalized.

Jordan, Jin, Boza, You, Cesista, Newhouse, Bernstein 2024, "Muon: an optimizer for
hidden layers in neural networks". A kernel is a matrix with one row for each output
channel. As in the paper, AdamW updates all other parameters: the first and the last
layer, biases and gains.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.adamw import adamw

QUINTIC = (3.4445, -4.7750, 2.0315)  # the paper's: singular values into 0.7–1.2
STEPS = 5
BETA2, EPS = 0.999, 1e-8  # of AdamW
# An update's root mean square as AdamW's usually is, so that one rate suits both
# (Liu et al. 2025, "Muon is scalable for LLM training", section 2.2).
RMS = 0.2


def orthogonalize(matrix: Tensor) -> Tensor:
    """Return an approximation of U·Vᵀ for a matrix U·S·Vᵀ, by Newton–Schulz iteration.

    The precision is that of the matrix: bfloat16, which the paper uses, is slower than
    fp32 on most CPUs.

    Shapes:
        (n, m) → (n, m)

    Example:
        >>> matrix = orthogonalize(torch.diag(torch.tensor([3.0, 0.5])))
        >>> bool(((torch.linalg.svdvals(matrix) - 1).abs() < 0.35).all())
        True
    """
    a, b, c = QUINTIC
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x: Tensor = wide / (wide.norm() + 1e-7)
    for _ in range(STEPS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x if wide is matrix else x.T


class Muon(Optimizer):
    """Optimizer: Muon for parameter groups marked `orthogonal`, AdamW for other groups.

    `momentum` is the Nesterov momentum of Muon and the first beta of AdamW.

    Example:
        >>> weight = nn.Parameter(torch.eye(2))
        >>> groups = [{"params": [weight], "weight_decay": 0.0, "orthogonal": True}]
        >>> optimizer = Muon(groups, lr=0.1, momentum=0.9)
        >>> weight.grad = torch.tensor([[4.0, 0.0], [0.0, 4.0]])
        >>> optimizer.step()
        >>> bool((weight.diagonal() < 1).all())
        True
    """

    def __init__(
        self, groups: list[dict[str, Any]], lr: float, momentum: float
    ) -> None:
        # By `fused` torch knows that a step that is loaded belongs on the device too.
        defaults = {"momentum": momentum, "orthogonal": False, "fused": True}
        super().__init__(groups, {"lr": lr, **defaults})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            update = self._muon_update if group["orthogonal"] else self._adamw_update
            update(parameters, group)

    def _muon_update(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        lr, momentum, decay = group["lr"], group["momentum"], group["weight_decay"]
        for p in parameters:
            assert p.grad is not None  # noqa: S101 - those without were left out
            state = self.state[p]
            if not state:
                state["momentum_buffer"] = torch.zeros_like(p)
            momentum_buffer = state["momentum_buffer"].lerp_(p.grad, 1 - momentum)
            update = p.grad.lerp(momentum_buffer, momentum).flatten(1)
            scale = RMS * sqrt(max(update.shape))
            p.mul_(1 - lr * decay)
            p.add_(orthogonalize(update).reshape(p.shape), alpha=-lr * scale)

    def _adamw_update(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        for p in parameters:
            if not self.state[p]:
                # Beside the parameter, as torch's AdamW has it: fused kernels read it.
                step = torch.zeros((), dtype=torch.float32, device=p.device)
                self.state[p]["step"] = step
                self.state[p]["exp_avg"] = torch.zeros_like(p)
                self.state[p]["exp_avg_sq"] = torch.zeros_like(p)
        states = [self.state[p] for p in parameters]
        if not parameters:
            return
        adamw(
            parameters,
            [p.grad for p in parameters if p.grad is not None],
            [s["exp_avg"] for s in states],
            [s["exp_avg_sq"] for s in states],
            [],
            [s["step"] for s in states],
            fused=group["fused"],
            amsgrad=False,
            beta1=group["momentum"],
            beta2=BETA2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=EPS,
            maximize=False,
        )


def hidden_kernels(model: nn.Module) -> list[nn.Parameter]:
    """Return all trainable kernels except those of the first and the last layer.

    Example:
        >>> first, last = nn.Linear(2, 3), nn.Linear(3, 2)
        >>> model = nn.Sequential(first, nn.Linear(3, 3), last)
        >>> [tuple(kernel.shape) for kernel in hidden_kernels(model)]
        [(3, 3)]
    """
    kernels = [p for p in model.parameters() if p.ndim > 1]
    return [p for p in kernels[1:-1] if p.requires_grad]
