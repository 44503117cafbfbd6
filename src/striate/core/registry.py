"""Registry of objects by name, and the error for an unknown name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from striate.core.errors import UnknownNameError

T = TypeVar("T")
LONG_LIST = 60  # names; of a longer list, only the first LIST_LIMIT are shown
LIST_LIMIT = 12


def closest_names(name: str, choices: Iterable[str], count: int = 3) -> list[str]:
    """Return the choices most similar to a misspelled name, best match first.

    Example:
        >>> closest_names("lenet", ["lenet5", "tutorial_gray"])
        ['lenet5']
    """
    folded = {k.lower().replace("-", "_"): k for k in choices}
    target = name.lower().replace("-", "_")
    close = difflib.get_close_matches(target, folded, n=count, cutoff=0.6)
    within = [k for k in folded if target in k or k in target] if target else []
    return [folded[k] for k in dict.fromkeys(close + within)][:count]


def unknown_name_error(
    kind: str, name: str, choices: Iterable[str], where: str | None = None
) -> UnknownNameError:
    """Return the error for an unknown name, with similar names and valid choices.

    If there are more than `LONG_LIST` choices, only the first are listed.
    """
    names = list(dict.fromkeys(choices))
    close = closest_names(name, sorted(names))
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    few = [*names[:LIST_LIMIT], f"… ({len(names)} in all)"]
    listed = ", ".join(few if len(names) > LONG_LIST else sorted(names))
    what = f"no {kind} is called '{name}'"
    return UnknownNameError(what, where=where, fix=f"{hint}choose one of: {listed}")


class Registry(Generic[T]):
    """A mapping from names to objects; the decorator `add` registers an object.

    Args:
        kind: Noun for error messages, such as "network" or "schedule".

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
        """Return a decorator that registers its argument under `name`."""

        def enter(entry: T) -> T:
            if name in self._entries:
                raise ValueError(f"{self.kind} '{name}' is registered twice")
            self._entries[name] = entry
            return entry

        return enter

    def __getitem__(self, name: str) -> T:
        if name not in self._entries:
            raise unknown_name_error(self.kind, name, self._entries)
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)
