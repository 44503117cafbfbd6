"""Data types for the value of one unit and the terms whose sum is that value."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from striate.interpret.trace import TensorRef

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

SUM, COPY, MAXIMUM, FUNCTION, IMAGE = "sum", "copy", "maximum", "function", "image"


@dataclass(frozen=True, kw_only=True)
class InputTerms:
    """Values and weights of the inputs of a unit, all from one tensor."""

    ref: TensorRef
    positions: Ints
    values: Floats
    weights: Floats

    @property
    def contributions(self) -> Floats:
        """Products value × weight, one per term."""
        return self.values * self.weights


@dataclass(frozen=True, kw_only=True)
class UnitValue:
    """Value of one unit, with the operation and the terms that produce it."""

    ref: TensorRef  # the tensor of the unit
    unit: tuple[int, ...]  # index in that tensor
    value: float  # the value as torch computed it
    # `sum` (weighted sum), `copy` (moved or padded), `maximum` (max pooling),
    # `function` (of the listed values), `image` (an input pixel).
    kind: str
    operation: str  # name of the operation
    terms: tuple[InputTerms, ...] = ()
    constant: float = 0.0  # the added constant: a bias, a batch norm's shift
    result: float = 0.0  # the sum of the terms, or the recomputed value of the function

    @property
    def scale(self) -> float:
        """Sum of the terms' magnitudes, the reference for rounding errors.

        With cancellation, no sum is more exact (Higham 2002, section 4.2).
        """
        sizes = [float(np.abs(term.contributions).sum()) for term in self.terms]
        return max(abs(self.value), abs(self.constant) + sum(sizes))

    @property
    def error(self) -> float:
        """Difference between the result and torch's value, relative to `scale`."""
        return abs(self.result - self.value) / (self.scale or 1.0)
