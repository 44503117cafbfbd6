"""What the clock says: apart from what the run computed, which no clock may touch."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from striate.core.append_log import AppendLog
from striate.engine.train_state import EpochDone, StepDone

TIMING = "timing.csv"
HEADER = "epoch,seconds"


class Timing:
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
            self._rows.append(HEADER)

    @property
    def seconds(self) -> float:
        """Return the seconds learned, before and now."""
        return self._clock() - self._began

    def on_step(self, done: StepDone) -> None:
        """Steps are not timed: the progress display does that."""

    def on_epoch(self, done: EpochDone) -> None:
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
