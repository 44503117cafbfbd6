"""The loop's events, handed to the progress display."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from striate.data.batches import Batches
from striate.engine.loop import EpochDone, StepDone
from striate.report.progress import Progress


class Display:
    """An observer of the loop that draws progress on stderr."""

    def __init__(self, epochs: int, batches: Batches, quiet: bool) -> None:
        self._progress = Progress(quiet=quiet)
        self._size = {"steps": len(batches), "pictures": batches.pictures}
        self._epochs = epochs
        self._shown = 0

    def on_step(self, done: StepDone) -> None:
        """Move the bar."""
        self._shown += done.pictures
        step = done.step % self._size["steps"] + 1
        self._progress.step(done.epoch + 1, step, done.loss, self._shown)

    def on_epoch(self, done: EpochDone) -> None:
        """Print the epoch's line."""
        self._progress.epoch(
            {
                "epoch": done.epoch + 1,
                "train_loss": done.train_loss,
                "val_loss": done.val_loss,
                "val_accuracy": done.val_accuracy,
                "best": done.best,
            }
        )

    def __enter__(self) -> Self:
        self._progress.start(self._epochs, **self._size)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.close()
