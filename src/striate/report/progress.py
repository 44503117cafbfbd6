"""Training progress: a progress bar in a terminal, plain lines in a log file.

Progress goes to stderr, so that stdout has only the result of a command.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Self, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar

from striate.core.format import count_text
from striate.report.format import number, percent

REDRAW = 0.1  # seconds between updates: terminals are slow
LABELS = {  # columns in the line of an epoch, if the row has them
    "train_loss": "train loss",
    "val_loss": "val loss",
    "val_map": "val mAP",
    "val_accuracy": "val accuracy",
    "val_balanced_accuracy": "balanced",
}
SHARES = ("val_map", "val_accuracy", "val_balanced_accuracy")


class TrainingProgress:
    """Context manager that shows the progress of a training run.

    Args:
        stream: Output stream (default stderr).
        quiet: Print nothing.
        clock: Function that returns monotonic time in seconds.
        speed: Function from images per second to an additional text.

    Example:
        >>> with TrainingProgress(stream=sys.stdout) as progress:
        ...     progress.start(epochs=2, steps=10, images=320)
        ...     progress.epoch({"epoch": 1, "val_accuracy": 0.9, "best": True})
        ...     progress.epoch({"epoch": 2, "val_accuracy": 0.8})
        epoch 1/2  val accuracy 90.00 %  best
        epoch 2/2  val accuracy 80.00 %
    """

    def __init__(
        self,
        *,
        stream: TextIO | None = None,
        quiet: bool = False,
        clock: Callable[[], float] = time.monotonic,
        speed: Callable[[float], str] = lambda rate: "",
    ) -> None:
        self._speed = speed
        self._stream = sys.stderr if stream is None else stream
        self._quiet = quiet
        self._clock = clock
        self._bar: Bar | None = None
        self._task = TaskID(0)
        self._epochs = self._steps = self._epoch = 0
        self._last_draw = float("-inf")
        self._rate = Throughput()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def start(self, epochs: int, steps: int, images: int) -> None:
        """Start the progress, given epochs, steps per epoch and images per epoch.

        A second call starts a new bar.
        """
        self.close()
        self._epochs, self._steps, self._epoch = epochs, steps, 0
        self._rate = Throughput()
        self._last_draw = float("-inf")
        interactive = self._stream.isatty() and os.environ.get("TERM") != "dumb"
        if interactive and not self._quiet:
            self._bar = _bar(self._stream)
            text = f"{count_text(images, 'image')} per epoch"
            self._task = self._bar.add_task("", total=epochs * steps, text=text)
            self._bar.start()

    def step(self, epoch: int, step: int, loss: float, images_done: int) -> None:
        """Update the bar after a training step, at most ten times per second.

        Args:
            epoch: Epoch number, from 1.
            step: Number of finished steps in this epoch.
            loss: Loss of the step.
            images_done: Number of processed images, in this epoch or since the start.
        """
        if self._bar is None:
            return
        now = self._clock()
        if now - self._last_draw < REDRAW:
            return
        self._last_draw = now
        steps = (epoch - 1) * self._steps + step
        self._rate.update(now, steps, images_done)
        text = self._text(epoch, loss, self._epochs * self._steps - steps)
        self._bar.update(self._task, completed=steps, text=text, refresh=True)

    def _text(self, epoch: int, loss: float, steps_left: int) -> str:
        parts = [f"epoch {epoch}/{self._epochs}", f"loss {number(loss)}"]
        if self._rate.images > 0:
            parts.append(f"{self._rate.images:,.0f} images/s")
            parts += filter(None, [self._speed(self._rate.images)])
        if self._rate.steps > 0:
            parts.append(f"{remaining_text(steps_left / self._rate.steps)} left")
        return " · ".join(parts)

    def epoch(self, row: Mapping[str, float]) -> None:
        """Print the metrics of a finished epoch, with a mark if `row["best"]`.

        The epoch number is `row["epoch"]`, from 1.
        """
        self._epoch = int(row.get("epoch", self._epoch + 1))
        if self._quiet:
            return
        parts = [f"epoch {self._epoch:>{len(str(self._epochs))}}/{self._epochs}"]
        parts += [_metric_text(key, row[key]) for key in LABELS if key in row]
        self._print("  ".join([*parts, "best"] if row.get("best") else parts))

    def note(self, line: str) -> None:
        """Print a line, even if `quiet` is set."""
        self._print(line)

    def _print(self, line: str) -> None:
        if self._bar is None:
            print(line, file=self._stream, flush=True)
        else:
            self._bar.console.print(line, markup=False, highlight=False)

    def close(self) -> None:
        """Remove the progress bar; printed lines remain."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class Throughput:
    """Steps and images per second, smoothed over about ten seconds.

    Example:
        >>> rate = Throughput()
        >>> rate.update(0.0, 0, 0)
        >>> rate.update(2.0, 10, 320)
        >>> rate.steps, rate.images
        (5.0, 160.0)
    """

    def __init__(self) -> None:
        self.steps = self.images = 0.0
        self._updates = 0
        self._last: tuple[float, int, int] | None = None

    def update(self, now: float, steps: int, images: int) -> None:
        """Update the rates from total counts; keep a rate if its count decreases."""
        last, self._last = self._last, (now, steps, images)
        if last is None or now <= last[0]:
            return
        seconds = now - last[0]
        # First a plain mean, then exponential smoothing over ten seconds.
        self._updates += 1
        weight = min(1.0, max(seconds / 10, 1 / self._updates))
        if steps >= last[1]:
            self.steps += weight * ((steps - last[1]) / seconds - self.steps)
        if images >= last[2]:
            self.images += weight * ((images - last[2]) / seconds - self.images)


def remaining_text(seconds: float) -> str:
    """Format the remaining time in seconds, minutes or hours.

    Example:
        >>> remaining_text(7.2), remaining_text(192), remaining_text(7_320)
        ('7 s', '3 min 12 s', '2 h 02 min')
    """
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _metric_text(key: str, value: float) -> str:
    if key in SHARES:
        return f"{LABELS[key]} {percent(value, 2)}"
    small = 1e-4 <= abs(value) < 1e3
    return f"{LABELS[key]} {f'{value:.4f}' if small else number(value)}"


def _bar(stream: TextIO) -> Bar:
    """Return a progress bar that is redrawn only by `update`, without a thread."""
    text = TextColumn("{task.fields[text]}", markup=False)
    console = Console(file=stream, force_terminal=True)
    return Bar(
        BarColumn(bar_width=28),
        text,
        console=console,
        auto_refresh=False,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )


@contextmanager
def stage_progress(*, quiet: bool = False) -> Iterator[Callable[[str], None]]:
    """Context manager that yields a function to show what is computed now.

    In a terminal, one line with the stage and the time is redrawn; it disappears at the
    end. Otherwise, each stage is a line.

    Example:
        >>> with stage_progress(quiet=True) as show:
        ...     show("heatmaps of image 1 of 2")
    """
    console = Console(file=sys.stderr)
    if quiet or not console.is_terminal:
        yield lambda text: None if quiet else print(text, file=sys.stderr, flush=True)
        return
    bar = Bar(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )
    with bar:
        task = bar.add_task("", total=None)
        yield lambda text: bar.update(task, description=text)


@contextmanager
def progress_bar(
    description: str, *, quiet: bool = False
) -> Iterator[Callable[[int, int], None]]:
    """Context manager that yields a function of (done, total) to update a bar.

    Example:
        >>> with progress_bar("looking", quiet=True) as tick:
        ...     tick(1, 2)
    """
    console = Console(file=sys.stderr)
    bar = Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=quiet or not console.is_terminal,
    )
    with bar:
        task = bar.add_task(description, total=None)
        yield lambda count, total: bar.update(task, completed=count, total=total)


@contextmanager
def download_progress(quiet: bool) -> Iterator[Callable[[int, int], None] | None]:
    """Context manager: a callback (bytes, all bytes) that moves a progress bar.

    It is None if nothing is shown: with `quiet`, or without a terminal.
    """
    if quiet or not sys.stderr.isatty():
        yield None
        return
    with Bar(
        TextColumn("download"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    ) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
