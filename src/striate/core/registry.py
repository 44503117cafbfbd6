"""Closed tables of names. A name from outside resolves here or not at all."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from striate.core.errors import UnknownNameError

T = TypeVar("T")
MANY, SHOWN = 60, 12  # more names than many are no help: only the first are shown


def nearest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """Return the known names closest to a misspelt one, best first.

    Example:
        >>> nearest("lenet", ["lenet5", "tutorial_gray"])
        ['lenet5']
    """
    folded = {k.lower().replace("-", "_"): k for k in known}
    asked = name.lower().replace("-", "_")
    close = difflib.get_close_matches(asked, folded, n=count, cutoff=0.6)
    within = [k for k in folded if asked in k or k in asked] if asked else []
    return [folded[k] for k in dict.fromkeys(close + within)][:count]


def unknown(
    kind: str, name: str, known: Iterable[str], where: str | None = None
) -> UnknownNameError:
    """Build the error for a name that is not known: the nearest, then all.

    Of a hundred, such as a deep network's layers, the first are shown.
    """
    names = list(dict.fromkeys(known))
    close = nearest(name, sorted(names))
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    few = [*names[:SHOWN], f"… ({len(names)} in all)"]
    listed = ", ".join(few if len(names) > MANY else sorted(names))
    what = f"no {kind} is called '{name}'"
    return UnknownNameError(what, where=where, fix=f"{hint}choose one of: {listed}")


class Registry(Generic[T]):
    """A table from names to things, filled by a decorator.

    Args:
        kind: What the names name, for messages ("network", "schedule").

    Example:
        >>> shapes: Registry[int] = Registry("shape")
        >>> _ = shapes.add("square")(4)
        >>> shapes["square"], list(shapes)
        (4, ['square'])
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}

    def add(self, name: str) -> Callable[[T], T]:
        """Return a decorator that enters its argument under `name`."""

        def enter(entry: T) -> T:
            if name in self._entries:
                raise ValueError(f"two {self.kind}s are called '{name}'")
            self._entries[name] = entry
            return entry

        return enter

    def __getitem__(self, name: str) -> T:
        if name not in self._entries:
            raise unknown(self.kind, name, self._entries)
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)
