"""Paired comparison and significance tests against SciPy and published values."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from striate.metrics.intervals import Z95
from striate.metrics.paired import (
    PairedCounts,
    balanced_accuracy_difference,
    mean_difference,
    tango_interval,
)
from striate.metrics.significance import (
    holm_correction,
    mcnemar,
    paired_t_test,
    welch_t_test,
)

COUNTS = st.integers(0, 60)
VALUES = st.lists(st.floats(0, 1), min_size=2, max_size=8)


# --- McNemar


@given(COUNTS, COUNTS)
def test_mcnemar_is_the_binomial_test(gained, lost):
    tosses = gained + lost
    oracle = stats.binomtest(gained, tosses).pvalue if tosses else 1.0
    assert mcnemar(gained, lost) == pytest.approx(oracle, abs=1e-12)
    assert mcnemar(gained, lost) == mcnemar(lost, gained)


def enumerated_p_value(gained: int, lost: int) -> Fraction:
    """Return the share of coin sequences that are at least as one-sided."""
    tosses = gained + lost
    extreme = sum(
        min(heads, tosses - heads) <= min(gained, lost)
        for pattern in range(2**tosses)
        for heads in [pattern.bit_count()]
    )
    return Fraction(extreme, 2**tosses)


def test_mcnemar_is_exact():
    for gained in range(6):
        for lost in range(6):
            exact = enumerated_p_value(gained, lost)
            assert mcnemar(gained, lost) == pytest.approx(float(exact), abs=1e-14)


@pytest.mark.parametrize("level", [0.01, 0.05, 0.2])
def test_mcnemar_keeps_its_false_positive_rate(level):
    for tosses in range(1, 60):
        rejected = [b for b in range(tosses + 1) if mcnemar(b, tosses - b) <= level]
        rate = sum(math.comb(tosses, b) for b in rejected) / 2**tosses
        assert rate <= level


# --- Tango's interval


def test_tango_interval_against_published_value():
    """Bentur et al. 2009, as Fagerland, Lydersen and Laake (2014) tabulate it."""
    low, high = tango_interval(1, 7, 21)
    assert (round(low, 3), round(high, 3)) == (-0.517, -0.026)


def likeliest_lost(gained, lost, count, delta):
    """Return the likeliest share of lost images for a difference of `delta`."""

    def negative_log_likelihood(q):
        shares = (q + delta, q, 1 - 2 * q - delta)
        numbers = (gained, lost, count - gained - lost)
        if min(shares) < -1e-12:
            return math.inf
        terms = [
            n * math.log(max(s, 1e-300))
            for n, s in zip(numbers, shares, strict=True)
            if n
        ]
        return -sum(terms)

    bounds = (max(0.0, -delta), (1 - delta) / 2)
    options = {"xatol": 1e-12}
    result = optimize.minimize_scalar(
        negative_log_likelihood, bounds=bounds, method="bounded", options=options
    )
    return min([result.x, *bounds], key=negative_log_likelihood)


@given(st.integers(0, 25), st.integers(0, 25), st.integers(0, 40))
def test_tango_interval_inverts_the_score_test(gained, lost, rest):
    """At both ends the statistic is z, with the nuisance parameter by maximization."""
    count = gained + lost + rest
    if not count:
        return
    for edge in tango_interval(gained, lost, count):
        if abs(edge) > 1 - 1e-6:
            continue
        q = likeliest_lost(gained, lost, count, edge)
        spread = math.sqrt(count * (2 * q + edge * (1 - edge)))
        statistic = abs(gained - lost - count * edge) / spread
        assert statistic == pytest.approx(Z95, abs=2e-4)


@given(st.integers(0, 400), st.integers(0, 400), st.integers(0, 4000))
def test_tango_interval_contains_the_difference_and_is_symmetric(gained, lost, rest):
    count = gained + lost + rest
    low, high = tango_interval(gained, lost, count)
    assert -1 <= low <= high <= 1
    if count:
        assert low <= (gained - lost) / count <= high
        assert low < high
    assert tango_interval(lost, gained, count) == pytest.approx(
        (-high, -low), abs=1e-12
    )


@pytest.mark.parametrize("count", [1, 10, 450, 10_000])
def test_tango_interval_has_width_without_flips(count):
    edge = Z95**2 / (count + Z95**2)
    assert tango_interval(0, 0, count) == pytest.approx((-edge, edge), abs=1e-9)


def test_tango_interval_of_no_and_of_all_flips():
    assert tango_interval(0, 0, 0) == (-1.0, 1.0)
    low, high = tango_interval(0, 20, 20)
    assert low == -1.0
    assert -1 < high < -0.6


@pytest.mark.parametrize(
    ("gain", "loss"), [(0.02, 0.02), (0.1, 0.05), (0.3, 0.1), (0.01, 0.0)]
)
def test_tango_interval_covers(gain, loss):
    """All tables of 40 images, weighted by their probability."""
    count, covered = 40, 0.0
    for gained in range(count + 1):
        for lost in range(count + 1 - gained):
            low, high = tango_interval(gained, lost, count)
            if low <= gain - loss <= high:
                table = [gained, lost, count - gained - lost]
                shares = [gain, loss, 1 - gain - loss]
                covered += stats.multinomial.pmf(table, count, shares)
    assert covered > 0.94


# --- paired counts


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1))
def test_paired_counts(pairs):
    first, second = (np.array(side) for side in zip(*pairs, strict=True))
    pair = PairedCounts.of(first, second)
    assert pair.count == len(pairs)
    assert pair.accuracies == pytest.approx((first.mean(), second.mean()))
    assert pair.difference == pytest.approx(second.mean() - first.mean())
    low, high = pair.interval
    assert low <= pair.difference <= high
    assert 0 < pair.p_value <= 1


# --- multiple tests


def closed_holm(values):
    """Return Holm's correction as a closed test over all sets of hypotheses."""
    numbers = range(len(values))
    sets = [s for k in numbers for s in combinations(numbers, k + 1)]
    return [
        max(min(1.0, len(s) * min(values[j] for j in s)) for s in sets if i in s)
        for i in numbers
    ]


@given(st.lists(st.floats(0, 1), max_size=6))
def test_holm_correction_is_the_closed_test(values):
    assert holm_correction(values) == pytest.approx(closed_holm(values))


# --- repetitions


@given(VALUES)
def test_paired_t_test_against_scipy(differences):
    effect = paired_t_test(differences)
    if np.std(differences) < 1e-6:
        return
    oracle = stats.ttest_1samp(differences, 0.0)
    assert effect.p_value == pytest.approx(oracle.pvalue, abs=1e-9)
    assert effect.interval == pytest.approx(tuple(oracle.confidence_interval()))


@given(VALUES, VALUES)
def test_welch_t_test_against_scipy(first, second):
    effect = welch_t_test(first, second)
    if min(np.std(first), np.std(second)) < 1e-6:
        return
    oracle = stats.ttest_ind(second, first, equal_var=False)
    assert effect.p_value == pytest.approx(oracle.pvalue, abs=1e-9)
    assert effect.interval == pytest.approx(tuple(oracle.confidence_interval()))


def test_equal_repetitions_have_no_p_value():
    for effect in (paired_t_test([0.01, 0.01]), welch_t_test([0.9, 0.9], [0.91, 0.91])):
        assert effect.difference == pytest.approx(0.01)
        assert (effect.interval, effect.p_value) == (None, None)
    tiny = paired_t_test([0.1 + 0.2, 0.3])  # they differ by the rounding of floats only
    assert tiny.p_value is None


def test_overlapping_training_images_widen_the_interval():
    """Ten splits 90/10: s²·(1/10 + 1/9) in place of s²/10."""
    differences = [0.01 * k for k in range(10)]
    plain, corrected = paired_t_test(differences), paired_t_test(differences, 1 / 9)
    widths = [high - low for low, high in (plain.interval, corrected.interval)]
    assert widths[1] / widths[0] == pytest.approx(math.sqrt((1 / 10 + 1 / 9) * 10))
    assert corrected.p_value > plain.p_value
    loose = welch_t_test([0.1, 0.2], [0.3, 0.45], 0.5)
    assert loose.p_value > welch_t_test([0.1, 0.2], [0.3, 0.45]).p_value


def test_mean_difference():
    values = np.array([0.5, -0.5, 1.0, 0.0])
    middle, interval = mean_difference(values)
    oracle = stats.ttest_1samp(values, 0.0).confidence_interval()
    assert middle == 0.25
    assert interval == pytest.approx(tuple(oracle))
    assert mean_difference(np.array([0.5])) == (0.5, None)


# --- balanced accuracy


def test_balanced_difference_of_one_class_is_tangos():
    pair = PairedCounts(both=40, gained=6, lost=1, neither=3)
    middle, interval = balanced_accuracy_difference([pair])
    assert middle == pytest.approx(pair.difference)
    assert interval == pytest.approx(pair.interval)


def test_balanced_difference_interval_covers():
    """Three unequal classes, 600 draws; the true difference is known."""
    draw = np.random.default_rng(7)
    classes = [(12, 0.15, 0.05), (40, 0.05, 0.05), (150, 0.02, 0.08)]
    truth = sum(gain - loss for _, gain, loss in classes) / 3
    covered = 0
    for _ in range(600):
        counts = []
        for count, gain, loss in classes:
            b, c, rest = draw.multinomial(count, [gain, loss, 1 - gain - loss])
            counts.append(PairedCounts(both=rest, gained=b, lost=c, neither=0))
        low, high = balanced_accuracy_difference(counts)[1]
        covered += low <= truth <= high
    assert 0.935 < covered / 600 < 0.995
