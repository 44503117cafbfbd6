"""One number of a network, opened: what was added up to make it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from striate.interpret.trace import TensorRef

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

SUM, COPY, MAXIMUM, FUNCTION, IMAGE = "sum", "copy", "choice", "function", "image"


@dataclass(frozen=True, kw_only=True)
class InputTerms:
    """The numbers of one tensor that went into a unit.

    Args:
        ref: The tensor.
        positions: Their places, flat.
        values: The numbers, as the framework had them.
        weights: What each was multiplied by.
    """

    ref: TensorRef
    positions: Ints
    values: Floats
    weights: Floats

    @property
    def contributions(self) -> Floats:
        """What each adds."""
        return self.values * self.weights


@dataclass(frozen=True, kw_only=True)
class UnitValue:
    """A unit's own arithmetic.

    Args:
        ref: The tensor that holds it.
        unit: Its place there.
        value: The framework's number.
        kind: `sum` (weighted), `copy` (moved or padded), `choice` (a pool's winner),
            `function` (of the numbers listed), `image` (nothing made it).
        operation: The operation, in words.
        terms: What went in.
        constant: What was added besides: a bias, a batch norm's shift.
        result: What the parts give: the sum, or the function's value.
    """

    ref: TensorRef
    unit: tuple[int, ...]
    value: float
    kind: str
    operation: str
    terms: tuple[InputTerms, ...] = ()
    constant: float = 0.0
    result: float = 0.0

    @property
    def scale(self) -> float:
        """The terms' sizes added up: what a sum's rounding is relative to.

        Higham 2002, section 4.2: a sum that cancels cannot be known better.
        """
        sizes = [float(np.abs(term.contributions).sum()) for term in self.terms]
        return max(abs(self.value), abs(self.constant) + sum(sizes))

    @property
    def error(self) -> float:
        """The difference of result and framework, relative to `scale`."""
        return abs(self.result - self.value) / (self.scale or 1.0)


def weighted_sum(
    ref: TensorRef,
    unit: tuple[int, ...],
    value: float,
    operation: str,
    terms: tuple[InputTerms, ...],
    constant: float = 0.0,
    kind: str = SUM,
) -> UnitValue:
    """Build an entry whose result is the weighted sum of its parts.

    Example:
        >>> term = InputTerms(ref=TensorRef(0), positions=np.array([4]), values=np.array([3.0]),
        ...             weights=np.array([2.0]))
        >>> weighted_sum(TensorRef(1), (0,), 7.0, "linear", (term,), constant=1.0).error
        0.0
    """
    result = constant + sum(float(term.contributions.sum()) for term in terms)
    return UnitValue(
        ref=ref,
        unit=unit,
        value=value,
        kind=kind,
        operation=operation,
        terms=terms,
        constant=constant,
        result=result,
    )
