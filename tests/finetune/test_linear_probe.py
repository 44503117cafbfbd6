"""Linear probes: learning curves by cross-validation without leaks."""

import pytest
import torch

from striate.finetune.linear_probe import (
    FRACTIONS,
    LinearProbe,
    ProbePoint,
    order_in_class,
    probe_learning_curve,
)


def blobs(count=200, seed=0):
    draw = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % 2
    return torch.randn(count, 5, generator=draw) + 1.2 * y[:, None], y


def test_more_training_images_give_a_higher_accuracy():
    x, y = blobs()
    points = probe_learning_curve(x, y, 2, range(len(y)))
    assert [point.images for point in points] == [40, 80, 160]
    assert points[-1].loss < points[0].loss
    assert points[-1].accuracy > 0.85
    # The penalty chosen with all, of a mean over fewer.
    assert points[0].penalty == pytest.approx(points[-1].penalty * 200 / 50)


def test_copies_of_an_image_do_not_leak():
    """Every image is there twice; in two folds, it would be learned by heart."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(60, 80, generator=draw).repeat(2, 1)
    y = (torch.arange(60) % 2).repeat(2)
    accuracy = probe_learning_curve(x, y, 2, list(range(60)) * 2)[-1].accuracy
    leaked = probe_learning_curve(x, y, 2, range(120))[-1].accuracy
    assert accuracy < 0.7 < leaked


def test_fractions_are_nested_and_keep_groups_and_class_shares():
    y = torch.tensor([0] * 80 + [1] * 40)
    groups = [f"g{i // 2}" for i in range(120)]
    position, count = order_in_class(y, groups, 3)
    share = position / count
    for fraction in FRACTIONS:
        within = share <= fraction
        assert within[::2].tolist() == within[1::2].tolist()
        counts = y[within].bincount(minlength=2).tolist()
        assert counts == [80 * fraction, 40 * fraction]


def test_few_images_give_one_point():
    x, y = blobs(24)
    assert len(probe_learning_curve(x, y, 2, range(24))) == 1


def test_few_large_groups_give_one_point():
    """A quarter of one group a class is none of it, however many images it has."""
    x, y = blobs(200)
    assert len(probe_learning_curve(x, y, 2, y.tolist())) == 1


@pytest.mark.parametrize(("each", "points"), [(3, 1), (4, 2), (8, 3)])
def test_every_class_keeps_training_images_in_each_fold(each, points):
    """At least two groups per class, or it has no training images in one fold."""
    x, y = blobs(400)
    groups = [f"{label} {k // 2 % each}" for k, label in enumerate(y.tolist())]
    curve = probe_learning_curve(x, y, 2, groups)
    assert len(curve) == points
    assert min(point.accuracy for point in curve) > 0.8


def test_the_standard_error_is_never_0():
    point = ProbePoint(images=40, accuracy=1.0, loss=0.1, penalty=0.1)
    probe = LinearProbe(cut="a", width=5, count=50, points=(point,))
    assert probe.accuracy == 1.0
    assert 0 < probe.error < 0.05
