"""Probes: learning curves of linear heads, on folds that leak nothing."""

import pytest
import torch

from striate.finetune.linear_probe import FRACTIONS, Probe, ProbePoint, curve, turns


def blobs(count=200, seed=0):
    draw = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % 2
    return torch.randn(count, 5, generator=draw) + 1.2 * y[:, None], y


def test_more_images_know_more():
    x, y = blobs()
    points = curve(x, y, 2, range(len(y)))
    assert [point.images for point in points] == [40, 80, 160]
    assert points[-1].cost < points[0].cost
    assert points[-1].accuracy > 0.85
    # The penalty chosen with all, of a mean over fewer.
    assert points[0].penalty == pytest.approx(points[-1].penalty * 200 / 50)


def test_copies_do_not_help():
    """Every image stands there twice; were copies parted, all would be known."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(60, 80, generator=draw).repeat(2, 1)
    y = (torch.arange(60) % 2).repeat(2)
    told = curve(x, y, 2, list(range(60)) * 2)[-1].accuracy
    fooled = curve(x, y, 2, range(120))[-1].accuracy
    assert told < 0.7 < fooled


def test_fractions_are_nested_whole_and_alike():
    y = torch.tensor([0] * 80 + [1] * 40)
    groups = [f"g{i // 2}" for i in range(120)]
    turn, count = turns(y, groups, 3)
    share = turn / count
    for fraction in FRACTIONS:
        within = share <= fraction
        assert within[::2].tolist() == within[1::2].tolist()
        shown = y[within].bincount(minlength=2).tolist()
        assert shown == [80 * fraction, 40 * fraction]


def test_few_images_give_one_point():
    x, y = blobs(24)
    assert len(curve(x, y, 2, range(24))) == 1


def test_few_large_groups_give_one_point():
    """A quarter of one group a class is none of it, however many images it has."""
    x, y = blobs(200)
    assert len(curve(x, y, 2, y.tolist())) == 1


@pytest.mark.parametrize(("each", "points"), [(3, 1), (4, 2), (8, 3)])
def test_a_fold_never_has_all_that_is_learned_of_a_class(each, points):
    """Two groups of each class at least, or it is unknown wherever it is judged."""
    x, y = blobs(400)
    groups = [f"{label} {k // 2 % each}" for k, label in enumerate(y.tolist())]
    found = curve(x, y, 2, groups)
    assert len(found) == points
    assert min(point.accuracy for point in found) > 0.8


def test_an_error_is_never_nought():
    point = ProbePoint(images=40, accuracy=1.0, cost=0.1, penalty=0.1)
    found = Probe(cut="a", width=5, count=50, points=(point,))
    assert found.accuracy == 1.0
    assert 0 < found.error < 0.05
