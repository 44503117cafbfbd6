"""CSV logger: writes the log files `results.csv`, `events.jsonl` and `timing.csv`.

`results.csv` has a row for each epoch, `events.jsonl` a line for each step. Both files
contain only computed results, so that a resumed run writes the same bytes as an
uninterrupted run. Times go to `timing.csv`.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext, suppress
from dataclasses import fields
from pathlib import Path
from typing import Any, Self

from torch import Tensor

from striate.core.append_log import AppendLog, prefix_matches
from striate.core.errors import StorageError
from striate.core.files import read_csv, write_csv
from striate.engine.callbacks import Callback, EpochResult, StepResult

RESULTS = "results.csv"
EVENTS = "events.jsonl"
TIMING = "timing.csv"
# columns of `results.csv`; with several labels per image also `val_map`
COLUMNS = tuple(f.name for f in fields(EpochResult) if f.name != "val_map")
MULTI_LABEL_COLUMNS = (*COLUMNS, "val_map")

SampleOrder = Callable[[int, int], Iterable[Tensor]]
Offsets = Mapping[str, Any]


class CSVLogger(Callback):
    """Callback that writes `results.csv` and `events.jsonl` into a run folder.

    Each step's line ends with a hash of its sample indices and of the previous hash.
    Equal last lines therefore prove equal images in equal order throughout the run.
    `sample_order` returns the sample indices of an epoch's batches from a start on. It
    counts epochs from 0; the files count from 1. The files are truncated to `offsets`,
    which come from a checkpoint.
    """

    def __init__(
        self,
        folder: Path,
        sample_order: SampleOrder,
        offsets: Offsets | None = None,
        columns: Sequence[str] = COLUMNS,
    ) -> None:
        saved = offsets or {}
        self._results = AppendLog(folder / RESULTS, saved.get(RESULTS))
        self._events = AppendLog(folder / EVENTS, saved.get(EVENTS))
        self._sample_hash = str(saved.get("sample_hash", ""))
        self._sample_order = sample_order
        self._columns = columns
        self._epoch = 0
        self._batches: Iterator[Tensor] = iter(())
        if offsets is None:
            self._results.append(",".join(columns))

    def on_step_end(self, step: StepResult) -> None:
        """Write the result of a step as a line of `events.jsonl`."""
        line = {
            "epoch": step.epoch,
            "step": step.step,
            "loss": None if math.isnan(step.loss) else round(step.loss, 7),
            "lr": round(step.lr, 10),
            "images": step.images,
            "sample_hash": self._next_sample_hash(step),
        }
        self._events.append(json.dumps(line))

    def _next_sample_hash(self, step: StepResult) -> str:
        if self._epoch != step.epoch:
            self._epoch = step.epoch
            self._batches = iter(self._sample_order(step.epoch - 1, step.batch))
        indices = next(self._batches).numpy().tobytes()
        digest = hashlib.blake2b(self._sample_hash.encode() + indices, digest_size=8)
        self._sample_hash = digest.hexdigest()
        return self._sample_hash

    def on_epoch_end(self, epoch: EpochResult) -> None:
        """Write the result of an epoch as a row of `results.csv`."""
        cells = (_cell(getattr(epoch, name)) for name in self._columns)
        self._results.append(",".join(cells))
        self._results.flush()
        self._events.flush()

    def offsets(self) -> dict[str, Any]:
        """Sync both log files to the disk and return file offsets for a checkpoint."""
        return {
            RESULTS: self._results.offset(),
            EVENTS: self._events.offset(),
            "sample_hash": self._sample_hash,
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        # The first error is the message, not a second one on closing.
        quiet = suppress(StorageError) if error else nullcontext()
        with quiet, closing(self._events), closing(self._results):
            pass


def write_results(
    folder: Path, history: Sequence[EpochResult], multi_label: bool = False
) -> None:
    """Write the results of all epochs as `results.csv`, in full precision."""
    columns = MULTI_LABEL_COLUMNS if multi_label else COLUMNS
    rows = ([_full_cell(getattr(epoch, name)) for name in columns] for epoch in history)
    write_csv(folder / RESULTS, columns, rows)


def _full_cell(value: float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


def read_results(folder: Path) -> list[dict[str, float]]:
    """Read `results.csv` of a run: one dict per epoch; epochs count from 1."""
    rows = [
        {k: float(v == "true" if k == "best" else v) for k, v in row.items()}
        for row in read_csv(folder / RESULTS)
    ]
    if rows and rows[0].get("epoch") == 0:  # of a version that counted from 0
        rows = [{**row, "epoch": row["epoch"] + 1} for row in rows]
    return rows


def changed_files(folder: Path, offsets: Offsets) -> list[str]:
    """Return the names of log files that were changed after `offsets` were saved."""
    names = (RESULTS, EVENTS)
    return [name for name in names if not prefix_matches(folder / name, offsets[name])]


def _cell(value: float | bool) -> str:
    return f"{value:.7g}" if isinstance(value, float) else str(value).lower()


class TimingLogger(Callback):
    """Callback that writes `timing.csv`: training seconds at the end of each epoch.

    If a run is resumed, the seconds before the last checkpoint are included. The rows
    of its `epochs` completed epochs are kept. Tests replace `clock`.
    """

    def __init__(
        self,
        folder: Path,
        epochs: int = 0,  # completed epochs of a resumed run, whose rows are kept
        seconds_before: float = 0.0,  # of a resumed run, before its last checkpoint
    ) -> None:
        self._start = time.perf_counter() - seconds_before
        path = folder / TIMING
        kept_rows = _first_rows(path, epochs) if epochs else b""
        self._rows = AppendLog(path, {"bytes": len(kept_rows)})
        if not kept_rows:
            self._rows.append("epoch,seconds")

    @property
    def seconds(self) -> float:
        """Return the training seconds of the run, including those before a resume."""
        return time.perf_counter() - self._start

    def on_epoch_end(self, epoch: EpochResult) -> None:
        """Write the training seconds at the end of an epoch to `timing.csv`."""
        self._rows.append(f"{epoch.epoch},{self.seconds:.3f}")
        self._rows.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._rows.close()


def _first_rows(path: Path, rows: int) -> bytes:
    lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
    return b"".join(lines[: rows + 1])
