"""How what lies behind a cut learns on: rates by depth, stages that thaw, statistics.

The layers next to the head know least of the new images and may learn fastest; those
near the cut are right for almost any image. So the rate falls by a factor from stage
to stage (Howard & Ruder 2018, "discriminative fine-tuning"), and stages may begin to
learn one after the other, from the head down (their "gradual unfreezing").
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from striate.core.errors import SettingError
from striate.core.frozen_mode import has_frozen_mode
from striate.core.registry import unknown_name_error
from striate.engine.callbacks import EpochResult, StepResult
from striate.finetune.cut_points import Stage
from striate.finetune.freeze import freeze, hold_statistics, unfreeze
from striate.finetune.split_model import Cut

ADAPTING, FROZEN = "adapting", "frozen"
BATCH_NORMS = (ADAPTING, FROZEN)
LOWEST = 0.1  # of the head's rate, for the stage next to the cut


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """How stages behind a cut differ in what they learn.

    Args:
        lr_decay: Factor on the rate from a stage to the one below; 1 for none.
        unfreeze: Epochs until the next stage below learns too; 0 for all at once.
        batch_norm: `adapting` to the new images, or `frozen` statistics; gains and
            biases learn either way.

    Raises:
        SettingError: A value is out of range.
    """

    lr_decay: float = 1.0
    unfreeze: int = 0
    batch_norm: str = ADAPTING

    def __post_init__(self) -> None:
        if not 0 < self.lr_decay <= 1:
            what = f"lr_decay must be above 0 and at most 1, got {self.lr_decay:g}"
            raise SettingError(what, where="--lr-decay")
        if self.unfreeze < 0:
            what = f"unfreeze must be at least 0, got {self.unfreeze}"
            raise SettingError(what, where="--unfreeze")
        if self.batch_norm not in BATCH_NORMS:
            raise unknown_name_error("batch-norm mode", self.batch_norm, BATCH_NORMS)


def decay_for(stages: int) -> float:
    """Return the factor that leaves the lowest of so many stages a tenth of the rate.

    Example:
        >>> round(decay_for(3), 3), decay_for(1)
        (0.316, 0.1)
    """
    return float(LOWEST ** (1 / max(stages - 1, 1)))


def learning(model: nn.Module, stages: Sequence[Stage], cut: Cut) -> tuple[Stage, ...]:
    """Return the stages behind a cut, from there to the head; one may be cut in two.

    Example:
        >>> from striate.finetune.split_model import cut_at, probe
        >>> from striate.finetune.cut_points import stages
        >>> layers = nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 2), nn.Flatten()
        >>> model, x = nn.Sequential(*layers, nn.Linear(2, 3)), probe((1, 4, 4))
        >>> found = learning(model, stages(model, x), cut_at(model, x, "0"))
        >>> [stage.layers for stage in found]
        [('1',), ('3',)]
    """
    modules = dict(model.named_modules())
    inside = {id(module) for module in cut.tail.modules()}
    found = []
    for stage in stages:
        mine = tuple(name for name in stage.layers if id(modules[name]) in inside)
        if mine:
            found.append(Stage(name=stage.name, layers=mine))
    return tuple(found)


def adapt_statistics(tail: nn.Module, batches: Iterable[Tensor]) -> int:
    """Let batch norms that will adapt do so before anything learns.

    A head fitted to what comes out under the old statistics would meet other features
    as soon as the norms take those of the batch (Li et al. 2016, "Revisiting batch
    normalization for practical domain adaptation"). Held norms stay as they are.

    Args:
        tail: A network or a part of one; its other layers run as when judged.
        batches: What it is given; larger ones tell more. Gone through once. Where one
            fails, everything is given back as it was found.

    Returns:
        How many norms have adapted.

    Example:
        >>> norm = nn.BatchNorm2d(1)
        >>> adapt_statistics(norm, [torch.full((2, 1, 2, 2), 7.0)])
        1
        >>> norm.running_mean.tolist(), norm.training
        ([7.0], True)
    """
    norms = [
        m
        for m in tail.modules()
        if isinstance(m, _BatchNorm) and not has_frozen_mode(m)
    ]
    norms = [norm for norm in norms if norm.running_mean is not None]
    if not norms:
        return 0
    with _adapting(tail, norms), torch.no_grad():
        for x in batches:
            tail(x)
    return len(norms)


@contextmanager
def _adapting(tail: nn.Module, norms: Sequence[_BatchNorm]) -> Iterator[None]:
    """Let norms take the plain mean over batches; give back modes and momenta.

    Where it fails half way, the statistics come back too: a mean over some is neither.
    """
    modes = {module: module.training for module in tail.modules()}
    pace = {norm: norm.momentum for norm in norms}
    before = [(b, b.clone()) for norm in norms for b in norm.buffers(recurse=False)]
    try:
        tail.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain mean over batches
            norm.training = True
        yield
    except BaseException:
        for buffer, kept in before:
            buffer.copy_(kept)
        raise
    finally:
        for module, mode in modes.items():
            module.training = mode
        for norm, momentum in pace.items():
            norm.momentum = momentum


@dataclass(frozen=True, kw_only=True)
class Depth:
    """A network's stages behind the cut, and how they are to learn.

    Args:
        model: The whole network.
        stages: From the cut to the head.
        tuning: How they differ.
        kept: Patterns of layers that stay frozen whatever thaws.
    """

    model: nn.Module = field(repr=False)
    stages: tuple[Stage, ...]
    tuning: Tuning
    kept: tuple[str, ...] = ()

    def scales(self) -> dict[nn.Parameter, float]:
        """Return each parameter's share of the rate: 1 at the head, less below."""
        modules = dict(self.model.named_modules())
        found: dict[nn.Parameter, float] = {}
        for height, stage in enumerate(reversed(self.stages)):
            for name in stage.layers:
                for parameter in modules[name].parameters(recurse=False):
                    found[parameter] = self.tuning.lr_decay**height
        return found


class Thaw:
    """An observer of the loop that lets stages learn one after the other.

    Args:
        depth: The stages; all but the head's are frozen by this.
    """

    def __init__(self, depth: Depth) -> None:
        self._depth = depth
        self._thawed = len(depth.stages)
        every = depth.model.parameters()
        self._never = [p for p in every if not p.requires_grad]
        if depth.tuning.unfreeze and depth.stages[1:]:
            self._thawed = 1
            below = [name for stage in depth.stages[:-1] for name in stage.layers]
            freeze(depth.model, below)

    def on_step_end(self, done: StepResult) -> None:
        """Nothing thaws within an epoch."""

    def on_epoch_end(self, done: EpochResult) -> None:
        """Let the next stage learn where it is time."""
        if self._depth.tuning.unfreeze:
            self._reach(1 + (done.epoch + 1) // self._depth.tuning.unfreeze)

    def end(self) -> None:
        """Let what is still frozen be as it was found, where learning ended early."""
        self._reach(len(self._depth.stages))

    def _reach(self, count: int) -> None:
        stages = self._depth.stages
        if self._thawed >= min(count, len(stages)):
            return
        while self._thawed < min(count, len(stages)):
            self._thawed += 1
            unfreeze(self._depth.model, stages[-self._thawed].layers)
        for parameter in self._never:  # filters that nothing trains, such as whitening
            parameter.requires_grad_(False)
        if self._depth.kept:
            freeze(self._depth.model, self._depth.kept)
        if self._depth.tuning.batch_norm == FROZEN:
            hold_statistics(self._depth.model)
