"""One side against the first: the difference, its interval, could it be chance?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from striate.metrics.paired import Interval
from striate.metrics.significance import (
    MeanDifference,
    holm_correction,
    paired_t_test,
    welch_t_test,
)
from striate.workflows.compare.evaluated_run import Contender
from striate.workflows.compare.groups import Side
from striate.workflows.compare.pairing import Pairing, pair


@dataclass(frozen=True, kw_only=True, eq=False)
class Match:
    """Two sides and the difference in accuracy between them.

    Args:
        first: What is compared with.
        second: What is compared.
        pairings: Runs of equal seed on the images that both judged; of single runs,
            these two.
        how: `images`: McNemar's exact test and Tango's interval; `seeds`: Student's
            test over pairs of equal seed; `unpaired`: Welch's test over all seeds;
            `none`: no test is possible.
        difference: The second's accuracy minus the first's.
        interval: 95 %, where there is one.
        p: Of this test alone.
        corrected: Holm's p-value over all matches of the comparison.
        overlap: Test over training images, where seeds deal the images anew.
    """

    first: Side
    second: Side
    pairings: tuple[Pairing, ...]
    how: str
    difference: float
    interval: Interval | None = None
    p: float | None = None
    corrected: float | None = None
    overlap: float = 0.0

    @property
    def letters(self) -> str:
        """Return both sides' letters, as in `B − A`."""
        return f"{self.second.letter} − {self.first.letter}"


def matches(compared: Sequence[Side]) -> tuple[Match, ...]:
    """Match every side with the first, and correct the p-values for their number."""
    found = [_match(compared[0], side) for side in compared[1:]]
    tested = [i for i, match in enumerate(found) if match.p is not None]
    corrected = holm_correction([found[i].p or 0.0 for i in tested])
    for i, p in zip(tested, corrected, strict=True):
        found[i] = replace(found[i], corrected=p)
    return tuple(found)


def _match(first: Side, second: Side) -> Match:
    if len(first.runs) == len(second.runs) == 1:
        return _of_images(first, second)
    return _of_seeds(first, second)


def _of_images(first: Side, second: Side) -> Match:
    pairing = pair(first.runs[0], second.runs[0])
    if not pairing.count:
        apart = _mean(second) - _mean(first)
        return Match(
            first=first, second=second, pairings=(), how="none", difference=apart
        )
    paired = pairing.paired
    return Match(
        first=first,
        second=second,
        pairings=(pairing,),
        how="images",
        difference=paired.difference,
        interval=paired.interval,
        p=paired.p_value,
    )


def _of_seeds(first: Side, second: Side) -> Match:
    found = first, second
    pairings = _same_seeds(first, second)
    overlap = max(_overlap(first), _overlap(second))
    differences = [pairing.paired.difference for pairing in pairings]
    several = min(len(first.runs), len(second.runs)) > 1
    if len(pairings) > 1:
        how, effect = "seeds", paired_t_test(differences, overlap)
    elif several:
        one, two = (side.values(lambda run: run.score.accuracy) for side in found)
        how, effect = "unpaired", welch_t_test(one, two, overlap)
    else:
        apart = differences[0] if differences else _mean(second) - _mean(first)
        how, effect = (
            "none",
            MeanDifference(difference=apart, interval=None, p_value=None),
        )
    return Match(
        first=first,
        second=second,
        pairings=pairings,
        how=how,
        difference=effect.difference,
        interval=effect.interval,
        p=effect.p_value,
        overlap=overlap,
    )


def _same_seeds(first: Side, second: Side) -> tuple[Pairing, ...]:
    others = dict(zip(second.seeds, second.runs, strict=True))
    found = [pair(run, others[run.seed]) for run in first.runs if run.seed in others]
    return tuple(pairing for pairing in found if pairing.count)


def _overlap(side: Side) -> float:
    """Return test over training images where the seeds judge different images."""
    if len({frozenset(run.keys) for run in side.runs}) == 1:
        return 0.0
    return max(_share(run) for run in side.runs)


def _share(run: Contender) -> float:
    return len(run.keys) / max(1, run.splits.get("train", 0))


def _mean(side: Side) -> float:
    return sum(run.score.accuracy for run in side.runs) / len(side.runs)
