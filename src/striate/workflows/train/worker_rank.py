"""A rank other than the first: it learns the same, and leaves writing to rank 0."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from striate.core import device as devices
from striate.core.errors import InterruptedRunError, NonFiniteError
from striate.engine.distributed.group import RankGroup
from striate.engine.loop import fit
from striate.engine.rng import preserve_rng_state
from striate.engine.signals import catch_stop_signals
from striate.engine.train_state import TrainState
from striate.run.recipe import Recipe
from striate.run.run import Run
from striate.workflows.train.nonfinite_report import MOST_SKIPPED
from striate.workflows.train.ranks import share_state, shared_norms
from striate.workflows.train.trainer import Job, goes_on_slower


def follow(folder: Path, job: Job, ranks: RankGroup) -> Run:
    """Learn and judge what rank 0 does; return the run that it writes.

    Raises:
        InterruptedRunError: Someone asked one of the ranks to stop.
        NonFiniteError: A number blew up on one of them.
        RankError: One of them died, hung or failed.
    """
    while _sit(job, ranks):
        pass
    ranks.barrier("rank 0 to write the best weights")
    run = Run(folder, model=job.model, data=job.train_data)
    for split in run.splits_to_evaluate:
        run.judge(run.data.subset(split), ranks)
    ranks.barrier("rank 0 to write the report")
    return run


def _sit(job: Job, ranks: RankGroup) -> bool:
    """Learn; say whether rank 0 begins again from its checkpoint, more slowly."""
    with (
        preserve_rng_state(),
        devices.flush_denormals(),
        catch_stop_signals() as asked,
        shared_norms(job.model, job.recipe, ranks),
    ):
        state = job.model, job.optimizer, TrainState(), job.average
        at = share_state(ranks, *state)
        loops = job.train, job.val, job.plan
        watchers = (job.average,) if job.average else ()
        blown = _answer(job.recipe)
        try:
            learning = job.model, job.optimizer, *loops, watchers, asked
            fit(*learning, at, blown, job.judged, ranks)
        except NonFiniteError as error:
            if goes_on_slower(job.recipe, at):
                return True
            error.reported_elsewhere = True
            raise
        asked.signal = ranks.max_over_ranks(asked.signal, "whether to stop")
        ranks.all_gather_object(job.unread, "what could not be read")
    if asked():
        error_ = InterruptedRunError("stopped on request", where=job.folder)
        error_.exit_code, error_.reported_elsewhere = asked.exit_code, True
        raise error_
    return False


def _answer(recipe: Recipe) -> Callable[[NonFiniteError, TrainState], None]:
    """Return what answers a step that blew up as `runs.blowup` does on rank 0."""

    def blown(error: NonFiniteError, at: TrainState) -> None:
        if recipe.on_nonfinite != "skip" or at.skipped >= MOST_SKIPPED:
            raise error

    return blown
