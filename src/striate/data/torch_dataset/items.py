"""Items of torch data sets, read by index; images that fit are kept in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from striate.core.errors import DataError
from striate.data.cache import free_memory as memory
from striate.data.decode.decode import ImageHeader
from striate.data.decode.hashing import content_hash, file_hash
from striate.data.scan import Tick
from striate.data.torch_dataset.item import Item, ItemReader

PROBES = 16  # items that are read three times, to detect random transforms
READS = 3
SHARE = 0.5  # of the memory that is free: the images are copied once
TICK_EVERY = 64


@dataclass(frozen=True, kw_only=True)
class Part:
    """One data set that an `ItemSet` is made of.

    Args:
        split: `train`, `val` or `test`; empty if striate splits the images.
        dataset: Any object with a length that returns (image, label) by index.
        length: Number of items.
    """

    split: str
    dataset: Any = field(repr=False)
    length: int

    def where(self, i: int) -> str:
        """Return the number of an item, for messages."""
        name = type(self.dataset).__name__
        return f"{name}[{i}]" + (f" ({self.split})" if self.split else "")


@dataclass(frozen=True, kw_only=True)
class ItemSet:
    """Images and labels of one or several data sets, one after another.

    Args:
        parts: The data sets.
        reader: Converter of items.
        index: Index of each item in the parts, counted through.
        labels: Integer label of each item.
        headers: Size of each image.
        contents: Content hash of each image; of the index for random images.
        is_float: Whether the images are float tensors.
        low: Smallest value of the training images in each channel, if float.
        high: Largest value of the training images in each channel, if float.
        images: The images, if they fit into memory, else None.
        random_parts: Splits whose data set returns another image at each read.
    """

    parts: tuple[Part, ...]
    reader: ItemReader
    index: tuple[int, ...] = field(repr=False)
    labels: tuple[int, ...] = field(repr=False)
    headers: tuple[ImageHeader, ...] = field(repr=False)
    contents: tuple[str, ...] = field(repr=False)
    is_float: bool
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    images: list[np.ndarray] | None = field(default=None, repr=False)
    random_parts: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.index)

    def read(self, row: int) -> np.ndarray:
        """Read an image again, (H, W, C) uint8 or float32.

        Raises:
            DataError: The item cannot be read, or is no longer the same image.
        """
        if self.images is not None:
            return self.images[row]
        part, i = locate(self.parts, self.index[row])
        item = read_item(part, i, self.reader)
        is_random = part.split in self.random_parts
        if not is_random and content_hash(item.pixels) != self.contents[row]:
            what = "the data set returned another image than when it was loaded"
            fix = (
                "return the same image at each read; transforms are recognized as "
                "random only if they change most of the images"
            )
            raise DataError(what, where=part.where(i), fix=fix)
        return item.pixels

    def take(self, rows: Sequence[int]) -> ItemSet:
        """Return the items at the given indices."""
        images = None if self.images is None else [self.images[i] for i in rows]
        per_item = ("index", "labels", "headers", "contents")
        columns = {name: getattr(self, name) for name in per_item}
        picked: dict[str, Any] = {
            name: tuple(column[i] for i in rows) for name, column in columns.items()
        }
        return replace(self, images=images, **picked)

    def payload(self, i: int) -> bytes:
        """Raise an error: items of a data set have no file."""
        raise TypeError("items of a data set have no file")

    def path(self, i: int) -> str:
        """Return the number of item i, for messages."""
        part, number = locate(self.parts, self.index[i])
        return part.where(number)


def locate(parts: Sequence[Part], index: int) -> tuple[Part, int]:
    """Return the data set of an item that is counted through, and its index there."""
    for part in parts:
        if index < part.length:
            return part, index
        index -= part.length
    raise IndexError(index)


def read_item(part: Part, i: int, reader: ItemReader) -> Item:
    """Read and check item i of a data set.

    Raises:
        DataError: The data set raised an error, or the item cannot be used.
    """
    try:
        item = part.dataset[i]
    except Exception as error:
        text = f"{type(error).__name__}: {error}" if str(error) else repr(error)
        what = f"the data set raised {text}"
        fix = "correct the data set, or leave out this item: torch.utils.data.Subset"
        raise DataError(what, where=part.where(i), fix=fix) from error
    return reader.read(item, part.where(i))


def is_random_part(part: Part, reader: ItemReader) -> bool:
    """Return whether items of a data set differ between two reads."""
    step = max(1, part.length // PROBES)
    for i in range(0, part.length, step):
        first = read_item(part, i, reader)
        for _ in range(READS - 1):
            again = read_item(part, i, reader)
            if again.label != first.label or not np.array_equal(
                again.pixels, first.pixels
            ):
                return True
    return False


def read_items(
    parts: Sequence[Part], reader: ItemReader, tick: Tick | None = None
) -> ItemSet:
    """Read every item once: check it, hash it, and keep it in memory if it fits.

    Raises:
        DataError: An item cannot be used, or does not fit to the others.
    """
    parts = tuple(parts)
    random_parts = tuple(p.split for p in parts if is_random_part(p, reader))
    scan = _Scan(sum(part.length for part in parts), keeps=not random_parts)
    for part in parts:
        for i in range(part.length):
            scan.add(part, i, read_item(part, i, reader), part.split in random_parts)
            if tick and len(scan.labels) % TICK_EVERY == 1:
                tick(len(scan.labels) - 1, scan.count)
    return ItemSet(
        parts=parts,
        reader=reader,
        index=tuple(range(scan.count)),
        labels=tuple(scan.labels),
        headers=tuple(scan.headers),
        contents=tuple(scan.contents),
        is_float=scan.is_float,
        low=tuple(scan.low.tolist()),
        high=tuple(scan.high.tolist()),
        images=scan.images,
        random_parts=random_parts,
    )


class _Scan:
    """Facts of the items that were read so far."""

    def __init__(self, count: int, keeps: bool) -> None:
        self.count = count
        self.labels: list[int] = []
        self.headers: list[ImageHeader] = []
        self.contents: list[str] = []
        self.images: list[np.ndarray] | None = [] if keeps else None
        self.low = self.high = np.empty(0)
        self._first: tuple[str, Item] | None = None
        free = memory.available_bytes()
        self._bytes_left = None if free is None else int(SHARE * memory.SHARE * free)

    @property
    def is_float(self) -> bool:
        """Return whether the images are float tensors."""
        return self._first is not None and _is_float(self._first[1])

    def add(self, part: Part, i: int, item: Item, is_random: bool) -> None:
        """Add an item.

        Raises:
            DataError: The image is of another kind than the first image.
        """
        if self._first is None:
            self._first = part.where(i), item
        check_equal_kinds(*self._first, part.where(i), item)
        self.labels.append(item.label)
        self.headers.append(ImageHeader(*item.pixels.shape))
        name = f"{part.split} {i}".encode()
        content = file_hash(name)[:24] if is_random else content_hash(item.pixels)
        self.contents.append(content)
        if self.is_float and part.split in ("", "train"):
            self._extend_range(item.pixels)
        self._keep(item.pixels)

    def _extend_range(self, pixels: np.ndarray) -> None:
        low, high = pixels.min((0, 1)), pixels.max((0, 1))
        self.low = np.minimum(self.low, low) if len(self.low) else low
        self.high = np.maximum(self.high, high) if len(self.high) else high

    def _keep(self, pixels: np.ndarray) -> None:
        if self.images is None:
            return
        self.images.append(pixels)
        if self._bytes_left is not None:
            self._bytes_left -= pixels.nbytes
            too_large = self._bytes_left < 0
            first_of_many = pixels.nbytes * (self.count - len(self.images))
            if too_large or (
                len(self.images) == 1 and first_of_many > self._bytes_left
            ):
                self.images = None


def _is_float(item: Item) -> bool:
    return item.pixels.dtype == np.float32


def check_equal_kinds(where_first: str, first: Item, where: str, item: Item) -> None:
    """Check that an image can be in one set with the first image.

    Raises:
        DataError: One is float and one uint8, or two tensors differ in size.
    """
    if _is_float(first) == _is_float(item) and (
        not (first.is_tensor or item.is_tensor)
        or first.pixels.shape == item.pixels.shape
    ):
        return
    what = f"{where_first} is {first.kind}, {where} is {item.kind}"
    fix = (
        "return tensors of one type and size (resize in the transforms), or PIL images "
        "or uint8 arrays, which striate resizes"
    )
    raise DataError(what, where=where, fix=fix)
