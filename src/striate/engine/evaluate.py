"""Run a network over batches and keep what it said about every image."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from striate.core.hooks import evaluation_mode
from striate.engine.distributed.heartbeat import COMPUTING
from striate.engine.tta import TTA, no_tta

if TYPE_CHECKING:
    from striate.engine.distributed.group import RankGroup


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
    def probs(self) -> Tensor:
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
    view: TTA = no_tta,
    ranks: RankGroup | None = None,
) -> Outputs:
    """Ask the network about every image; it is left in the mode it was in.

    Args:
        model: Any network.
        batches: Inputs and labels; of each batch this rank's share, where ranks judge
            together. All of them then get all answers.
        view: How an image is shown to it.
        ranks: The processes that judge together.
    """
    logits, labels = [], []
    with evaluation_mode(model), torch.inference_mode(), _computing(ranks):
        for x, y in batches:
            labels.append(y.cpu())
            if len(y) or not ranks:
                logits.append(view(model, x).float().cpu())
    if ranks:
        answers, truth = _gathered(logits, labels, ranks)
    else:
        answers, truth = torch.cat(logits), torch.cat(labels)
    losses = F.cross_entropy(answers, truth, reduction="none")
    return Outputs(logits=answers, labels=truth, losses=losses)


def _computing(ranks: RankGroup | None) -> AbstractContextManager[None]:
    return ranks.pulse.at(COMPUTING, "judging") if ranks else nullcontext()


def _gathered(
    logits: list[Tensor], labels: list[Tensor], ranks: RankGroup
) -> tuple[Tensor, Tensor]:
    """Put the ranks' answers together: of each batch rank 0's first, then rank 1's."""
    mine = [len(y) for y in labels], logits[0].shape[1] if logits else 0
    said = ranks.words(mine, "how many images each has judged")
    sizes = torch.tensor([each[0] for each in said]).T.reshape(-1)  # batch by batch
    ends = sizes.cumsum(0)
    count, classes = int(ends[-1]), max(each[1] for each in said)
    answers = torch.zeros(count, classes)
    truth = torch.zeros(count, dtype=torch.int64)
    ours = slice(ranks.place.rank, None, ranks.world)
    place = torch.cat(
        [
            torch.arange(end - size, end)
            for size, end in zip(sizes[ours].tolist(), ends[ours].tolist(), strict=True)
        ]
    )
    if logits:
        answers[place] = torch.cat(logits)
    truth[place] = torch.cat(labels)
    # Every row is one rank's and nought on the others, so that the sum is the row.
    ranks.total(answers, "the answers of all")
    ranks.total(truth, "the labels of all")
    return answers, truth
