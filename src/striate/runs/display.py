"""The loop's events, handed to the progress display."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

from striate.data.batches import Batches
from striate.engine.position import EpochDone, StepDone
from striate.report.progress import Progress


class Display:
    """An observer of the loop that draws progress on stderr.

    A terminal that has gone takes the drawing with it, and not the run.
    """

    def __init__(self, epochs: int, batches: Batches, quiet: bool) -> None:
        self._progress = Progress(quiet=quiet)
        self._size = {"steps": len(batches), "pictures": batches.pictures}
        self._epochs = epochs
        self._shown = 0
        self._heard = True

    def on_step(self, done: StepDone) -> None:
        """Move the bar."""
        self._shown += done.pictures
        words = done.epoch + 1, done.batch + 1, done.loss, self._shown
        self._say(lambda: self._progress.step(*words))

    def on_epoch(self, done: EpochDone) -> None:
        """Print the epoch's line."""
        row = {
            "epoch": done.epoch + 1,
            "train_loss": done.train_loss,
            "val_loss": done.val_loss,
            "val_accuracy": done.val_accuracy,
            "best": done.best,
        }
        self._say(lambda: self._progress.epoch(row))

    def note(self, text: str) -> None:
        """Print what the user must know, also where no progress is wanted."""
        self._say(lambda: self._progress.note(text))

    def _say(self, speak: Callable[[], None]) -> None:
        if self._heard:
            try:
                speak()
            except OSError:
                self._heard = False

    def __enter__(self) -> Self:
        self._say(lambda: self._progress.start(self._epochs, **self._size))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._say(self._progress.close)
