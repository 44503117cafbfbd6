"""Run a network over batches and keep what it said about every picture."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from striate.core.taps import untouched
from striate.engine.views import View, plain


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """Answers in the order asked, on the CPU.

    Args:
        logits: (N, classes) float32.
        labels: (N,) int64.
        losses: (N,) cross-entropy in nats, without smoothing.
    """

    logits: Tensor = field(repr=False)
    labels: Tensor = field(repr=False)
    losses: Tensor = field(repr=False)

    @property
    def probabilities(self) -> Tensor:
        """Return softmax of the logits, (N, classes)."""
        return self.logits.softmax(1)

    @property
    def accuracy(self) -> float:
        """Return the share of right answers."""
        return float((self.logits.argmax(1) == self.labels).float().mean())

    @property
    def balanced_accuracy(self) -> float:
        """Return the mean of the classes' shares of right answers."""
        right = (self.logits.argmax(1) == self.labels).float()
        shown = self.labels.bincount()
        shares = self.labels.bincount(right) / shown.clamp(min=1)
        return float(shares[shown > 0].mean())

    @property
    def loss(self) -> float:
        """Return the mean cross-entropy."""
        return float(self.losses.mean())


def evaluate(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    view: View = plain,
) -> Outputs:
    """Ask the network about every picture; it is left in the mode it was in."""
    logits, labels = [], []
    with untouched(model), torch.inference_mode():
        for x, y in batches:
            logits.append(view(model, x).float().cpu())
            labels.append(y.cpu())
    answers, truth = torch.cat(logits), torch.cat(labels)
    losses = F.cross_entropy(answers, truth, reduction="none")
    return Outputs(logits=answers, labels=truth, losses=losses)
