"""From logits to probabilities and answers, the same for every export target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.special import expit, softmax


@dataclass(frozen=True, kw_only=True)
class ProbabilityMap:
    """Calibrated probabilities of logits, and the limits of an answer.

    Example:
        >>> probabilities = ProbabilityMap(classes=("cat", "dog"), temperature=2.0)
        >>> probabilities(np.array([[2.0, 2.0]])).tolist()
        [[0.5, 0.5]]
    """

    classes: tuple[str, ...]  # names in the order of the outputs
    temperature: float = 1.0  # divisor of the logits before the softmax
    # probability of the predicted class below which the answer is `unknown`
    threshold: float = 0.0
    multi_label: bool = False  # a sigmoid for each class instead of the softmax
    # Platt scaling of each class, for several labels: slope · logit + intercept
    slopes: tuple[float, ...] = ()
    intercepts: tuple[float, ...] = ()
    # probability from which on a class is predicted, for several labels
    thresholds: tuple[float, ...] = ()

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        """Return the probabilities, in double precision.

        Shapes:
            (N, classes) → (N, classes)
        """
        logits = logits.astype(np.float64)
        if not self.multi_label:
            return np.asarray(softmax(logits / self.temperature, axis=1))
        slopes = np.array(self.slopes or [1.0] * len(self.classes))
        intercepts = np.array(self.intercepts or [0.0] * len(self.classes))
        return np.asarray(expit(slopes * logits + intercepts))

    def is_unknown(self, probs: np.ndarray) -> np.ndarray:
        """Return for each image whether the answer is `unknown`.

        With several labels per image no answer is `unknown`.
        """
        if self.multi_label:
            return np.zeros(len(probs), bool)
        return np.asarray(probs.max(axis=1) < self.threshold)

    def as_dict(self) -> dict[str, Any]:
        """Return all fields as JSON values."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> ProbabilityMap:
        """Create an instance from the result of `as_dict`."""
        values: dict[str, Any] = dict(fields)
        for key, value in fields.items():
            values[key] = tuple(value) if isinstance(value, list) else value
        return cls(**values)
