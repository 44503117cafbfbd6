"""Images that are decoded when a batch needs them, for sets larger than memory.

`LazyPixels` is indexed like a tensor (N, H, W, C). Each read compares the bytes with
the hash from the scan. So training never silently uses a file that is missing or has
changed since the scan.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle
from typing import Protocol

import torch
from torch import Tensor

from striate.core.cpu_count import cpu_count
from striate.core.errors import DataError
from striate.core.format import count_text
from striate.core.malloc import release_freed_memory
from striate.core.preprocess_config import Preprocess
from striate.core.read_ahead import results_in_order
from striate.data.cache.decode_workers import DecodedBatch, decode_with_workers
from striate.data.decode.decode import without_pillow_warnings
from striate.data.decode.file_bytes import UndecodableError
from striate.data.decode.preprocess import file_to_input
from striate.data.scan import check_unchanged
from striate.data.sources.files import Files
from striate.data.sources.source import Skipped

# A run goes on while no more training images are lost than this: a few deleted files
# must not stop a run over night, a data set that is being deleted must.
MAX_LOST_SHARE = 0.01
MAX_LOST = 4
PREFETCH_BATCHES = 3  # batches decoded before they are needed
TRIM_EVERY = 4  # batches between returns of freed memory; at 64, 30 MiB stayed unused


class EncodedImages(Protocol):
    """Interface of encoded images (file contents) in a fixed order."""

    def __len__(self) -> int: ...

    def payload(self, i: int) -> bytes:
        """Return the encoded bytes of image i.

        Raises:
            UndecodableError: The file cannot be read, or has changed since the scan.
        """
        ...

    def path(self, i: int) -> str:
        """Return the path of image i, for messages."""
        ...


@dataclass(frozen=True, kw_only=True)
class EncodedFiles:
    """Encoded images in files, checked against the hashes of the scan."""

    files: Files
    paths: tuple[str, ...] = field(repr=False)
    hashes: tuple[str, ...] = field(repr=False)

    def __len__(self) -> int:
        return len(self.paths)

    def payload(self, i: int) -> bytes:
        """Return the bytes of file i; refuse a file that changed since the scan."""
        return check_unchanged(self.files.read(self.paths[i]), self.hashes[i])

    def path(self, i: int) -> str:
        """Return the path of file i, relative to its source."""
        return self.paths[i]


class LazyPixels:
    """Lazily decoded 8-bit images, indexed like a tensor."""

    def __init__(
        self,
        originals: EncodedImages,
        preprocess: Preprocess,
        rows: Tensor | None = None,  # indices of the images to use; None uses all
        workers: int = 0,  # decoding processes; 0 decodes on threads of this process
        replace_lost: bool = False,  # use another image for an unreadable one
    ) -> None:
        self.originals, self.preprocess, self.rows = originals, preprocess, rows
        self.workers, self.replace_lost = workers, replace_lost
        self.lost: list[Skipped] = []

    def __len__(self) -> int:
        return len(self.originals) if self.rows is None else len(self.rows)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Return the number of images, height, width and channels."""
        return len(self), *self.preprocess.shape

    def take(
        self, index: Sequence[int], *, workers: int = 0, replace_lost: bool = False
    ) -> LazyPixels:
        """Select images by index, in the given order."""
        rows = self._rows(torch.as_tensor(index, dtype=torch.int64))
        return LazyPixels(self.originals, self.preprocess, rows, workers, replace_lost)

    def __getitem__(self, index: int | slice | Tensor) -> Tensor:
        """Return one image (H, W, C), or several images (n, H, W, C).

        Raises:
            DataError: An image can no longer be read.
        """
        if isinstance(index, int):
            return self[torch.tensor([index])][0]
        if isinstance(index, slice):
            index = torch.tensor(range(*index.indices(len(self))), dtype=torch.int64)
        return self._checked(self.decode_batch(index), replace_lost=False).pixels

    def decode_batch(self, index: Tensor) -> DecodedBatch:
        """Decode the images of a batch; replace and list unreadable images."""
        dtype = torch.float32 if self.preprocess.is_float else torch.uint8
        pixels = torch.empty(len(index), *self.preprocess.shape, dtype=dtype)
        positions, lost = [], []
        for place, row in enumerate(self._rows(index).tolist()):
            try:
                pixels[place] = self.read_image(row)
                positions.append(place)
            except UndecodableError as error:
                lost.append(Skipped.of(self.originals.path(row), error))
        if not lost:
            return DecodedBatch(pixels, index)
        places = _with_replacements(len(index), positions)
        return DecodedBatch(pixels[places], index[places], tuple(lost))

    def read_image(self, row: int) -> Tensor:
        """Read and decode an encoded image, (H, W, C).

        Raises:
            UndecodableError: The image cannot be read.
        """
        return file_to_input(self.originals.payload(row), self.preprocess)

    def _rows(self, index: Tensor) -> Tensor:
        """Convert indices to indices of encoded images; -1 is the last."""
        if self.rows is not None:
            return self.rows[index]
        count = len(self)
        outside = (index < -count) | (index >= count)
        if outside.any():
            what = (
                f"index {int(index[outside][0])} is out of range: "
                f"{count_text(count, 'image')}"
            )
            raise IndexError(what)
        return torch.where(index < 0, index + count, index)

    def _checked(self, batch: DecodedBatch, replace_lost: bool) -> DecodedBatch:
        if batch.lost and not (replace_lost and len(batch.index)):
            raise _lost_error(batch.lost, len(self))
        return batch

    def batches(self, indices: Iterable[Tensor]) -> Iterator[DecodedBatch]:
        """Yield the decoded batches of an epoch; decode a few batches ahead.

        Raises:
            DataError: An image cannot be read, or too many images were replaced.
            WorkerError: A decoding process died or hung.
        """
        for number, batch in enumerate(self._decoded_ahead(indices), start=1):
            if number % TRIM_EVERY == 0:
                release_freed_memory()
            self._record_lost(batch.lost)
            yield self._checked(batch, self.replace_lost)

    def _decoded_ahead(self, indices: Iterable[Tensor]) -> Iterator[DecodedBatch]:
        if self.workers:
            yield from decode_with_workers(self, indices)
            return
        ahead = max(PREFETCH_BATCHES, cpu_count())
        calls = (partial(self.decode_batch, index) for index in indices)
        with without_pillow_warnings(), ThreadPoolExecutor(cpu_count()) as pool:
            yield from results_in_order(pool, calls, ahead)

    def _record_lost(self, lost: Sequence[Skipped]) -> None:
        """Add unreadable files to `lost`, each file only once."""
        paths = {skip.path for skip in self.lost}
        self.lost += [skip for skip in lost if skip.path not in paths]
        if len(self.lost) > max(MAX_LOST, MAX_LOST_SHARE * len(self)):
            raise _lost_error(self.lost, len(self))


def _with_replacements(count: int, positions: Sequence[int]) -> Tensor:
    """Return indices in a batch, with unreadable images replaced by readable images."""
    decoded, others = set(positions), cycle(positions)
    places = [i if i in decoded else next(others) for i in range(count) if positions]
    return torch.tensor(places, dtype=torch.int64)


def _lost_error(lost: Sequence[Skipped], count: int) -> DataError:
    first = lost[0]
    what = (
        f"{len(lost):,} of {count_text(count, 'image')} can no longer "
        "be read; first error: "
        f"{first.reason} ({first.detail})"
    )
    fix = "restore the files and start the run again; do not change files during a run"
    return DataError(what, where=first.path, fix=fix)
