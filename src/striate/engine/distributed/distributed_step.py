"""One step that several processes take together, each from its share of the batch."""

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
from striate.engine.step import LOWER_LR, optimizer_step

if TYPE_CHECKING:
    from striate.core.aux_heads import Loss
    from striate.engine.distributed.gradients import GradientExchange
    from striate.engine.execution import Forward


class DistributedStep:
    """Learns from a rank's share of a batch what the whole batch teaches.

    Args:
        exchange: With the other processes.
        forward: Runs the network.
        optimizer: Over its parameters.
        cost_of: The mean cost of a batch's logits.
        pieces: So many runs of fewer images, one after the other.
    """

    def __init__(
        self,
        exchange: GradientExchange,
        forward: Forward,
        optimizer: Optimizer,
        cost_of: Loss,
        pieces: int,
    ) -> None:
        self.images = 0  # of the last batch, over all ranks
        self._exchange = exchange
        self._ranks = exchange.ranks
        self._forward = forward
        self._optimizer = optimizer
        self._cost_of = cost_of
        self._pieces = pieces
        # A compiler works in processes of its own, and this one then seems to rest.
        self._kind = BUSY if forward.way.compiled else COMPUTING

    def __call__(self, x: Tensor, y: Tensor, step: int) -> float:
        """Take the step and return the mean cost of the whole batch in nats.

        Raises:
            NonFiniteError: The cost or a gradient is none on one of the ranks; the
                weights are as before on all.
            RankError: Another process has died, hung or failed.
        """
        with self._ranks.pulse.at(self._kind, f"step {step + 1}"):
            return self._take(x, y, step)

    def _take(self, x: Tensor, y: Tensor, step: int) -> float:
        self._optimizer.zero_grad()
        mine = self._share(x, y)
        failed = not math.isfinite(mine)
        value, self.images = self._exchange(step, mine, len(y), failed)
        if math.isnan(value):
            self._optimizer.zero_grad()  # its gradients would be blamed for the cost
            what = f"the training loss became {mine if failed else value}"
            raise NonFiniteError(what, fix=LOWER_LR)
        optimizer_step(self._optimizer)
        return value

    def _share(self, x: Tensor, y: Tensor) -> float:
        """Back-propagate this rank's share of a batch; return its mean cost."""
        if self._ranks.norms_shared:
            # Batch norms of the other ranks wait for those of this one: every rank
            # goes through the network equally often.
            split = self._pieces
            pairs = zip(x.tensor_split(split), y.tensor_split(split), strict=True)
            costs = [self._piece(*pair) for pair in pairs]
            return sum(costs) / max(len(y), 1)
        if not len(y):
            return 0.0
        pieces = possible_micro_batches(len(y), self._pieces)
        return accumulate_gradients(
            self._forward, x, y, self._cost_of, pieces, summed=True
        )

    def _piece(self, x: Tensor, y: Tensor) -> float:
        """Back-propagate a piece, or blank images that count nothing."""
        if len(y):
            cost = accumulate_gradients(self._forward, x, y, self._cost_of, summed=True)
            return len(y) * cost
        with self._ranks.standing_in():
            blank = x.new_zeros(2, *x.shape[1:]), y.new_zeros(2, *y.shape[1:])
            scaled_backward(batch_loss(self._forward, *blank, self._cost_of), 0.0)
        return 0.0
