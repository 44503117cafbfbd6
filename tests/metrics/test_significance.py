"""Fisher's exact test and intervals of proportions, against scipy and papers."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, fisher_exact

from striate.metrics import significance
from striate.metrics.intervals import (
    Z95,
    mean_recall_interval,
    newcombe_interval,
    wilson_interval,
)


@st.composite
def proportions(draw, most=300):
    count = draw(st.integers(1, most))
    return draw(st.integers(0, count)), count


@given(proportions(), proportions())
def test_fisher_exact(first, second):
    (a, n), (b, m) = first, second
    expected = fisher_exact([[a, n - a], [b, m - b]]).pvalue
    assert math.isclose(
        significance.fisher_exact(first, second), expected, rel_tol=1e-6
    )
    assert significance.fisher_exact(second, first) == pytest.approx(expected, rel=1e-6)


def test_fisher_exact_of_many_images():
    first, second = (90_000, 100_000), (8_800, 10_000)
    expected = fisher_exact([[90_000, 10_000], [8_800, 1_200]]).pvalue
    assert significance.fisher_exact(first, second) == pytest.approx(expected, rel=1e-5)


# Newcombe (1998), "Interval estimation for the difference between independent
# proportions", table II, method 10.
NEWCOMBE = [
    ((56, 70), (48, 80), 0.0524, 0.3339),
    ((9, 10), (3, 10), 0.1705, 0.8090),
    ((6, 7), (2, 7), 0.0582, 0.8062),
    ((5, 56), (0, 29), -0.0381, 0.1926),
    ((0, 10), (0, 20), -0.1611, 0.2775),
    ((0, 10), (0, 10), -0.2775, 0.2775),
    ((10, 10), (0, 20), 0.6791, 1.0),
    ((10, 10), (0, 10), 0.6075, 1.0),
]


@pytest.mark.parametrize(("first", "second", "low", "high"), NEWCOMBE)
def test_newcombe_interval_as_published(first, second, low, high):
    interval = newcombe_interval(first, second)
    assert interval == pytest.approx((low, high), abs=5.1e-5)


@given(proportions(), proportions())
def test_newcombe_interval_holds_the_difference(first, second):
    low, high = newcombe_interval(first, second)
    difference = first[0] / first[1] - second[0] / second[1]
    assert -1 - 1e-9 <= low <= difference <= high <= 1 + 1e-9
    assert newcombe_interval(second, first) == pytest.approx((-high, -low))


@given(proportions())
def test_wilson_interval_with_any_confidence(proportion):
    k, n = proportion
    for level, z in ((0.95, Z95), (0.99, 2.5758293035489004)):
        interval = binomtest(k, n).proportion_ci(level, method="wilson")
        expected = interval.low, interval.high
        assert wilson_interval(k, n, z) == pytest.approx(expected, abs=1e-12)
    assert wilson_interval(k, n) == wilson_interval(k, n, Z95)


def test_mean_recall_interval_is_wider_with_more_confidence():
    low, high = mean_recall_interval([10, 30], [20, 40])
    lower, higher = mean_recall_interval([10, 30], [20, 40], 2.5758293035489004)
    assert lower < low < high < higher
