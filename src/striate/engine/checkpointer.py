"""Checkpointer: saves and restores the best weights and the training state."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from striate.core.errors import NonFiniteError, StorageError, WeightsError
from striate.core.files import write_bytes
from striate.engine.callbacks import Callback, EpochResult, StepResult
from striate.engine.checkpoint_store import Checkpoint, CheckpointStore
from striate.engine.nonfinite import is_finite
from striate.engine.train_state import TrainState
from striate.engine.weights_io import (
    assign_weights,
    tensors_from_bytes,
    tensors_to_bytes,
)

BEST = "best.safetensors"
LAST = "last"
MODEL = "model.safetensors"
STATE = "state.json"


class Stateful(Protocol):
    """Object with a state dict of tensors, such as an optimizer or an EMA."""

    def state_dict(self) -> Mapping[str, Tensor]:
        """Return the tensors of the state by name."""
        ...

    def load_state_dict(self, tensors: Mapping[str, Tensor], /) -> Any:
        """Load tensors that `state_dict` has returned."""
        ...


GetOffsets = Callable[[], Mapping[str, Any]]


class Checkpointer(Callback):
    """Callback that saves the best weights, and checkpoints for an exact resume.

    It writes `best.safetensors` after each epoch that is the best so far, and a
    checkpoint into `last/` at regular intervals. Saving changes no result of the run.

    Args:
        folder: The folder `weights` of the run.
        model: The network in training, saved as `model.safetensors` in a checkpoint.
        stateful: Other objects to save (optimizer, EMA), by file name without suffix.
        offsets: Syncs the log files and returns their offsets.
        metadata: Returns JSON values to store in the manifest of a checkpoint.
        interval: Seconds between checkpoints; 0 saves one after every step.
        warn: Called with a message if a checkpoint could not be saved.
        eval_model: Network whose best weights are saved (the EMA); default: `model`.
    """

    def __init__(
        self,
        folder: Path,
        model: nn.Module,
        stateful: Mapping[str, Stateful],
        *,
        offsets: GetOffsets = dict,
        metadata: Callable[[], Mapping[str, Any]] = dict,
        interval: float = 60.0,
        warn: Callable[[str], None] = lambda text: None,
        eval_model: nn.Module | None = None,
    ) -> None:
        self.state = TrainState()
        self.store = CheckpointStore(folder / LAST)
        self._best_path = folder / BEST
        self._best_hash = ""
        self._model = model
        self._eval_model = model if eval_model is None else eval_model
        self._stateful = stateful
        self._get_offsets = offsets
        self._metadata = metadata
        self._interval = interval
        self._warn = warn
        self._clock = time.monotonic  # tests replace it
        self._saved_at = time.monotonic()
        self._saved: tuple[int, int] | None = None

    def on_step_end(self, step: StepResult) -> None:
        """Save a checkpoint if `interval` seconds have passed since the last one."""
        self._save_if_due()

    def on_epoch_end(self, epoch: EpochResult) -> None:
        """Save the weights of the best epoch so far, and a checkpoint if one is due."""
        if epoch.best:
            self._check_finite(self._eval_model)
            payload = tensors_to_bytes(self._eval_model.state_dict())
            write_bytes(self._best_path, payload)
            self._best_hash = hashlib.sha256(payload).hexdigest()
        self._save_if_due()

    def _save_if_due(self) -> None:
        """Save a checkpoint if one is due; after an error, warn and retry later."""
        if self._clock() - self._saved_at < self._interval:
            return
        try:
            self.save()
        except StorageError as error:
            self._saved_at = self._clock()
            self._warn(f"checkpoint not saved: {error.what}; the run continues")

    def save(self) -> None:
        """Save a checkpoint of the current state, unless this state is already saved.

        Raises:
            StorageError: The write failed; earlier checkpoints are intact.
            NonFiniteError: The weights are not finite; they are not saved.
        """
        position = self.state.step, self.state.epoch
        if position != self._saved:
            self._check_finite(self._model)
            step, epoch = position
            files = self._files(self._get_offsets())
            owners = [self._model, *self._stateful.values()]
            size = sum(t.nbytes for o in owners for t in o.state_dict().values())
            metadata = self._metadata()
            self.store.write(step, epoch, files, size=size, metadata=metadata)
        self._saved, self._saved_at = position, self._clock()

    def _files(self, offsets: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
        yield MODEL, tensors_to_bytes(self._model.state_dict())
        for name, stateful in self._stateful.items():
            yield f"{name}.safetensors", tensors_to_bytes(stateful.state_dict())
        if self._best_hash:
            yield BEST, self._read_best()
        state = {"train_state": self.state.as_dict(), "offsets": dict(offsets)}
        yield STATE, (json.dumps(state, indent=2) + "\n").encode()

    def _read_best(self) -> bytes:
        # A copy in each checkpoint: a run resumed from an earlier one must not get
        # the best weights of later epochs, which it has not trained.
        try:
            payload = self._best_path.read_bytes()
        except OSError:
            payload = b""
        if hashlib.sha256(payload).hexdigest() != self._best_hash:
            fix = "do not change files of a run in training; continue with --resume"
            what = f"{BEST} has changed since this run wrote the file"
            raise WeightsError(what, where=self._best_path, fix=fix)
        return payload

    def _check_finite(self, model: nn.Module) -> None:
        bad = [name for name, t in model.state_dict().items() if not is_finite(t)]
        if bad:
            what = f"the weights became NaN or infinite, first in {bad[0]}"
            fix = "lower --lr; the last good checkpoint is kept"
            raise NonFiniteError(what, where=f"epoch {self.state.epoch + 1}", fix=fix)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Restore model, optimizer, best weights and training state from a checkpoint.

        Raises:
            WeightsError: The checkpoint belongs to another network or optimizer.
        """
        files, where = checkpoint.files, checkpoint.path / MODEL
        assign_weights(self._model, tensors_from_bytes(files[MODEL], where), where)
        for name, stateful in self._stateful.items():
            where = checkpoint.path / f"{name}.safetensors"
            tensors = tensors_from_bytes(files.get(where.name, b""), where)
            stateful.load_state_dict(tensors)
        if BEST in files:
            self._restore_best(files[BEST])
        self.state = checkpoint_state(checkpoint)[0]
        self._saved = self.state.step, self.state.epoch

    def _restore_best(self, payload: bytes) -> None:
        self._best_hash = hashlib.sha256(payload).hexdigest()
        with suppress(WeightsError):
            self._read_best()
            return
        write_bytes(self._best_path, payload)


def checkpoint_state(checkpoint: Checkpoint) -> tuple[TrainState, dict[str, Any]]:
    """Return the training state and the log file offsets stored in a checkpoint."""
    try:
        state = json.loads(checkpoint.files[STATE])
        return TrainState.from_dict(state["train_state"]), dict(state["offsets"])
    except (KeyError, TypeError, ValueError) as error:
        what = f"{STATE} has no training state: {error!r}"
        fix = "resume with the version of striate that wrote the checkpoint"
        raise WeightsError(what, where=checkpoint.path, fix=fix) from error
