"""Confident learning, against the paper's formulas written as loops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from striate.data.check.label_errors import (
    LABEL_ERROR,
    NONE,
    ConfidentLearning,
    LabelErrors,
    label_error_findings,
)


@st.composite
def predictions(draw):
    """Random probabilities, some labels without an image, some images unjudged."""
    classes, count = draw(st.integers(2, 5)), draw(st.integers(1, 30))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    probs = rng.dirichlet(np.full(classes, 0.5), count)
    labels = rng.integers(0, classes, count)
    has_prediction = rng.random(count) < draw(st.sampled_from([0.0, 0.7, 1.0]))
    probs[~has_prediction] = 0
    return ConfidentLearning(probs=probs, labels=labels, has_prediction=has_prediction)


def by_hand(result):
    """Equations 1 to 3 of the paper, image by image."""
    classes = range(result.classes)
    by_label = {j: [] for j in classes}
    for i in np.flatnonzero(result.has_prediction):
        by_label[result.labels[i]].append(result.probs[i, result.labels[i]])
    thresholds = {j: sum(p) / len(p) if p else 2 for j, p in by_label.items()}
    joint = np.zeros((result.classes, result.classes))
    suspected = set()
    for i in np.flatnonzero(result.has_prediction):
        reached = [j for j in classes if result.probs[i, j] >= thresholds[j] - 1e-12]
        if reached:
            best = max(reached, key=lambda j: result.probs[i, j])
            joint[result.labels[i], best] += 1
            suspected |= (
                {int(i)} if result.probs[i, best] > result.self_confidence[i] else set()
            )
    for j in classes:
        if joint[j].sum():
            joint[j] *= len(by_label[j]) / joint[j].sum()
    return joint, suspected


@given(predictions())
def test_confident_joint_as_in_the_paper(result):
    joint, suspected = by_hand(result)
    assert set(result.suspected.tolist()) == suspected
    estimates = np.zeros_like(joint)
    for cell in result.confusions:
        estimates[cell.label, cell.suggested] = cell.estimate
    np.fill_diagonal(joint, 0)
    np.testing.assert_allclose(estimates, joint, atol=1e-9)
    assert result.estimate == pytest.approx(joint.sum())
    sizes = [cell.estimate for cell in result.confusions]
    assert sizes == sorted(sizes, reverse=True)
    assert sum(cell.suspected_count for cell in result.confusions) == len(suspected)


@given(predictions())
def test_the_ranking_holds_every_image_once(result):
    assert sorted(result.ranking_order.tolist()) == list(range(len(result.labels)))
    label_quality = result.label_quality[result.ranking_order]
    count = int(result.has_prediction.sum())
    assert result.has_prediction[result.ranking_order[:count]].all()
    assert (np.diff(label_quality[:count]) >= 0).all()
    assert (result.suggested != result.labels).all()
    assert (label_quality >= 0).all()
    for j in set(
        result.labels[result.has_prediction].tolist()
    ):  # a class bears itself out
        by_label = result.has_prediction & (result.labels == j)
        assert result.label_quality[by_label].mean() == pytest.approx(1)


def test_thresholds_are_per_class():
    """Networks give a rare class less; its images are not wrong for that."""
    rare = np.array([[0.6, 0.4], [0.65, 0.35], [0.6, 0.4]])
    probs = np.concatenate([np.tile([0.95, 0.05], (20, 1)), rare])
    labels = np.array([0] * 20 + [1] * 3)
    result = ConfidentLearning(probs=probs, labels=labels)
    np.testing.assert_allclose(result.thresholds, [0.95, 0.3833333])
    assert result.suspected.tolist() == []
    assert result.confident_class[-3:].tolist() == [1, NONE, 1]
    assert result.agreement == pytest.approx(20 / 23)


def test_a_label_that_is_more_probable_is_not_suspected():
    probs = np.array([[0.9, 0.1], [0.52, 0.48], [0.6, 0.4], [0.65, 0.35]])
    result = ConfidentLearning(probs=probs, labels=np.array([0, 0, 1, 1]))
    assert result.confident_class.tolist() == [0, 1, 1, NONE]
    assert result.suspected.tolist() == []
    [cell] = result.confusions
    assert (cell.label, cell.suggested, cell.suspected_count, cell.estimate) == (
        0,
        1,
        0,
        1.0,
    )


def label_errors_of(result):
    names = tuple("abcde"[: result.classes])
    return LabelErrors(
        analysis=result,
        names=names,
        model="m",
        method="the network m, 1 epoch each",
        reason="it is a test",
        folds=5,
        epochs=1,
        seconds=0.0,
    )


def test_no_prediction_and_no_suspicion_are_different_findings():
    probs, labels = np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([0, 1])
    clean = label_errors_of(ConfidentLearning(probs=probs, labels=labels))
    [note] = label_error_findings(clean)
    assert (note.kind, note.tone) == (LABEL_ERROR, "note")
    assert note.what == "no label errors suspected in 2 labels"
    assert note.why.endswith("Used: the network m, 1 epoch each, because it is a test.")
    empty = ConfidentLearning(
        probs=probs * 0, labels=labels, has_prediction=np.zeros(2, bool)
    )
    [note] = label_error_findings(label_errors_of(empty))
    assert note.what == "2 labels could not be checked"
    assert empty.agreement == empty.estimate == 0
    rows = list(label_errors_of(empty).ranking())
    assert [(row.rank, row.suggested_label, row.label_quality) for row in rows] == [
        (1, None, None),
        (2, None, None),
    ]


def test_probabilities_are_shown_from_1_to_99_percent():
    probs = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    result = label_errors_of(ConfidentLearning(probs=probs, labels=np.array([0, 1, 0])))
    [finding] = label_error_findings(result)
    assert finding.groups[0].note == "label a, predicted b, 99\u00a0%"
    assert finding.what == "1 suspected label error in 3 labels; estimated total: 1"
