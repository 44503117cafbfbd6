"""Choice of a variant by measured time, size and accuracy; it computes nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from statistics import median

from striate.metrics.paired import PairedCounts

MIN_GAIN = 0.05  # smaller differences in time or size change nothing
_ERROR = 0.025  # of each end of a 95 % interval


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A network in an engine and a precision, with its measurements."""

    engine: str  # such as `onnxruntime`
    precision: str  # fp32 or int8
    # processor seconds of one image with one thread, by round; the same rounds for all
    seconds: tuple[float, ...]
    size: int  # bytes of the file
    pair: PairedCounts  # the reference and this variant on the same images
    exact: bool  # the probabilities of the reference, but for rounding

    @property
    def name(self) -> str:
        """Return the engine and the precision."""
        return f"{self.engine} {self.precision}"

    @property
    def time(self) -> float:
        """Return the median processor seconds of one image."""
        return median(self.seconds)

    @property
    def lost(self) -> float:
        """Return the accuracy that is lost, as a fraction; below 0 for a gain."""
        return 0.0 - self.pair.difference

    @property
    def most_lost(self) -> float:
        """Return the upper end of the 95 % interval of the accuracy that is lost."""
        return 0.0 if self.exact else -self.pair.interval[0]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The recommended variant, and why others were not."""

    best: Variant
    reference: Variant  # the network as it was trained
    fp32: Variant  # fastest variant that loses nothing
    pareto: tuple[str, ...]  # names of the variants that no other variant dominates
    # reason by name of the lossy variants that may not replace it: `accuracy`, `time`,
    # `size`
    rejected: dict[str, str]


def choose_variant(variants: Sequence[Variant], goal: str, max_drop: float) -> Choice:
    """Return the best variant for a goal.

    A variant is faster if it takes at least 5 % less time, and if the 95 % interval of
    the median ratio of both times is below 1. A variant that is not exact must also
    beat the fastest exact variant, and the upper end of the interval of its lost
    accuracy must not exceed `max_drop`.

    Args:
        variants: Measured variants; the first one is the reference.
        goal: `latency`, `size` or `both`.
        max_drop: Percentage points of accuracy that may be lost.
    """
    reference = variants[0]
    fp32 = min(
        (v for v in variants if v.exact and is_faster(v, reference)),
        key=lambda v: v.time,
        default=reference,
    )
    others = [v for v in variants if v is not reference and v is not fp32]
    reasons = {
        v.name: _reason_against(v, fp32, reference, goal, max_drop) for v in others
    }
    candidates = [v for v in others if not reasons[v.name]]
    keys = {
        "latency": lambda v: (v.time, v.size),
        "size": lambda v: (v.size, v.time),
        "both": lambda v: (v.time * v.size, v.time),
    }
    best = min(candidates, key=keys[goal], default=fp32)
    return Choice(
        best=best,
        reference=reference,
        fp32=fp32,
        pareto=tuple(v.name for v in variants if not is_dominated(v, variants)),
        rejected={v.name: reasons[v.name] for v in others if not v.exact},
    )


def _reason_against(
    variant: Variant, fp32: Variant, reference: Variant, goal: str, max_drop: float
) -> str:
    """Return why a variant may not replace the fastest exact one; empty if it may."""
    if not variant.exact and 100 * variant.most_lost > max_drop:
        return "accuracy"
    if goal != "latency" and variant.size > (1 - MIN_GAIN) * reference.size:
        return "size"
    if goal != "size" and not is_faster(variant, fp32):
        return "time"
    return ""


def is_faster(variant: Variant, other: Variant) -> bool:
    """Return whether a variant is clearly faster, in paired rounds."""
    ratios = sorted(a / b for a, b in zip(variant.seconds, other.seconds, strict=True))
    limit = ratios[-1 - _outliers(len(ratios))]
    return median(ratios) <= 1 - MIN_GAIN and limit < 1


def _outliers(count: int) -> int:
    """Return how many values are above the 95 % interval of the median.

    Example:
        >>> _outliers(7), _outliers(9), _outliers(12)
        (0, 1, 2)
    """
    number, tail = 0, 1.0
    while (tail + comb(count, number + 1)) / 2**count <= _ERROR:
        number += 1
        tail += comb(count, number)
    return number


def is_dominated(variant: Variant, variants: Sequence[Variant]) -> bool:
    """Return whether another variant is better, and in no respect worse.

    The respects are time, size, and the upper end of the lost accuracy. Sizes within
    5 % are equal.
    """

    def dominates(other: Variant) -> bool:
        no_worse = (
            other.time <= variant.time
            and (1 - MIN_GAIN) * other.size <= variant.size
            and other.most_lost <= variant.most_lost
        )
        better = (
            other.time < variant.time
            or other.size < (1 - MIN_GAIN) * variant.size
            or other.most_lost < variant.most_lost
        )
        return no_worse and better

    return any(dominates(other) for other in variants if other is not variant)
