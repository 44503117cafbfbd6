"""Figures of merit against scikit-learn and SciPy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn import metrics as oracle

from striate.metrics import classification as room
from striate.metrics.classification import (
    calibration_error,
    confusion_matrix,
    mean_interval,
    score,
    wilson,
)


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
    probs = draw.dirichlet(np.ones(classes), count)
    truth = draw.integers(0, max(1, classes - 1), count)
    losses = -np.log(probs[np.arange(count), truth])
    found = score(probs, truth, losses, [f"c{i}" for i in range(classes)])
    said = probs.argmax(1)
    names = list(range(classes))
    assert found.count == count
    expected = oracle.confusion_matrix(truth, said, labels=names)
    assert np.array(found.confusion).tolist() == expected.tolist()
    assert confusion_matrix(truth, said, classes).tolist() == expected.tolist()
    assert found.accuracy == pytest.approx(oracle.accuracy_score(truth, said))
    balanced = oracle.balanced_accuracy_score(truth, said)
    assert found.balanced_accuracy == pytest.approx(balanced)
    assert found.loss == pytest.approx(oracle.log_loss(truth, probs, labels=names))
    precision, recall, f1, support = oracle.precision_recall_fscore_support(
        truth, said, labels=names, zero_division=0
    )
    wrong = {(i, j): n for i, j, n in found.confusions}
    assert wrong == {
        (i, j): n for (i, j), n in np.ndenumerate(expected) if i != j and n
    }
    most = [n for *_, n in found.confusions]
    assert most == sorted(most, reverse=True)
    low, high = found.balanced_interval
    assert low <= found.balanced_accuracy <= high
    for i, one in enumerate(found.classes):
        assert one.name == f"c{i}"
        assert (one.precision, one.recall) == pytest.approx((precision[i], recall[i]))
        assert (one.f1, one.support) == pytest.approx((f1[i], support[i]))
        right = int(expected[i, i])
        assert one.recall_interval == wilson(right, int(support[i]))
        assert one.precision_interval == wilson(right, int(expected[:, i].sum()))


def test_calibration_error_by_hand():
    """Two bins: three answers at 0.9, two right; two at 0.6, both right."""
    probs = np.array([[0.9, 0.1]] * 3 + [[0.6, 0.4]] * 2)
    right = np.array([1, 1, 0, 1, 1])
    expected = 3 / 5 * abs(2 / 3 - 0.9) + 2 / 5 * abs(1 - 0.6)
    assert calibration_error(probs, right) == pytest.approx(expected)
    assert calibration_error(np.array([[1.0, 0.0]]), np.array([1])) == 0


@pytest.mark.parametrize(
    ("shares", "counts", "plain_fails"),
    [
        ([0.99, 0.9, 0.6], [400, 40, 12], False),
        ([1.0, 0.98], [15, 15], True),
        ([0.9] * 10, [8] * 10, False),
        ([0.95] * 100, [5] * 100, False),
        ([0.9] * 100, [1] * 100, True),
    ],
)
def test_the_balanced_interval_covers(shares, counts, plain_fails):
    """Of sets drawn from known recalls at least about 95 % contain their mean; a
    standard error misses it wherever few images are all right."""
    draw = np.random.default_rng(0)
    truth, covered, plain, rounds = float(np.mean(shares)), 0, 0, 400
    for _ in range(rounds):
        rights = draw.binomial(counts, shares)
        low, high = mean_interval(rights.tolist(), counts)
        covered += low <= truth <= high
        found = rights / counts
        error = np.sqrt((found * (1 - found) / counts).sum()) / len(shares)
        plain += abs(found.mean() - truth) <= 1.96 * error
    assert covered / rounds > 0.93
    assert (plain / rounds < 0.5) == plain_fails


def test_one_share_keeps_its_interval():
    low, high = mean_interval([0], [10])
    assert (low, high) == pytest.approx(wilson(0, 10))
    assert mean_interval([1], [1])[1] == 1.0


def test_beyond_many_classes_the_square_is_not_kept(monkeypatch):
    monkeypatch.setattr(room, "SQUARE", 3)
    probs = np.eye(4)[[0, 1, 1, 3]]
    found = score(probs, np.array([0, 1, 2, 2]), np.zeros(4), list("abcd"))
    assert found.confusion == ()
    assert found.confusions == ((2, 1, 1), (2, 3, 1))
    assert found.balanced_accuracy == pytest.approx(2 / 3)
