"""Significance tests of the accuracy difference between two groups of runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from striate.metrics.intervals import Interval
from striate.metrics.significance import (
    MeanDifference,
    holm_correction,
    paired_t_test,
    welch_t_test,
)
from striate.workflows.compare.groups import RunGroup
from striate.workflows.compare.pairing import Pairing, pair_runs

MCNEMAR, PAIRED_T, WELCH, NO_TEST = "mcnemar", "paired_t", "welch", "none"


@dataclass(frozen=True, kw_only=True, eq=False)
class PairwiseTest:
    """Difference in accuracy between two groups of runs, with a significance test."""

    first: RunGroup  # the reference group
    second: RunGroup  # the group compared with it
    # the two runs on their common images; for several seeds, one pairing per seed
    pairings: tuple[Pairing, ...]
    # `mcnemar`: McNemar's exact test over images, Tango's interval; `paired_t`:
    # Student's t-test over pairs of equal seed; `welch`: Welch's t-test over all seeds;
    # `none`: no test is possible
    method: str
    difference: float  # accuracy of the second minus the first
    interval: Interval | None = None  # its 95 % interval, if there is one
    p: float | None = None  # p-value of this test alone
    # p-value corrected for all tests of the comparison (Holm)
    p_holm: float | None = None
    # test images per training image, if each seed splits the data anew
    overlap: float = 0.0

    @property
    def letters(self) -> str:
        """Return the letters of the two groups of runs, such as `B − A`."""
        return f"{self.second.letter} − {self.first.letter}"


def pairwise_tests(groups: Sequence[RunGroup]) -> tuple[PairwiseTest, ...]:
    """Test every group against the first group, with Holm-corrected p-values."""
    first = groups[0]
    tests = [
        _test_over_images(first, second)
        if len(first.runs) == len(second.runs) == 1
        else _test_over_seeds(first, second)
        for second in groups[1:]
    ]
    tested = [i for i, test in enumerate(tests) if test.p is not None]
    corrected = holm_correction([tests[i].p or 0.0 for i in tested])
    for i, p in zip(tested, corrected, strict=True):
        tests[i] = replace(tests[i], p_holm=p)
    return tuple(tests)


def _test_over_images(first: RunGroup, second: RunGroup) -> PairwiseTest:
    pairing = pair_runs(first.runs[0], second.runs[0])
    if not pairing.count:
        return PairwiseTest(
            first=first,
            second=second,
            pairings=(),
            method=NO_TEST,
            difference=second.mean_accuracy - first.mean_accuracy,
        )
    paired = pairing.paired
    return PairwiseTest(
        first=first,
        second=second,
        pairings=(pairing,),
        method=MCNEMAR,
        difference=paired.difference,
        interval=paired.interval,
        p=paired.p_value,
    )


def _test_over_seeds(first: RunGroup, second: RunGroup) -> PairwiseTest:
    pairings = _pairings_by_seed(first, second)
    overlap = max(_overlap(first), _overlap(second))
    differences = [pairing.paired.difference for pairing in pairings]
    if len(pairings) > 1:
        method, effect = PAIRED_T, paired_t_test(differences, overlap)
    elif min(len(first.runs), len(second.runs)) > 1:
        accuracies = [[run.score.accuracy for run in g.runs] for g in (first, second)]
        method, effect = WELCH, welch_t_test(accuracies[0], accuracies[1], overlap)
    else:
        means_difference = second.mean_accuracy - first.mean_accuracy
        difference = differences[0] if differences else means_difference
        effect = MeanDifference(difference=difference, interval=None, p_value=None)
        method = NO_TEST
    return PairwiseTest(
        first=first,
        second=second,
        pairings=pairings,
        method=method,
        difference=effect.difference,
        interval=effect.interval,
        p=effect.p_value,
        overlap=overlap,
    )


def _pairings_by_seed(first: RunGroup, second: RunGroup) -> tuple[Pairing, ...]:
    others = dict(zip(second.seeds, second.runs, strict=True))
    pairings = [pair_runs(r, others[r.seed]) for r in first.runs if r.seed in others]
    return tuple(pairing for pairing in pairings if pairing.count)


def _overlap(group: RunGroup) -> float:
    """Return the ratio of test to training images; 0 if all runs share a test set."""
    if len({frozenset(run.keys) for run in group.runs}) == 1:
        return 0.0
    return max(
        len(run.keys) / max(1, run.split_counts.get("train", 0)) for run in group.runs
    )
