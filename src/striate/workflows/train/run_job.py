"""Training of a job to the end, evaluation of the best weights, and report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from shlex import quote
from typing import Any

from torch import nn

from striate.core import device as devices
from striate.core.errors import (
    InterruptedRunError,
    NonFiniteError,
    StorageError,
    StriateError,
)
from striate.core.files import hash_file, read_json
from striate.data.image_data import ImageData
from striate.engine.callbacks import Callback, EpochResult
from striate.engine.checkpoint_store import Checkpoint, CheckpointStore
from striate.engine.checkpointer import LAST, Checkpointer, Stateful, checkpoint_state
from striate.engine.config import RuntimeConfig
from striate.engine.csv_logger import CSVLogger, TimingLogger
from striate.engine.distributed.group import ONE_PROCESS, RankGroup
from striate.engine.rng import preserve_rng_state
from striate.engine.signals import StopRequest, catch_stop_signals
from striate.engine.tensorboard import tensorboard_loggers
from striate.engine.train_state import TrainState
from striate.engine.training_loop import FitSession, fit
from striate.engine.weights_io import OptimizerState, load_weights
from striate.finetune.freeze import check_frozen
from striate.run import layout as names
from striate.run.calibration import save_evaluation
from striate.run.layer_norms import layer_norms_logger
from striate.run.manifest import exactness_text, now, record_stop, update_manifest
from striate.run.network_errors import error_text, network_errors
from striate.run.progress import ProgressCallback
from striate.run.recipe import Recipe
from striate.run.report_page import write_report
from striate.run.run import Run
from striate.run.train_accuracy import measure_train_accuracy
from striate.workflows.train.autotune import throughput_facts
from striate.workflows.train.build_job import SessionOptions, TrainJob, build_job
from striate.workflows.train.nonfinite_report import MAX_SKIPPED, NonFiniteReport
from striate.workflows.train.ranks import share_state, sync_batch_norm

LOWER_LR = "lower-lr"
SMALLEST_LR_SCALE = 2.0**-6  # below that, the learning rate is not the cause


class _LowerLRError(Exception):
    """Exception to restart from the last checkpoint with a lower learning rate."""

    def __init__(self, lr_scale: float) -> None:
        super().__init__(lr_scale)
        self.lr_scale = lr_scale


def train_in_folder(
    folder: Path,
    model: nn.Module,
    data: ImageData,
    recipe: Recipe,
    options: SessionOptions,
    checkpoint: Checkpoint | None = None,
    inexact: Sequence[str] = (),
    group: RankGroup = ONE_PROCESS,
) -> Run:
    """Train in a locked run folder, evaluate the best weights, write the report.

    `checkpoint` is the one to continue from. `inexact` has the reasons why the result
    differs from an uninterrupted run.
    """
    stopped = record_stop(folder) if group.is_main else nullcontext()
    with stopped, network_errors(recipe.model, folder):
        job = build_job(folder, model, data, recipe, options, inexact, group)
        if not group.is_main:
            return _train_worker(job)
        history, seconds = fit_job(job, checkpoint)
        if job.inexact:
            update_manifest(folder, exact=exactness_text(job.inexact))
        _finish(Run(folder, model=model, data=data), job, history, seconds)
    # A new object: what the other one has read is from before the run was done.
    return Run(folder, model=model, data=data)


def fit_job(
    job: TrainJob, checkpoint: Checkpoint | None = None
) -> tuple[list[EpochResult], float]:
    """Train to the end, from a checkpoint if given; return the history and seconds.

    Raises:
        InterruptedRunError: The user stopped the run; the training state is saved.
        NonFiniteError: A value became NaN or infinite, and `on_nonfinite` is `stop`
            or did not help.
        StorageError: A file could not be written.
    """
    lr_scale = 1.0
    while True:
        try:
            return _run_once(job, checkpoint, lr_scale)
        except _LowerLRError as lower:
            lr_scale = lower.lr_scale
            store = CheckpointStore(job.folder / names.WEIGHTS / LAST)
            checkpoint = store.newest()[0]


def _run_once(
    job: TrainJob, checkpoint: Checkpoint | None, lr_scale: float
) -> tuple[list[EpochResult], float]:
    """Train until the end, a stop request, or a restart with lower learning rate."""
    state, marks = checkpoint_state(checkpoint) if checkpoint else (TrainState(), None)
    before = float(checkpoint.metadata["seconds"]) if checkpoint else 0.0
    config, options = job.fit_config, job.options
    board_folder = job.folder / names.TENSORBOARD
    with (
        CSVLogger(job.folder, job.train.indices, marks, job.columns) as csv_logger,
        TimingLogger(job.folder, len(state.history), before) as timing,
        ProgressCallback(
            config.epochs, job.train, options.quiet, config.balanced, job.laps.summary
        ) as display,
        tensorboard_loggers(board_folder, options.tensorboard, state.step) as board,
        layer_norms_logger(
            job.folder,
            job.model,
            job.train.subset,
            job.val,
            state.step,
            enabled=job.recipe.track_norms,
        ) as norms,
        job.laps.time_optimizer(job.optimizer),
        preserve_rng_state(),
        devices.flush_denormals(),
        catch_stop_signals() as stop,
        sync_batch_norm(job.model, job.recipe, job.group),
    ):
        checkpointer = _checkpointer(job, csv_logger, timing, display)
        if checkpoint:
            checkpointer.restore(checkpoint)
        state = checkpointer.state
        state.lr_scale = min(state.lr_scale, lr_scale)
        share_state(job.group, job.model, job.optimizer, state, ema=job.ema)
        checkpointer.save()
        for norm in norms:
            norm.begin(state.step)
        tell = display.note
        report = NonFiniteReport(job.folder, job.recipe, job.train, job.val, tell)
        loggers = csv_logger, timing, checkpointer, display, *board, *norms
        try:
            _fit(job, state, loggers, stop, report)
        except NonFiniteError as error:
            raise _on_nonfinite(error, job, checkpointer, report, display) from error
        checkpointer.save()
        unread = job.unread
        stop.signal = max(job.group.all_gather_object(stop.signal, "stop signals"))
        notes = job.group.all_gather_object(unread, "which images could not be read")
        unread = list(dict.fromkeys(text for rank in notes for text in rank))
        for norm in () if stop() else norms:
            norm.record(state.step)
        for text in unread:
            display.note(f"{text}; replaced by other images")
    job.inexact.extend(unread)
    if stop():
        raise _interrupted(job, state, stop)
    return state.history, timing.seconds


def _fit(
    job: TrainJob,
    state: TrainState,
    loggers: Sequence[Callback],
    stop: StopRequest,
    on_nonfinite: Callable[[NonFiniteError, TrainState], None],
) -> None:
    fit(
        job.model,
        job.optimizer,
        job.laps.time_batches(job.train),
        job.val,
        job.fit_config,
        callbacks=[job.ema, *loggers] if job.ema else loggers,
        state=state,
        session=FitSession(
            should_stop=stop,
            on_nonfinite=on_nonfinite,
            eval_model=job.eval_model,
            group=job.group,
        ),
    )


def _checkpointer(
    job: TrainJob,
    csv_logger: CSVLogger,
    timing: TimingLogger,
    display: ProgressCallback,
) -> Checkpointer:
    def facts() -> dict[str, Any]:
        return {
            "saved": now(),
            "seconds": round(timing.seconds, 3),
            "inexact": [*job.inexact, *job.unread],
            "circumstances": dict(job.environment),
        }

    parts: dict[str, Stateful] = {"optimizer": OptimizerState(job.optimizer)}
    if job.ema:
        parts["average"] = job.ema
    return Checkpointer(
        job.folder / names.WEIGHTS,
        job.model,
        parts,
        offsets=csv_logger.offsets,
        metadata=facts,
        interval=job.recipe.save_every,
        warn=display.note,
        eval_model=job.eval_model,
    )


def _restarts_with_lower_lr(runtime: RuntimeConfig, state: TrainState) -> bool:
    return runtime.on_nonfinite == LOWER_LR and state.lr_scale > SMALLEST_LR_SCALE


def _on_nonfinite(
    error: NonFiniteError,
    job: TrainJob,
    checkpointer: Checkpointer,
    report: NonFiniteReport,
    display: ProgressCallback,
) -> Exception:
    """Return the exception for NaN values: request to restart, or error with advice."""
    state = checkpointer.state
    if job.recipe.on_nonfinite == LOWER_LR:
        if _restarts_with_lower_lr(job.recipe, state):
            report.record(error, state)
            what = f"the learning rate was halved after step {state.step}"
            job.inexact.append(what)
            note = "restarting from the last checkpoint with half the learning rate"
            display.note(f"{error.what}; {note}")
            return _LowerLRError(state.lr_scale / 2)
        also = f"also with {state.lr_scale:g} times the learning rate"
        error.what = f"{error.what} ({also})"
    with suppress(NonFiniteError, StorageError):  # the first error is the message
        checkpointer.save()
    return report.complete(error, state)


def _interrupted(job: TrainJob, state: TrainState, stop: StopRequest) -> StriateError:
    epochs = job.fit_config.epochs
    total = epochs * len(job.train)
    what = f"stopped on request after step {state.step:,} of {total:,}"
    where = f"{job.folder}, epoch {state.epoch + 1} of {epochs}"
    fix = f"resume exactly with: striate train --resume {quote(str(job.folder))}"
    error = InterruptedRunError(what, where=where, fix=fix)
    error.exit_code = stop.exit_code
    return error


def _finish(
    run: Run, job: TrainJob, history: list[EpochResult], seconds: float
) -> None:
    """Evaluate the best weights on validation and test images, and write the report."""
    model, group = job.model, job.group
    load_weights(model, run.path / names.BEST)
    # Not by `run.manifest`, which would keep what is not complete yet.
    if frozen := read_json(run.path / names.MANIFEST).get("frozen"):
        check_frozen(model, frozen["sha256"])
    group.barrier("the other ranks read the best weights")
    unscaled = {
        split: run.predict_subset(run.data.subset(split), group, scaled=False)
        for split in run.splits_to_evaluate
    }
    save_evaluation(run.path, unscaled)
    train_accuracy = _train_accuracy(run, group)
    rate = len(history) * len(run.data.subset("train")) / seconds
    update_manifest(
        run.path,
        finished=now(),
        seconds=round(seconds, 3),
        epochs=len(history),
        images_per_second=round(rate, 1),
        speed=throughput_facts(job.laps, rate, len(history)),
        best_epoch=max(epoch.epoch for epoch in history if epoch.best),
        weights=hash_file(run.path / names.BEST),
        train_accuracy=train_accuracy,
    )
    with group.rank_first(0, "the report"):
        write_report(run)
        update_manifest(run.path, status="done")


def _train_accuracy(run: Run, group: RankGroup) -> dict[str, Any] | None:
    """Return the training accuracy; if the network fails, None and a note in the run.

    The result of a run must not be lost because of what is measured after it.
    """
    try:
        return measure_train_accuracy(run, group).as_record()
    except StriateError:
        raise
    except Exception as error:  # a foreign forward may raise anything
        if group.world_size > 1:  # the other ranks wait for this one
            raise
        note = f"the training accuracy is missing: {error_text(error)}"
        notes = read_json(run.path / names.MANIFEST).get("notes", [])
        update_manifest(run.path, notes=[*notes, note])
        return None


def _train_worker(job: TrainJob) -> Run:
    """Train and evaluate on a rank other than 0, without writing files."""
    while _run_worker_once(job):
        pass
    group = job.group
    group.barrier("the other ranks read the best weights")
    run = Run(job.folder, model=job.model, data=job.data)
    for split in run.splits_to_evaluate:
        run.predict_subset(run.data.subset(split), group, scaled=False)
    measure_train_accuracy(run, group)
    with group.rank_first(0, "the report"):
        return run


def _run_worker_once(job: TrainJob) -> bool:
    """Train on a worker rank; return whether to restart with lower learning rate."""
    group = job.group

    def on_nonfinite(error: NonFiniteError, state: TrainState) -> None:
        if job.recipe.on_nonfinite != "skip" or state.skipped >= MAX_SKIPPED:
            raise error

    with (
        preserve_rng_state(),
        devices.flush_denormals(),
        catch_stop_signals() as stop,
        sync_batch_norm(job.model, job.recipe, group),
    ):
        state = share_state(group, job.model, job.optimizer, TrainState(), ema=job.ema)
        try:
            _fit(job, state, (), stop, on_nonfinite)
        except NonFiniteError as error:
            if _restarts_with_lower_lr(job.recipe, state):
                return True
            error.reported_elsewhere = True
            raise
        stop.signal = max(group.all_gather_object(stop.signal, "stop signals"))
        group.all_gather_object(job.unread, "which images could not be read")
    if stop():
        error_ = InterruptedRunError("stopped on request", where=job.folder)
        error_.exit_code, error_.reported_elsewhere = stop.exit_code, True
        raise error_
    return False
