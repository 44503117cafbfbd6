"""Distributed training step: each rank trains on its share of the batch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import Tensor
from torch.optim import Optimizer

from striate.core.errors import NonFiniteError
from striate.engine.distributed.heartbeat import BUSY, COMPUTING
from striate.engine.gradient_accumulation import (
    accumulate_gradients,
    batch_loss,
    possible_micro_batches,
    scaled_backward,
)
from striate.engine.train_step import LOWER_LR, optimizer_step

if TYPE_CHECKING:
    from striate.core.aux_heads import Loss
    from striate.engine.distributed.gradients import GradientExchange
    from striate.engine.execution_config import Forward


class DistributedStep:
    """A training step on a rank's share of a batch, with the whole batch's gradient.

    Args:
        exchange: Gradient exchange with the other ranks.
        forward: Runs the network.
        optimizer: Over its parameters.
        loss_fn: Mean loss of a batch's logits.
        micro_batches: Number of micro-batches, run one after the other.
    """

    def __init__(
        self,
        exchange: GradientExchange,
        forward: Forward,
        optimizer: Optimizer,
        loss_fn: Loss,
        micro_batches: int,
    ) -> None:
        self.images = 0  # of the last batch, over all ranks
        self._exchange = exchange
        self._group = exchange.group
        self._forward = forward
        self._optimizer = optimizer
        self._loss_fn = loss_fn
        self._micro_batches = micro_batches
        # A compiler works in its own processes, and this one then seems to be idle.
        self._activity_kind = BUSY if forward.execution.compiled else COMPUTING

    def __call__(self, x: Tensor, y: Tensor, step: int) -> float:
        """Run the step and return the mean loss of the whole batch in nats.

        Raises:
            NonFiniteError: The loss or a gradient is not finite on a rank; the weights
                are unchanged on all ranks.
            RankError: Another rank has died, hung or failed.
        """
        with self._group.heartbeat.activity(self._activity_kind, f"step {step + 1}"):
            return self._take(x, y, step)

    def _take(self, x: Tensor, y: Tensor, step: int) -> float:
        self._optimizer.zero_grad()
        loss = self._backward_share(x, y)
        failed = not math.isfinite(loss)
        total_loss, self.images = self._exchange(step, loss, len(y), failed)
        if math.isnan(total_loss):
            self._optimizer.zero_grad()  # else they would be reported
            what = f"the training loss became {loss if failed else total_loss}"
            raise NonFiniteError(what, fix=LOWER_LR)
        optimizer_step(self._optimizer)
        return total_loss

    def _backward_share(self, x: Tensor, y: Tensor) -> float:
        """Back-propagate this rank's share of a batch; return its mean loss."""
        if self._group.norms_synced:
            # The batch norms of all ranks wait for each other: every rank must run the
            # network equally often.
            count = self._micro_batches
            pairs = zip(x.tensor_split(count), y.tensor_split(count), strict=True)
            losses = [self._micro_batch(*pair) for pair in pairs]
            return sum(losses) / max(len(y), 1)
        if not len(y):
            return 0.0
        micro_batches = possible_micro_batches(len(y), self._micro_batches)
        return accumulate_gradients(
            self._forward, x, y, self._loss_fn, micro_batches, sum_gradients=True
        )

    def _micro_batch(self, x: Tensor, y: Tensor) -> float:
        """Back-propagate a micro-batch, or blank images of weight 0."""
        if len(y):
            loss = accumulate_gradients(
                self._forward, x, y, self._loss_fn, sum_gradients=True
            )
            return len(y) * loss
        with self._group.blank_images():
            blank = x.new_zeros(2, *x.shape[1:]), y.new_zeros(2, *y.shape[1:])
            scaled_backward(batch_loss(self._forward, *blank, self._loss_fn), 0.0)
        return 0.0
