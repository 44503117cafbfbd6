"""Registry of objects by name, and the error for an unknown name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from striate.core.errors import UnknownNameError

T = TypeVar("T")
LONG_LIST = 60  # names; of a longer list, only the first LIST_LIMIT are shown
LIST_LIMIT = 12
MIN_PART = 3  # letters of a name that is the beginning or a word of a choice
MIN_TYPED = 4  # letters of a name with a typing error; with two: twice as many
MOST = 0.65  # share of a name that a choice must make up to be suggested for it


def closest_names(name: str, choices: Iterable[str], count: int = 3) -> list[str]:
    """Return the choices that a misspelled name can mean, best match first.

    A wrong suggestion misleads, so short names must match almost exactly. A choice
    matches if it differs by few typing errors, or if the name is a part of it.

    Example:
        >>> closest_names("lenett", ["lenet5", "tutorial_gray"])
        ['lenet5']
        >>> closest_names("--opt", ["--out", "--lr"])
        []
    """
    folded = {k.lower().replace("-", "_"): k for k in choices}
    target = name.lower().replace("-", "_")
    if not target.strip("_"):
        return []
    errors = {k: _errors(target, k) for k in folded}
    fewest = min((n for n in errors.values() if n is not None), default=None)
    close = [k for k in folded if errors[k] == fewest is not None]
    parts = [k for k in folded if _begins(target, k)]
    parts = parts or [k for k in folded if _is_part(target, k)]
    exchanged = [k for k in close if sorted(k) == sorted(target)]
    matches = sorted(exchanged or close, key=lambda k: abs(len(k) - len(target)))
    matches = matches or sorted(parts, key=len)
    return [folded[k] for k in matches][:count]


def _errors(name: str, choice: str) -> int | None:
    """Return the number of typing errors; None if these are too many."""
    name, choice = name.strip("_"), choice.strip("_")
    length = max(len(name), len(choice))
    most = 1 if length < 2 * MIN_TYPED else 2
    if length < MIN_TYPED and sorted(name) != sorted(choice):  # not only exchanged
        most = 0
    # The first letter is rarely wrong: `clip` is not `flip`, and `drop` not `crop`.
    if name[:1] != choice[:1] and name[:2] != choice[1::-1]:
        return None
    count = typing_errors(name, choice, most)
    return count if count <= most else None


def _begins(name: str, choice: str) -> bool:
    """Return whether a name is the beginning of a choice."""
    name = name.strip("_")
    return len(name) >= MIN_PART and choice.strip("_").startswith(name)


def _is_part(name: str, choice: str) -> bool:
    """Return whether a name is a word of a choice, or little more than the choice."""
    name, choice = name.strip("_"), choice.strip("_")
    if min(len(name), len(choice)) < MIN_PART:
        return False
    is_word = name in re.split(r"[^a-z0-9]+", choice)
    return is_word or (choice in name and len(choice) >= MOST * len(name))


def typing_errors(first: str, second: str, most: int) -> int:
    """Count the typing errors between two words; more than `most` is `most + 1`.

    An error is a missing, additional or wrong letter, or two exchanged letters (optimal
    string alignment distance).

    Example:
        >>> typing_errors("epohcs", "epochs", 2), typing_errors("opt", "out", 2)
        (1, 1)
    """
    if abs(len(first) - len(second)) > most:
        return most + 1
    before: list[int] = []
    row = list(range(len(second) + 1))
    for i, letter in enumerate(first, 1):
        older, before, row = before, row, [i]
        for j, other in enumerate(second, 1):
            changed = before[j - 1] + (letter != other)
            best = min(before[j] + 1, row[j - 1] + 1, changed)
            if i > 1 and j > 1 and first[i - 2] + letter == other + second[j - 2]:
                best = min(best, older[j - 2] + 1)
            row.append(best)
    return min(row[-1], most + 1)


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
