"""Logistic heads against scikit-learn, and folds that leak nothing."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_info

from striate.core.errors import DataError
from striate.finetune.logistic import FOLDS, PENALTIES, folds, logistic


def blobs(count=240, width=6, classes=3, seed=0):
    draw = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % classes
    centers = torch.randn(classes, width, generator=draw)
    return centers[y] + torch.randn(count, width, generator=draw), y


def test_it_is_scikit_learns_answer():
    x, y = blobs()
    x = x * torch.tensor([1, 10, 0.1, 1, 1, 100]) + 5
    fitted = logistic(x, y, 3, penalty=0.03)
    mean, spread = x.mean(0), x.std(0, correction=0)
    oracle = LogisticRegression(C=1 / (0.03 * len(y)), tol=1e-9, max_iter=5000)
    oracle.fit(((x - mean) / spread).double().numpy(), y.numpy())
    ours = (x.double() @ fitted.weight.T + fitted.bias).softmax(1).numpy()
    theirs = oracle.predict_proba(((x - mean) / spread).double().numpy())
    assert np.abs(ours - theirs).max() < 1e-4


def test_more_features_than_rows_is_scikit_learns_answer_too():
    """There it is fitted in the space that the rows span."""
    x, y = blobs(40, width=200)
    fitted = logistic(x, y, 3, penalty=0.03)
    even = ((x - x.mean(0)) / x.std(0, correction=0)).double().numpy()
    oracle = LogisticRegression(C=1 / (0.03 * len(y)), tol=1e-9, max_iter=5000)
    theirs = oracle.fit(even, y.numpy()).predict_proba(even)
    ours = (x.double() @ fitted.weight.T + fitted.bias).softmax(1).numpy()
    assert np.abs(ours - theirs).max() < 1e-4


def test_threads_are_given_back():
    before = torch.get_num_threads(), threadpool_info()
    x, y = blobs()
    logistic(x, y, 3)
    assert (torch.get_num_threads(), threadpool_info()) == before


def test_a_sweep_ends_a_decade_below_the_best():
    x, y = blobs(120, width=40)
    tried = logistic(x, y, 3).tried
    best = min(tried, key=lambda one: one.cost).penalty
    assert tried[-1].penalty == pytest.approx(max(best / 10, PENALTIES[-1]))
    assert [one.penalty for one in tried] == list(PENALTIES[: len(tried)])


def test_the_penalty_follows_the_data():
    x, y = blobs(120, width=40)
    noise = y[torch.randperm(120, generator=torch.Generator().manual_seed(1))]
    strong, weak = logistic(x, noise, 3), logistic(x, y, 3)
    assert strong.penalty > weak.penalty
    best = min(strong.tried, key=lambda one: one.cost)
    assert best.penalty == strong.penalty
    assert all(0 <= one.accuracy <= 1 for one in strong.tried)


def test_copies_and_views_stay_in_one_fold():
    y = torch.arange(200) % 4
    groups = [i // 8 for i in range(200)]
    fold = folds(y, groups, seed=1)
    for group in set(groups):
        mine = [i for i, g in enumerate(groups) if g == group]
        assert len(set(fold[mine].tolist())) == 1
    assert set(fold.tolist()) == set(range(FOLDS))
    assert not torch.equal(fold, folds(y, groups, seed=2))


def test_classes_are_spread_over_the_folds():
    y = torch.tensor([0] * 50 + [1] * 10)
    fold = folds(y, range(60), seed=0)
    assert [int(((fold == k) & (y == 1)).sum()) for k in range(FOLDS)] == [2] * FOLDS


def test_copies_across_folds_would_flatter():
    """Why groups matter: noise with copies is learned by heart otherwise."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(60, 80, generator=draw).repeat(4, 1)
    y = torch.randint(0, 2, (60,), generator=draw).repeat(4)
    honest = logistic(x, y, 2, groups=list(range(60)) * 4)
    fooled = logistic(x, y, 2)
    assert max(one.accuracy for one in fooled.tried) > 0.9
    assert max(one.accuracy for one in honest.tried) < 0.75


def test_one_group_has_no_folds():
    """Nothing can be left out of it: that is said, and no penalty is made up."""
    x, y = blobs(30)
    with pytest.raises(DataError, match="all training images are of one group") as e:
        logistic(x, y, 3, groups=["lot 1"] * 30)
    assert "--head trained" in e.value.fix
    assert logistic(x, y, 3, groups=["lot 1"] * 30, penalty=0.1).penalty == 0.1
    assert logistic(x, y, 3, groups=["a"] * 15 + ["b"] * 15).tried


def test_constant_features_and_one_image_a_class():
    x = torch.tensor([[1.0, 7.0], [2.0, 7.0]])
    fitted = logistic(x, torch.tensor([0, 1]), 2, penalty=1e-3)
    assert fitted.weight[:, 1].abs().max() == 0
    assert (
        logistic(x.repeat(2, 1), torch.tensor([0, 1, 0, 1]), 2).weight.isfinite().all()
    )


@pytest.mark.parametrize("classes", [1, 2, 7])
def test_any_number_of_classes(classes):
    x, y = blobs(70, classes=classes)
    assert logistic(x, y, classes, penalty=0.1).weight.shape == (classes, 6)
