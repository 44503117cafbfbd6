"""Loss and outputs of several labels per image; one class per image as before."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, balanced_accuracy_score
from torch.nn import functional as F

from striate.data.augment.mix import mixed_targets
from striate.engine.evaluate import Outputs
from striate.engine.loss import ClassBalance, positive_weights
from striate.engine.task import MULTI_LABEL, SINGLE_LABEL, task_of


def drawn(count=50):
    torch.manual_seed(0)
    labels = (torch.rand(count, 3) < torch.tensor([0.5, 0.2, 0.1])).byte()
    return torch.randn(count, 3) + labels, labels


def test_the_loss_is_that_of_torch():
    logits, labels = drawn()
    plain = F.binary_cross_entropy_with_logits(logits, labels.float())
    assert torch.equal(MULTI_LABEL.loss(0.0, None)(logits, labels), plain)
    assert MULTI_LABEL.losses(logits, labels).mean().item() == pytest.approx(
        plain.item()
    )
    weights = positive_weights(labels.sum(0), len(labels))
    expected = F.binary_cross_entropy_with_logits(
        logits, labels.float(), pos_weight=weights
    )
    weighted = MULTI_LABEL.loss(0.0, ClassBalance(weights=weights))
    assert torch.equal(weighted(logits, labels), expected)
    soft = labels.float() * 0.9 + 0.1 / 3  # as timm's BinaryCrossEntropy
    smooth = F.binary_cross_entropy_with_logits(logits, soft)
    assert torch.equal(MULTI_LABEL.loss(0.1, None)(logits, labels), smooth)


def test_positive_weights_balance_each_class():
    _, labels = drawn(400)
    weights = positive_weights(labels.sum(0), 400)
    positives = labels.sum(0) * weights
    assert positives.tolist() == pytest.approx((400 - labels.sum(0)).tolist())
    rare = positive_weights(torch.tensor([1, 0, 5000]), 5000)
    assert rare.tolist() == [100.0, 1.0, 1.0]


def test_outputs_are_measured_as_by_scikit_learn():
    logits, labels = drawn()
    losses = MULTI_LABEL.losses(logits, labels)
    outputs = Outputs(logits=logits, labels=labels, losses=losses)
    y, predicted = labels.numpy(), (logits > 0).numpy()
    assert outputs.accuracy == pytest.approx((y == predicted).all(1).mean())
    columns = zip(y.T, predicted.T, strict=True)
    balanced = [balanced_accuracy_score(a, b) for a, b in columns]
    assert outputs.balanced_accuracy == pytest.approx(np.mean(balanced), abs=1e-6)
    expected = average_precision_score(y, logits.numpy(), average="macro")
    assert outputs.mean_ap == pytest.approx(expected)
    assert outputs.probs.numpy() == pytest.approx(1 / (1 + np.exp(-logits.numpy())))
    empty = Outputs(logits=logits, labels=labels * 0, losses=losses)
    assert empty.mean_ap is None


def test_one_class_per_image_stays_cross_entropy():
    logits, labels = drawn()[0], torch.arange(50) % 3
    assert task_of(labels) is SINGLE_LABEL
    outputs = Outputs(logits=logits, labels=labels, losses=torch.zeros(50))
    assert torch.equal(outputs.probs, logits.softmax(1))
    assert outputs.mean_ap is None
    expected = F.cross_entropy(logits, labels, label_smoothing=0.1)
    assert torch.equal(SINGLE_LABEL.loss(0.1, None)(logits, labels), expected)


def test_mixed_labels_are_weighted_sums():
    labels = torch.tensor([[1, 0], [1, 1]]).byte()
    mixed = mixed_targets(labels, labels.flip(0), np.array([0.75, 1.0]), 2)
    assert mixed.tolist() == [[1.0, 0.25], [1.0, 1.0]]
