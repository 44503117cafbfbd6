"""Source of images from torch Datasets and DataLoaders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from torch.utils.data import DataLoader, IterableDataset
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import Subset as TorchSubset

from striate.core.class_names import ClassNames
from striate.core.errors import DataError, SettingError
from striate.data.config import DataConfig
from striate.data.scan import Tick
from striate.data.sources.source import Record, Source
from striate.data.torch_dataset.class_labels import dataset_classes, number_classes
from striate.data.torch_dataset.item import ItemReader
from striate.data.torch_dataset.items import ItemSet, Part, read_items
from striate.data.torch_dataset.loader import LoaderData, open_loader

TorchData = TorchDataset[Any] | DataLoader[Any]
# Float values beyond this range are probably pixels that were not normalized.
LARGEST_USUAL = 30.0


@dataclass(frozen=True, kw_only=True)
class DatasetSource(Source):
    """Source of images that are read by index from torch Datasets."""

    items: ItemSet = field(repr=False)  # the images, one for each record
    batch_size: int | None = None  # batch size of the DataLoader, if one was given
    workers: int = 0  # number of worker processes of the DataLoader
    notes: tuple[str, ...] = ()  # notes for the user, as sentences
    inexact: tuple[str, ...] = ()  # why another load or read can give other images

    def take(self, index: Sequence[int], records: Sequence[Record]) -> Self:
        """Return a source of the images at the given indices, with these records."""
        return replace(self, records=tuple(records), items=self.items.take(index))


def is_torch_data(data: object) -> bool:
    """Return whether an object is a Dataset, a DataLoader, or can be indexed (no text).

    Example:
        >>> is_torch_data("digits"), is_torch_data([])
        (False, True)
    """
    if isinstance(data, TorchDataset | DataLoader):
        return True
    indexable = hasattr(data, "__getitem__") and hasattr(data, "__len__")
    return indexable and not isinstance(data, str | bytes)


def dataset_source(
    train: Any,
    *,
    val: Any = None,  # None takes the split from `train`
    test: Any = None,  # None takes the split from `train`, if `val` is None
    reader: ItemReader | None = None,
    tick: Tick | None = None,
) -> DatasetSource:
    """Read torch Datasets or DataLoaders once, and return them as a source of images.

    Raises:
        DataError: A data set has no length or no images, or an item cannot be used.
        WorkerError: A worker process of a DataLoader died.

    Example:
        >>> import torch
        >>> from torch.utils.data import TensorDataset
        >>> toy = TensorDataset(torch.zeros(4, 1, 2, 2), torch.tensor([0, 1, 0, 1]))
        >>> source = dataset_source(toy)
        >>> source.labels.names, source.records[1].path, source.items.is_float
        (('0', '1'), 'TensorDataset/1', True)
    """
    reader = reader or ItemReader()
    given = {"train": train, "val": val, "test": test}
    given = {split: data for split, data in given.items() if data is not None}
    opened = {split: _open(data, split, reader) for split, data in given.items()}
    parts = [
        Part(
            split=split if len(opened) > 1 else "",
            dataset=data.dataset,
            length=len(data.dataset),
        )
        for split, data in opened.items()
    ]
    items = read_items(parts, reader, tick)
    first = opened["train"]
    labels = {
        part.split or "train": [x.label for x in items.infos if x.part is part]
        for part in parts
    }
    classes = number_classes(labels, _common_classes(given), first.name)
    random_notes, inexact = _randomness(items)
    return DatasetSource(
        name=first.name,
        records=_records(items, first.name, classes),
        labels=classes,
        warnings=(*_collect(opened, "warnings"), *_range_warnings(items)),
        items=items,
        batch_size=first.batch_size,
        workers=first.workers,
        notes=(*_collect(opened, "notes"), *random_notes),
        inexact=tuple(dict.fromkeys((*_collect(opened, "inexact"), *inexact))),
    )


def open_data(
    data: str | Path | Source | TorchData,
    val: TorchData | None = None,
    test: TorchData | None = None,
    config: DataConfig | None = None,
    tick: Tick | None = None,
) -> str | Path | Source:
    """Return the source of torch data; return other data unchanged.

    Raises:
        SettingError: `val` or `test` is given with data that is not torch data.
        DataError: The data cannot be used.
    """
    if is_torch_data(data):
        config = config or DataConfig()
        reader = ItemReader(
            background=config.background_or_white,
            white_level=config.white_level_or_full,
        )
        return dataset_source(data, val=val, test=test, reader=reader, tick=tick)
    if val is not None or test is not None:
        what = "val and test are only for torch data sets"
        fix = "use a folder with train, val and test, or give Datasets for all splits"
        raise SettingError(what, where="val, test", fix=fix)
    if not isinstance(data, str | Path | Source):
        what = f"the data is {_type_text(data)}"
        fix = "give a path, a name, a Source, or a torch Dataset or DataLoader"
        raise DataError(what, where="data", fix=fix)
    return data


def _records(items: ItemSet, name: str, classes: ClassNames) -> tuple[Record, ...]:
    width = len(str(max(info.i for info in items.infos)))
    return tuple(
        Record(
            path="/".join(filter(None, (name, x.part.split, f"{x.i:0{width}d}"))),
            label=classes.names[x.label],
            split=x.part.split or None,
        )
        for x in items.infos
    )


def _collect(opened: Mapping[str, LoaderData], name: str) -> list[str]:
    return [text for data in opened.values() for text in getattr(data, name)]


def _open(data: Any, split: str, reader: ItemReader) -> LoaderData:
    """Return a data set with a length and with images, or an error."""
    if isinstance(data, DataLoader | IterableDataset):
        opened = open_loader(data, split, reader)
    elif isinstance(data, type) or not is_torch_data(data):
        what = f"the {split} data is {_type_text(data)}, not a Dataset or DataLoader"
        fix = "give an object with __getitem__ and __len__ that returns (image, label)"
        raise DataError(what, where=split, fix=fix)
    else:
        inner = data.dataset if isinstance(data, TorchSubset) else data
        opened = LoaderData(dataset=data, name=type(inner).__name__)
    try:
        length = len(opened.dataset)
    except (TypeError, NotImplementedError) as error:
        what = f"the {split} data set has no length ({error})"
        fix = "define __len__, or give an IterableDataset, which is read once"
        raise DataError(what, where=opened.name, fix=fix) from error
    if not length:
        what = f"the {split} data set is empty"
        raise DataError(what, where=opened.name, fix="give a data set with images")
    return opened


def _type_text(data: object) -> str:
    if isinstance(data, type):
        return f"the class {data.__name__}, not an instance"
    if isinstance(data, str):
        return f"the text {data!r:.40}"
    return f"an object of the type {type(data).__name__}"


def _common_classes(given: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the class names of all data sets; different class names are an error."""
    first: tuple[str, tuple[str, ...]] | None = None
    for split, data in given.items():
        names = dataset_classes(data.dataset if isinstance(data, DataLoader) else data)
        if names is None:
            continue
        first = first or (split, names)
        if names != first[1]:
            a, b = (", ".join(each[:8]) for each in (first[1], names))
            what = f"the classes of {first[0]} are {a}; those of {split}: {b}"
            fix = "use the same classes in the same order in all data sets"
            raise DataError(what, where="classes", fix=fix)
    return first[1] if first else None


def _randomness(items: ItemSet) -> tuple[list[str], list[str]]:
    """Return notes and reasons for inexact runs, if images differ between reads."""
    if not items.random_parts:
        return [], []
    inexact = "the data set returns another image at each read"
    splits = [split for split in items.random_parts if split not in ("", "train")]
    notes = [f"{inexact}: images are read anew in every epoch"]
    if "" in items.random_parts or splits:
        names = ", ".join(splits) or "val and test"
        notes.append(
            f"{names} images are random too, so their metrics vary; give data sets "
            "without random transforms: val=…, test=…"
        )
    return notes, [inexact]


def _range_warnings(items: ItemSet) -> tuple[str, ...]:
    low, high = float(items.low.min()), float(items.high.max())
    if not items.is_float or max(high, -low) < LARGEST_USUAL:
        return ()
    values = f"{low:g} to {high:g}"
    text = f"the float tensors have values from {values} and are used as they are"
    return (f"{text}; normalize them in the transforms of the data set",)
