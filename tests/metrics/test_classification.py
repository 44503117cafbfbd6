"""Classification metrics and intervals against scikit-learn and SciPy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn import metrics as oracle

from striate.metrics import classification as classification
from striate.metrics.calibration import top_label_ece
from striate.metrics.classification import classification_metrics, confusion_matrix
from striate.metrics.intervals import mean_recall_interval, wilson_interval


@given(st.integers(0, 500), st.integers(1, 500))
def test_wilson_interval_against_scipy(correct, count):
    correct = min(correct, count)
    interval = binomtest(correct, count).proportion_ci(method="wilson")
    assert wilson_interval(correct, count) == pytest.approx(
        (interval.low, interval.high), abs=1e-9
    )


def test_wilson_interval_at_its_ends():
    assert wilson_interval(0, 0) == (0.0, 1.0)
    assert wilson_interval(0, 10)[0] == 0.0
    assert wilson_interval(10, 10)[1] == pytest.approx(1)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 6), st.integers(1, 80), st.integers(0, 1000))
@pytest.mark.filterwarnings("ignore:y_pred contains classes")
@pytest.mark.filterwarnings("ignore:A single label was found")
def test_classification_metrics_against_scikit_learn(classes, count, seed):
    draw = np.random.default_rng(seed)
    probs = draw.dirichlet(np.ones(classes), count)
    truth = draw.integers(0, max(1, classes - 1), count)
    losses = -np.log(probs[np.arange(count), truth])
    metrics = classification_metrics(
        probs, truth, losses, [f"c{i}" for i in range(classes)]
    )
    predicted = probs.argmax(1)
    names = list(range(classes))
    assert metrics.count == count
    expected = oracle.confusion_matrix(truth, predicted, labels=names)
    assert np.array(metrics.confusion).tolist() == expected.tolist()
    assert confusion_matrix(truth, predicted, classes).tolist() == expected.tolist()
    assert metrics.accuracy == pytest.approx(oracle.accuracy_score(truth, predicted))
    balanced = oracle.balanced_accuracy_score(truth, predicted)
    assert metrics.balanced_accuracy == pytest.approx(balanced)
    assert metrics.loss == pytest.approx(oracle.log_loss(truth, probs, labels=names))
    precision, recall, f1, support = oracle.precision_recall_fscore_support(
        truth, predicted, labels=names, zero_division=0
    )
    errors = {(i, j): n for i, j, n in metrics.confused_pairs}
    assert errors == {
        (i, j): n for (i, j), n in np.ndenumerate(expected) if i != j and n
    }
    error_counts = [n for *_, n in metrics.confused_pairs]
    assert error_counts == sorted(error_counts, reverse=True)
    low, high = metrics.balanced_interval
    assert low <= metrics.balanced_accuracy <= high
    for i, class_metrics in enumerate(metrics.classes):
        assert class_metrics.name == f"c{i}"
        assert (class_metrics.precision, class_metrics.recall) == pytest.approx(
            (precision[i], recall[i])
        )
        assert (class_metrics.f1, class_metrics.support) == pytest.approx(
            (f1[i], support[i])
        )
        correct = int(expected[i, i])
        assert class_metrics.recall_interval == wilson_interval(
            correct, int(support[i])
        )
        assert class_metrics.precision_interval == wilson_interval(
            correct, int(expected[:, i].sum())
        )


def test_top_label_ece_by_hand():
    """Two bins: three predictions at 0.9, two correct; two at 0.6, both correct."""
    probs = np.array([[0.9, 0.1]] * 3 + [[0.6, 0.4]] * 2)
    correct = np.array([1, 1, 0, 1, 1])
    expected = 3 / 5 * abs(2 / 3 - 0.9) + 2 / 5 * abs(1 - 0.6)
    assert top_label_ece(probs, correct) == pytest.approx(expected)
    assert top_label_ece(np.array([[1.0, 0.0]]), np.array([1])) == 0


@pytest.mark.parametrize(
    ("recalls", "counts", "normal_fails"),
    [
        ([0.99, 0.9, 0.6], [400, 40, 12], False),
        ([1.0, 0.98], [15, 15], True),
        ([0.9] * 10, [8] * 10, False),
        ([0.95] * 100, [5] * 100, False),
        ([0.9] * 100, [1] * 100, True),
    ],
)
def test_mean_recall_interval_covers(recalls, counts, normal_fails):
    """About 95 % of intervals from known recalls contain their mean; the normal
    interval does not if all of a few images are correct."""
    draw = np.random.default_rng(0)
    truth, covered, normal, rounds = float(np.mean(recalls)), 0, 0, 400
    for _ in range(rounds):
        correct = draw.binomial(counts, recalls)
        low, high = mean_recall_interval(correct.tolist(), counts)
        covered += low <= truth <= high
        observed = correct / counts
        error = np.sqrt((observed * (1 - observed) / counts).sum()) / len(recalls)
        normal += abs(observed.mean() - truth) <= 1.96 * error
    assert covered / rounds > 0.93
    assert (normal / rounds < 0.5) == normal_fails


def test_mean_recall_interval_of_one_class_is_wilsons():
    low, high = mean_recall_interval([0], [10])
    assert (low, high) == pytest.approx(wilson_interval(0, 10))
    assert mean_recall_interval([1], [1])[1] == 1.0


def test_confusion_matrix_is_left_out_for_many_classes(monkeypatch):
    monkeypatch.setattr(classification, "MAX_MATRIX_CLASSES", 3)
    probs = np.eye(4)[[0, 1, 1, 3]]
    metrics = classification_metrics(
        probs, np.array([0, 1, 2, 2]), np.zeros(4), list("abcd")
    )
    assert metrics.confusion == ()
    assert metrics.confused_pairs == ((2, 1, 1), (2, 3, 1))
    assert metrics.balanced_accuracy == pytest.approx(2 / 3)
