"""Logistic regression against scikit-learn, and folds without leaks."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_info

from striate.core.errors import DataError
from striate.finetune.logistic import FOLDS, PENALTIES, assign_folds, fit_logistic


def blobs(count=240, width=6, classes=3, seed=0):
    draw = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % classes
    centers = torch.randn(classes, width, generator=draw)
    return centers[y] + torch.randn(count, width, generator=draw), y


def test_equals_scikit_learn():
    x, y = blobs()
    x = x * torch.tensor([1, 10, 0.1, 1, 1, 100]) + 5
    fitted = fit_logistic(x, y, 3, penalty=0.03)
    mean, std = x.mean(0), x.std(0, correction=0)
    oracle = LogisticRegression(C=1 / (0.03 * len(y)), tol=1e-9, max_iter=5000)
    oracle.fit(((x - mean) / std).double().numpy(), y.numpy())
    probs = (x.double() @ fitted.weight.T + fitted.bias).softmax(1).numpy()
    oracle_probs = oracle.predict_proba(((x - mean) / std).double().numpy())
    assert np.abs(probs - oracle_probs).max() < 1e-4


def test_equals_scikit_learn_with_more_features_than_rows():
    """There it is fitted in the space that the rows span."""
    x, y = blobs(40, width=200)
    fitted = fit_logistic(x, y, 3, penalty=0.03)
    scaled = ((x - x.mean(0)) / x.std(0, correction=0)).double().numpy()
    oracle = LogisticRegression(C=1 / (0.03 * len(y)), tol=1e-9, max_iter=5000)
    oracle_probs = oracle.fit(scaled, y.numpy()).predict_proba(scaled)
    probs = (x.double() @ fitted.weight.T + fitted.bias).softmax(1).numpy()
    assert np.abs(probs - oracle_probs).max() < 1e-4


def test_the_number_of_threads_is_restored():
    before = torch.get_num_threads(), threadpool_info()
    x, y = blobs()
    fit_logistic(x, y, 3)
    assert (torch.get_num_threads(), threadpool_info()) == before


def test_the_search_stops_a_decade_below_the_best_penalty():
    x, y = blobs(120, width=40)
    results = fit_logistic(x, y, 3).results
    best = min(results, key=lambda result: result.loss).penalty
    assert results[-1].penalty == pytest.approx(max(best / 10, PENALTIES[-1]))
    assert [result.penalty for result in results] == list(PENALTIES[: len(results)])


def test_noise_needs_a_larger_penalty():
    x, y = blobs(120, width=40)
    noise = y[torch.randperm(120, generator=torch.Generator().manual_seed(1))]
    strong, weak = fit_logistic(x, noise, 3), fit_logistic(x, y, 3)
    assert strong.penalty > weak.penalty
    best = min(strong.results, key=lambda result: result.loss)
    assert best.penalty == strong.penalty
    assert all(0 <= result.accuracy <= 1 for result in strong.results)


def test_copies_and_views_stay_in_one_fold():
    y = torch.arange(200) % 4
    groups = [i // 8 for i in range(200)]
    fold = assign_folds(y, groups, seed=1)
    for group in set(groups):
        members = [i for i, g in enumerate(groups) if g == group]
        assert len(set(fold[members].tolist())) == 1
    assert set(fold.tolist()) == set(range(FOLDS))
    assert not torch.equal(fold, assign_folds(y, groups, seed=2))


def test_classes_are_spread_over_the_folds():
    y = torch.tensor([0] * 50 + [1] * 10)
    fold = assign_folds(y, range(60), seed=0)
    assert [int(((fold == k) & (y == 1)).sum()) for k in range(FOLDS)] == [2] * FOLDS


def test_copies_in_different_folds_would_leak():
    """Why groups matter: noise with copies is learned by heart otherwise."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(60, 80, generator=draw).repeat(4, 1)
    y = torch.randint(0, 2, (60,), generator=draw).repeat(4)
    grouped = fit_logistic(x, y, 2, groups=list(range(60)) * 4)
    leaked = fit_logistic(x, y, 2)
    assert max(result.accuracy for result in leaked.results) > 0.9
    assert max(result.accuracy for result in grouped.results) < 0.75


def test_a_single_group_is_refused():
    """No fold can be left out, so no penalty can be chosen."""
    x, y = blobs(30)
    with pytest.raises(DataError, match="all training images belong to one group") as e:
        fit_logistic(x, y, 3, groups=["lot 1"] * 30)
    assert "--head trained" in e.value.fix
    assert fit_logistic(x, y, 3, groups=["lot 1"] * 30, penalty=0.1).penalty == 0.1
    assert fit_logistic(x, y, 3, groups=["a"] * 15 + ["b"] * 15).results


def test_constant_features_and_one_image_a_class():
    x = torch.tensor([[1.0, 7.0], [2.0, 7.0]])
    fitted = fit_logistic(x, torch.tensor([0, 1]), 2, penalty=1e-3)
    assert fitted.weight[:, 1].abs().max() == 0
    assert (
        fit_logistic(x.repeat(2, 1), torch.tensor([0, 1, 0, 1]), 2)
        .weight.isfinite()
        .all()
    )


@pytest.mark.parametrize("classes", [1, 2, 7])
def test_any_number_of_classes(classes):
    x, y = blobs(70, classes=classes)
    assert fit_logistic(x, y, classes, penalty=0.1).weight.shape == (classes, 6)
