"""The run as TensorBoard's event files, for those who watch their runs there."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from striate.core.errors import SettingError
from striate.core.files import storage_errors
from striate.engine.train_state import EpochDone, Observer, StepDone

SPLITS = ("train", "val")
PATIENCE = 10.0  # seconds that a watcher waits for a point, at most
EVENT = 96  # bytes of a point, about


def check_tensorboard() -> None:
    """Make sure, before long work, that event files can be written.

    Raises:
        SettingError: The package is not installed; says which to install.
    """
    if find_spec("tensorboardX") is None:
        what = "TensorBoard's event files need the package tensorboardX"
        fix = "pip install 'striate[tensorboard]', or leave the flag out"
        raise SettingError(what, where="--tensorboard", fix=fix)


class TensorBoard:
    """Writes loss, accuracy and learning rate as `tensorboard/{train,val}/events…`.

    Training and validation are runs of their own with the same tags, so that both are
    drawn into one chart; the step is the horizontal axis of every line.

    The package's own writer works on a thread that dies with the first error of the
    disk, and the queue before it then blocks for good. Events are therefore written
    here and now.

    Args:
        folder: Where event files go; earlier ones stay.
        begun: Steps done before, by a run that goes on.
    """

    def __init__(self, folder: Path, begun: int = 0) -> None:
        from tensorboardX.event_file_writer import EventsWriter

        self.folder = folder
        self._files: dict[str, Any] = {}
        self._step = max(begun - 1, 0)
        self._flushed = time.monotonic()
        for split in SPLITS:
            with storage_errors(folder / split, 0):
                (folder / split).mkdir(parents=True, exist_ok=True)
                self._files[split] = EventsWriter(str(folder / split / "events"))
        if begun:
            self._forget(begun)

    def on_step(self, done: StepDone) -> None:
        """Write the loss of a mini-batch, and the rate."""
        self._step = done.step
        self._write("train", {"loss": done.loss, "learning_rate": done.lr})
        if time.monotonic() - self._flushed > PATIENCE:
            self._flush()

    def on_epoch(self, done: EpochDone) -> None:
        """Write how the validation split was answered."""
        self._write("val", {"loss": done.val_loss, "accuracy": done.val_accuracy})
        self._flush()

    def _forget(self, step: int) -> None:
        """Begin within a run: what an earlier file says of later steps is void."""
        from tensorboardX.proto.event_pb2 import SessionLog

        for split in SPLITS:
            self._add(split, step, session_log=SessionLog(status=SessionLog.START))

    def _write(self, split: str, figures: dict[str, float]) -> None:
        from tensorboardX.summary import scalar

        for name, value in figures.items():
            self._add(split, self._step, summary=scalar(name, value))

    def _add(self, split: str, step: int, **content: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        event = Event(wall_time=time.time(), step=step, **content)
        with storage_errors(self.folder / split, EVENT):
            self._files[split].write_event(event)

    def _flush(self) -> None:
        self._flushed = time.monotonic()
        for split, file in self._files.items():
            with storage_errors(self.folder / split, 0):
                file.flush()

    def close(self) -> None:
        """Bring everything to the disk."""
        for split, file in self._files.items():
            with storage_errors(self.folder / split, 0):
                file.close()


@contextmanager
def boards(folder: Path, wanted: bool, begun: int = 0) -> Iterator[Sequence[Observer]]:
    """Yield the observer that writes event files, or none."""
    if not wanted:
        yield ()
        return
    board = TensorBoard(folder, begun)
    try:
        yield (board,)
    finally:
        board.close()
