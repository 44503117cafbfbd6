"""Target of an attribution: a class score, or the difference of two class scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypedDict

from torch import Tensor

from striate.core.class_names import ClassNames
from striate.core.errors import SettingError
from striate.core.format import count_text

ClassRef = int | str
ToProbs = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class AttributionTarget:
    """The score to explain: the logit of a class, or the difference of two logits."""

    class_index: int
    # Index of a second class, whose logit is subtracted; None if there is none.
    against_index: int | None = None
    text: str  # the target in words: `cat`, `cat rather than dog`
    temperature: float = 1.0  # divisor of the logits in probabilities
    # function from logits to probabilities of several labels; None: softmax
    to_probs: ToProbs | None = None

    def score(self, logits: Tensor) -> Tensor:
        """Return the target score of each image.

        Shapes:
            (N, classes) → (N,)
        """
        own = logits[:, self.class_index]
        if self.against_index is None:
            return own
        return own - logits[:, self.against_index]

    def probability(self, logits: Tensor) -> Tensor:
        """Return the class probability; for two target classes, from their logits."""
        if self.to_probs is not None:
            return self.to_probs(logits)[:, self.class_index].to(logits.device)
        logits = logits / self.temperature
        if self.against_index is None:
            return logits.softmax(1)[:, self.class_index]
        return logits[:, [self.class_index, self.against_index]].softmax(1)[:, 0]


class TargetOptions(TypedDict, total=False):
    """Options of `make_target`, for functions that pass them on."""

    target: ClassRef | None
    against: ClassRef | None
    labels: ClassNames | Sequence[str] | None
    temperature: float
    to_probs: ToProbs | None


def make_target(
    logits: Tensor,
    target: ClassRef | None = None,
    against: ClassRef | None = None,
    labels: ClassNames | Sequence[str] | None = None,
    temperature: float = 1.0,
    to_probs: ToProbs | None = None,
) -> AttributionTarget:
    """Return the attribution target for classes given by name or index.

    Args:
        logits: Output of the network, (1, classes).
        target: Class name or index; the predicted class if None.
        against: A second class, to explain the difference of the scores.
        labels: Class names in output order; `class 0`, `class 1` … if None.
        temperature: Divisor of the logits in probabilities.
        to_probs: Function from logits to probabilities, for several labels per image
            (default: sigmoid for such `labels`, else softmax).

    Raises:
        UnknownNameError: No class has this name or index; lists similar names.
        SettingError: Both classes are the same, or an image can have both.

    Example:
        >>> import torch
        >>> logits, labels = torch.tensor([[1.0, 3.0]]), ["cat", "dog"]
        >>> make_target(logits, against="cat", labels=labels).text
        'dog rather than cat'
    """
    names = _labels(logits.shape[1], labels)
    if names.multi_label and to_probs is None:
        to_probs = Tensor.sigmoid
    ranked = logits if to_probs is None else to_probs(logits)
    class_index = int(ranked[0].argmax()) if target is None else names.index(target)
    if against is None:
        text = names[class_index]
        return AttributionTarget(
            class_index=class_index,
            text=text,
            temperature=temperature,
            to_probs=to_probs,
        )
    names.require_one_label("against", "explain each class alone, with its name")
    against_index = names.index(against)
    if class_index == against_index:
        what = f"{names[class_index]} is compared with itself"
        raise SettingError(what, where="against", fix="use two different classes")
    return AttributionTarget(
        class_index=class_index,
        against_index=against_index,
        text=f"{names[class_index]} rather than {names[against_index]}",
        temperature=temperature,
    )


def _labels(count: int, labels: ClassNames | Sequence[str] | None) -> ClassNames:
    if labels is None:
        return ClassNames(tuple(f"class {i}" for i in range(count)))
    names = labels if isinstance(labels, ClassNames) else ClassNames(tuple(labels))
    if len(names) != count:
        what = (
            f"{count_text(len(names), 'class name')} for {count_text(count, 'output')}"
        )
        raise SettingError(what, where="labels", fix="give one name per output")
    return names
