"""Class names in the order of a network's outputs, and the labels of images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from striate.core.errors import DataError, SettingError
from striate.core.registry import unknown_name_error

if TYPE_CHECKING:
    import numpy as np

SEPARATOR = ";"  # between the classes of an image with several labels


def split_label(text: str) -> tuple[str, ...]:
    """Return the distinct class names in a label of several classes, sorted.

    Example:
        >>> split_label("dog; cat;dog"), split_label("")
        (('cat', 'dog'), ())
    """
    names = [part.strip() for part in text.split(SEPARATOR)]
    return ClassNames.of([name for name in names if name]).names


@dataclass(frozen=True)
class ClassNames:
    """Class names in the order of a network's outputs, and the labels of images.

    The label of an image is the name of its class. With `multi_label`, it has the names
    of all its classes, separated by `;`, and may be empty.

    Example:
        >>> classes = ClassNames(("cat", "dog"))
        >>> classes.index("dog"), classes[0], len(classes)
        (1, 'cat', 2)
        >>> ClassNames(("cat", "dog"), multi_label=True).encode(["dog", ""]).tolist()
        [[0, 1], [0, 0]]
    """

    names: tuple[str, ...]
    multi_label: bool = False  # whether an image can have several classes, or none

    def __post_init__(self) -> None:
        if len(set(self.names)) != len(self.names):
            raise DataError("two classes have the same name", where=self.names)

    @classmethod
    def of(cls, labels: Sequence[str]) -> ClassNames:
        """Create class names: the distinct labels, sorted (as numbers if numeric).

        Example:
            >>> ClassNames.of(["10", "9", "9"]).names
            ('9', '10')
        """
        names = set(labels)
        numeric = all(name.isdecimal() for name in names)
        # The name second: '1' and '01' are one number, and sets have no order.
        return cls(tuple(sorted(names, key=lambda n: (int(n) if numeric else 0, n))))

    @classmethod
    def of_several(cls, labels: Iterable[str]) -> ClassNames:
        """Create the class names of images with several labels.

        Example:
            >>> ClassNames.of_several(["dog;cat", ""]).names
            ('cat', 'dog')
        """
        names = cls.of([name for label in labels for name in split_label(label)]).names
        return cls(names, multi_label=True)

    def classes_of(self, label: str) -> tuple[str, ...]:
        """Return the names of the classes in the label of an image."""
        return split_label(label) if self.multi_label else (label,)

    def count(self, labels: Iterable[str]) -> Counter[str]:
        """Return the number of images of each class that has images."""
        return Counter(name for label in labels for name in self.classes_of(label))

    def encode(self, labels: Sequence[str]) -> np.ndarray:
        """Return class indices (N,) int64, or multi-hot rows (N, classes) uint8.

        Raises:
            KeyError: A label has an unknown class.
        """
        import numpy as np  # not needed for the help of the commands

        number = {name: i for i, name in enumerate(self.names)}
        if not self.multi_label:
            return np.array([number[label] for label in labels], np.int64)
        rows = np.zeros((len(labels), len(self.names)), np.uint8)
        for row, label in zip(rows, labels, strict=True):
            row[[number[name] for name in split_label(label)]] = 1
        return rows

    def decode(self, row: Iterable[float]) -> str:
        """Return the label of an image: the names of its classes, separated by `;`.

        Example:
            >>> ClassNames(("cat", "dog"), multi_label=True).decode([1, 1])
            'cat;dog'
        """
        pairs = zip(self.names, row, strict=True)
        return SEPARATOR.join(name for name, value in pairs if value)

    def text(self, target: np.ndarray) -> str:
        """Return the label of an encoded image: a class index, or a multi-hot row.

        Example:
            >>> import numpy as np
            >>> ClassNames(("cat", "dog")).text(np.array(1))
            'dog'
        """
        return self.decode(target) if self.multi_label else self.names[int(target)]

    def require_one_label(self, feature: str, fix: str) -> None:
        """Raise an error if images have several labels, for a feature that needs one.

        Raises:
            SettingError: Images have several labels.
        """
        if self.multi_label:
            what = f"{feature} needs images with one class each, not several labels"
            raise SettingError(what, where=feature, fix=fix)

    def index(self, name: str | int) -> int:
        """Return the output index of a class name; a valid index is returned unchanged.

        Raises:
            UnknownNameError: No class has this name; the message lists similar names.
        """
        if isinstance(name, int):
            if not 0 <= name < len(self.names):
                indices = map(str, range(len(self)))
                raise unknown_name_error("class index", str(name), indices)
            return name
        if name not in self.names:
            raise unknown_name_error("class", name, self.names)
        return self.names.index(name)

    def __getitem__(self, index: int) -> str:
        return self.names[index]

    def __len__(self) -> int:
        return len(self.names)
