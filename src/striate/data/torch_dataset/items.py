"""Items of torch data sets, read by index; images that fit are kept in memory."""

from __future__ import annotations

import math
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
TICK_EVERY = 64


@dataclass(frozen=True, kw_only=True)
class Part:
    """One data set that an `ItemSet` is made of."""

    split: str  # `train`, `val` or `test`; empty if striate splits the images
    dataset: Any = field(repr=False)  # has a length; (image, label) by index
    length: int

    def where(self, i: int) -> str:
        """Return a name of item i for messages, such as `Digits[3] (train)`."""
        name = type(self.dataset).__name__
        return f"{name}[{i}]" + (f" ({self.split})" if self.split else "")

    def read(self, i: int, reader: ItemReader) -> Item:
        """Read and check item i.

        Raises:
            DataError: The data set raised an error, or the item cannot be used.
        """
        try:
            item = self.dataset[i]
        except Exception as error:
            text = f"{type(error).__name__}: {error}" if str(error) else repr(error)
            what = f"the data set raised {text}"
            fix = (
                "correct the data set, or leave out this item: torch.utils.data.Subset"
            )
            raise DataError(what, where=self.where(i), fix=fix) from error
        return reader.read(item, self.where(i))

    def is_random(self, reader: ItemReader) -> bool:
        """Return whether items differ between two reads."""
        for i in range(0, self.length, max(1, self.length // PROBES)):
            first = self.read(i, reader)
            for _ in range(READS - 1):
                again = self.read(i, reader)
                same = np.array_equal(again.pixels, first.pixels)
                if again.label != first.label or not same:
                    return True
        return False


@dataclass(frozen=True, slots=True)
class ItemInfo:
    """What is known about an item without its pixels."""

    part: Part
    i: int  # index in the part
    label: int
    header: ImageHeader
    content: str  # content hash; of the index for random images


@dataclass(kw_only=True, eq=False)
class ItemSet:
    """Images and labels of one or several data sets, one after another."""

    reader: ItemReader
    random_parts: tuple[
        str, ...
    ]  # splits whose data set returns other images each time
    infos: list[ItemInfo] = field(default_factory=list, repr=False)
    images: list[np.ndarray] | None = field(repr=False)  # None: too large for memory
    is_float: bool = False
    # Smallest and largest value of float training images in each channel.
    low: np.ndarray = field(default_factory=lambda: np.array(np.inf, np.float32))
    high: np.ndarray = field(default_factory=lambda: np.array(-np.inf, np.float32))

    def __len__(self) -> int:
        return len(self.infos)

    def read(self, row: int) -> np.ndarray:
        """Return an image from memory or from its data set, (H, W, C) uint8 or float32.

        Raises:
            DataError: The item cannot be read, or is no longer the same image.
        """
        if self.images is not None:
            return self.images[row]
        info = self.infos[row]
        pixels = info.part.read(info.i, self.reader).pixels
        is_random = info.part.split in self.random_parts
        if not is_random and content_hash(pixels) != info.content:
            what = "the data set returned another image than when it was loaded"
            fix = (
                "return the same image at each read; transforms are recognized as "
                "random only if they change most of the images"
            )
            raise DataError(what, where=self.path(row), fix=fix)
        return pixels

    def take(self, rows: Sequence[int]) -> ItemSet:
        """Return the items at the given indices."""
        images = None if self.images is None else [self.images[i] for i in rows]
        return replace(self, infos=[self.infos[i] for i in rows], images=images)

    def payload(self, i: int) -> bytes:
        """Raise an error: items of a data set have no file."""
        raise TypeError("items of a data set have no file")

    def path(self, i: int) -> str:
        """Return a name of item i for messages, such as `Digits[3] (train)`."""
        return self.infos[i].part.where(self.infos[i].i)

    def add(self, part: Part, i: int, item: Item) -> None:
        """Add item i of a part, without its pixels."""
        content = content_hash(item.pixels)
        if part.split in self.random_parts:
            content = file_hash(f"{part.split} {i}".encode())[:24]
        header = ImageHeader(*item.pixels.shape)
        self.infos.append(ItemInfo(part, i, item.label, header, content))
        self.is_float = item.is_float
        if item.is_float and part.split in ("", "train"):
            self.low = np.minimum(self.low, item.pixels.min((0, 1)))
            self.high = np.maximum(self.high, item.pixels.max((0, 1)))


def read_items(
    parts: Sequence[Part], reader: ItemReader, tick: Tick | None = None
) -> ItemSet:
    """Read every item once: check it, hash it, and keep it in memory if it fits.

    Raises:
        DataError: An item cannot be used, or does not fit to the others.
    """
    random_parts = tuple(p.split for p in parts if p.is_random(reader))
    items = ItemSet(
        reader=reader, random_parts=random_parts, images=None if random_parts else []
    )
    total = sum(part.length for part in parts)
    bytes_left = image_bytes_left()
    first: tuple[str, Item] | None = None
    for part, i in [(each, i) for each in parts for i in range(each.length)]:
        item = part.read(i, reader)
        first = first or (part.where(i), item)
        _check_equal_kinds(*first, part.where(i), item)
        items.add(part, i, item)
        if items.images is not None:
            items.images.append(item.pixels)
            bytes_left -= item.pixels.nbytes
            others = item.pixels.nbytes * (total - 1) if len(items) == 1 else 0
            items.images = None if others > bytes_left else items.images
        if tick and len(items) % TICK_EVERY == 1:
            tick(len(items) - 1, total)
    return items


def image_bytes_left() -> float:
    """Return the memory for images in bytes: a half, since they are copied once."""
    free = memory.available_bytes()
    return math.inf if free is None else int(memory.SHARE * free / 2)


def _check_equal_kinds(where_first: str, first: Item, where: str, item: Item) -> None:
    """Refuse float beside uint8 images, and tensors of different sizes."""
    any_size = not (first.is_tensor or item.is_tensor)
    fits = any_size or first.pixels.shape == item.pixels.shape
    if first.is_float == item.is_float and fits:
        return
    what = f"{where_first} is {first.kind}, {where} is {item.kind}"
    fix = (
        "return tensors of one type and size (resize in the transforms), or PIL images "
        "or uint8 arrays, which striate resizes"
    )
    raise DataError(what, where=where, fix=fix)
