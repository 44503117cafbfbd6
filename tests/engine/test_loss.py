"""Loss functions: class weights, logit adjustment, label smoothing, heads."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from striate.core.aux_heads import HeadOutputs, total_loss
from striate.engine.loss import (
    ClassBalance,
    balanced_class_weights,
    class_priors,
    cross_entropy_loss,
)

LOGITS = torch.randn(60, 3, generator=torch.Generator().manual_seed(0)).double()
LABELS = torch.tensor([0] * 40 + [1] * 18 + [2] * 2)


def weighted_loss(smoothing, weights):
    return cross_entropy_loss(smoothing, ClassBalance(weights=weights))


def test_plain_loss_is_torchs_cross_entropy():
    for smoothing in (0.0, 0.1):
        loss = cross_entropy_loss(smoothing, None)(LOGITS, LABELS)
        assert loss == F.cross_entropy(LOGITS, LABELS, label_smoothing=smoothing)
        ones = weighted_loss(smoothing, torch.ones(3))(LOGITS, LABELS)
        assert ones.item() == pytest.approx(loss.item())


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_class_weight_equals_repetition(smoothing):
    """An image of weight 3 costs what three such images cost."""
    weights = torch.tensor([1.0, 2.0, 3.0])
    loss = weighted_loss(smoothing, weights)(LOGITS, LABELS)
    times = weights[LABELS].long()
    repeated = F.cross_entropy(
        LOGITS.repeat_interleave(times, 0),
        LABELS.repeat_interleave(times),
        label_smoothing=smoothing,
        reduction="sum",
    )
    assert loss.item() == pytest.approx(repeated.item() / len(LABELS))


def test_torch_class_weights_smooth_towards_rare_classes():
    """Why `weight=` is not used: a common image's gradient on the rare logit."""
    weights = balanced_class_weights(LABELS.bincount()).double()
    assert weights[2] > 9
    x, y = torch.zeros(1, 3).double(), torch.tensor([0])

    def rare_gradient(loss_fn):
        logits = x.clone().requires_grad_()
        loss_fn(logits, y).backward()
        return logits.grad[0, 2].item()

    torch_loss = rare_gradient(
        lambda a, b: F.cross_entropy(a, b, weights, label_smoothing=0.1)
    )
    loss = rare_gradient(weighted_loss(0.1, weights))
    assert loss > 0  # away from the wrong class …
    assert torch_loss < 0  # … and not towards it


def test_batch_losses_average_to_the_loss_of_the_set():
    """Torch's batch mean divides by the batch's weights, so parts are no whole."""
    weights = balanced_class_weights(LABELS.bincount())
    loss_fn = weighted_loss(0.1, weights)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    losses = [loss_fn(LOGITS[i], LABELS[i]).item() for i in order.split(10)]
    total = loss_fn(LOGITS, LABELS).item()
    assert sum(losses) / 6 == pytest.approx(total)
    torch_loss = [
        F.cross_entropy(LOGITS[i], LABELS[i], weights.double()).item()
        for i in order.split(10)
    ]
    assert sum(torch_loss) / 6 != pytest.approx(
        F.cross_entropy(LOGITS, LABELS, weights.double()).item(), rel=1e-3
    )


def test_class_weights_apply_to_auxiliary_heads():
    loss_fn = weighted_loss(0.0, torch.tensor([1.0, 1.0, 5.0]))
    heads = HeadOutputs(LOGITS, (LOGITS * 2,), 0.3)
    expected = loss_fn(LOGITS, LABELS) + 0.3 * loss_fn(LOGITS * 2, LABELS)
    assert total_loss(loss_fn, heads, LABELS) == expected


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=9).filter(any))
def test_balanced_class_weights_against_scikit_learn(counts):
    from sklearn.utils.class_weight import compute_class_weight

    weights_ = balanced_class_weights(torch.tensor(counts))
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)).numpy()
    present = [i for i, n in enumerate(counts) if n]
    names = np.array(present)
    expected = compute_class_weight("balanced", classes=names, y=labels)
    assert weights_[present].tolist() == pytest.approx(expected.tolist(), rel=1e-6)
    assert all(weights_[i] == 0 for i, n in enumerate(counts) if not n)
    mass = [w * n for w, n in zip(weights_.tolist(), counts, strict=True) if n]
    assert mass == pytest.approx([sum(counts) / len(present)] * len(present), rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.4])
def test_logit_adjustment_removes_class_frequency(smoothing):
    """Where images tell nothing, the best logits are equal, however uneven the
    classes; with an evenly smoothed target they would not be."""
    prior = class_priors(LABELS.bincount()).double()
    flat = torch.zeros(60, 3, dtype=torch.double, requires_grad=True)
    cross_entropy_loss(smoothing, ClassBalance(prior=prior))(flat, LABELS).backward()
    assert flat.grad.sum(0).abs().max() < 1e-7
    logits = torch.zeros(60, 3, dtype=torch.double, requires_grad=True)
    unadjusted = cross_entropy_loss(smoothing)(logits + prior.log(), LABELS)
    unadjusted.backward()
    assert (logits.grad.sum(0).abs().max() > 1e-3) == (smoothing > 0)


def test_logit_adjustment_for_even_classes_is_plain_cross_entropy():
    even = class_priors(torch.tensor([20, 20, 20])).double()
    for smoothing in (0.0, 0.1):
        adjusted = cross_entropy_loss(smoothing, ClassBalance(prior=even))(
            LOGITS, LABELS
        )
        assert adjusted.item() == pytest.approx(
            cross_entropy_loss(smoothing)(LOGITS, LABELS).item()
        )


def test_class_priors_of_empty_classes_are_positive():
    assert class_priors(torch.tensor([8, 0])).tolist() == pytest.approx([8 / 9, 1 / 9])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("name", ["weights", "prior"])
def test_loss_of_mixed_images_is_the_mixed_loss(name, smoothing):
    even = torch.tensor([0.2, 0.3, 0.5]).double()
    loss_fn = cross_entropy_loss(smoothing, ClassBalance(**{name: even}))
    first, second = LABELS, LABELS.roll(1)
    shares_of = [F.one_hot(y, 3).double() for y in (first, second)]
    mixed = loss_fn(LOGITS, 0.7 * shares_of[0] + 0.3 * shares_of[1])
    losses = 0.7 * loss_fn(LOGITS, first) + 0.3 * loss_fn(LOGITS, second)
    assert mixed.item() == pytest.approx(losses.item(), rel=1e-9)
