"""Class names of a torch Dataset, and checks of its integer labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from torch.utils.data import ConcatDataset, Subset

from striate.core.class_names import ClassNames
from striate.core.errors import DataError
from striate.core.format import count_text

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
    labels: Mapping[str, Sequence[int]],  # by split; first that of the training images
    names: Sequence[str] | None,  # None: the classes are named by their number
    where: str,
) -> ClassNames:
    """Check the labels of all splits, and return the classes in output order.

    Raises:
        DataError: A label is out of range, or a class has no training image.

    Example:
        >>> number_classes({"train": [0, 1, 1]}, None, "toy").names
        ('0', '1')
    """
    (first, train), *_ = labels.items()
    present = set(train)
    count = max(present) + 1 if names is None else len(names)
    limit = f"attribute `classes` has {count_text(count, 'class', 'classes')}"
    if names is None:
        limit = f"training images have labels 0 to {count - 1}"
    for split, numbers in labels.items():
        for i, number in enumerate(numbers):
            if number >= count:
                what = f"label {number} is out of range: the {limit}"
                item = f"{where}, {split} item {i}"
                raise DataError(what, where=item, fix=_CONTIGUOUS)
    if len(present) < count:
        raise _missing(present, count, names, f"{where}, labels of {first}")
    return ClassNames(tuple(map(str, names or range(count))))


def _missing(
    present: set[int], count: int, names: Sequence[str] | None, where: str
) -> DataError:
    # Lazy: a label may be a huge number.
    gaps = (number for number in range(count) if number not in present)
    listed = [f"{n} ({names[n]})" if names else str(n) for n in islice(gaps, MAX_NAMED)]
    total = count - len(present)
    rest = " …" if total > len(listed) else ""
    what = f"no training image has the label {', '.join(listed)}{rest}"
    fix = f"{_CONTIGUOUS}: renumber them, or add images of these classes"
    return DataError(f"{what} ({total:,} of {count:,} labels)", where=where, fix=fix)
