"""Source of images from torch Datasets and DataLoaders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from torch.utils.data import DataLoader, IterableDataset
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import Subset as TorchSubset

from striate.core.errors import DataError, SettingError
from striate.core.preprocess_config import MAX_WHITE_LEVEL
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
    """Source of images that are read by index from torch Datasets.

    Args:
        items: The images, one for each record.
        batch_size: Batch size of the DataLoader, if one was given.
        workers: Number of worker processes of the DataLoader.
        notes: Notes for the user, as sentences.
        inexact: Why another load or read can give other images; empty if it cannot.
    """

    items: ItemSet = field(repr=False)
    batch_size: int | None = None
    workers: int = 0
    notes: tuple[str, ...] = ()
    inexact: tuple[str, ...] = ()

    def take(self, index: Sequence[int], records: Sequence[Record]) -> Self:
        """Return a source of the images at the given indices, with new records."""
        return replace(self, records=tuple(records), items=self.items.take(index))


def is_torch_data(data: object) -> bool:
    """Return whether an object is a Dataset, a DataLoader, or a list like a Dataset.

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
    val: Any = None,
    test: Any = None,
    background: int = 255,
    white_level: int = MAX_WHITE_LEVEL,
    tick: Tick | None = None,
) -> DatasetSource:
    """Read torch Datasets or DataLoaders once, and return them as a source of images.

    Args:
        train: Data set of (image, label), or a DataLoader.
        val: Data set of the validation split; None takes it from `train`.
        test: Data set of the test split; None takes it from `train`, if `val` is None.
        background: Gray level under transparent pixels of PIL images.
        white_level: The 16-bit gray value that becomes 255.
        tick: Progress callback, called with (done, total).

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
    reader = ItemReader(background=background, white_level=white_level)
    given = {"train": train, "val": val, "test": test}
    opened = {
        split: _open(data, split, reader)
        for split, data in given.items()
        if data is not None
    }
    splits = len(opened) > 1
    parts = [
        Part(split=split if splits else "", dataset=d.dataset, length=len(d.dataset))
        for split, d in opened.items()
    ]
    items = read_items(parts, reader, tick)
    name = opened["train"].name
    classes = number_classes(
        _labels_by_split(parts, items.labels),
        _common_classes({s: dataset_classes(_inner(d)) for s, d in given.items()}),
        name,
    )
    width = len(str(max(part.length for part in parts) - 1))
    random_notes, inexact = _randomness(items)
    return DatasetSource(
        name=name,
        records=tuple(
            Record(
                path="/".join(filter(None, (name, part.split, f"{i:0{width}d}"))),
                label=classes.names[label],
                split=part.split or None,
            )
            for (part, i), label in zip(_places(parts), items.labels, strict=True)
        ),
        labels=classes,
        warnings=(*_collect(opened, "warnings"), *_range_warnings(items)),
        items=items,
        batch_size=opened["train"].batch_size,
        workers=opened["train"].workers,
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

    Args:
        data: Data set, as for `load_data`.
        val: Data of the validation split.
        test: Data of the test split.
        config: Settings of the images; None uses the defaults.
        tick: Progress callback, called with (done, total).

    Raises:
        SettingError: `val` or `test` is given with data that is not torch data.
        DataError: The data cannot be used.
    """
    if is_torch_data(data):
        config = config or DataConfig()
        return dataset_source(
            data,
            val=val,
            test=test,
            background=config.background_or_white,
            white_level=config.white_level_or_full,
            tick=tick,
        )
    if val is not None or test is not None:
        what = "val and test are only for torch data sets"
        fix = "use a folder with train, val and test, or give Datasets for all splits"
        raise SettingError(what, where="val, test", fix=fix)
    if not isinstance(data, str | Path | Source):
        what = f"the data is {_type_text(data)}"
        fix = "give a path, a name, a Source, or a torch Dataset or DataLoader"
        raise DataError(what, where="data", fix=fix)
    return data


def _places(parts: Sequence[Part]) -> list[tuple[Part, int]]:
    return [(part, i) for part in parts for i in range(part.length)]


def _collect(opened: Mapping[str, LoaderData], name: str) -> list[str]:
    return [text for data in opened.values() for text in getattr(data, name)]


def _open(data: Any, split: str, reader: ItemReader) -> LoaderData:
    """Return a data set with a length.

    Raises:
        DataError: The data set has no length, or is empty.
    """
    if isinstance(data, DataLoader | IterableDataset):
        return _not_empty(open_loader(data, split, reader), split)
    if isinstance(data, type) or not is_torch_data(data):
        what = f"the {split} data is {_type_text(data)}, not a Dataset or DataLoader"
        fix = "give an object with __getitem__ and __len__ that returns (image, label)"
        raise DataError(what, where=split, fix=fix)
    name = type(data.dataset if isinstance(data, TorchSubset) else data).__name__
    return _not_empty(LoaderData(dataset=data, name=name), split)


def _type_text(data: object) -> str:
    if isinstance(data, type):
        return f"the class {data.__name__}, not an instance"
    if isinstance(data, str):
        return f"the text {data!r:.40}"
    return f"an object of the type {type(data).__name__}"


def _not_empty(data: LoaderData, split: str) -> LoaderData:
    try:
        length = len(data.dataset)
    except (TypeError, NotImplementedError) as error:
        what = f"the {split} data set has no length ({error})"
        fix = "define __len__, or give an IterableDataset, which is read once"
        raise DataError(what, where=data.name, fix=fix) from error
    if not length:
        what = f"the {split} data set is empty"
        raise DataError(what, where=data.name, fix="give a data set with images")
    return data


def _inner(data: Any) -> Any:
    return data.dataset if isinstance(data, DataLoader) else data


def _common_classes(
    classes: Mapping[str, tuple[str, ...] | None],
) -> tuple[str, ...] | None:
    """Return the class names, which must be equal in all data sets that have some.

    Raises:
        DataError: Two data sets have different classes.
    """
    named = {split: names for split, names in classes.items() if names}
    for split, names in named.items():
        if names != next(iter(named.values())):
            first = next(iter(named))
            have = [", ".join(named[s][:8]) for s in (first, split)]
            what = f"the classes of {first} are {have[0]}; those of {split}: {have[1]}"
            fix = "use the same classes in the same order in all data sets"
            raise DataError(what, where="classes", fix=fix)
    return next(iter(named.values()), None)


def _labels_by_split(
    parts: Sequence[Part], labels: Sequence[int]
) -> dict[str, Sequence[int]]:
    by_split: dict[str, Sequence[int]] = {}
    start = 0
    for part in parts:
        by_split[part.split or "train"] = labels[start : start + part.length]
        start += part.length
    return by_split


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
    if not items.is_float or max(*items.high, *(-v for v in items.low)) < LARGEST_USUAL:
        return ()
    values = f"{min(items.low):g} to {max(items.high):g}"
    text = f"the float tensors have values from {values} and are used as they are"
    return (f"{text}; normalize them in the transforms of the data set",)
