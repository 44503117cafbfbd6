"""Record activation and gradient norms of each layer in `norms.csv`."""

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
from striate.engine.callbacks import Callback, EpochResult, StepResult
from striate.interpret.depth.layer_profile import LayerProfile, depth_profile
from striate.interpret.depth.snapshots import Snapshot, is_snapshot_step
from striate.run import layout as names

MAX_IMAGES = 64  # the same images for every snapshot
COLUMNS = ("step", "depth", "layer", "activation", "gradient", "update")

Batch = tuple[Tensor, Tensor]


class LayerNormsLogger(Callback):
    """Callback that records layer norms for a fixed batch of images during training.

    The callback runs a fixed batch in training mode, without augmentation and optimizer
    step. It then restores the network, the gradients and all RNG states, so the
    training result is bitwise the same with and without this callback. If a run is
    resumed at `start_step`, later rows are deleted.
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
        """Record the layer norms before a step, if the step is a snapshot step."""
        if is_snapshot_step(step):
            self.record(step)

    def on_step_end(self, event: StepResult, /) -> None:
        """Record the layer norms after a step, if the next step is a snapshot step."""
        self.begin(event.step + 1)

    def on_epoch_end(self, event: EpochResult, /) -> None:
        """Write the rows of the epoch to `norms.csv`."""
        self._rows.flush()

    def record(self, step: int) -> None:
        """Record the layer norms of a step, unless the step is already recorded."""
        if step in self._recorded:
            return
        self._recorded.add(step)
        levels = depth_profile(self._model, self._x, self._labels, training=True)
        for level in levels:
            self._rows.append(_row(step, level))

    def close(self) -> None:
        """Write the remaining rows to `norms.csv` and close the file."""
        self._rows.close()


def _rows_up_to(path: Path, step: int) -> list[bytes]:
    """Return header and rows of a CSV file up to a step; empty if there is no file."""
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
    row = (step, level.depth, level.name, *sizes)
    csv.writer(text, lineterminator="").writerow(row)
    return text.getvalue()


@contextmanager
def layer_norms_logger(
    folder: Path,
    model: nn.Module,
    subset: Subset,  # the training images; up to 64 of these images are used
    eval_batches: Batches,  # evaluation batches, which define the preprocessing
    start_step: int,  # step at which a resumed run continues
    enabled: bool,
) -> Iterator[Sequence[LayerNormsLogger]]:
    """Context manager that yields the layer-norm callbacks: one, or none.

    Up to 64 training images are used, with the preprocessing of `eval_batches`.
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
    """Read the layer norms from `norms.csv` of a run; empty without such a file."""
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
