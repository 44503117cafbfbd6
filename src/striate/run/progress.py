"""The loop's events, handed to the progress display."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TextIO

from striate.data.batches import Batches
from striate.data.progressive_resize import ProgressiveResize
from striate.data.scan import Tick
from striate.engine.callbacks import EpochResult, StepResult
from striate.report.progress import Progress

PATIENCE = 1.0  # seconds before reading says how far it is


def reading(quiet: bool, stream: TextIO | None = None) -> Tick | None:
    """Return what tells on a terminal how far reading is, once that takes long.

    The line is drawn over itself, and gone when the last image is read.
    """
    out = sys.stderr if stream is None else stream
    if quiet or not out.isatty():
        return None
    began = time.monotonic()

    def tick(done: int, count: int) -> None:
        if time.monotonic() - began < PATIENCE:
            return
        line = f"reading images: {done:,} of {count:,}, kept for the next run"
        # The last call comes up to 63 images before the end.
        print(f"\r{line}\x1b[K", end="", file=out, flush=True)
        if done + 64 > count:
            print("\r\x1b[K", end="", file=out, flush=True)

    return tick


def teller(quiet: bool) -> Callable[[str], None]:
    """Return what tells a line to who waits, or tells nobody."""

    def tell(line: str) -> None:
        if not quiet:
            print(line, file=sys.stderr, flush=True)

    return tell


class Display:
    """An observer of the loop that draws progress on stderr.

    A terminal that has gone takes the drawing with it, and not the run.


    Args:
        epochs: How many there will be at most.
        batches: Of the training split.
        quiet: Show nothing.
        balanced: Show the balanced accuracy too, which then decides what is best.
        speed: What else to say of so many images a second.
    """

    def __init__(
        self,
        epochs: int,
        batches: Batches | ProgressiveResize,
        quiet: bool,
        balanced: bool = False,
        speed: Callable[[float], str] = lambda rate: "",
    ) -> None:
        self._progress = Progress(quiet=quiet, speed=speed)
        self._size = {"steps": len(batches), "images": batches.images}
        self._epochs = epochs
        self._balanced = {"val_balanced_accuracy"} if balanced else set()
        self._shown = 0
        self._heard = True

    def on_step_end(self, done: StepResult) -> None:
        """Move the bar."""
        self._shown += done.images
        words = done.epoch + 1, done.batch + 1, done.loss, self._shown
        self._say(lambda: self._progress.step(*words))

    def on_epoch_end(self, done: EpochResult) -> None:
        """Print the epoch's line."""
        shown = ("train_loss", "val_loss", "val_accuracy", *self._balanced, "best")
        row = {name: getattr(done, name) for name in shown}
        row = {"epoch": done.epoch + 1, **row}
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
