"""TensorBoard logger: writes loss, accuracy and learning rate to event files."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from striate.core.errors import SettingError
from striate.core.files import storage_errors
from striate.engine.callbacks import Callback, EpochResult, StepResult

SPLITS = ("train", "val")
FLUSH_SECONDS = 10.0  # longest delay until a point is in the file
EVENT_BYTES = 96  # approximate size of a point


def check_tensorboard() -> None:
    """Check that the package for TensorBoard event files is installed."""
    if find_spec("tensorboardX") is None:
        what = "TensorBoard event files need the package tensorboardX"
        fix = "pip install 'striate[tensorboard]', or omit --tensorboard"
        raise SettingError(what, where="--tensorboard", fix=fix)


class TensorBoardLogger(Callback):
    """Callback that writes loss, accuracy and learning rate to TensorBoard event files.

    Training and validation are separate runs (folders `train` and `val`) with the same
    tags, so that TensorBoard draws both into one chart. The x-axis is the step.

    The writer thread of tensorboardX ends at the first disk error, and its queue then
    blocks forever. Events are therefore written synchronously. Earlier files in the
    folder are kept.
    """

    def __init__(self, folder: Path, initial_step: int = 0) -> None:
        from tensorboardX.event_file_writer import EventsWriter

        self.folder = folder
        self._files: dict[str, Any] = {}
        self._step = max(initial_step - 1, 0)
        self._flushed_at = time.monotonic()
        for split in SPLITS:
            with storage_errors(folder / split, 0):
                (folder / split).mkdir(parents=True, exist_ok=True)
                self._files[split] = EventsWriter(str(folder / split / "events"))
        if initial_step:
            self._start_session(initial_step)

    def on_step_end(self, step: StepResult) -> None:
        """Write training loss and learning rate."""
        self._step = step.step
        self._write("train", {"loss": step.loss, "learning_rate": step.lr})
        if time.monotonic() - self._flushed_at > FLUSH_SECONDS:
            self._flush()

    def on_epoch_end(self, epoch: EpochResult) -> None:
        """Write validation loss and accuracy."""
        scores = {} if epoch.val_map is None else {"map": epoch.val_map}
        scores |= {"loss": epoch.val_loss, "accuracy": epoch.val_accuracy}
        self._write("val", scores)
        self._flush()

    def _start_session(self, step: int) -> None:
        """Write a start event; TensorBoard then ignores older points after `step`."""
        from tensorboardX.proto.event_pb2 import SessionLog

        for split in SPLITS:
            self._add(split, step, session_log=SessionLog(status=SessionLog.START))

    def _write(self, split: str, scalars: dict[str, float]) -> None:
        from tensorboardX.summary import scalar

        for name, value in scalars.items():
            self._add(split, self._step, summary=scalar(name, value))

    def _add(self, split: str, step: int, **content: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        event = Event(wall_time=time.time(), step=step, **content)
        with storage_errors(self.folder / split, EVENT_BYTES):
            self._files[split].write_event(event)

    def _flush(self) -> None:
        self._flushed_at = time.monotonic()
        for split, file in self._files.items():
            with storage_errors(self.folder / split, 0):
                file.flush()

    def close(self) -> None:
        """Write all pending events to the disk and close the files."""
        for split, file in self._files.items():
            with storage_errors(self.folder / split, 0):
                file.close()


@contextmanager
def tensorboard_loggers(
    folder: Path, enabled: bool, initial_step: int = 0
) -> Iterator[Sequence[Callback]]:
    """Context manager: yield a list with the TensorBoard logger, empty if disabled."""
    if not enabled:
        yield ()
        return
    logger = TensorBoardLogger(folder, initial_step)
    try:
        yield (logger,)
    finally:
        logger.close()
