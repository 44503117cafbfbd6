"""Metrics of several labels per image against scikit-learn, and their calibration."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    precision_recall_curve,
    precision_recall_fscore_support,
)

from striate.metrics import average_precision
from striate.metrics.average_precision import (
    average_precisions,
    map_by_chance,
    map_interval,
    mean_average_precision,
)
from striate.metrics.multi_label import (
    best_f1_thresholds,
    f1_score,
    mean_label_ece,
    multi_label_metrics,
)
from striate.metrics.platt import (
    INTERCEPT_SD,
    SLOPE_SD,
    binary_log_losses,
    cross_validated_platt_losses,
    fit_platt,
    logits_of_probs,
)

NAMES = ("a", "b", "c", "d")


def drawn(seed, count=60, levels=0, shares=(0.5, 0.3, 0.1, 0.02)):
    """Random labels and probabilities that know something of them; some are equal."""
    rng = np.random.default_rng(seed)
    truth = rng.random((count, len(shares))) < shares
    probs = 1 / (1 + np.exp(-(2 * truth - 1 + 1.5 * rng.normal(size=truth.shape))))
    return truth, np.round(probs * levels) / levels if levels else probs


def by_sklearn(truth, probs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pairs = zip(truth.T, probs.T, strict=True)
        return np.array([average_precision_score(y, p) for y, p in pairs])


@given(st.integers(0, 10_000), st.sampled_from([0, 3, 10]), st.integers(1, 60))
def test_average_precision_is_that_of_scikit_learn(seed, levels, count):
    truth, probs = drawn(seed, count, levels)
    values, has_images = average_precisions(truth, probs), truth.any(0)
    assert np.isnan(values[~has_images]).all()
    expected = by_sklearn(truth, probs)[has_images]
    assert values[has_images] == pytest.approx(expected, abs=1e-12)


@pytest.fixture(scope="module", autouse=True)
def _few_resamples():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(average_precision, "RESAMPLES", 99)
        yield


def metrics(truth, probs, predicted):
    losses, halves = binary_log_losses(probs, truth), np.full(4, 0.5)
    return multi_label_metrics(probs, truth, predicted, losses, NAMES, halves)


@settings(max_examples=15)
@given(st.integers(0, 10_000), st.floats(0.05, 0.95))
def test_precision_recall_and_f1_are_those_of_scikit_learn(seed, threshold):
    truth, probs = drawn(seed)
    predicted = probs >= threshold
    score = metrics(truth, probs, predicted)
    assert score.accuracy == accuracy_score(truth, predicted)
    options = {"zero_division": 0}
    for average in ("micro", "macro"):
        expected = precision_recall_fscore_support(
            truth, predicted, average=average, **options
        )[:3]
        keys = (f"{average}_{name}" for name in ("precision", "recall", "f1"))
        assert [getattr(score, key) for key in keys] == pytest.approx(expected)
    columns = precision_recall_fscore_support(truth, predicted, **options)
    for c, *expected in zip(score.classes, *columns, strict=True):
        assert [c.precision, c.recall, c.f1, c.support] == pytest.approx(expected)
        assert (c.tp + c.fp, c.tp + c.fn) == (c.predicted, c.support)
    present = by_sklearn(truth, probs)[truth.any(0)]
    assert score.map == pytest.approx(present.mean())
    low, high = score.map_interval
    assert low <= score.map <= high


def test_a_class_without_images_has_no_average_precision():
    truth, probs = drawn(1)
    truth[:, 3] = False
    score = metrics(truth, probs, probs >= 0.5)
    assert score.classes[3].average_precision is None
    assert score.map == pytest.approx(by_sklearn(truth, probs)[:3].mean())
    none = metrics(np.zeros_like(truth), probs, probs >= 0.5)
    assert (none.map, none.map_interval, none.micro_recall) == (None, (0.0, 1.0), 0)
    assert map_by_chance(np.zeros_like(truth), probs)[1] == 1.0
    assert f1_score(0, 0, 0) == 0


@settings(max_examples=15)
@given(st.integers(0, 10_000), st.sampled_from([0, 4]))
def test_the_threshold_has_the_highest_f1(seed, levels):
    truth, probs = drawn(seed, 40, levels)
    thresholds = best_f1_thresholds(probs, truth)
    for i, threshold in enumerate(thresholds):
        y, p = truth[:, i], probs[:, i]
        if y.all() or not y.any():
            assert threshold == 0.5
            continue
        precision, recall, _ = precision_recall_curve(y, p)
        highest = np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12))
        reached = precision_recall_fscore_support(
            y, p >= threshold, average="binary", zero_division=0
        )[2]
        assert reached == pytest.approx(highest)
        assert threshold == 0.0 or threshold not in p


def test_the_interval_is_that_of_repeated_samples():
    """Of 60 new samples, nearly all 95 % intervals contain the mean mAP."""
    values = [mean_average_precision(*drawn(seed, 120)) for seed in range(400)]
    inside = [
        low <= np.mean(values) <= high
        for low, high in (map_interval(*drawn(seed, 120)) for seed in range(25))
    ]
    assert np.mean(inside) >= 0.85
    truth, _ = drawn(0)
    low, high = map_interval(truth, truth.astype(float))  # no error in any resample
    assert 0.85 < low < 0.97
    assert high == 1


def test_many_images_have_a_narrow_interval():
    truth, probs = drawn(0, 9000)
    low, high = map_interval(truth, probs)
    assert low < mean_average_precision(truth, probs) < high
    assert high - low < 0.05


def test_shuffled_labels_are_at_chance():
    truth, probs = drawn(0, 100)
    mean, p = map_by_chance(truth, probs)
    assert p == 1 / 100  # the lowest of 99 shuffles
    assert mean == pytest.approx(truth.mean(0).mean(), abs=0.05)
    rng = np.random.default_rng(0)
    p_values = [
        map_by_chance(truth, rng.permutation(probs))[1] for _ in range(12)
    ]  # uniform
    assert min(p_values) > 0.001
    assert 0.2 < np.mean(p_values) < 0.8


def test_platt_scaling_is_the_maximum_of_the_posterior():
    truth, probs = drawn(3, 80)
    params = fit_platt(probs, truth)
    for i in range(4):
        z, y = logits_of_probs(probs[:, i]), truth[:, i]

        def posterior(x, z=z, y=y):
            a, b = x
            loss = np.logaddexp(0, -(2 * y - 1) * (a * z + b)).sum()
            prior = (a - 1) ** 2 / SLOPE_SD**2 + b**2 / INTERCEPT_SD**2
            return loss + prior / 2

        best = minimize(posterior, (1.0, 0.0)).x
        assert (params.slopes[i], params.intercepts[i]) == pytest.approx(best, abs=1e-3)


@settings(max_examples=5)
@given(st.integers(0, 10_000))
def test_platt_scaling_keeps_the_order_and_undoes_weights(seed):
    truth, probs = drawn(seed, 300, shares=(0.5, 0.3, 0.1, 0.1))
    shifted = 1 / (1 + np.exp(-(2 * logits_of_probs(probs) + 2)))  # as by pos_weight
    params = fit_platt(shifted, truth)
    scaled = params.apply(shifted)
    assert (params.slopes > 0).all()
    assert average_precisions(truth, scaled) == pytest.approx(
        average_precisions(truth, shifted), nan_ok=True
    )
    before, after = (binary_log_losses(p, truth).mean() for p in (shifted, scaled))
    assert after < before
    assert cross_validated_platt_losses(shifted, truth).mean() < before
    assert mean_label_ece(scaled, truth) < mean_label_ece(shifted, truth)


def test_platt_scaling_of_hopeless_classes_is_finite():
    """All or no images have the class, or the probabilities are 0 and 1, and wrong."""
    truth = np.array([[1, 0, 0], [1, 0, 1], [1, 0, 0], [1, 0, 1]])
    probs = np.array([[0.5, 0.5, 1], [0.6, 0.1, 0], [0.7, 0.2, 1], [0.9, 0.3, 0]])
    params = fit_platt(probs, truth)
    assert np.isfinite([params.slopes, params.intercepts]).all()
    assert params.slopes.min() >= 0.1
