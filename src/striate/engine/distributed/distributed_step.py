"""Distributed training step: DistributedDataParallel on each rank's images of a batch.

DDP averages gradients over the ranks, which is wrong for shares of unequal size. So
every rank back-propagates the sum over its images, and the average is scaled by
world size / images. The result is the gradient of the batch's mean loss.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from striate.core.errors import NonFiniteError, RankError
from striate.core.frozen_eval_mode import has_frozen_mode
from striate.engine.distributed.group import RankGroup
from striate.engine.distributed.missing_ranks import RESUME_HINT
from striate.engine.execution_config import ExecutionConfig, Forward
from striate.engine.gradient_accumulation import (
    batch_loss,
    possible_micro_batches,
    scaled_backward,
)
from striate.engine.nonfinite import BufferSnapshot
from striate.engine.rng import preserve_rng_state
from striate.engine.train_step import LOWER_LR, optimizer_step

if TYPE_CHECKING:
    from striate.core.aux_heads import Loss


class DistributedStep:
    """Training step on one rank's images; the gradient is that of the whole batch.

    Running statistics of batch norm become their mean over the images of all ranks.
    After a step all tensors are equal on all ranks, so that the checkpoint of rank 0
    is the checkpoint of all.
    """

    def __init__(
        self,
        group: RankGroup,  # all ranks
        model: nn.Module,  # the network, equal on all of them
        optimizer: Optimizer,  # over its parameters
        loss_fn: Loss,  # mean loss of a batch's logits
        *,
        micro_batches: int,  # number of micro-batches, run one after the other
        execution: ExecutionConfig,  # execution mode of the network
        should_stop: Callable[[], bool],  # returns whether this rank was asked to stop
    ) -> None:
        self.images = 0  # of the last batch, over all ranks
        self.stop_requested = False  # on any rank, before the last step
        self._group = group
        self._model = model
        self._execution = execution
        self._ddp: DistributedDataParallel | None = None
        self._optimizer = optimizer
        self._loss_fn = loss_fn
        self._micro_batches = micro_batches
        self._should_stop = should_stop
        self._synced = any(isinstance(m, nn.SyncBatchNorm) for m in model.modules())
        self._device = next(model.parameters()).device
        self._counts = [0] * group.world_size  # images of each rank
        norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
        # Frozen ones are left out: a mean of equal numbers is rounded.
        self._norms = [m for m in norms if not has_frozen_mode(m)]

    def __call__(self, x: Tensor, y: Tensor, step: int) -> float:
        """Run the step and return the mean loss of the whole batch in nats.

        Raises:
            NonFiniteError: The loss or a gradient is not finite on a rank; the weights
                are unchanged on all ranks.
            RankError: A rank died, was stopped, failed or does not answer.
        """
        self._optimizer.zero_grad()
        with self._group.operation(f"the gradients of step {step + 1}"):
            if self._ddp is None:
                self._ddp = _data_parallel(self._model, x)
                self._forward = Forward(self._ddp, self._execution)
            loss = self._backward(self._ddp, x, y)
        total_loss = self._exchange(step, loss, len(y))
        if not math.isfinite(total_loss):
            self._optimizer.zero_grad()  # else they would be reported
            what = f"the training loss became {total_loss}"
            raise NonFiniteError(what, fix=LOWER_LR)
        scale = self._group.world_size / self.images
        gradients = [p.grad for p in self._model.parameters() if p.grad is not None]
        torch._foreach_mul_(gradients, scale)
        optimizer_step(self._optimizer)
        return total_loss

    def _backward(self, ddp: DistributedDataParallel, x: Tensor, y: Tensor) -> float:
        """Back-propagate the loss of this rank's images; return the sum of losses."""
        # Synchronized norms wait for each other: all ranks run equally often.
        possible = possible_micro_batches(len(y), self._micro_batches)
        count = self._micro_batches if self._synced else possible
        pairs = list(zip(x.tensor_split(count), y.tensor_split(count), strict=True))
        total = 0.0
        for number, (images, labels) in enumerate(pairs):
            is_last = number == count - 1
            with nullcontext() if is_last else ddp.no_sync():
                total += self._micro_batch(images, labels)
        return total

    def _micro_batch(self, x: Tensor, y: Tensor) -> float:
        if len(y):
            loss = batch_loss(self._forward, x, y, self._loss_fn)
            scaled_backward(loss, float(len(y)))
            return loss.item() * len(y)
        # DDP waits for every rank: one without images runs blank ones of weight 0.
        # Synchronized norms take an empty batch, which leaves their statistics alone.
        blank = x if self._synced else x.new_zeros(2, *x.shape[1:])
        labels = y.new_zeros(len(blank), *y.shape[1:])
        scaled_backward(batch_loss(self._forward, blank, labels, _sum_of_logits), 0.0)
        return 0.0

    def _exchange(self, step: int, loss: float, images: int) -> float:
        """Sum loss, image counts, stop flags and running statistics over the ranks."""
        world_size, statistics = self._group.world_size, self._running_statistics()
        failed = images > 0 and not math.isfinite(loss)
        rows = torch.zeros(
            world_size, 2, dtype=torch.float64
        )  # images and step of each rank
        rows[self._group.rank] = torch.tensor([images, step + 1])
        numbers = 0.0 if failed else loss, failed, self._should_stop()
        head = torch.tensor(numbers, dtype=torch.float64)
        parts = [head, rows.flatten(), *(t.detach() * images for t in statistics)]
        flat = [part.to(self._device, torch.float64).reshape(-1) for part in parts]
        message = torch.cat(flat)
        self._group.all_reduce(message, f"the loss of step {step + 1}")
        head, rows, *sums = torch.split(message, [*map(len, flat)])
        total_loss, failures, stops = head.tolist()
        counts, steps = rows.view(world_size, 2).T.int().tolist()
        if len({*steps}) > 1:
            texts = (f"rank {rank} at step {n}" for rank, n in enumerate(steps))
            what = f"the ranks are at different steps: {'; '.join(texts)}"
            raise RankError(what, where=f"rank {self._group.rank}", fix=RESUME_HINT)
        self.images, self._counts = sum(counts), counts
        self.stop_requested = self.stop_requested or stops > 0
        if failures:
            return loss / images if failed else math.nan
        for statistic, total in zip(statistics, sums, strict=True):
            mean = (total / self.images).view_as(statistic)
            statistic.copy_(mean if statistic.is_floating_point() else mean.round())
        return float(total_loss / self.images)

    def _running_statistics(self) -> list[Tensor]:
        names = "running_mean", "running_var", "num_batches_tracked"
        tensors = [getattr(norm, name) for norm in self._norms for name in names]
        return [tensor for tensor in tensors if tensor is not None]

    def agree_to_stop(self) -> bool:
        """Return whether any rank requests a stop, by a separate all-reduce."""
        flag = torch.tensor([float(self._should_stop())], device=self._device)
        self._group.all_reduce(flag, "stop requests")
        self.stop_requested = self.stop_requested or bool(flag)
        return self.stop_requested

    def first_bad_layer(
        self, layer: str, rows: tuple[int, ...]
    ) -> tuple[str, tuple[int, ...]]:
        """Return the first non-finite layer on any rank, and indices of bad images."""
        offset = sum(self._counts[: self._group.rank])
        own = layer, [row + offset for row in rows]
        values = self._group.all_gather_object(own, "the first bad layer")
        located = [(rank, value) for rank, value in enumerate(values) if value[0]]
        if not located:
            return "", ()
        # If a rank has bad images, others only got NaN through a batch norm.
        rank, (where, _) = max(located, key=lambda item: (bool(item[1][1]), -item[0]))
        bad = sorted(row for _, (_, rank_rows) in located for row in rank_rows)
        return f"{where} on rank {rank}", tuple(bad)

    @contextmanager
    def without_sync(self) -> Iterator[None]:
        """Context manager: `SyncBatchNorm` layers use this rank's statistics only."""
        norms = [m for m in self._model.modules() if isinstance(m, nn.SyncBatchNorm)]
        own_group = (
            dist.new_group([self._group.rank], use_local_synchronization=True)
            if norms
            else None
        )
        for norm in norms:
            norm.process_group = own_group
        try:
            yield
        finally:
            for norm in norms:
                norm.process_group = None


def _data_parallel(model: nn.Module, x: Tensor) -> DistributedDataParallel:
    unused = _has_unused_parameters(model, x)
    with warnings.catch_warnings():
        # torch ≥ 2.13 renames `broadcast_buffers`.
        warnings.simplefilter("ignore", FutureWarning)
        return DistributedDataParallel(
            model, broadcast_buffers=False, find_unused_parameters=unused
        )


def _has_unused_parameters(model: nn.Module, x: Tensor) -> bool:
    """Return whether a parameter has no effect on the loss, which DDP needs to know."""
    buffers = BufferSnapshot(model)
    buffers.save()
    blank = x.new_zeros(2, *x.shape[1:])
    labels = torch.zeros(2, dtype=torch.int64, device=x.device)
    parameters = [p for p in model.parameters() if p.requires_grad]
    with preserve_rng_state():
        loss = batch_loss(model, blank, labels, _sum_of_logits)
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    buffers.restore()
    return any(gradient is None for gradient in gradients)


def _sum_of_logits(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.sum()
