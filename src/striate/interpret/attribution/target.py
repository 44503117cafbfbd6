"""What evidence is asked about: a class, or one class rather than another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from striate.core.class_names import ClassNames
from striate.core.errors import GeometryError, SettingError

Class = int | str


@dataclass(frozen=True, kw_only=True)
class AttributionTarget:
    """The number to be explained: a class's logit, or its lead over another's.

    Args:
        target: Output of the class.
        against: Output of the class it is held against; None for none.
        words: The same in words: `cat`, `cat rather than dog`.
    """

    target: int
    against: int | None = None
    words: str

    def score(self, logits: Tensor) -> Tensor:
        """Return the number, one an image.

        Shapes:
            (N, classes) → (N,)
        """
        own = logits[:, self.target]
        return own if self.against is None else own - logits[:, self.against]

    def chance(self, logits: Tensor) -> Tensor:
        """Return the class's probability; held against another, among the two."""
        if self.against is None:
            return logits.softmax(1)[:, self.target]
        return logits[:, [self.target, self.against]].softmax(1)[:, 0]


def ask(
    logits: Tensor,
    target: Class | None = None,
    against: Class | None = None,
    labels: ClassNames | Sequence[str] | None = None,
) -> AttributionTarget:
    """Make a question about a network's answer.

    Args:
        logits: Its answer, (1, classes).
        target: A class by name or number; the one it chose where None.
        against: A second class, for "why this rather than that".
        labels: Class names in output order; `class 0`, `class 1` … where None.

    Raises:
        UnknownNameError: No class has this name or number; lists the nearest.
        SettingError: A class is held against itself.

    Example:
        >>> import torch
        >>> ask(torch.tensor([[1.0, 3.0]]), against="cat", labels=["cat", "dog"]).words
        'dog rather than cat'
    """
    names = _labels(logits.shape[1], labels)
    first = int(logits[0].argmax()) if target is None else names.index(target)
    if against is None:
        return AttributionTarget(target=first, words=names[first])
    second = names.index(against)
    if first == second:
        what = f"{names[first]} cannot be held against itself"
        raise SettingError(what, where="against", fix="name another class")
    words = f"{names[first]} rather than {names[second]}"
    return AttributionTarget(target=first, against=second, words=words)


def _labels(count: int, labels: ClassNames | Sequence[str] | None) -> ClassNames:
    if labels is None:
        return ClassNames(tuple(f"class {i}" for i in range(count)))
    names = labels if isinstance(labels, ClassNames) else ClassNames(tuple(labels))
    if len(names) != count:
        what = f"{len(names)} class names for {count} outputs"
        raise SettingError(what, where="labels", fix="give one name an output")
    return names


def logits_of(output: object) -> Tensor:
    """Return a network's output as class scores.

    Raises:
        GeometryError: It is no row of numbers an image.
    """
    if isinstance(output, Tensor) and output.ndim == 2:
        return output
    got = type(output).__name__
    if isinstance(output, Tensor):
        got = "×".join(map(str, output.shape)) or "a single number"
    what = f"class evidence needs one row of scores an image, the network gave {got}"
    raise GeometryError(what, fix="give a classifier, or the part of it that is one")
