"""`norms.csv`: norms of activations and gradients by layer during training."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

from torch import Tensor, nn

from striate.core.append_log import AppendLog
from striate.core.files import read_csv
from striate.data.batches import Batches
from striate.data.subset import Subset
from striate.engine.callbacks import EpochResult, StepResult
from striate.interpret.depth.layer_profile import LayerProfile, depth_profile
from striate.interpret.depth.snapshots import Snapshot, is_snapshot_step
from striate.run import layout as names

MAX_IMAGES = 64  # the same ones each time
COLUMNS = ("step", "depth", "layer", "activation", "gradient", "update")

Batch = tuple[Tensor, Tensor]


class LayerNormsLogger:
    """Callback that records layer norms for some images during training.

    It runs a fixed batch in training mode, without augmentation and without learning,
    and restores the network, its gradients and every random state: the training gives
    the same bytes with and without it.

    Args:
        folder: The run folder.
        model: The network in training.
        batch: The fixed images and their classes.
        start_step: Step at which a resumed run continues; later rows are dropped.

    Raises:
        StorageError: The file cannot be written.
    """

    def __init__(
        self, folder: Path, model: nn.Module, batch: Batch, start_step: int = 0
    ) -> None:
        self._model = model
        self._x, self._labels = batch
        path = folder / names.NORMS
        rows = _rows_up_to(path, start_step) if start_step else []
        self._recorded = {_step_of(row) for row in rows[1:]}
        self._rows = AppendLog(path, {"bytes": len(b"".join(rows))})
        if not rows:
            self._rows.append(",".join(COLUMNS))

    def begin(self, step: int) -> None:
        """Record before the first step of a session, if one is is_snapshot_step."""
        if is_snapshot_step(step):
            self.record(step)

    def on_step_end(self, event: StepResult, /) -> None:
        """Record, if one is is_snapshot_step."""
        self.begin(event.step + 1)

    def on_epoch_end(self, event: EpochResult, /) -> None:
        """Write the new rows."""
        self._rows.flush()

    def record(self, step: int) -> None:
        """Measure the layers after so many steps, unless they are recorded already."""
        if step in self._recorded:
            return
        self._recorded.add(step)
        levels = depth_profile(self._model, self._x, self._labels, training=True)
        for level in levels:
            self._rows.append(_row(step, level))

    def close(self) -> None:
        """Write the remaining rows and close the file."""
        self._rows.close()


def _rows_up_to(path: Path, step: int) -> list[bytes]:
    """Return the header and the rows up to a step, unchanged."""
    if not path.is_file():
        return []
    header, *rows = path.read_bytes().splitlines(keepends=True) or [b""]
    complete = [row for row in rows if row.endswith(b"\n")]
    return [header, *(row for row in complete if _step_of(row) <= step)]


def _step_of(row: bytes) -> int:
    return int(row.partition(b",")[0])


def _row(step: int, level: LayerProfile) -> str:
    text = io.StringIO()
    sizes = (f"{v:.9g}" for v in (level.activation, level.gradient, level.update))
    csv.writer(text, lineterminator="").writerow(
        (step, level.depth, level.name, *sizes)
    )
    return text.getvalue()


@contextmanager
def layer_norms_logger(
    folder: Path,
    model: nn.Module,
    subset: Subset,
    eval_batches: Batches,
    start_step: int,
    enabled: bool,
) -> Iterator[Sequence[LayerNormsLogger]]:
    """Yield the callback that records layer norms, or none.

    Args:
        folder: The run folder.
        model: The network in training.
        subset: The training images, of which some are used.
        eval_batches: Batches of the evaluation, whose preprocessing is used.
        start_step: Step at which a resumed run continues.
        enabled: Record at all.
    """
    if not enabled:
        yield ()
        return
    norms = LayerNormsLogger(folder, model, _batch(subset, eval_batches), start_step)
    try:
        yield (norms,)
    finally:
        norms.close()


def _batch(subset: Subset, eval_batches: Batches) -> Batch:
    count = min(len(subset), MAX_IMAGES)
    images = subset.take([i * len(subset) // count for i in range(count)])
    batches = Batches(
        subset=images,
        preprocess=eval_batches.preprocess,
        batch_size=count,
        shuffle=False,
        device=eval_batches.device,
    )
    return next(batches(0))


def read_layer_norms(path: Path) -> list[Snapshot]:
    """Read the `norms.csv` of a run; empty if there is none.

    Args:
        path: The run folder.
    """
    file = path / names.NORMS
    rows = read_csv(file) if file.is_file() else []
    return [
        Snapshot(step=step, layers=tuple(_level(row) for row in of_step))
        for step, of_step in groupby(rows, key=lambda row: int(row["step"]))
    ]


def _level(row: dict[str, str]) -> LayerProfile:
    return LayerProfile(
        name=row["layer"],
        depth=int(row["depth"]),
        activation=float(row["activation"]),
        gradient=float(row["gradient"]),
        update=float(row["update"]),
    )
