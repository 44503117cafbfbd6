"""Images that are decoded when a batch wants them, for sets that nothing can hold.

A `LazyPixels` stands where a tensor (N, H, W, C) would: it is asked for rows. What was
scanned is checked again at every reading, so a file that has changed, or is gone, is
never learned from unseen.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import cycle
from typing import Protocol

import torch
from torch import Tensor

from striate.core.cpu_count import cpu_count
from striate.core.errors import DataError
from striate.core.malloc import release_freed_memory
from striate.core.preprocess import Preprocess
from striate.data.cache.decode_workers import Gathered, decoded_by_workers
from striate.data.decode.decode import unwarned
from striate.data.decode.file_bytes import UndecodableError
from striate.data.decode.preprocess import file_to_input
from striate.data.scan import unchanged
from striate.data.sources.files import Files
from striate.data.sources.source import Skipped

# Of a training split so many may be lost in a run before it stops: a few files that
# somebody tidies away must not cost a night, a set that is being deleted must.
LOST_SHARE = 0.01
LOST_LEAST = 4
AHEAD = 3  # batches decoded before they are wanted
TRIMMED = 4  # batches after which freed memory goes back; 64 let holes of 30 MiB grow


class Originals(Protocol):
    """Encoded images in a fixed order."""

    def __len__(self) -> int: ...

    def payload(self, i: int) -> bytes:
        """Return the bytes of image i.

        Raises:
            UndecodableError: It cannot be read, or has changed since the scan.
        """
        ...

    def path(self, i: int) -> str:
        """Return where image i comes from, for messages."""
        ...


@dataclass(frozen=True, kw_only=True)
class FileOriginals:
    """Files as they were scanned."""

    files: Files
    paths: tuple[str, ...] = field(repr=False)
    hashes: tuple[str, ...] = field(repr=False)

    def __len__(self) -> int:
        return len(self.paths)

    def payload(self, i: int) -> bytes:
        """Return the bytes of a file, which must be those that were scanned."""
        return unchanged(self.files.read(self.paths[i]), self.hashes[i])

    def path(self, i: int) -> str:
        """Return the file's path below its source."""
        return self.paths[i]


class LazyPixels:
    """Rows of 8-bit images that are made when asked for.

    Args:
        originals: Where the encoded images are.
        preprocess: How they are brought to the input.
        rows: Which originals these are; all of them where None.
        workers: Processes that decode; 0 decodes on threads of this one.
        forgiving: Let an image that is lost be replaced by another of its batch.
    """

    def __init__(
        self,
        originals: Originals,
        preprocess: Preprocess,
        rows: Tensor | None = None,
        workers: int = 0,
        forgiving: bool = False,
    ) -> None:
        self.originals = originals
        self.preprocess = preprocess
        self.rows = rows
        self.workers = workers
        self.forgiving = forgiving
        self.lost: list[Skipped] = []

    def __len__(self) -> int:
        return len(self.originals) if self.rows is None else len(self.rows)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Images, height, width, channels."""
        return len(self), *self.preprocess.shape

    def part(
        self, index: Sequence[int], *, workers: int = 0, forgiving: bool = False
    ) -> LazyPixels:
        """Return some of the images, in another order."""
        rows = self._rows(torch.as_tensor(index, dtype=torch.int64))
        return LazyPixels(self.originals, self.preprocess, rows, workers, forgiving)

    def __getitem__(self, index: int | slice | Tensor) -> Tensor:
        """Return one image (H, W, C), or those of an index (n, H, W, C).

        Raises:
            DataError: One of them cannot be read any more.
        """
        if isinstance(index, int):
            return self[torch.tensor([index])][0]
        if isinstance(index, slice):
            index = torch.tensor(range(*index.indices(len(self))), dtype=torch.int64)
        return self._sound(self.attempt(index), forgiving=False).pixels

    def attempt(self, index: Tensor) -> Gathered:
        """Decode the images of a batch one after the other, as far as they can be."""
        pixels = torch.empty(len(index), *self.preprocess.shape, dtype=torch.uint8)
        kept, lost = [], []
        for place, row in enumerate(self._rows(index).tolist()):
            try:
                payload = self.originals.payload(row)
                pixels[place] = file_to_input(payload, self.preprocess)
                kept.append(place)
            except UndecodableError as error:
                path = self.originals.path(row)
                skip = Skipped(path=path, reason=error.reason, detail=error.detail)
                lost.append(skip)
        if not lost:
            return Gathered(pixels, index)
        places = _replaced(len(index), kept)
        return Gathered(pixels[places], index[places], tuple(lost))

    def _rows(self, index: Tensor) -> Tensor:
        """Return which originals are meant; negative numbers count from the end.

        Raises:
            IndexError: There is no such image.
        """
        if self.rows is not None:
            return self.rows[index]
        count = len(self)
        outside = (index < -count) | (index >= count)
        if outside.any():
            what = f"there is no image {int(index[outside][0])} of {count:,}"
            raise IndexError(what)
        return torch.where(index < 0, index + count, index)

    def _sound(self, gathered: Gathered, forgiving: bool) -> Gathered:
        if gathered.lost and not (forgiving and len(gathered.index)):
            raise _gone(gathered.lost, len(self))
        return gathered

    def batches(self, indices: Iterable[Tensor]) -> Iterator[Gathered]:
        """Yield the batches of an epoch, decoded ahead of their turn.

        Raises:
            DataError: An image is lost where none may be, or more than a run survives.
            WorkerError: A decoding process died or hung.
        """
        for number, gathered in enumerate(self._ahead(indices), start=1):
            if number % TRIMMED == 0:
                release_freed_memory()
            self._note(gathered.lost)
            yield self._sound(gathered, self.forgiving)

    def _ahead(self, indices: Iterable[Tensor]) -> Iterator[Gathered]:
        if self.workers:
            yield from decoded_by_workers(self, indices)
            return
        waiting: deque[Future[Gathered]] = deque()
        threads = cpu_count()
        with unwarned(), ThreadPoolExecutor(threads) as pool:
            try:
                for index in indices:
                    waiting.append(pool.submit(self.attempt, index))
                    if len(waiting) > max(AHEAD, threads):
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def _note(self, lost: Sequence[Skipped]) -> None:
        """Remember files that are lost, each once.

        Raises:
            DataError: They are too many.
        """
        known = {skip.path for skip in self.lost}
        self.lost += [skip for skip in lost if skip.path not in known]
        if len(self.lost) > max(LOST_LEAST, LOST_SHARE * len(self)):
            raise _gone(self.lost, len(self))


def _replaced(count: int, kept: Sequence[int]) -> Tensor:
    """Return whose pixels each place gets: its own, else another's that has any."""
    have = set(kept)
    spare = cycle(kept)
    places = [i if i in have else next(spare) for i in range(count)] if kept else []
    return torch.tensor(places, dtype=torch.int64)


def _gone(lost: Sequence[Skipped], count: int) -> DataError:
    first = lost[0]
    what = (
        f"{len(lost):,} of {count:,} images cannot be read any more, the first: "
        f"{first.reason} ({first.detail})"
    )
    fix = "leave the files alone while a run reads them, then start it again"
    return DataError(what, where=first.path, fix=fix)
