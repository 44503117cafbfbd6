"""One sitting of a run: the loop and its watchers, until it is done or stopped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer

from striate.core import device as devices
from striate.core.errors import InterruptedRunError, NonFiniteError, StorageError
from striate.data.batches import Batches
from striate.data.cache.lazy_images import LazyPixels
from striate.data.image_data import ImageData
from striate.data.progressive_resize import ProgressiveResize
from striate.engine.callbacks import Callback, EpochResult
from striate.engine.checkpoint_store import Checkpoint, CheckpointStore
from striate.engine.checkpointer import LAST, Checkpointer, Stateful, checkpoint_state
from striate.engine.csv_logger import CSVLogger, TimingLogger
from striate.engine.distributed.group import RankGroup
from striate.engine.ema import EMA
from striate.engine.loop import FitConfig, fit
from striate.engine.rng import preserve_rng_state
from striate.engine.signals import StopRequest, catch_stop_signals
from striate.engine.tensorboard import tensorboard_loggers
from striate.engine.throughput import ThroughputMeter
from striate.engine.train_state import TrainState
from striate.engine.weights_io import OptimizerState
from striate.run import layout as names
from striate.run.layer_norms import Norms, norms_kept
from striate.run.manifest import now
from striate.run.progress import Display
from striate.run.recipe import Recipe
from striate.workflows.train.nonfinite_report import Blowups
from striate.workflows.train.ranks import share_state, shared_norms

LOWER_LR = "lower-lr"
SMALLEST_BRAKE = 2.0**-6  # of the planned rate; below that the rate is not the fault


@dataclass(frozen=True, kw_only=True)
class Job:
    """Everything that learns, and what it learns from.

    Args:
        folder: The run folder.
        recipe: All settings.
        model: The network, where it learns.
        optimizer: Over its parameters.
        plan: Duration and rates.
        train: Batches to learn from.
        val: Batches to judge by.
        facts: What decides the bits of the results.
        inexact: Why the run no longer equals one that was never stopped; grows.
        quiet: Show no progress.
        tensorboard: Write event files too.
        ranks: The processes that learn together, where there are several.
        train_data: All images, for those who judge the result.
        laps: Times the waiting for images, and updates.
        average: Of the weights, where it is judged and kept in their place.
    """

    folder: Path
    recipe: Recipe
    model: nn.Module
    optimizer: Optimizer
    plan: FitConfig
    train: Batches | ProgressiveResize
    val: Batches
    facts: Mapping[str, str]
    inexact: list[str]
    quiet: bool
    tensorboard: bool = False
    ranks: RankGroup | None = None
    train_data: ImageData | None = None
    laps: ThroughputMeter = field(default_factory=ThroughputMeter)
    average: EMA | None = None

    @property
    def judged(self) -> nn.Module:
        """Return the network whose weights are judged and kept."""
        return self.average.model if self.average else self.model

    @property
    def unread(self) -> list[str]:
        """Say which training images could not be read when they were wanted."""
        held = self.train.subset.pixels, self.train.subset.larger
        lazy = [pixels for pixels in held if isinstance(pixels, LazyPixels)]
        lost = dict.fromkeys(skip.path for pixels in lazy for skip in pixels.lost)
        if not lost:
            return []
        first = next(iter(lost))
        return [f"{len(lost):,} of the images could not be read, first {first}"]


@dataclass(frozen=True)
class Learned:
    """What a run came to, and how long it took."""

    history: list[EpochResult]
    seconds: float
    laps: ThroughputMeter


class _SlowerError(Exception):
    """The run is to go on from its last checkpoint with a smaller rate."""

    def __init__(self, brake: float) -> None:
        super().__init__(brake)
        self.brake = brake


def learn(job: Job, sealed: Checkpoint | None = None) -> Learned:
    """Train to the end, from a checkpoint where one is given.

    Raises:
        InterruptedRunError: Someone asked to stop; the state is kept.
        NonFiniteError: A number blew up, and the recipe's answer was to stop, or did
            not help.
        StorageError: The disk refused.
    """
    brake = 1.0
    while True:
        try:
            return _sit(job, sealed, brake)
        except _SlowerError as slower:
            brake = slower.brake
            sealed = CheckpointStore(job.folder / names.WEIGHTS / LAST).newest()[0]


def _sit(job: Job, sealed: Checkpoint | None, brake: float) -> Learned:
    at, marks = checkpoint_state(sealed) if sealed else (TrainState(), None)
    before = float(sealed.metadata["seconds"]) if sealed else 0.0
    with (
        CSVLogger(job.folder, job.train.indices, marks) as journal,
        TimingLogger(job.folder, len(at.history), before) as timing,
        _display(job) as display,
        tensorboard_loggers(
            job.folder / names.TENSORBOARD, job.tensorboard, at.step
        ) as board,
        _norms(job, at) as norms,
        job.laps.time_optimizer(job.optimizer),
        preserve_rng_state(),
        devices.flush_denormals(),
        catch_stop_signals() as asked,
        shared_norms(job.model, job.recipe, job.ranks),
    ):
        keeper = _keeper(job, journal, timing, display)
        if sealed:
            keeper.restore(sealed)
        keeper.state.lr_scale = min(keeper.state.lr_scale, brake)
        if job.ranks:
            state = job.model, job.optimizer, keeper.state, job.average
            share_state(job.ranks, *state)
        keeper.save()
        for one in norms:
            one.begin(keeper.state.step)
        averaged = [job.average] if job.average else []
        watchers: tuple[Callback, ...] = (
            *averaged,
            journal,
            timing,
            keeper,
            display,
            *board,
            *norms,
        )
        blowups = Blowups(job.folder, job.recipe, job.train, job.val, display.note)
        loops = job.laps.time_batches(job.train), job.val, job.plan
        try:
            learning = job.model, job.optimizer, *loops, watchers, asked
            fit(*learning, keeper.state, blowups, job.judged, job.ranks)
        except NonFiniteError as error:
            raise _answer(error, job, keeper, blowups, display) from error
        keeper.save()
        unread = job.unread
        if job.ranks:
            asked.signal = job.ranks.max_over_ranks(asked.signal, "whether to stop")
            said = job.ranks.all_gather_object(unread, "what could not be read")
            unread = list(dict.fromkeys(text for texts in said for text in texts))
        for one in () if asked() else norms:
            one.look(keeper.state.step)
        for text in unread:
            display.note(f"{text}; others of their batches were shown instead")
    job.inexact.extend(unread)
    if asked():
        raise _interrupted(job, keeper.state, asked)
    return Learned(keeper.state.history, timing.seconds, job.laps)


def _norms(job: Job, at: TrainState) -> AbstractContextManager[Sequence[Norms]]:
    shown = job.model, job.train.subset, job.val
    return norms_kept(job.folder, *shown, at.step, wanted=job.recipe.track_norms)


def _display(job: Job) -> Display:
    plan, words = job.plan, job.laps.summary
    return Display(plan.epochs, job.train, job.quiet, plan.balanced, words)


def _keeper(
    job: Job, journal: CSVLogger, timing: TimingLogger, display: Display
) -> Checkpointer:
    def facts() -> dict[str, Any]:
        return {
            "saved": now(),
            "seconds": round(timing.seconds, 3),
            "inexact": [*job.inexact, *job.unread],
            "circumstances": dict(job.facts),
        }

    parts: dict[str, Stateful] = {"optimizer": OptimizerState(job.optimizer)}
    if job.average:
        parts["ema"] = job.average
    return Checkpointer(
        job.folder / names.WEIGHTS,
        job.model,
        parts,
        offsets=journal.offsets,
        metadata=facts,
        interval=job.recipe.save_every,
        warn=display.note,
        eval_model=job.judged,
    )


def goes_on_slower(recipe: Recipe, at: TrainState) -> bool:
    """Say whether a run that blew up begins again from its checkpoint."""
    return recipe.on_nonfinite == LOWER_LR and at.lr_scale > SMALLEST_BRAKE


def _answer(
    error: NonFiniteError,
    job: Job,
    keeper: Checkpointer,
    blowups: Blowups,
    display: Display,
) -> Exception:
    """Return what to raise: the way to go on slower, or the error with the choice."""
    at = keeper.state
    if job.recipe.on_nonfinite == LOWER_LR:
        if goes_on_slower(job.recipe, at):
            blowups.record(error, at)
            job.inexact.append(f"the rate was halved after step {at.step}")
            display.note(f"{error.what}; back to the last checkpoint, the rate halved")
            return _SlowerError(at.lr_scale / 2)
        error.what = f"{error.what}, also at {at.lr_scale:g} of the planned rate"
    with suppress(NonFiniteError, StorageError):  # the first error is the message
        keeper.save()
    return blowups.complete(error, at)


def _interrupted(job: Job, at: TrainState, asked: StopRequest) -> InterruptedRunError:
    total = job.plan.epochs * len(job.train)
    what = f"stopped on request after step {at.step:,} of {total:,}"
    where = f"{job.folder}, epoch {at.epoch + 1} of {job.plan.epochs}"
    fix = f"go on, exactly: striate train --resume {job.folder}"
    error = InterruptedRunError(what, where=where, fix=fix)
    error.exit_code = asked.exit_code
    return error
