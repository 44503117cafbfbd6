"""Temperature, calibration, ROC, threshold and abstain band against other libraries."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import betainc, betaincc
from sklearn import metrics as oracle
from sklearn.calibration import calibration_curve as sklearn_curve

from striate.metrics.calibration import (
    brier_score,
    calibration_curve,
    ece,
    expected_ece,
)
from striate.metrics.roc import auc_interval
from striate.metrics.selective import narrowest_abstain_band, selective_accuracy_curve
from striate.metrics.significance import binomial_tail, order_statistic_interval
from striate.metrics.temperature import (
    MAX_TEMPERATURE,
    MIN_TEMPERATURE,
    apply_temperature,
    fit_temperature,
    log_losses,
)
from striate.metrics.threshold import (
    confusion_counts,
    guaranteed_tp,
    required_tp,
    threshold_at,
)

SEEDS = st.integers(0, 10_000)
quick = settings(max_examples=25)


def random_predictions(seed, count, ties):
    """Return random probabilities and truth of both kinds, with or without ties."""
    draw = np.random.default_rng(seed)
    positive = draw.random(count) < 0.4
    positive[:2] = True, False
    probs = draw.beta(1 + positive, 2 - positive)
    return (probs.round(1) if ties else probs), positive


arguments = {"seed": SEEDS, "count": st.integers(2, 60), "ties": st.booleans()}
cases = st.builds(random_predictions, **arguments)


@quick
@given(SEEDS, st.integers(2, 5), st.integers(8, 60), st.floats(0.3, 4))
def test_temperature_minimizes_the_loss(seed, classes, count, heat):
    draw = np.random.default_rng(seed)
    probs = draw.dirichlet(np.ones(classes), count)
    truth = (probs.cumsum(1) < draw.random((count, 1))).sum(1).clip(0, classes - 1)
    probs = apply_temperature(probs, heat)
    temperature = fit_temperature(probs, truth)

    def loss(log):
        return log_losses(apply_temperature(probs, math.exp(log)), truth).mean()

    ends = math.log(MIN_TEMPERATURE), math.log(MAX_TEMPERATURE)
    best = minimize_scalar(loss, bounds=ends, method="bounded")
    assert loss(math.log(temperature)) <= best.fun + 1e-9


def test_temperature_inverts_a_known_temperature():
    draw = np.random.default_rng(0)
    probs = draw.dirichlet((2, 1, 1), 4000)
    truth = (probs.cumsum(1) < draw.random((4000, 1))).sum(1)
    true = fit_temperature(probs, truth)
    assert true == pytest.approx(1, abs=0.06)
    assert fit_temperature(apply_temperature(probs, 0.4), truth) == pytest.approx(
        true / 0.4
    )


def test_temperature_limits():
    confident = np.array([[0.9, 0.1], [0.2, 0.8]])
    assert fit_temperature(confident, np.array([0, 1])) == pytest.approx(
        MIN_TEMPERATURE
    )
    assert fit_temperature(confident, np.array([1, 0])) == pytest.approx(
        MAX_TEMPERATURE
    )
    certain = np.array([[1.0, 0.0], [1.0, 0.0]])  # possible in float32
    assert np.isfinite(
        log_losses(apply_temperature(certain, 1.0), np.array([0, 1]))
    ).all()
    assert 1 < fit_temperature(certain, np.array([0, 1])) <= MAX_TEMPERATURE


@quick
@given(SEEDS, st.floats(0.2, 5))
def test_apply_temperature_keeps_sums_and_predictions(seed, heat):
    probs = np.random.default_rng(seed).dirichlet(np.ones(4), 9)
    scaled = apply_temperature(probs, heat)
    assert scaled.sum(1) == pytest.approx(1)
    assert scaled.argmax(1).tolist() == probs.argmax(1).tolist()
    assert apply_temperature(scaled, 1 / heat) == pytest.approx(probs, abs=1e-9)


@quick
@given(cases, st.integers(1, 12))
def test_calibration_curve_against_scikit_learn(case, bins):
    probs, positive = case
    curve = calibration_curve(probs, positive, bins)
    frequency, mean = sklearn_curve(positive, probs, n_bins=bins, strategy="quantile")
    assert [b.frequency for b in curve] == pytest.approx(frequency.tolist())
    assert [b.mean_prob for b in curve] == pytest.approx(mean.tolist())
    assert sum(b.count for b in curve) == len(probs)
    for b in curve:
        low, high = b.interval
        assert low - 1e-12 <= b.frequency <= high + 1e-12
    expected = oracle.brier_score_loss(positive, probs)
    assert brier_score(probs, positive) == pytest.approx(expected)


def test_expected_ece_against_simulation():
    draw = np.random.default_rng(1)
    probs = draw.beta(1, 2, 300)
    errors = [
        ece(calibration_curve(probs, draw.random(300) < probs)) for _ in range(200)
    ]
    assert np.mean(errors) == pytest.approx(expected_ece(probs), rel=0.05)


@quick
@given(st.floats(0, 1), st.integers(1, 200), st.integers(1, 200))
def test_auc_interval_contains_the_auc(area, positives, negatives):
    low, high = auc_interval(area, positives, negatives)
    assert 0 <= low <= area <= high <= 1
    other = auc_interval(1 - area, positives, negatives)
    assert other == pytest.approx((1 - high, 1 - low), abs=1e-9)


def test_auc_interval_covers():
    """About 95 % of intervals contain the true AUC of two normal distributions."""
    draw, covered = np.random.default_rng(2), 0
    true, positive = 0.9, np.arange(90) < 30
    shift = math.sqrt(2) * 1.2815515655446004  # Φ(shift/√2) = 0.9
    for _ in range(400):
        scores = draw.normal(size=90) + shift * positive
        area = oracle.roc_auc_score(positive, scores)
        low, high = auc_interval(area, 30, 60)
        covered += low <= true <= high
    assert 0.92 <= covered / 400 <= 0.99


@quick
@given(cases, st.floats(0.05, 1))
def test_threshold_at_is_the_highest_with_the_recall(case, recall):
    probs, positive = case
    rank = required_tp(recall, int(positive.sum()))
    threshold = threshold_at(probs, positive, rank)
    enough = [t for t in probs if (probs >= t)[positive].mean() >= recall - 1e-9]
    assert threshold == max(enough)


@quick
@given(cases, st.floats(0, 1))
def test_confusion_counts_against_scikit_learn(case, threshold):
    probs, positive = case
    counts, predicted = confusion_counts(probs, positive, threshold), probs >= threshold
    tn, fp, fn, tp = oracle.confusion_matrix(positive, predicted).ravel()
    assert (counts.tp, counts.fn, counts.fp, counts.tn) == (tp, fn, fp, tn)
    assert counts.count == len(probs)
    assert counts.recall == oracle.recall_score(positive, predicted)
    precision = oracle.precision_score(positive, predicted, zero_division=0)
    assert counts.precision == precision
    assert counts.specificity == oracle.recall_score(~positive, ~predicted)
    for name in ("recall", "precision", "specificity"):
        low, high = getattr(counts, f"{name}_interval")
        assert low <= getattr(counts, name) + 1e-12
        assert getattr(counts, name) <= high + 1e-12 or not counts.predicted_positives


def test_ratios_with_denominator_zero():
    counts = confusion_counts(np.array([0.1, 0.2]), np.array([False, False]), 0.5)
    assert (counts.recall, counts.recall_interval) == (0, (0.0, 1.0))
    assert (counts.precision, counts.precision_interval) == (0, (0.0, 1.0))
    assert counts.specificity == 1


@quick
@given(st.integers(1, 80), st.floats(0.01, 0.99), st.data())
def test_order_statistic_interval_against_scipy(count, share, data):
    rank = data.draw(st.integers(1, count))
    low, high = order_statistic_interval(rank, count)
    within = betainc(rank, count + 1 - rank, (low, high))
    assert within == pytest.approx((0.025, 0.975), abs=1e-6)
    tosses = [
        math.comb(count, k) * share**k * (1 - share) ** (count - k)
        for k in range(rank, count + 1)
    ]
    assert binomial_tail(rank, count, share) == pytest.approx(
        math.fsum(tosses), abs=1e-9
    )


@quick
@given(st.integers(1, 150), st.floats(0.5, 0.99))
def test_guaranteed_tp_is_the_smallest(count, recall):
    rank = guaranteed_tp(recall, count)
    every = np.arange(1, count + 1)
    enough = every[betaincc(every, count + 1 - every, recall) >= 0.95]
    assert rank == (enough[0] if len(enough) else None)


@quick
@given(cases, st.floats(0.5, 1))
def test_narrowest_abstain_band(case, accuracy):
    probs, positive = case
    band = narrowest_abstain_band(probs, positive, accuracy)
    enough = []
    for half_width in np.abs(probs - 0.5):
        outside = np.abs(probs - 0.5) >= half_width
        outside_accuracy = ((probs >= 0.5) == positive)[outside].mean()
        if outside_accuracy >= accuracy - 1e-12:
            enough.append(half_width)
    assert (band.half_width if band else None) == (min(enough) if enough else None)
    if band:
        counts = band.counts(probs, positive)
        assert counts.count == len(probs)
        assert counts.positives == positive.sum()
        assert counts.accuracy >= accuracy - 1e-12
        inside = band.abstains(probs)
        assert counts.abstained == inside.sum()
        above = (probs >= band.high - 1e-12) & ~inside
        assert counts.predicted_positives == above.sum()
        low, high = counts.abstention_rate_interval
        assert low - 1e-12 <= counts.abstention_rate <= high + 1e-12


@quick
@given(cases)
def test_selective_accuracy_curve_has_every_half_width(case):
    probs, positive = case
    half_widths, accuracies = selective_accuracy_curve(probs, positive)
    assume(len(half_widths))
    assert accuracies[-1] == ((probs >= 0.5) == positive).mean()
    assert len(half_widths) == len(np.unique(np.abs(probs - 0.5)))
