"""Training as it goes: a bar in a terminal, plain lines in a log file.

It writes to stderr, so that what a command prints as its result stays clean.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bar

from striate.report.format import number, percent

REDRAW = 0.1  # seconds: faster than that nobody reads, and terminals are slow
SHOWN = {  # what an epoch's line says, if the row has it
    "train_loss": "train loss",
    "val_loss": "val loss",
    "val_accuracy": "val accuracy",
    "val_balanced_accuracy": "balanced",
}
SHARES = ("val_accuracy", "val_balanced_accuracy")


class Progress:
    """A training's display; use it as a context manager.

    Args:
        stream: Where to write; stderr if not given.
        quiet: Print nothing at all.
        clock: Seconds that never go backwards; tests bring their own.
        speed: What to say beside so many images a second; '' for nothing.

    Example:
        >>> with Progress(stream=sys.stdout) as progress:
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
        self._drawn = float("-inf")
        self._rate = Rate()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def start(self, epochs: int, steps: int, images: int) -> None:
        """Begin a training of so many epochs, each of so many steps and images.

        Called again, it begins another training: bar and speed are fresh.
        """
        self.close()
        self._epochs, self._steps, self._epoch = epochs, steps, 0
        self._rate = Rate()
        self._drawn = float("-inf")
        if not self._quiet and _interactive(self._stream):
            self._bar = _bar(self._stream)
            words = f"{images:,} images an epoch"
            self._task = self._bar.add_task("", total=epochs * steps, words=words)
            self._bar.start()

    def step(self, epoch: int, step: int, loss: float, images_done: int) -> None:
        """Note that a step is done; draws at most ten times a second.

        Args:
            epoch: Counts from 1.
            step: Steps done in this epoch.
            loss: Of this step.
            images_done: Trained on so far, in this epoch or since the start.
        """
        if self._bar is None:
            return
        now = self._clock()
        if now - self._drawn < REDRAW:
            return
        self._drawn = now
        done = (epoch - 1) * self._steps + step
        self._rate.note(now, done, images_done)
        words = self._words(epoch, loss, self._epochs * self._steps - done)
        self._bar.update(self._task, completed=done, words=words, refresh=True)

    def _words(self, epoch: int, loss: float, steps_left: int) -> str:
        parts = [f"epoch {epoch}/{self._epochs}", f"loss {number(loss)}"]
        if self._rate.images > 0:
            parts.append(f"{self._rate.images:,.0f} images/s")
            parts += filter(None, [self._speed(self._rate.images)])
        if self._rate.steps > 0:
            parts.append(f"{duration(steps_left / self._rate.steps)} left")
        return " · ".join(parts)

    def epoch(self, row: Mapping[str, float]) -> None:
        """Print the line of an epoch that has ended, marked where `row["best"]`.

        Its number is `row["epoch"]`, counted from 1.
        """
        self._epoch = int(row.get("epoch", self._epoch + 1))
        if self._quiet:
            return
        parts = [f"epoch {self._epoch:>{len(str(self._epochs))}}/{self._epochs}"]
        parts += [_said(key, row[key]) for key in SHOWN if key in row]
        self._print("  ".join([*parts, "best"] if row.get("best") else parts))

    def note(self, line: str) -> None:
        """Print a line that must be seen, also where progress is not."""
        self._print(line)

    def _print(self, line: str) -> None:
        if self._bar is None:
            print(line, file=self._stream, flush=True)
        else:
            self._bar.console.print(line, markup=False, highlight=False)

    def close(self) -> None:
        """Take the bar away; the lines of the epochs stay."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class Rate:
    """Steps and images a second, smoothed over about the last ten seconds.

    Example:
        >>> rate = Rate()
        >>> rate.note(0.0, 0, 0)
        >>> rate.note(2.0, 10, 320)
        >>> rate.steps, rate.images
        (5.0, 160.0)
    """

    def __init__(self) -> None:
        self.steps = self.images = 0.0
        self._notes = 0
        self._last: tuple[float, int, int] | None = None

    def note(self, now: float, steps: int, images: int) -> None:
        """Take in the counts at a time; counts that fell begin anew."""
        last, self._last = self._last, (now, steps, images)
        if last is None or now <= last[0]:
            return
        seconds = now - last[0]
        # At first a plain mean; once that is slow to follow, by the time covered.
        self._notes += 1
        weight = min(1.0, max(seconds / 10, 1 / self._notes))
        if steps >= last[1]:
            self.steps += weight * ((steps - last[1]) / seconds - self.steps)
        if images >= last[2]:
            self.images += weight * ((images - last[2]) / seconds - self.images)


def duration(seconds: float) -> str:
    """Write a time as one reads a watch.

    Example:
        >>> duration(7.2), duration(192), duration(7_320)
        ('7 s', '3 min 12 s', '2 h 02 min')
    """
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _said(key: str, value: float) -> str:
    if key in SHARES:
        return f"{SHOWN[key]} {percent(value, 2)}"
    small = 1e-4 <= abs(value) < 1e3
    return f"{SHOWN[key]} {f'{value:.4f}' if small else number(value)}"


def _interactive(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def _bar(stream: TextIO) -> Bar:
    """No thread draws: only steps do, so that nothing runs beside the training."""
    words = TextColumn("{task.fields[words]}", markup=False)
    console = Console(file=stream, force_terminal=True)
    return Bar(
        BarColumn(bar_width=28),
        words,
        console=console,
        auto_refresh=False,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
