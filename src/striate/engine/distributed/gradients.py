"""Gradient exchange: one all-reduce a step gives every rank the whole batch's gradient.

Every rank back-propagates the summed loss of its share of the batch. The sum over ranks
divided by the number of all images is the gradient of the batch's mean loss, however
unevenly the batch was shared. Every rank takes the same step with it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from striate.core.errors import RankError
from striate.core.frozen_mode import has_frozen_mode

if TYPE_CHECKING:
    from striate.engine.distributed.group import RankGroup

_HEAD = 5  # images, loss, failures, stop requests, position in the run
_POSITIONS = 4096  # steps after which the position number repeats


class GradientExchange:
    """All-reduces the gradients of a step, in one message.

    Running statistics of batch norm become their mean over the images of all ranks.
    After a step all tensors are equal on all ranks, and the checkpoint of rank 0 is
    the checkpoint of all.

    Args:
        group: All ranks.
        model: The network, equal on all of them.
        optimizer: Over its parameters.
        should_stop: Returns whether this rank was asked to stop.
    """

    def __init__(
        self,
        group: RankGroup,
        model: nn.Module,
        optimizer: Optimizer,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.group = group
        self.counts = [0] * group.world_size
        self._should_stop = should_stop
        self._stop = False
        self._model = model
        groups = optimizer.param_groups
        self._parameters = [p for group in groups for p in group["params"]]
        norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
        # Frozen ones are left out: a mean of equal numbers is rounded.
        norms = [m for m in norms if not has_frozen_mode(m)]
        self._means = _running_statistics(norms)
        counters = [m.num_batches_tracked for m in norms]
        self._batches = [counter for counter in counters if counter is not None]
        self._has_gradient = [True] * len(self._parameters)
        self._allocate()

    def _allocate(self) -> None:
        """Allocate one flat tensor, with a view of it for every tensor."""
        tensors = [*self._parameters, *self._means, *self._batches]
        head = _HEAD + self.group.world_size
        size = head + sum(tensor.numel() for tensor in tensors)
        self._flat = tensors[0].detach().new_zeros(size)
        views, first = [], head
        for tensor in tensors:
            views.append(_view_of(self._flat, tensor, first))
            first += tensor.numel()
        ends = len(self._parameters), len(self._parameters) + len(self._means)
        self._gradients = views[: ends[0]]
        self._mean_views = views[ends[0] : ends[1]]
        self._batch_views = views[ends[1] :]

    def stop_agreed(self) -> bool:
        """Return whether a rank requested a stop before the last exchange."""
        return self._stop

    def agree_to_stop(self) -> bool:
        """Return whether a rank requests a stop; an exchange of its own."""
        flag = torch.tensor([float(self._should_stop())])
        self.group.all_reduce(flag, "whether to stop")
        self._stop = self._stop or bool(flag)
        return self._stop

    def __call__(
        self, step: int, loss: float, images: int, failed: bool
    ) -> tuple[float, int]:
        """Replace every parameter's gradient by that of the whole batch.

        Args:
            step: Step of the run.
            loss: Mean loss of this rank's images.
            images: Number of this rank's images; 0 if the batch is too small.
            failed: The loss is not finite; no gradient is then exchanged.

        Returns:
            The mean loss of the batch, NaN if a rank failed; its number of images.

        Raises:
            RankError: A rank is gone, or is at another step.
        """
        self._pack(images, failed)
        position = step % _POSITIONS
        flag = float(self._should_stop())
        head = [images, 0.0 if failed else loss * images, failed, flag, position]
        counts = [0.0] * self.group.world_size
        counts[self.group.rank_info.rank] = images
        self._flat[: _HEAD + len(counts)] = torch.tensor(
            [*head, *counts], dtype=self._flat.dtype
        )
        self.group.all_reduce(self._flat, f"the gradients of step {step + 1}")
        return self._unpack(step)

    def _pack(self, images: int, failed: bool) -> None:
        self._flat.zero_()
        if failed or not images:
            return
        gradients = [p.grad for p in self._parameters]
        self._has_gradient = [gradient is not None for gradient in gradients]
        pairs = zip(self._gradients, gradients, strict=True)
        filled = [(view, g) for view, g in pairs if g is not None]
        torch._foreach_copy_([view for view, _ in filled], [g for _, g in filled])
        if self._means:
            torch._foreach_copy_(self._mean_views, self._means)
            torch._foreach_mul_(self._mean_views, float(images))
        if self._batches and self.group.is_main:
            torch._foreach_copy_(self._batch_views, self._batches)

    def _unpack(self, step: int) -> tuple[float, int]:
        head = self._flat[: _HEAD + self.group.world_size].tolist()
        images, loss, failures, stops, positions = head[:_HEAD]
        if positions != step % _POSITIONS * self.group.world_size:
            raise self.group.mismatch_error(f"is at step {step + 1}")
        self.counts = [int(count) for count in head[_HEAD:]]
        self._stop = self._stop or stops > 0
        if failures:
            return float("nan"), int(images)
        first = _HEAD + self.group.world_size
        if self._batches:
            torch._foreach_copy_(self._batches, self._batch_views)
        self._flat[first:].div_(images)
        for parameter, gradient, has_gradient in zip(
            self._parameters, self._gradients, self._has_gradient, strict=True
        ):
            parameter.grad = gradient if has_gradient else None
        if self._means:
            torch._foreach_copy_(self._means, self._mean_views)
        return loss / images, int(images)

    def first_bad_layer(
        self, layer: str, rows: tuple[int, ...]
    ) -> tuple[str, tuple[int, ...]]:
        """Return the first bad layer of all ranks, and rows of the whole batch."""
        offset = sum(self.counts[: self.group.rank_info.rank])
        own = [layer, [row + offset for row in rows]]
        values = self.group.all_gather_object(own, "the first bad layer")
        located = [(rank, value) for rank, value in enumerate(values) if value[0]]
        if not located:
            return "", ()
        # If a rank has bad images, others only got NaN through a batch norm.
        rank, (where, _) = max(
            located, key=lambda entry: (bool(entry[1][1]), -entry[0])
        )
        bad = sorted(row for _, (_, rank_rows) in located for row in rank_rows)
        return f"{where} on rank {rank}", tuple(bad)

    def check_equal(self) -> None:
        """Check that all ranks have equal weights.

        Raises:
            RankError: They differ; names the first tensor and the ranks.
        """
        state = self._model.state_dict()
        own = {name: _digest(tensor) for name, tensor in state.items()}
        hashes: list[dict[str, Any]]
        hashes = self.group.all_gather_object(own, "the weights' hashes")
        for name in own:
            other = [rank for rank, h in enumerate(hashes) if h[name] != own[name]]
            if other:
                what = f"the ranks' weights differ, first {name}"
                fix = "give every rank the same torch, processor type and settings"
                where = f"rank {self.group.rank_info.rank} and rank {other[0]}"
                raise RankError(what, where=where, fix=fix)


def _running_statistics(norms: list[_BatchNorm]) -> list[Tensor]:
    tensors = [t for m in norms for t in (m.running_mean, m.running_var)]
    return [tensor for tensor in tensors if tensor is not None]


def _view_of(flat: Tensor, tensor: Tensor, first: int) -> Tensor:
    """Return a view of the flat tensor with the shape and strides of a tensor."""
    strides = torch.empty_like(tensor, device="meta").stride()
    return flat.as_strided(tensor.shape, strides, first)


def _digest(tensor: Tensor) -> str:
    data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.blake2b(data.numpy().data, digest_size=8).hexdigest()
