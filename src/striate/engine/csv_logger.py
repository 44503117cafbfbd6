"""What happened, written as it happens: one CSV row an epoch, one JSON line a step.

`results.csv` and `events.jsonl` hold nothing but what the run computed, so that a run
killed and resumed writes the same bytes as one that was not. What the clock says goes
to `timing.csv`.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, nullcontext, suppress
from dataclasses import asdict, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from torch import Tensor

from striate.core.append_log import AppendLog, prefix_matches
from striate.core.errors import StorageError
from striate.engine.callbacks import EpochResult, StepResult

RESULTS = "results.csv"
EVENTS = "events.jsonl"
TIMING = "timing.csv"
COLUMNS = tuple(field.name for field in fields(EpochResult))

SampleOrder = Callable[[int, int], Iterable[Tensor]]
Offsets = Mapping[str, Any]


class CSVLogger:
    """Writes `results.csv` and `events.jsonl` into a run folder.

    Every step's line ends in a hash over the numbers of its images and the hash of
    the step before: equal last lines prove equal images in equal order throughout.

    Args:
        folder: The run folder.
        order: The image numbers of an epoch's batches, from one of them on.
        marks: What `marks` once returned: the files are cut back to it, and go on.

    Raises:
        StorageError: The disk refused.
    """

    def __init__(
        self, folder: Path, order: SampleOrder, marks: Offsets | None = None
    ) -> None:
        said = marks or {}
        self._rows = AppendLog(folder / RESULTS, said.get(RESULTS))
        self._events = AppendLog(folder / EVENTS, said.get(EVENTS))
        self._chain = str(said.get("samples", ""))
        self._order = order
        self._epoch = -1
        self._numbers: Iterator[Tensor] = iter(())
        if marks is None:
            self._rows.append(",".join(COLUMNS))

    def on_step(self, done: StepResult) -> None:
        """Write a line of `events.jsonl`."""
        line = {
            "epoch": done.epoch,
            "step": done.step,
            "loss": None if math.isnan(done.loss) else round(done.loss, 7),
            "lr": round(done.lr, 10),
            "images": done.images,
            "samples": self._next_link(done),
        }
        self._events.append(json.dumps(line))

    def _next_link(self, done: StepResult) -> str:
        if self._epoch != done.epoch:
            self._epoch = done.epoch
            self._numbers = iter(self._order(done.epoch, done.batch))
        numbers = next(self._numbers).numpy().tobytes()
        link = hashlib.blake2b(self._chain.encode() + numbers, digest_size=8)
        self._chain = link.hexdigest()
        return self._chain

    def on_epoch(self, done: EpochResult) -> None:
        """Write a row of `results.csv`."""
        self._rows.append(",".join(_cell(value) for value in asdict(done).values()))
        self._rows.flush()
        self._events.flush()

    def marks(self) -> dict[str, Any]:
        """Bring both files to the disk and say what they hold."""
        return {
            RESULTS: self._rows.offset(),
            EVENTS: self._events.offset(),
            "samples": self._chain,
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # What stopped the run is the message, not its echo on closing.
        echo = suppress(StorageError) if error else nullcontext()
        with echo, closing(self._events), closing(self._rows):
            pass


def changed_files(folder: Path, marks: Offsets) -> list[str]:
    """Return the files that no longer begin with what the marks say they held."""
    names = (RESULTS, EVENTS)
    return [name for name in names if not prefix_matches(folder / name, marks[name])]


def _cell(value: float | bool) -> str:
    return f"{value:.7g}" if isinstance(value, float) else str(value).lower()


class TimingLogger:
    """Writes `timing.csv`: seconds of learning at the end of each epoch.

    Seconds of all sittings of a run count, from each to its last checkpoint.

    Args:
        folder: The run folder.
        epochs: Judged before; so many rows stay.
        before: Seconds learned before.
        clock: Seconds that never go backwards; tests bring their own.

    Raises:
        StorageError: The disk refused.
    """

    def __init__(
        self,
        folder: Path,
        epochs: int = 0,
        before: float = 0.0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._clock = clock
        self._began = clock() - before
        path = folder / TIMING
        kept = _first_rows(path, epochs) if epochs else b""
        self._rows = AppendLog(path, {"bytes": len(kept)})
        if not kept:
            self._rows.append("epoch,seconds")

    @property
    def seconds(self) -> float:
        """Return the seconds learned, before and now."""
        return self._clock() - self._began

    def on_step(self, done: StepResult) -> None:
        """Steps are not timed: the progress display does that."""

    def on_epoch(self, done: EpochResult) -> None:
        """Write a row."""
        self._rows.append(f"{done.epoch},{self.seconds:.3f}")
        self._rows.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._rows.close()


def _first_rows(path: Path, rows: int) -> bytes:
    lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
    return b"".join(lines[: rows + 1])
