"""Class names in the order of a network's outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from striate.core.errors import DataError
from striate.core.registry import unknown_name_error


@dataclass(frozen=True)
class ClassNames:
    """Class names in the order of a network's outputs, and index look-up by name.

    Example:
        >>> classes = ClassNames(("cat", "dog"))
        >>> classes.index("dog"), classes[0], len(classes)
        (1, 'cat', 2)
    """

    names: tuple[str, ...]

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
