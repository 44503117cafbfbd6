"""Confident learning's arithmetic, beside the paper's formulas written as loops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from striate.data.check.label_error_findings import DOUBT, Doubts, doubt_findings
from striate.data.check.label_errors import NONE, Confident


@st.composite
def judgements(draw):
    """Random probabilities, some labels without an image, some images unjudged."""
    classes, count = draw(st.integers(2, 5)), draw(st.integers(1, 30))
    chance = np.random.default_rng(draw(st.integers(0, 10**6)))
    probs = chance.dirichlet(np.full(classes, 0.5), count)
    labels = chance.integers(0, classes, count)
    judged = chance.random(count) < draw(st.sampled_from([0.0, 0.7, 1.0]))
    probs[~judged] = 0
    return Confident(probs=probs, given=labels, judged=judged)


def by_hand(found):
    """Equations 1 to 3 of the paper, image by image."""
    classes = range(found.classes)
    mine = {j: [] for j in classes}
    for i in np.flatnonzero(found.judged):
        mine[found.given[i]].append(found.probs[i, found.given[i]])
    bar = {j: sum(p) / len(p) if p else 2 for j, p in mine.items()}
    joint = np.zeros((found.classes, found.classes))
    wrong = set()
    for i in np.flatnonzero(found.judged):
        reached = [j for j in classes if found.probs[i, j] >= bar[j] - 1e-12]
        if reached:
            best = max(reached, key=lambda j: found.probs[i, j])
            joint[found.given[i], best] += 1
            wrong |= {int(i)} if found.probs[i, best] > found.own[i] else set()
    for j in classes:
        if joint[j].sum():
            joint[j] *= len(mine[j]) / joint[j].sum()
    return joint, wrong


@given(judgements())
def test_it_is_what_the_paper_says(found):
    joint, wrong = by_hand(found)
    assert set(found.wrong.tolist()) == wrong
    told = np.zeros_like(joint)
    for cell in found.confusions:
        told[cell.given, cell.other] = cell.estimate
    np.fill_diagonal(joint, 0)
    np.testing.assert_allclose(told, joint, atol=1e-9)
    assert found.estimate == pytest.approx(joint.sum())
    sizes = [cell.estimate for cell in found.confusions]
    assert sizes == sorted(sizes, reverse=True)
    assert sum(cell.doubted for cell in found.confusions) == len(wrong)


@given(judgements())
def test_the_ranking_holds_every_image_once(found):
    assert sorted(found.order.tolist()) == list(range(len(found.given)))
    support = found.support[found.order]
    known = int(found.judged.sum())
    assert found.judged[found.order[:known]].all()
    assert (np.diff(support[:known]) >= 0).all()
    assert (found.other != found.given).all()
    assert (support >= 0).all()
    for j in set(found.given[found.judged].tolist()):  # a class bears itself out
        mine = found.judged & (found.given == j)
        assert found.support[mine].mean() == pytest.approx(1)


def test_a_small_class_is_held_to_its_own_bar():
    """Networks give a rare class less; its images are not wrong for that."""
    rare = np.array([[0.6, 0.4], [0.65, 0.35], [0.6, 0.4]])
    probs = np.concatenate([np.tile([0.95, 0.05], (20, 1)), rare])
    labels = np.array([0] * 20 + [1] * 3)
    found = Confident(probs=probs, given=labels)
    np.testing.assert_allclose(found.thresholds, [0.95, 0.3833333])
    assert found.wrong.tolist() == []
    assert found.sure[-3:].tolist() == [1, NONE, 1]
    assert found.agreement == pytest.approx(20 / 23)


def test_a_label_that_is_more_probable_itself_is_not_doubted():
    probs = np.array([[0.9, 0.1], [0.52, 0.48], [0.6, 0.4], [0.65, 0.35]])
    found = Confident(probs=probs, given=np.array([0, 0, 1, 1]))
    assert found.sure.tolist() == [0, 1, 1, NONE]
    assert found.wrong.tolist() == []
    [cell] = found.confusions
    assert (cell.given, cell.other, cell.doubted, cell.estimate) == (0, 1, 0, 1.0)


def doubts_of(found):
    names = tuple("abcde"[: found.classes])
    return Doubts(judged=found, names=names, model="m", folds=5, epochs=1, seconds=0.0)


def test_nothing_judged_and_nothing_doubted_are_told_apart():
    probs, labels = np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([0, 1])
    calm = doubts_of(Confident(probs=probs, given=labels))
    [note] = doubt_findings(calm)
    assert (note.kind, note.tone) == (DOUBT, "note")
    assert note.what == "no label of 2 is doubted"
    mute = Confident(probs=probs * 0, given=labels, judged=np.zeros(2, bool))
    [note] = doubt_findings(doubts_of(mute))
    assert note.what == "the labels of 2 images could not be judged"
    assert mute.agreement == mute.estimate == 0
    rows = list(doubts_of(mute).ranking())
    assert [(row.rank, row.looks_like, row.support) for row in rows] == [
        (1, None, None),
        (2, None, None),
    ]


def test_probabilities_are_never_told_as_0_or_100():
    probs = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    found = doubts_of(Confident(probs=probs, given=np.array([0, 1, 0])))
    [finding] = doubt_findings(found)
    assert finding.groups[0].note == "labeled a, looks like b, 99\u00a0%"
    assert finding.what == "1 label of 3 is doubted; an estimated 1 is wrong"
