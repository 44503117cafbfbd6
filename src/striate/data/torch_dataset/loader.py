"""Use a DataLoader as a data set: its `dataset` if possible, else its batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    default_collate,
    default_convert,
)

from striate.core.errors import DataError, StriateError, WorkerError
from striate.core.format import count_text
from striate.data.decode.decode import is_pil_image
from striate.data.decode.hashing import content_hash
from striate.data.torch_dataset.item import KINDS, Item, ItemReader
from striate.data.torch_dataset.items import image_bytes_left

# After so many images in a row that were all read before, a loader has no end.
MAX_REPEATS = 1024
READ_ONCE = "a data loader with its own order or collate_fn was read once"
_OWN_ORDER = f"{READ_ONCE}, and may give another order or other images the next time"


@dataclass(frozen=True, kw_only=True)
class LoaderData:
    """Data set of a DataLoader, with the loader's settings, notes and warnings."""

    dataset: Any = field(
        repr=False
    )  # the data set, or the list of images that were read
    name: str  # name of the data set's class
    batch_size: int | None = None  # None if the loader has no fixed batch size
    workers: int = 0  # number of worker processes
    notes: tuple[str, ...] = ()  # what was taken over, as sentences
    warnings: tuple[
        str, ...
    ] = ()  # images that were left out or repeated, as sentences
    inexact: tuple[str, ...] = ()  # why another load can give other images


def open_loader(
    source: DataLoader[Any] | IterableDataset[Any], split: str, reader: ItemReader
) -> LoaderData:
    """Return the data set of a plain DataLoader; read any other loader once.

    A loader is plain if it reads a data set by index, in order or shuffled, and
    stacks the items by the default `collate_fn`.

    Raises:
        DataError: The loader has no images, no end, or an item cannot be used.
        WorkerError: A worker process of the loader died.
    """
    if isinstance(source, DataLoader):
        if _is_plain(source):
            return _take_over(source, split)
        name = type(source.dataset).__name__
        where = f"{split} {type(source).__name__} of {name}"
        return _read_once(source, name, where, reader)
    name = type(source).__name__
    return _read_once(source, name, name, reader)


def _is_plain(loader: DataLoader[Any]) -> bool:
    """Return whether a loader reads every item of its data set once, unchanged."""
    sampler, dataset = loader.sampler, loader.dataset
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
        return False
    defaults: tuple[Any, Any] = (BatchSampler, default_collate)
    if loader.batch_size is None:
        defaults = (type(None), default_convert)
    if (type(loader.batch_sampler), loader.collate_fn) != defaults:
        return False
    if type(sampler) is RandomSampler:
        return not sampler.replacement and sampler.num_samples == len(dataset)
    return type(sampler) is SequentialSampler


def _take_over(loader: DataLoader[Any], split: str) -> LoaderData:
    dataset: Any = loader.dataset
    count, size = len(dataset), loader.batch_size
    taken = [f"the data set ({count_text(count, 'image')})"]
    if size is not None and split == "train":
        taken.append(f"batch size {size}")
    if loader.num_workers:
        workers = count_text(loader.num_workers, "worker process", "worker processes")
        taken.append(f"{workers}, where images are read again")
    replaced = ["the order (the seed of the run sets the order of each epoch)"]
    if loader.drop_last and size is not None and count % size:
        replaced.append(
            "drop_last (the rest of an epoch, "
            f"{count_text(count % size, 'image')}, is used too)"
        )
    note = f"{split} DataLoader: used {', '.join(taken)}; "
    return LoaderData(
        dataset=dataset,
        name=type(dataset).__name__,
        batch_size=size,
        workers=loader.num_workers,
        notes=(f"{note}not used: {', '.join(replaced)}",),
    )


def _read_once(source: Any, name: str, where: str, reader: ItemReader) -> LoaderData:
    images = _Images(where)
    unstacked, has_items = _without_stacking(source)
    for number, batch in enumerate(_batches(unstacked, images)):
        pairs = batch if has_items else _pairs(batch, f"{where}, batch {number}")
        for pair in pairs:
            images.add(reader.read(pair, f"{where}, image {len(images.items)}"))
    count = len(images.items)
    if not count:
        what = "the loader returned no image"
        raise DataError(what, where=where, fix="give a data set with images")
    note = (
        f"{where}: read once, {count_text(count, 'image')} in the order of the loader"
    )
    warnings = (*_left_out(source, count), *images.repeats())
    return LoaderData(
        dataset=images.items,
        name=name,
        batch_size=source.batch_size if isinstance(source, DataLoader) else None,
        notes=(f"{note}; each epoch shuffles these images again",),
        warnings=tuple(f"{where}: {text}" for text in warnings),
        inexact=(_OWN_ORDER,),
    )


def _without_stacking(source: Any) -> tuple[Iterable[Any], bool]:
    """Return a loader whose batches are lists of items, if its `collate_fn` allows it.

    Stacked arrays become tensors, in which channels would be taken for columns.
    """
    if not isinstance(source, DataLoader):
        return ([item] for item in source), True
    loader = copy(source)
    if loader.collate_fn is default_collate:
        loader.collate_fn = list
    elif loader.batch_size is None and loader.batch_sampler is None:
        if loader.collate_fn is default_convert:
            loader.collate_fn = _unchanged
        return ([item] for item in loader), True
    else:
        return source, False
    loader._iterator = None  # of worker processes that stay: they stack
    return loader, True


def _unchanged(item: Any) -> Any:
    return item


def _batches(source: Iterable[Any], images: _Images) -> Iterator[Any]:
    """Yield the batches of a loader; name the loader in errors."""
    try:
        yield from source
    except StriateError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [repr(error)]
        if "DataLoader worker" in lines[0] and "exited" in lines[0]:
            what = f"a worker process of the DataLoader died: {lines[0]}"
            fix = "use num_workers=0 to see the error, or fewer workers"
            raise WorkerError(what, where=images.where, fix=fix) from error
        text = lines[-1] if len(lines) > 1 else f"{type(error).__name__}: {lines[0]}"
        what = (
            f"the loader raised after {count_text(len(images.items), 'image')}: {text}"
        )
        fix = "correct the data set or the collate_fn; num_workers=0 shows the line"
        raise DataError(what, where=images.where, fix=fix) from error


def _pairs(batch: Any, where: str) -> Iterable[Any]:
    """Return the (image, label) pairs of a batch of a `collate_fn`."""
    if isinstance(batch, tuple | list) and batch and all(map(_is_pair, batch)):
        return batch
    if isinstance(batch, tuple | list) and len(batch) == 2:
        images, labels = batch
        stacked = isinstance(images, Tensor | np.ndarray) and images.ndim > 2
        if (stacked or isinstance(images, tuple | list)) and hasattr(labels, "__len__"):
            if len(images) == len(labels):
                return zip(images, labels, strict=True)
            what = (
                f"the batch has {count_text(len(images), 'image')} and "
                f"{count_text(len(labels), 'label')}"
            )
            raise DataError(what, where=where, fix="correct the collate_fn")
    what = f"the batch is no pair of images and labels, but a {type(batch).__name__}"
    fix = f"return (images, labels) from the collate_fn; {KINDS}"
    raise DataError(what, where=where, fix=fix)


def _is_pair(value: Any) -> bool:
    """Return whether a value of a batch is one (image, label) pair."""
    if not isinstance(value, tuple | list) or len(value) != 2:
        return False
    image, label = value
    if isinstance(image, Tensor | np.ndarray):
        labels = isinstance(label, Tensor | np.ndarray) and label.ndim > 1
        return image.ndim in (2, 3) and not labels
    return is_pil_image(image) and not is_pil_image(label)


def _left_out(source: Any, count: int) -> Iterator[str]:
    """Yield a warning if a loader returned fewer images than its data set has."""
    if not isinstance(source, DataLoader):
        return
    dataset: Any = source.dataset
    if not hasattr(dataset, "__len__"):
        if source.drop_last:
            yield "drop_last left out the images after the last full batch"
    elif (lost := len(dataset) - count) > 0:
        reason = "its drop_last" if source.drop_last else "its sampler"
        yield f"left out {lost:,} of {count_text(len(dataset), 'image')} ({reason})"


class _Images:
    """Images that were read from a loader; an endless loader raises an error."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.items: list[Item] = []
        self._contents: set[str] = set()
        self._repeats = self._in_a_row = 0
        self._bytes_left = image_bytes_left()

    def add(self, item: Item) -> None:
        """Add an image.

        Raises:
            DataError: The loader repeats itself, or the memory is full.
        """
        content = content_hash(item.pixels)
        is_repeat = content in self._contents
        self._repeats += is_repeat
        self._in_a_row = self._in_a_row + 1 if is_repeat else 0
        self._contents.add(content)
        distinct = len(self._contents)
        if self._in_a_row >= max(MAX_REPEATS, 2 * distinct):
            what = f"the loader repeats its {count_text(distinct, 'image')} without end"
            fix = "give the data set itself, or a loader that ends after one epoch"
            raise DataError(what, where=self.where, fix=fix)
        # A copy: the pixels may be a view of a whole batch.
        self.items.append(Item(item.pixels.copy(), item.label, item.is_tensor))
        self._bytes_left -= item.pixels.nbytes
        if self._bytes_left < 0:
            what = (
                f"after {count_text(len(self.items), 'image')} of the "
                "loader, memory is full"
            )
            fix = "give a data set with a length, which is read when needed"
            raise DataError(what, where=self.where, fix=fix)

    def repeats(self) -> Iterator[str]:
        """Yield a warning if images were read several times."""
        if self._repeats:
            of = f"{self._repeats:,} of {count_text(len(self.items), 'image')}"
            yield f"returned {of} more than once; copies are always in the same split"
