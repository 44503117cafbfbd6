"""What happened, written as it happens: one CSV row an epoch, one JSON line a step."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from striate.core.files import storage_errors
from striate.engine.loop import EpochDone, StepDone

COLUMNS = tuple(field.name for field in fields(EpochDone))


class Journal:
    """Writes `results.csv` and `events.jsonl` into a run folder.

    Lines are flushed at each epoch, so that a killed run keeps its history.
    """

    def __init__(self, folder: Path) -> None:
        self.results = folder / "results.csv"
        self.events = folder / "events.jsonl"
        with storage_errors(self.results, 0):
            self._rows: TextIO = self.results.open("w", encoding="utf-8", newline="")
            self._lines: TextIO = self.events.open("w", encoding="utf-8")
            self._rows.write(",".join(COLUMNS) + "\n")

    def on_step(self, done: StepDone) -> None:
        """Write a line of `events.jsonl`."""
        line = {
            "epoch": done.epoch,
            "step": done.step,
            "loss": round(done.loss, 7),
            "lr": round(done.lr, 10),
            "pictures": done.pictures,
            "seconds": round(done.seconds, 4),
        }
        with storage_errors(self.events, 128):
            self._lines.write(json.dumps(line) + "\n")

    def on_epoch(self, done: EpochDone) -> None:
        """Write a row of `results.csv`."""
        cells = [_cell(value) for value in asdict(done).values()]
        with storage_errors(self.results, 128):
            self._rows.write(",".join(cells) + "\n")
            self._rows.flush()
            self._lines.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # What stopped the run is the message, not its echo on closing.
        echo = suppress(OSError) if error else storage_errors(self.results, 0)
        with echo, self._lines, self._rows:
            pass


def _cell(value: float | bool) -> str:
    return f"{value:.7g}" if isinstance(value, float) else str(value).lower()
