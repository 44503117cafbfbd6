"""Images of a torch Dataset in memory, or read from the data set for every batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from striate.core.errors import DataError, StriateError, WorkerError
from striate.core.preprocess_config import Preprocess
from striate.data.cache import free_memory as memory
from striate.data.cache.decode_workers import TIMEOUT, DecodedBatch
from striate.data.cache.image_rows import PixelRows
from striate.data.cache.lazy_images import LazyPixels
from striate.data.decode.preprocess import image_to_input
from striate.data.torch_dataset.items import ItemSet


class DatasetPixels(LazyPixels):
    """Images that are read from a torch Dataset when a batch needs them."""

    originals: ItemSet

    def take(
        self, index: Sequence[int], *, workers: int = 0, replace_lost: bool = False
    ) -> DatasetPixels:
        """Select images by index, in the given order."""
        rows = self._rows(torch.as_tensor(index, dtype=torch.int64))
        workers = workers or self.workers
        return DatasetPixels(self.originals, self.preprocess, rows, workers)

    def read_image(self, row: int) -> Tensor:
        """Read an image of the data set, at the input size.

        Raises:
            DataError: The item cannot be read, or is another image than before.
        """
        return item_to_input(self.originals, row, self.preprocess)

    def _decoded_ahead(self, indices: Iterable[Tensor]) -> Iterator[DecodedBatch]:
        # On this thread: data sets need not be safe for several threads, and random
        # transforms would share the random state with layers such as dropout.
        if not self.workers:
            yield from map(self.decode_batch, indices)
            return
        loader: DataLoader[Any] = DataLoader(
            _BatchReader(self),
            sampler=list(indices),
            batch_size=None,
            num_workers=self.workers,
            timeout=TIMEOUT,
        )
        try:
            for batch in loader:
                if isinstance(batch, StriateError):
                    raise batch
                yield batch
        except RuntimeError as error:
            first = str(error).strip().splitlines()[0]
            what = f"a worker process that reads the data set failed: {first}"
            fix = "use workers=0 to see the error, or fewer workers"
            raise WorkerError(what, where="workers", fix=fix) from error


class _BatchReader(TorchDataset[Any]):
    """Data set whose items are whole batches, for worker processes."""

    def __init__(self, pixels: DatasetPixels) -> None:
        self._pixels = pixels

    def __getitem__(self, index: Any) -> DecodedBatch | StriateError:
        try:
            return self._pixels.decode_batch(index)
        except StriateError as error:
            return error  # a raised error would lose its attributes on the way


def item_to_input(items: ItemSet, row: int, preprocess: Preprocess) -> Tensor:
    """Read an item at the input size: (H, W, C) uint8, or float32 unchanged.

    Raises:
        DataError: The item cannot be read, or does not fit to the network.
    """
    if items.is_float and not preprocess.is_float:
        what = "the data set returns float tensors; the network takes 8-bit images"
        fix = "return PIL images or uint8 arrays, without a transform to tensors"
        raise DataError(what, fix=fix)
    pixels = items.read(row)
    if not items.is_float:
        return image_to_input(pixels, preprocess)
    if pixels.shape != preprocess.shape:
        height, width, channels = pixels.shape
        what = f"the tensor is {channels}×{height}×{width}, but the network takes "
        channels, height, width = preprocess.spec.shape
        fix = "return tensors of this size from the data set"
        shape = f"{channels}×{height}×{width}"
        raise DataError(what + shape, where=items.path(row), fix=fix)
    return torch.from_numpy(pixels)


def read_pixels(items: ItemSet, size: Preprocess) -> PixelRows:
    """Return the images at the input size, in memory or read when accessed.

    Images stay in the data set if its transforms are random, or if they do not fit
    into memory.

    Shapes:
        (N, H, W, C) uint8 or float32
    """
    fits = memory.fits_in_memory(len(items) * size.nbytes)
    if items.random_parts or not fits:
        return DatasetPixels(items, size)
    dtype = torch.float32 if size.is_float else torch.uint8
    pixels = torch.empty(len(items), *size.shape, dtype=dtype)
    for row in range(len(items)):
        pixels[row] = item_to_input(items, row, size)
    return pixels
