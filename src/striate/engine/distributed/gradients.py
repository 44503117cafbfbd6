"""One exchange a step: the ranks' gradients become that of the whole batch.

Every rank learns from its share of the batch with the cost summed, not averaged. The
sum over ranks divided by the images of all is then the gradient of the batch's mean,
however unevenly the batch was shared. Every rank takes the same step with it.
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

_HEAD = 5  # images, cost, failures, wishes to stop, place in the run
_PLACES = 4096  # steps after which the mark of a step's place comes again


class GradientExchange:
    """Adds up what a step left on each rank, in one message.

    Running statistics of batch norm become their mean over the images of all ranks,
    so that after a step every rank has every number of rank 0, and its checkpoint is
    the checkpoint of all.

    Args:
        ranks: All processes.
        model: The network, equal on all of them.
        optimizer: Over its parameters.
        asked: Says whether this rank was asked to stop.
    """

    def __init__(
        self,
        ranks: RankGroup,
        model: nn.Module,
        optimizer: Optimizer,
        asked: Callable[[], bool] = lambda: False,
    ) -> None:
        self.ranks = ranks
        self.counts = [0] * ranks.world
        self._asked = asked
        self._stop = False
        self._model = model
        groups = optimizer.param_groups
        self._parameters = [p for group in groups for p in group["params"]]
        every = [m for m in model.modules() if isinstance(m, _BatchNorm)]
        norms = [
            m for m in every if not has_frozen_mode(m)
        ]  # a mean of equals is rounded
        self._means = _floats(norms)
        counted = [m.num_batches_tracked for m in norms]
        self._batches = [count for count in counted if count is not None]
        self._given = [True] * len(self._parameters)
        self._lay_out()

    def _lay_out(self) -> None:
        """Make one run of numbers, with a window onto it for every tensor."""
        parts = [*self._parameters, *self._means, *self._batches]
        head = _HEAD + self.ranks.world
        size = head + sum(tensor.numel() for tensor in parts)
        self._flat = parts[0].detach().new_zeros(size)
        windows, first = [], head
        for tensor in parts:
            windows.append(_window(self._flat, tensor, first))
            first += tensor.numel()
        ends = len(self._parameters), len(self._parameters) + len(self._means)
        self._gradients = windows[: ends[0]]
        self._mean_windows = windows[ends[0] : ends[1]]
        self._batch_windows = windows[ends[1] :]

    def stopped(self) -> bool:
        """Say whether a rank was asked to stop before the last exchange."""
        return self._stop

    def agree(self) -> bool:
        """Ask now, between exchanges."""
        wish = torch.tensor([float(self._asked())])
        self.ranks.total(wish, "whether to stop")
        self._stop = self._stop or bool(wish)
        return self._stop

    def __call__(
        self, step: int, cost: float, images: int, failed: bool
    ) -> tuple[float, int]:
        """Replace every parameter's gradient by that of the batch.

        Args:
            step: Of the run.
            cost: Mean over this rank's images.
            images: This rank's; 0 where the batch was too small for all.
            failed: Its cost was not finite; no gradient is then exchanged.

        Returns:
            The mean cost of the batch, not finite where a rank failed; its images.

        Raises:
            RankError: A rank is gone, or is at another step.
        """
        self._pack(images, failed)
        place = step % _PLACES
        wish = float(self._asked())
        head = [images, 0.0 if failed else cost * images, failed, wish, place]
        shares = [0.0] * self.ranks.world
        shares[self.ranks.place.rank] = images
        self._flat[: _HEAD + len(shares)] = torch.tensor(
            [*head, *shares], dtype=self._flat.dtype
        )
        self.ranks.total(self._flat, f"the gradients of step {step + 1}")
        return self._unpack(step)

    def _pack(self, images: int, failed: bool) -> None:
        self._flat.zero_()
        if failed or not images:
            return
        found = [p.grad for p in self._parameters]
        self._given = [gradient is not None for gradient in found]
        pairs = zip(self._gradients, found, strict=True)
        given = [(window, g) for window, g in pairs if g is not None]
        torch._foreach_copy_([w for w, _ in given], [g for _, g in given])
        if self._means:
            torch._foreach_copy_(self._mean_windows, self._means)
            torch._foreach_mul_(self._mean_windows, float(images))
        if self._batches and self.ranks.first:
            torch._foreach_copy_(self._batch_windows, self._batches)

    def _unpack(self, step: int) -> tuple[float, int]:
        head = self._flat[: _HEAD + self.ranks.world].tolist()
        images, cost, failures, wishes, places = head[:_HEAD]
        if places != step % _PLACES * self.ranks.world:
            raise self.ranks.apart(f"is at step {step + 1}")
        self.counts = [int(count) for count in head[_HEAD:]]
        self._stop = self._stop or wishes > 0
        if failures:
            return float("nan"), int(images)
        first = _HEAD + self.ranks.world
        if self._batches:
            torch._foreach_copy_(self._batches, self._batch_windows)
        self._flat[first:].div_(images)
        for parameter, mine, given in zip(
            self._parameters, self._gradients, self._given, strict=True
        ):
            parameter.grad = mine if given else None
        if self._means:
            torch._foreach_copy_(self._means, self._mean_windows)
        return cost / images, int(images)

    def found(self, layer: str, rows: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
        """Return the first layer that a rank found bad, and rows of the whole batch."""
        offset = sum(self.counts[: self.ranks.place.rank])
        mine = [layer, [row + offset for row in rows]]
        every = self.ranks.words(mine, "where numbers went wrong")
        named = [(rank, said) for rank, said in enumerate(every) if said[0]]
        if not named:
            return "", ()
        # Where a rank found images, others merely caught it through a batch norm.
        rank, (where, _) = max(named, key=lambda said: (bool(said[1][1]), -said[0]))
        bad = sorted(row for _, (_, theirs) in named for row in theirs)
        return f"{where} on rank {rank}", tuple(bad)

    def check_equal(self) -> None:
        """Hold the ranks' weights against each other.

        Raises:
            RankError: They have parted; names the first tensor and the ranks.
        """
        state = self._model.state_dict()
        mine = {name: _digest(tensor) for name, tensor in state.items()}
        every: list[dict[str, Any]] = self.ranks.words(mine, "the weights' hashes")
        for name in mine:
            other = [n for n, theirs in enumerate(every) if theirs[name] != mine[name]]
            if other:
                what = f"the ranks' weights differ, first {name}"
                fix = "give every rank the same torch, processor type and settings"
                where = f"rank {self.ranks.place.rank} and rank {other[0]}"
                raise RankError(what, where=where, fix=fix)


def _floats(norms: list[_BatchNorm]) -> list[Tensor]:
    found = [each for m in norms for each in (m.running_mean, m.running_var)]
    return [tensor for tensor in found if tensor is not None]


def _window(flat: Tensor, tensor: Tensor, first: int) -> Tensor:
    """Return a part of the run laid out in memory as a tensor is."""
    strides = torch.empty_like(tensor, device="meta").stride()
    return flat.as_strided(tensor.shape, strides, first)


def _digest(tensor: Tensor) -> str:
    plain = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.blake2b(plain.numpy().data, digest_size=8).hexdigest()
