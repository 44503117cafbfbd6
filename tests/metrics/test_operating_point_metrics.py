"""Temperature, reliability, ranking, thresholds and the band, each against another."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import betainc, betaincc
from sklearn import metrics as oracle
from sklearn.calibration import calibration_curve

from striate.metrics.calibration import brier, gap, gap_by_chance, reliability
from striate.metrics.roc import auc_interval, roc_auc, trade
from striate.metrics.selective import narrowest, sureness
from striate.metrics.significance import at_least, coverage
from striate.metrics.temperature import (
    COLDEST,
    HOTTEST,
    costs,
    fit_temperature,
    tempered,
)
from striate.metrics.threshold import counts, rank_for, sure_rank, threshold_at

SEEDS = st.integers(0, 10_000)
quick = settings(max_examples=25)


def drawn(seed, count, ties):
    """Probabilities and truth, both kinds among them; with ties where wanted."""
    draw = np.random.default_rng(seed)
    positive = draw.random(count) < 0.4
    positive[:2] = True, False
    probs = draw.beta(1 + positive, 2 - positive)
    return (probs.round(1) if ties else probs), positive


parts = {"seed": SEEDS, "count": st.integers(2, 60), "ties": st.booleans()}
cases = st.builds(drawn, **parts)


@quick
@given(SEEDS, st.integers(2, 5), st.integers(8, 60), st.floats(0.3, 4))
def test_the_temperature_is_the_cheapest(seed, classes, count, heat):
    draw = np.random.default_rng(seed)
    probs = draw.dirichlet(np.ones(classes), count)
    truth = (probs.cumsum(1) < draw.random((count, 1))).sum(1).clip(0, classes - 1)
    probs = tempered(probs, heat)
    found = fit_temperature(probs, truth)

    def cost(log):
        return costs(tempered(probs, math.exp(log)), truth).mean()

    ends = math.log(COLDEST), math.log(HOTTEST)
    best = minimize_scalar(cost, bounds=ends, method="bounded")
    assert cost(math.log(found)) <= best.fun + 1e-9


def test_the_temperature_undoes_what_heated():
    draw = np.random.default_rng(0)
    probs = draw.dirichlet((2, 1, 1), 4000)
    truth = (probs.cumsum(1) < draw.random((4000, 1))).sum(1)
    true = fit_temperature(probs, truth)
    assert true == pytest.approx(1, abs=0.06)
    assert fit_temperature(tempered(probs, 0.4), truth) == pytest.approx(true / 0.4)


def test_the_temperature_at_its_ends():
    sure = np.array([[0.9, 0.1], [0.2, 0.8]])
    assert fit_temperature(sure, np.array([0, 1])) == pytest.approx(COLDEST)
    assert fit_temperature(sure, np.array([1, 0])) == pytest.approx(HOTTEST)
    lost = np.array([[1.0, 0.0], [1.0, 0.0]])  # a 32-bit softmax can say so
    assert np.isfinite(costs(tempered(lost, 1.0), np.array([0, 1]))).all()
    assert 1 < fit_temperature(lost, np.array([0, 1])) <= HOTTEST


@quick
@given(SEEDS, st.floats(0.2, 5))
def test_tempering_keeps_sums_and_answers(seed, heat):
    probs = np.random.default_rng(seed).dirichlet(np.ones(4), 9)
    found = tempered(probs, heat)
    assert found.sum(1) == pytest.approx(1)
    assert found.argmax(1).tolist() == probs.argmax(1).tolist()
    assert tempered(found, 1 / heat) == pytest.approx(probs, abs=1e-9)


@quick
@given(cases, st.integers(1, 12))
def test_reliability_against_scikit_learn(case, bins):
    probs, positive = case
    found = reliability(probs, positive, bins)
    share, said = calibration_curve(positive, probs, n_bins=bins, strategy="quantile")
    assert [one.share for one in found] == pytest.approx(share.tolist())
    assert [one.said for one in found] == pytest.approx(said.tolist())
    assert sum(one.count for one in found) == len(probs)
    for one in found:
        low, high = one.interval
        assert low - 1e-12 <= one.share <= high + 1e-12
    expected = oracle.brier_score_loss(positive, probs)
    assert brier(probs, positive) == pytest.approx(expected)


def test_chance_makes_the_gap_that_is_foretold():
    draw = np.random.default_rng(1)
    probs = draw.beta(1, 2, 300)
    found = [gap(reliability(probs, draw.random(300) < probs)) for _ in range(200)]
    assert np.mean(found) == pytest.approx(gap_by_chance(probs), rel=0.05)


@quick
@given(cases)
def test_ranking_against_scikit_learn(case):
    probs, positive = case
    assert roc_auc(probs, positive) == pytest.approx(
        oracle.roc_auc_score(positive, probs)
    )
    found = trade(probs, positive)
    assert found.average_precision == pytest.approx(
        oracle.average_precision_score(positive, probs)
    )
    precision, recall, thresholds = oracle.precision_recall_curve(positive, probs)
    assert found.precision == pytest.approx(precision[-2::-1])
    assert found.recall == pytest.approx(recall[-2::-1])
    assert found.thresholds == pytest.approx(thresholds[::-1])


@quick
@given(st.floats(0, 1), st.integers(1, 200), st.integers(1, 200))
def test_the_interval_of_an_area_holds_it(area, positives, negatives):
    low, high = auc_interval(area, positives, negatives)
    assert 0 <= low <= area <= high <= 1
    other = auc_interval(1 - area, positives, negatives)
    assert other == pytest.approx((1 - high, 1 - low), abs=1e-9)


def test_the_interval_of_an_area_keeps_its_promise():
    """95 % of 95 % intervals hold the true area of two normal heaps."""
    draw, held = np.random.default_rng(2), 0
    true, positive = 0.9, np.arange(90) < 30
    apart = math.sqrt(2) * 1.2815515655446004  # Φ(apart/√2) = 0.9
    for _ in range(400):
        area = roc_auc(draw.normal(size=90) + apart * positive, positive)
        low, high = auc_interval(area, 30, 60)
        held += low <= true <= high
    assert 0.92 <= held / 400 <= 0.99


@quick
@given(cases, st.floats(0.05, 1))
def test_the_threshold_is_the_highest_that_finds_enough(case, recall):
    probs, positive = case
    rank = rank_for(recall, int(positive.sum()))
    found = threshold_at(probs, positive, rank)
    enough = [t for t in probs if (probs >= t)[positive].mean() >= recall - 1e-9]
    assert found == max(enough)


@quick
@given(cases, st.floats(0, 1))
def test_counts_against_scikit_learn(case, threshold):
    probs, positive = case
    one, called = counts(probs, positive, threshold), probs >= threshold
    passed, alarms, missed, found = oracle.confusion_matrix(positive, called).ravel()
    given_ = (one.found, one.missed, one.alarms, one.passed)
    assert given_ == (found, missed, alarms, passed)
    assert one.count == len(probs)
    assert one.recall == oracle.recall_score(positive, called)
    assert one.precision == oracle.precision_score(positive, called, zero_division=0)
    assert one.specificity == oracle.recall_score(~positive, ~called)
    for name in ("recall", "precision", "specificity"):
        low, high = getattr(one, f"{name}_interval")
        assert low <= getattr(one, name) + 1e-12
        assert getattr(one, name) <= high + 1e-12 or not one.called


def test_shares_of_nothing():
    one = counts(np.array([0.1, 0.2]), np.array([False, False]), 0.5)
    assert (one.recall, one.recall_interval) == (0, (0.0, 1.0))
    assert (one.precision, one.precision_interval) == (0, (0.0, 1.0))
    assert one.specificity == 1


@quick
@given(st.integers(1, 80), st.floats(0.01, 0.99), st.data())
def test_coverage_against_scipy(many, share, data):
    rank = data.draw(st.integers(1, many))
    low, high = coverage(rank, many)
    within = betainc(rank, many + 1 - rank, (low, high))
    assert within == pytest.approx((0.025, 0.975), abs=1e-6)
    tosses = [
        math.comb(many, k) * share**k * (1 - share) ** (many - k)
        for k in range(rank, many + 1)
    ]
    assert at_least(rank, many, share) == pytest.approx(math.fsum(tosses), abs=1e-9)


@quick
@given(st.integers(1, 150), st.floats(0.5, 0.99))
def test_to_be_sure_takes_no_more_than_is_needed(many, recall):
    rank = sure_rank(recall, many)
    every = np.arange(1, many + 1)
    sure = every[betaincc(every, many + 1 - every, recall) >= 0.95]
    assert rank == (sure[0] if len(sure) else None)


@quick
@given(cases, st.floats(0.5, 1))
def test_the_band_is_the_narrowest(case, right):
    probs, positive = case
    found = narrowest(probs, positive, right)
    good = []
    for reach in np.abs(probs - 0.5):
        outside = np.abs(probs - 0.5) >= reach
        share = ((probs >= 0.5) == positive)[outside].mean()
        if share >= right - 1e-12:
            good.append(reach)
    assert (found.reach if found else None) == (min(good) if good else None)
    if found:
        one = found.sort(probs, positive)
        assert one.count == len(probs)
        assert one.positives == positive.sum()
        assert one.accuracy >= right - 1e-12
        assert one.unsure == found.inside(probs).sum()
        assert one.above == ((probs >= found.high - 1e-12) & ~found.inside(probs)).sum()
        low, high = one.sent_interval
        assert low - 1e-12 <= one.sent <= high + 1e-12


@quick
@given(cases)
def test_sureness_counts_every_reach(case):
    probs, positive = case
    reaches, shares = sureness(probs, positive)
    assume(len(reaches))
    assert shares[-1] == ((probs >= 0.5) == positive).mean()
    assert len(reaches) == len(np.unique(np.abs(probs - 0.5)))
