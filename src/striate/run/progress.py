"""Progress of reading and training, printed to stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TextIO

from striate.core.format import count_text, duration_text
from striate.data.batches import Batches
from striate.data.image_data import ImageData
from striate.data.progressive_resize import ProgressiveResize
from striate.data.scan import Tick
from striate.engine.callbacks import Callback, EpochResult, StepResult
from striate.report.progress import TrainingProgress
from striate.run.transfer_plan import TransferPlan

DELAY = 1.0  # seconds until the reading progress is shown
MEASURED = 3.0  # seconds until a forecast is made
MIN_SECONDS_LEFT = 10.0  # with fewer seconds left, no forecast is printed


def reading_progress(quiet: bool, stream: TextIO | None = None) -> Tick | None:
    """Return a callback that shows the number of read images; None without a terminal.

    The callback overwrites one line and clears the line after the last image.
    """
    out = sys.stderr if stream is None else stream
    if quiet or not out.isatty():
        return None
    start = time.monotonic()

    def tick(read: int, count: int) -> None:
        if time.monotonic() - start < DELAY:
            return
        line = f"reading images: {read:,} of {count:,} (cached for the next run)"
        # The last call comes up to 63 images before the end.
        print(f"\r{line}\x1b[K", end="", file=out, flush=True)
        if read + 64 > count:
            print("\r\x1b[K", end="", file=out, flush=True)

    return tick


def features_progress(quiet: bool, stream: TextIO | None = None) -> Tick | None:
    """Return a callback that shows how long the features of a backbone take.

    In a terminal, it overwrites one line. In a log file, it writes one line with a
    forecast after the first seconds; if little is left, none.
    """
    if quiet:
        return None
    out = sys.stderr if stream is None else stream
    start, in_terminal = time.monotonic(), out.isatty()
    waiting = not in_terminal

    def tick(count: int, total: int) -> None:
        nonlocal waiting
        elapsed = time.monotonic() - start
        left = elapsed * (total - count) / max(count, 1)
        images = count_text(total, "image")
        if in_terminal:
            line = f"features: {count:,} of {images}, {left:.0f} s left"
            end = "\r\x1b[K" if count == total else ""
            print(f"\r{line}\x1b[K{end}", end="", file=out, flush=True)
        elif waiting and elapsed >= MEASURED:
            waiting = False
            if left >= MIN_SECONDS_LEFT:
                line = f"about {duration_text(elapsed + left)} for the features"
                print(f"forecast: {line} of {images}", file=out, flush=True)

    return tick


def ignore(*values: object) -> None:
    """Do nothing; the default of a callback."""


@dataclass(frozen=True, kw_only=True)
class TransferCallbacks:
    """Functions that are called in the course of a transfer run."""

    # called with the data and the run folder before anything is computed
    on_begin: Callable[[ImageData, Path], None] = ignore
    # called with the plan of `cut="auto"` before training
    on_plan: Callable[[TransferPlan], None] = ignore


def line_printer(quiet: bool) -> Callable[[str], None]:
    """Return a function that prints a line to stderr, or does nothing if `quiet`."""

    def print_line(line: str) -> None:
        if not quiet:
            print(line, file=sys.stderr, flush=True)

    return print_line


class ProgressCallback(Callback):
    """Training-loop callback that shows the progress on stderr.

    If stderr is closed, the run continues without progress output. With `balanced`, the
    balanced accuracy is shown too, which then selects the best epoch. `speed` returns
    an additional text for a number of images per second.
    """

    def __init__(
        self,
        epochs: int,  # maximum number of epochs
        batches: Batches | ProgressiveResize,  # batches of the training split
        quiet: bool,  # show nothing
        # Also show the balanced accuracy, which then selects the best epoch.
        balanced: bool = False,
        # Function from images per second to an additional text.
        speed: Callable[[float], str] = lambda rate: "",
    ) -> None:
        self._progress = TrainingProgress(quiet=quiet, speed=speed)
        self._size = {"steps": len(batches), "images": batches.images}
        self._epochs = epochs
        self._balanced = {"val_balanced_accuracy"} if balanced else set()
        self._images = 0
        self._connected = True

    def on_step_end(self, event: StepResult, /) -> None:
        """Update the progress bar after a training step."""
        self._images += event.images
        epoch, batch, images = event.epoch, event.batch + 1, self._images
        self._draw(lambda: self._progress.step(epoch, batch, event.loss, images))

    def on_epoch_end(self, event: EpochResult, /) -> None:
        """Print losses and accuracies of a finished epoch."""
        scores = ("val_accuracy", *self._balanced)
        scores = scores if event.val_map is None else ("val_map",)
        columns = ("train_loss", "val_loss", *scores, "best")
        row = {name: getattr(event, name) for name in columns}
        self._draw(lambda: self._progress.epoch({"epoch": event.epoch, **row}))

    def note(self, text: str) -> None:
        """Print a message that is also shown with --quiet."""
        self._draw(lambda: self._progress.note(text))

    def _draw(self, draw: Callable[[], None]) -> None:
        if self._connected:
            try:
                draw()
            except OSError:
                self._connected = False

    def __enter__(self) -> Self:
        self._draw(lambda: self._progress.start(self._epochs, **self._size))
        return self

    def __exit__(self, *error: object) -> None:
        self._draw(self._progress.close)
