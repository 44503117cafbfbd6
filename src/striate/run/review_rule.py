"""Rule that marks predictions for a review by a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from striate.core.errors import SettingError
from striate.report.format import percent
from striate.run.stored_operating_point import StoredOperatingPoint

NEEDS_REVIEW = "needs review"


@dataclass(frozen=True, kw_only=True)
class ReviewRule:
    """Rule that marks predictions for a review: by low probability or by review band.

    Without threshold and operating point, no prediction is marked.

    Raises:
        SettingError: The threshold is not a probability.
    """

    # lowest probability of the predicted class that needs no review
    threshold: float | None = None
    operating_point: StoredOperatingPoint | None = None
    classes: Sequence[str] = ()  # all class names

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 < self.threshold <= 1:
            what = f"threshold must be above 0 and at most 1, got {self.threshold:g}"
            fix = "give a probability, such as 0.9"
            raise SettingError(what, where="--threshold", fix=fix)

    @property
    def is_active(self) -> bool:
        """Return whether the rule marks any predictions."""
        return self.threshold is not None or self.operating_point is not None

    def review(self, probs: Mapping[str, float]) -> str:
        """Return `needs review` for the probabilities of an image, or empty text.

        Example:
            >>> ReviewRule(threshold=0.8).review({"cat": 0.7, "dog": 0.3})
            'needs review'
        """
        point = self.operating_point
        needed = self.threshold is not None and max(probs.values()) < self.threshold
        if point is not None:
            needed = needed or point.needs_review(probs[point.target])
        return NEEDS_REVIEW if needed else ""

    def decision(self, probs: Mapping[str, float]) -> str:
        """Return the class by the operating point: the target, or the other class."""
        point = self.operating_point
        if point is None:
            return ""
        return point.target if point.is_positive(probs[point.target]) else self.rest

    def overrules(self, pred: str, decision: str) -> bool:
        """Return whether the decision differs from the most probable class."""
        point = self.operating_point
        return point is not None and (decision == point.target) != (
            pred == point.target
        )

    @property
    def rest(self) -> str:
        """Return the name of the other class, or `not <target>` for several classes."""
        target = self.operating_point.target if self.operating_point else ""
        others = [name for name in self.classes if name != target]
        return others[0] if len(others) == 1 else f"not {target}"

    @property
    def sentences(self) -> list[str]:
        """Return sentences that explain the columns `review` and `decision`."""
        texts = []
        point = self.operating_point
        if self.threshold is not None:
            limit = percent(self.threshold)
            texts.append(f"Predictions with a probability below {limit} need review.")
        if point is None:
            return texts
        name = f"P({point.target})"
        if point.review_band is None:
            texts.append(
                f"On validation, no review band of '{point.target}' reached the target "
                "accuracy, so all images need review."
            )
        else:
            low, high = map(percent, point.review_band)
            text = f"Images with {name} between {low} and {high} need review."
            texts.append(text)
        threshold = percent(point.threshold, 2)
        texts.append(
            f"With {name} of {threshold} or more, the decision is '{point.target}' "
            "(operating point, chosen on validation)."
        )
        return texts

    def as_dict(self) -> dict[str, Any]:
        """Return the rule as a JSON-serializable dict."""
        point = self.operating_point
        return {
            "threshold": self.threshold,
            "operating_point": point.as_dict() if point else None,
        }
