"""RecoverableStep: training steps with seeded random numbers, undone if they fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from striate.core.errors import NonFiniteError
from striate.engine.distributed.distributed_step import DistributedStep
from striate.engine.distributed.group import ONE_PROCESS, RankGroup
from striate.engine.execution_config import ExecutionConfig, Forward
from striate.engine.fused_modules import FusedModules
from striate.engine.gradient_accumulation import batch_loss, possible_micro_batches
from striate.engine.nonfinite import (
    LOSS,
    BadLayer,
    BufferSnapshot,
    first_bad_gradient,
    first_bad_layer,
    is_finite,
)
from striate.engine.rng import seed_rng
from striate.engine.train_step import train_step

if TYPE_CHECKING:
    from striate.core.aux_heads import Loss

NOT_REPRODUCED = "but not when the same batch was run again"
DEFAULT_EXECUTION = ExecutionConfig()


class RecoverableStep:
    """Callable that runs training steps; a step with NaN or infinity is undone.

    The random numbers of layers such as dropout depend on seed, rank and step only.
    """

    def __init__(
        self,
        model: nn.Module,  # any network
        optimizer: Optimizer,  # over its parameters
        loss_fn: Loss = F.cross_entropy,  # as for `train_step`
        *,
        seed: int = 0,  # seed of the run
        micro_batches: int = 1,  # as for `train_step`; fewer if a batch is too small
        # The ranks of the run; each trains on its share of a batch.
        group: RankGroup = ONE_PROCESS,
        execution: ExecutionConfig = DEFAULT_EXECUTION,  # execution mode of the network
        # Returns whether this process was asked to stop.
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.loss_fn = loss_fn
        self.images = 0  # of the last batch, over all ranks
        self._rng_key = (seed, "layers", group.rank)
        self._micro_batches = micro_batches
        self._buffers = BufferSnapshot(model)
        self._forward = Forward(model, execution)
        self._fused = FusedModules(model, enabled=not execution.compiled)
        self._distributed: DistributedStep | None = None
        if group.is_distributed:
            self._distributed = DistributedStep(
                group,
                model,
                optimizer,
                loss_fn,
                micro_batches=micro_batches,
                execution=execution,
                should_stop=should_stop,
            )

    def __call__(self, x: Tensor, y: Tensor, step: int) -> float:
        """Train the model on a batch and return the mean loss in nats.

        Raises:
            NonFiniteError: Loss or gradient is not finite; names the first bad layer
                and the indices of bad images. Weights, buffers and optimizer do not
                change.
            RankError: Another rank has died, hung or failed.
        """
        self._buffers.save()
        seed_rng(x.device, *self._rng_key, step)
        try:
            with self._fused.patched():
                return self._step(x, y, step)
        except NonFiniteError as error:
            execution = self._forward.execution
            # Dropout must draw the same numbers again.
            with self._fused.patched(), execution.autocast(x.device):
                error.layer, error.rows = self._find_bad_layer_over_ranks(x, y, step)
            location = f"first in {error.layer}" if error.layer else NOT_REPRODUCED
            error.what = f"{error.what}, {location}"
            self._buffers.restore()
            self.model.zero_grad()
            raise

    def stop_requests(
        self, should_stop: Callable[[], bool]
    ) -> tuple[Callable[[], bool], Callable[[], bool]]:
        """Return two stop checks: one for use between steps, one for validation.

        All ranks must stop after the same step. So they exchange their requests.
        """
        step = self._distributed
        if step is None:
            return should_stop, should_stop
        return lambda: step.stop_requested, step.agree_to_stop

    def _step(self, x: Tensor, y: Tensor, step: int) -> float:
        if self._distributed is None:
            self.images = len(y)
            count = possible_micro_batches(len(y), self._micro_batches)
            optimizer, loss_fn = self.optimizer, self.loss_fn
            return train_step(self._forward, x, y, optimizer, loss_fn, count)
        try:
            return self._distributed(x, y, step)
        finally:
            self.images = self._distributed.images

    def _find_bad_layer_over_ranks(self, x: Tensor, y: Tensor, step: int) -> BadLayer:
        if self._distributed is None:
            return self._find_bad_layer(x, y, step)
        with self._distributed.without_sync():
            bad_layer = self._find_bad_layer(x, y, step) if len(y) else ("", ())
        return self._distributed.first_bad_layer(*bad_layer)

    def _find_bad_layer(self, x: Tensor, y: Tensor, step: int) -> BadLayer:
        """Run the batch again with the same RNG seed; return the first bad layer."""
        seed_rng(x.device, *self._rng_key, step)
        layer, rows = first_bad_layer(self.model, x)
        if layer:
            return layer, rows
        seed_rng(x.device, *self._rng_key, step)
        with torch.no_grad():
            if not is_finite(batch_loss(self.model, x, y, self.loss_fn)):
                return LOSS, ()
        return first_bad_gradient(self.model, x), ()
