"""Figures of merit against scikit-learn and SciPy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn import metrics as oracle

from striate.engine.metrics import calibration_error, confusion_matrix, score, wilson


@given(st.integers(0, 500), st.integers(1, 500))
def test_wilson_against_scipy(right, count):
    right = min(right, count)
    interval = binomtest(right, count).proportion_ci(method="wilson")
    assert wilson(right, count) == pytest.approx(
        (interval.low, interval.high), abs=1e-9
    )


def test_wilson_at_its_ends():
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(0, 10)[0] == 0.0
    assert wilson(10, 10)[1] == pytest.approx(1)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 6), st.integers(1, 80), st.integers(0, 1000))
@pytest.mark.filterwarnings("ignore:y_pred contains classes")
@pytest.mark.filterwarnings("ignore:A single label was found")
def test_against_scikit_learn(classes, count, seed):
    draw = np.random.default_rng(seed)
    odds = draw.dirichlet(np.ones(classes), count)
    truth = draw.integers(0, max(1, classes - 1), count)
    losses = -np.log(odds[np.arange(count), truth])
    found = score(odds, truth, losses, [f"c{i}" for i in range(classes)])
    said = odds.argmax(1)
    names = list(range(classes))
    assert found.count == count
    expected = oracle.confusion_matrix(truth, said, labels=names)
    assert np.array(found.confusion).tolist() == expected.tolist()
    assert confusion_matrix(truth, said, classes).tolist() == expected.tolist()
    assert found.accuracy == pytest.approx(oracle.accuracy_score(truth, said))
    balanced = oracle.balanced_accuracy_score(truth, said)
    assert found.balanced_accuracy == pytest.approx(balanced)
    assert found.loss == pytest.approx(oracle.log_loss(truth, odds, labels=names))
    precision, recall, f1, support = oracle.precision_recall_fscore_support(
        truth, said, labels=names, zero_division=0
    )
    for i, one in enumerate(found.classes):
        assert one.name == f"c{i}"
        assert (one.precision, one.recall) == pytest.approx((precision[i], recall[i]))
        assert (one.f1, one.support) == pytest.approx((f1[i], support[i]))


def test_calibration_error_by_hand():
    """Two bins: three answers at 0.9, two right; two at 0.6, both right."""
    odds = np.array([[0.9, 0.1]] * 3 + [[0.6, 0.4]] * 2)
    right = np.array([1, 1, 0, 1, 1])
    expected = 3 / 5 * abs(2 / 3 - 0.9) + 2 / 5 * abs(1 - 0.6)
    assert calibration_error(odds, right) == pytest.approx(expected)
    assert calibration_error(np.array([[1.0, 0.0]]), np.array([1])) == 0
