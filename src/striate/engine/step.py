"""One step of learning: forward, cost, back-propagation, update."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from striate.core.errors import NonFiniteError
from striate.core.outputs import total_loss
from striate.engine.chance import draw_from
from striate.engine.nonfinite import (
    LOSS,
    Buffers,
    first_bad_gradient,
    first_bad_layer,
    gradients_are_finite,
    is_finite,
)
from striate.engine.ranks.pulse import COMPUTING

if TYPE_CHECKING:
    from striate.core.outputs import Loss
    from striate.engine.ranks.exchange import Exchange
    from striate.engine.ranks.ranks import Ranks

NOT_AGAIN = "and not when the same batch was run again"
LOWER_LR = "lower --lr; the last good weights are kept"


def train_step(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    optimizer: Optimizer,
    cost_of: Loss = F.cross_entropy,
    pieces: int = 1,
) -> float:
    """Learn from one mini-batch and return its mean cost in nats.

    Args:
        model: Any network from (N, C, H, W) to (N, classes); auxiliary heads add
            their share of the cost, see `core.outputs`.
        x: A batch of inputs.
        y: Class numbers (N,), or shares of classes (N, classes) of mixed pictures.
        optimizer: Over the model's parameters.
        cost_of: What a batch's logits cost, see `engine.cost`.
        pieces: So many runs of fewer pictures, whose gradients add up to the batch's.

    Raises:
        NonFiniteError: The cost or a gradient is NaN or infinite; the weights are as
            before.
    """
    optimizer.zero_grad()
    value = back_propagate(model, x, y, cost_of, pieces)
    if not math.isfinite(value):
        raise NonFiniteError(f"the training loss became {value}", fix=LOWER_LR)
    _update(optimizer)
    return value


def back_propagate(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    cost_of: Loss = F.cross_entropy,
    pieces: int = 1,
    summed: bool = False,
) -> float:
    """Add a batch's gradients to the parameters' and return its mean cost in nats.

    Args:
        model: As for `train_step`.
        x: A batch of inputs.
        y: Its targets.
        cost_of: The mean cost of a batch's logits.
        pieces: So many runs of fewer pictures, one after the other.
        summed: Gradients of the sum over the pictures, not of the mean.
    """
    scale = float(len(x)) if summed else 1.0
    if pieces == 1:
        cost = _cost(model, x, y, cost_of)
        _backward(cost, scale)
        return cost.item()
    total = 0.0
    pairs = zip(x.tensor_split(pieces), y.tensor_split(pieces), strict=True)
    for some, theirs in pairs:
        share = len(some) / len(x)
        cost = _cost(model, some, theirs, cost_of)
        _backward(cost, share * scale)
        total += cost.item() * share
    return total


def _backward(cost: Tensor, scale: float) -> None:
    scaled = cost if scale == 1.0 else cost * scale
    scaled.backward()  # type: ignore[no-untyped-call]


def _update(optimizer: Optimizer) -> None:
    if not gradients_are_finite(optimizer):
        raise NonFiniteError("a gradient is not finite", fix=LOWER_LR)
    optimizer.step()


def possible_pieces(pictures: int, pieces: int) -> int:
    """Return in how many pieces a batch can be learnt from, two pictures in each.

    Example:
        >>> possible_pieces(64, 4), possible_pieces(5, 4), possible_pieces(1, 4)
        (4, 2, 1)
    """
    return max(1, min(pieces, pictures // 2))


def _cost(model: nn.Module, x: Tensor, y: Tensor, cost_of: Loss) -> Tensor:
    return total_loss(cost_of, model(x), y)


class Learner:
    """Takes steps whose chance is a function, and leaves no trace of a failed one.

    Args:
        model: Any network.
        optimizer: Over its parameters.
        cost_of: As for `train_step`.
        seed: Of the run.
        rank: Of this process among several; each draws its own.
        pieces: As for `train_step`, where a batch has as many pictures.
        exchange: With the other processes, each of which has a share of the batch.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        cost_of: Loss = F.cross_entropy,
        seed: int = 0,
        rank: int = 0,
        pieces: int = 1,
        exchange: Exchange | None = None,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.cost_of = cost_of
        self.pictures = 0  # of the last batch, over all ranks
        self._of = (seed, "layers", rank)
        self._pieces = pieces
        self._exchange = exchange
        self._buffers = Buffers(model)

    def __call__(self, x: Tensor, y: Tensor, step: int) -> float:
        """Learn from the batch of a step and return its mean cost in nats.

        Raises:
            NonFiniteError: As `train_step`; names the first bad layer and the bad
                pictures' positions. Weights, buffers and optimiser are as before.
            RankError: Another process has died, hung or failed.
        """
        self._buffers.keep()
        draw_from(x.device, *self._of, step)
        self.pictures = len(y)
        try:
            return self._step(x, y, step)
        except NonFiniteError as error:
            error.layer, error.rows = self._trace(x, y, step)
            seen = f"first in {error.layer}" if error.layer else NOT_AGAIN
            error.what = f"{error.what}, {seen}"
            self._buffers.put_back()
            self.model.zero_grad()
            raise

    def _step(self, x: Tensor, y: Tensor, step: int) -> float:
        if self._exchange is not None:
            with self._exchange.ranks.pulse.at(COMPUTING, f"step {step + 1}"):
                return self._shared_step(self._exchange, x, y, step)
        pieces = possible_pieces(len(y), self._pieces)
        return train_step(self.model, x, y, self.optimizer, self.cost_of, pieces)

    def _shared_step(
        self, exchange: Exchange, x: Tensor, y: Tensor, step: int
    ) -> float:
        self.optimizer.zero_grad()
        mine = self._share(exchange, x, y)
        failed = not math.isfinite(mine)
        value, self.pictures = exchange(step, mine, len(y), failed)
        if math.isnan(value):
            what = f"the training loss became {mine if failed else value}"
            raise NonFiniteError(what, fix=LOWER_LR)
        _update(self.optimizer)
        return value

    def _share(self, exchange: Exchange, x: Tensor, y: Tensor) -> float:
        """Back-propagate this rank's share of a batch; return its mean cost."""
        if exchange.ranks.norms_shared:
            # Batch norms of the other ranks wait for those of this one: every rank
            # goes through the network equally often.
            split = self._pieces
            pairs = zip(x.tensor_split(split), y.tensor_split(split), strict=True)
            costs = [self._piece(exchange.ranks, *pair) for pair in pairs]
            return sum(costs) / max(len(y), 1)
        if not len(y):
            return 0.0
        pieces = possible_pieces(len(y), self._pieces)
        model, cost_of = self.model, self.cost_of
        return back_propagate(model, x, y, cost_of, pieces, summed=True)

    def _piece(self, ranks: Ranks, x: Tensor, y: Tensor) -> float:
        """Back-propagate a piece, or blank pictures that count nothing."""
        if len(y):
            cost_of = self.cost_of
            return len(y) * back_propagate(self.model, x, y, cost_of, summed=True)
        with ranks.standing_in():
            blank = x.new_zeros(2, *x.shape[1:]), y.new_zeros(2, *y.shape[1:])
            _backward(_cost(self.model, *blank, self.cost_of), 0.0)
        return 0.0

    def _trace(self, x: Tensor, y: Tensor, step: int) -> tuple[str, tuple[int, ...]]:
        if self._exchange is None:
            return self._traced(x, y, step)
        with self._exchange.ranks.alone():
            found = self._traced(x, y, step) if len(y) else ("", ())
        return self._exchange.found(*found)

    def _traced(self, x: Tensor, y: Tensor, step: int) -> tuple[str, tuple[int, ...]]:
        """Run the batch again, with the same chance, and see where it goes wrong."""
        draw_from(x.device, *self._of, step)
        layer, rows = first_bad_layer(self.model, x)
        if layer:
            return layer, rows
        draw_from(x.device, *self._of, step)
        with torch.no_grad():
            if not is_finite(_cost(self.model, x, y, self.cost_of)):
                return LOSS, ()
        return first_bad_gradient(self.model, x), ()
