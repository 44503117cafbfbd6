"""Who takes the steps of a run: chance by number, and no trace of a failed step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from striate.core.errors import NonFiniteError
from striate.engine.distributed.distributed_step import DistributedStep
from striate.engine.execution import ExecutionConfig, Forward
from striate.engine.fused_modules import FusedModules
from striate.engine.gradient_accumulation import batch_loss, possible_micro_batches
from striate.engine.nonfinite import (
    LOSS,
    BufferSnapshot,
    first_bad_gradient,
    first_bad_layer,
    is_finite,
)
from striate.engine.rng import seed_rng
from striate.engine.step import train_step

if TYPE_CHECKING:
    from striate.core.aux_heads import Loss
    from striate.engine.distributed.gradients import GradientExchange

NOT_REPRODUCED = "and not when the same batch was run again"
DEFAULT_EXECUTION = ExecutionConfig()


class Stepper:
    """Takes steps whose chance is a function, and leaves no trace of a failed one.

    Args:
        model: Any network.
        optimizer: Over its parameters.
        cost_of: As for `train_step`.
        seed: Of the run.
        rank: Of this process among several; each draws its own.
        pieces: As for `train_step`, where a batch has as many images.
        exchange: With the other processes, each of which has a share of the batch.
        way: How the network is run.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        cost_of: Loss = F.cross_entropy,
        seed: int = 0,
        rank: int = 0,
        pieces: int = 1,
        exchange: GradientExchange | None = None,
        way: ExecutionConfig = DEFAULT_EXECUTION,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.cost_of = cost_of
        self.images = 0  # of the last batch, over all ranks
        self._of = (seed, "layers", rank)
        self._pieces = pieces
        self._exchange = exchange
        self._buffers = BufferSnapshot(model)
        self._forward = Forward(model, way)
        self._quick = FusedModules(model, wanted=not way.compiled)
        how = self._forward, optimizer, cost_of, pieces
        self._shared = DistributedStep(exchange, *how) if exchange else None

    def __call__(self, x: Tensor, y: Tensor, step: int) -> float:
        """Learn from the batch of a step and return its mean cost in nats.

        Raises:
            NonFiniteError: As `train_step`; names the first bad layer and the bad
                images' positions. Weights, buffers and optimizer are as before.
            RankError: Another process has died, hung or failed.
        """
        self._buffers.keep()
        seed_rng(x.device, *self._of, step)
        try:
            with self._quick.lent():
                return self._step(x, y, step)
        except NonFiniteError as error:
            way = self._forward.way
            # Dropout is to draw what it drew.
            with self._quick.lent(), way.precisely(x.device):
                error.layer, error.rows = self._trace(x, y, step)
            seen = f"first in {error.layer}" if error.layer else NOT_REPRODUCED
            error.what = f"{error.what}, {seen}"
            self._buffers.put_back()
            self.model.zero_grad()
            raise

    def _step(self, x: Tensor, y: Tensor, step: int) -> float:
        if self._shared is None:
            self.images = len(y)
            pieces = possible_micro_batches(len(y), self._pieces)
            how = self.optimizer, self.cost_of, pieces
            return train_step(self._forward, x, y, *how)
        try:
            return self._shared(x, y, step)
        finally:
            self.images = self._shared.images

    def _trace(self, x: Tensor, y: Tensor, step: int) -> tuple[str, tuple[int, ...]]:
        if self._exchange is None:
            return self._traced(x, y, step)
        with self._exchange.ranks.alone():
            found = self._traced(x, y, step) if len(y) else ("", ())
        return self._exchange.found(*found)

    def _traced(self, x: Tensor, y: Tensor, step: int) -> tuple[str, tuple[int, ...]]:
        """Run the batch again, with the same chance, and see where it goes wrong."""
        seed_rng(x.device, *self._of, step)
        layer, rows = first_bad_layer(self.model, x)
        if layer:
            return layer, rows
        seed_rng(x.device, *self._of, step)
        with torch.no_grad():
            if not is_finite(batch_loss(self.model, x, y, self.cost_of)):
                return LOSS, ()
        return first_bad_gradient(self.model, x), ()
