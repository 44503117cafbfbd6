"""When a run's state is kept, what belongs to it, and how it is given back."""

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
from striate.engine.callbacks import EpochResult, StepResult
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
    """Something whose tensors belong to the state: the optimizer, a moving average."""

    def state_dict(self) -> Mapping[str, Tensor]:
        """Return its tensors by name."""
        ...

    def load_state_dict(self, tensors: Mapping[str, Tensor], /) -> Any:
        """Take back what `state_dict` gave."""
        ...


GetOffsets = Callable[[], Mapping[str, Any]]


class Checkpointer:
    """Keeps the best weights, and checkpoints from which the run can go on exactly.

    Writes `best.safetensors` after an epoch that is best so far, and a checkpoint
    into `last/` every so many seconds. When it saves changes nothing that is computed.

    Args:
        folder: The run's `weights/`.
        model: The network that learns; `model.safetensors` of a checkpoint.
        parts: What else has tensors, by the name of its file.
        marks: Brings the journal to the disk and says what it holds.
        facts: Circumstances to seal with each checkpoint, which no result depends on.
        every: Seconds from one checkpoint to the next; 0 keeps one after every step.
        tell: Told of a checkpoint that could not be saved.
        judged: The network whose weights are kept as best, where it is another.
        clock: Seconds that never go backwards; tests bring their own.
    """

    def __init__(
        self,
        folder: Path,
        model: nn.Module,
        parts: Mapping[str, Stateful],
        *,
        marks: GetOffsets = dict,
        facts: Callable[[], Mapping[str, Any]] = dict,
        every: float = 60.0,
        tell: Callable[[str], None] = lambda text: None,
        judged: nn.Module | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.at = TrainState()
        self.vault = CheckpointStore(folder / LAST)
        self._best_path = folder / BEST
        self._best_hash = ""
        self._model = model
        self._judged = judged or model
        self._parts = parts
        self._marks = marks
        self._facts = facts
        self._every = every
        self._tell = tell
        self._clock = clock
        self._saved_at = clock()
        self._saved: tuple[int, int] | None = None

    def on_step(self, done: StepResult) -> None:
        """Keep the state if it is time to."""
        self._save_in_time()

    def on_epoch(self, done: EpochResult) -> None:
        """Keep the weights if they are the best, and the state if it is time to."""
        if done.best:
            self._check_finite(self._judged)
            payload = tensors_to_bytes(self._judged.state_dict())
            write_bytes(self._best_path, payload)
            self._best_hash = hashlib.sha256(payload).hexdigest()
        self._save_in_time()

    def _save_in_time(self) -> None:
        """Save when due; a disk that refuses is told of, and tried again next time."""
        if self._clock() - self._saved_at < self._every:
            return
        try:
            self.save()
        except StorageError as error:
            self._saved_at = self._clock()
            self._tell(f"no checkpoint: {error.what}; the run goes on")

    def save(self) -> None:
        """Keep the state as it is now, if it is not kept already.

        Raises:
            StorageError: The disk refused; earlier checkpoints are intact.
            NonFiniteError: The weights are not finite; they are not kept.
        """
        place = self.at.step, self.at.epoch
        if place != self._saved:
            self._check_finite(self._model)
            marks = self._marks()
            self.vault.write(
                *place, self._files(marks), size=self._size(), facts=self._facts()
            )
        self._saved, self._saved_at = place, self._clock()

    def _files(self, marks: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
        yield MODEL, tensors_to_bytes(self._model.state_dict())
        for name, part in self._parts.items():
            yield f"{name}.safetensors", tensors_to_bytes(part.state_dict())
        if self._best_hash:
            yield BEST, self._read_best()
        state = {"position": self.at.as_dict(), "journal": dict(marks)}
        yield STATE, (json.dumps(state, indent=2) + "\n").encode()

    def _read_best(self) -> bytes:
        # A copy in each checkpoint: a run that goes on from an earlier one must not
        # find the best weights of a future it will not have.
        try:
            payload = self._best_path.read_bytes()
        except OSError:
            payload = b""
        if hashlib.sha256(payload).hexdigest() != self._best_hash:
            fix = "leave a run's folder alone while it trains; go on with --resume"
            what = f"{BEST} is no longer what this run wrote"
            raise WeightsError(what, where=self._best_path, fix=fix)
        return payload

    def _size(self) -> int:
        held = [self._model, *self._parts.values()]
        tensors = [tensor for part in held for tensor in part.state_dict().values()]
        return sum(tensor.nbytes for tensor in tensors)

    def _check_finite(self, model: nn.Module) -> None:
        bad = [name for name, t in model.state_dict().items() if not is_finite(t)]
        if bad:
            what = f"the weights became NaN or infinite, first {bad[0]}"
            fix = "lower --lr; the last good checkpoint is kept"
            raise NonFiniteError(what, where=f"epoch {self.at.epoch + 1}", fix=fix)

    def restore(self, sealed: Checkpoint) -> None:
        """Put a checkpoint back: tensors, best weights, position.

        Raises:
            WeightsError: It belongs to another network or optimizer.
        """
        where = sealed.path / MODEL
        assign_weights(
            self._model, tensors_from_bytes(sealed.files[MODEL], where), where
        )
        for name, part in self._parts.items():
            where = sealed.path / f"{name}.safetensors"
            part.load_state_dict(
                tensors_from_bytes(sealed.files.get(where.name, b""), where)
            )
        if BEST in sealed.files:
            self._put_best(sealed.files[BEST])
        self.at = checkpoint_state(sealed)[0]
        self._saved = self.at.step, self.at.epoch

    def _put_best(self, payload: bytes) -> None:
        self._best_hash = hashlib.sha256(payload).hexdigest()
        with suppress(WeightsError):
            self._read_best()
            return
        write_bytes(self._best_path, payload)


def checkpoint_state(sealed: Checkpoint) -> tuple[TrainState, dict[str, Any]]:
    """Return a checkpoint's position, and the journal's marks.

    Raises:
        WeightsError: It holds neither; another program wrote it.
    """
    try:
        state = json.loads(sealed.files[STATE])
        return TrainState.from_dict(state["position"]), dict(state["journal"])
    except (KeyError, TypeError, ValueError) as error:
        what = f"{STATE} does not say how far the run is: {error!r}"
        fix = "go on with the version of striate that wrote it"
        raise WeightsError(what, where=sealed.path, fix=fix) from error
