"""Class names of a torch Dataset, and checks of its integer labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch.utils.data import ConcatDataset, Subset

from striate.core.class_names import ClassNames
from striate.core.errors import DataError

MAX_NAMED = 5
_CONTIGUOUS = "labels must be 0 to the number of classes − 1, without gaps"


def dataset_classes(dataset: Any) -> tuple[str, ...] | None:
    """Return the class names of a data set: its attribute `classes`, or None.

    A `Subset` has the classes of its data set, a `ConcatDataset` those of its parts.

    Example:
        >>> class Pets:
        ...     classes = ["cat", "dog"]
        >>> dataset_classes(Subset(Pets(), [0]))
        ('cat', 'dog')
    """
    if isinstance(dataset, Subset):
        return dataset_classes(dataset.dataset)
    if isinstance(dataset, ConcatDataset):
        parts = {dataset_classes(part) for part in dataset.datasets}
        return parts.pop() if len(parts) == 1 else None
    names = getattr(dataset, "classes", None)
    if not isinstance(names, list | tuple) or not names:
        return None
    return tuple(map(str, names)) if all(isinstance(n, str) for n in names) else None


def number_classes(
    labels: Mapping[str, Sequence[int]], names: Sequence[str] | None, where: str
) -> ClassNames:
    """Check the labels of all splits, and return the classes in output order.

    Args:
        labels: Integer labels by split; the first split has the training images.
        names: Class names, or None: the classes are named by their number.
        where: Name of the data set, for messages.

    Raises:
        DataError: A label is out of range, or a class has no training image.

    Example:
        >>> number_classes({"train": [0, 1, 1]}, None, "toy").names
        ('0', '1')
    """
    (first, train), *_ = labels.items()
    present = set(train)
    count = max(present) + 1 if names is None else len(names)
    for split, numbers in labels.items():
        for i, number in enumerate(numbers):
            if number >= count:
                raise _out_of_range(number, count, names, where, f"{split} item {i}")
    if len(present) < count:
        raise _missing(present, count, names, f"{where}, {first} labels")
    return ClassNames(tuple(map(str, names or range(count))))


def _out_of_range(
    number: int, count: int, names: Sequence[str] | None, where: str, item: str
) -> DataError:
    have = "training images" if names is None else "attribute `classes`"
    what = f"label {number} is out of range: the {have} has {count} classes"
    if names is None:
        what = (
            f"label {number} is out of range: the {have} have labels 0 to {count - 1}"
        )
    return DataError(what, where=f"{where}, {item}", fix=_CONTIGUOUS)


def _missing(
    present: set[int], count: int, names: Sequence[str] | None, where: str
) -> DataError:
    gaps: list[str] = []
    for number in range(count):  # a label may be a huge number: stop early
        if number not in present:
            gaps.append(str(number) if names is None else f"{number} ({names[number]})")
        if len(gaps) == MAX_NAMED:
            break
    total = count - len(present)
    rest = " …" if total > len(gaps) else ""
    what = f"no training image has the label {', '.join(gaps)}{rest}"
    fix = f"{_CONTIGUOUS}: renumber them, or add images of these classes"
    return DataError(f"{what} ({total:,} of {count:,} labels)", where=where, fix=fix)
