"""`norms.csv`: activations and gradients by layer, looked at while a run learns."""

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

IMAGES = 64  # looked at, the same ones each time
COLUMNS = ("step", "depth", "layer", "activation", "gradient", "update")

Batch = tuple[Tensor, Tensor]


class Norms:
    """Looks at some images' way through a network ever and again while it learns.

    It shows them a batch that it does not learn from, in training mode and without
    augmentation, keeps statistics alone, and leaves the network, its gradients and
    every random state as they were: a run that is watched ends in the same bytes.

    Args:
        folder: The run folder.
        model: The network that learns.
        batch: Images to look at, and their classes.
        begun: Steps done before, by a run that goes on; later rows are void.

    Raises:
        StorageError: The disk refused.
    """

    def __init__(
        self, folder: Path, model: nn.Module, batch: Batch, begun: int = 0
    ) -> None:
        self._model = model
        self._x, self._labels = batch
        path = folder / names.NORMS
        kept = _rows_up_to(path, begun) if begun else []
        self._seen = {_step_of(row) for row in kept[1:]}
        self._rows = AppendLog(path, {"bytes": len(b"".join(kept))})
        if not kept:
            self._rows.append(",".join(COLUMNS))

    def begin(self, step: int) -> None:
        """Look before a sitting's first step, if it is time to."""
        if is_snapshot_step(step):
            self.look(step)

    def on_step_end(self, done: StepResult) -> None:
        """Look, if it is time to."""
        self.begin(done.step + 1)

    def on_epoch_end(self, done: EpochResult) -> None:
        """Hand over what was found."""
        self._rows.flush()

    def look(self, step: int) -> None:
        """Measure the layers after so many steps, unless that was done before."""
        if step in self._seen:
            return
        self._seen.add(step)
        levels = depth_profile(self._model, self._x, self._labels, training=True)
        for level in levels:
            self._rows.append(_row(step, level))

    def close(self) -> None:
        """Hand over what waits, and let go of the file."""
        self._rows.close()


def _rows_up_to(path: Path, step: int) -> list[bytes]:
    """Return the header and the rows of no later step, as they stand in the file."""
    if not path.is_file():
        return []
    header, *rows = path.read_bytes().splitlines(keepends=True) or [b""]
    whole = [row for row in rows if row.endswith(b"\n")]
    return [header, *(row for row in whole if _step_of(row) <= step)]


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
def norms_kept(
    folder: Path,
    model: nn.Module,
    subset: Subset,
    shown: Batches,
    begun: int,
    wanted: bool,
) -> Iterator[Sequence[Norms]]:
    """Yield the observer that keeps norms, or none.

    Args:
        folder: The run folder.
        model: The network that learns.
        subset: Whose images are looked at: some of those it learns from.
        shown: How it is shown images that it is judged by.
        begun: Steps done before.
        wanted: Yield one at all.
    """
    if not wanted:
        yield ()
        return
    norms = Norms(folder, model, _batch(subset, shown), begun)
    try:
        yield (norms,)
    finally:
        norms.close()


def _batch(subset: Subset, shown: Batches) -> Batch:
    count = min(len(subset), IMAGES)
    few = subset.take([i * len(subset) // count for i in range(count)])
    made = Batches(
        subset=few,
        preprocess=shown.preprocess,
        batch_size=count,
        shuffle=False,
        device=shown.device,
    )
    return next(made(0))


def read_norms(path: Path) -> list[Snapshot]:
    """Return what a run's `norms.csv` holds; nothing where there is none.

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
