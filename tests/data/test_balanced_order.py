"""Balanced epochs: equal classes, equal images of a class, f(seed, epoch)."""

from collections import Counter
from itertools import chain

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from striate.core.preprocess_config import Preprocess
from striate.data.batches import Batches, balanced_order
from striate.data.subset import Subset

COUNTS = st.lists(st.integers(0, 20), min_size=1, max_size=6).filter(any)


def labels_of(counts):
    return np.repeat(np.arange(len(counts)), counts)


@given(COUNTS, st.integers(0, 3), st.integers(1, 6))
def test_classes_are_equal_in_an_epoch_and_images_over_epochs(counts, seed, epochs):
    labels = labels_of(counts)
    orders = [balanced_order(labels, seed, epoch) for epoch in range(epochs)]
    present = [k for k, n in enumerate(counts) if n]
    for order in orders:
        assert len(order) == len(labels)
        counts = Counter(labels[order].tolist())
        assert max(counts[k] for k in present) - min(counts[k] for k in present) <= 1
    times = Counter(chain.from_iterable(order.tolist() for order in orders))
    totals = Counter(labels[list(times.elements())].tolist())
    assert max(totals[k] for k in present) - min(totals[k] for k in present) <= 1
    for k in present:
        each = [times[i] for i in np.flatnonzero(labels == k)]
        assert max(each) - min(each) <= 1


def test_the_order_depends_on_seed_and_epoch():
    labels = labels_of([30, 5, 1])
    first = balanced_order(labels, 0, 3).tolist()
    assert first == balanced_order(labels, 0, 3).tolist()
    assert first != balanced_order(labels, 0, 4).tolist()
    assert first != balanced_order(labels, 1, 3).tolist()
    # No class comes first: the epoch is mixed.
    assert len(set(labels[first[:12]].tolist())) > 1


def test_balanced_batches():
    labels = labels_of([50, 7])
    pixels = torch.arange(57).byte().view(-1, 1, 1, 1)
    subset = Subset.of(pixels, labels.tolist(), [str(i) for i in range(57)])
    plain = Preprocess(channels=1, height=1, width=1, mean=(0.0,), std=(1.0,))
    batches = Batches(
        subset=subset, preprocess=plain, batch_size=8, balanced=True, seed=2
    )
    counts = list(batches(1))
    assert [len(y) for _, y in counts] == [8] * 6 + [9]
    assert torch.cat([y for _, y in counts]).bincount().tolist() == [28, 29]
    assert (
        torch.cat(batches.indices(1)).tolist() == balanced_order(labels, 2, 1).tolist()
    )
    for x, y in counts:
        assert ((x.view(-1) * 255).round() >= 50).tolist() == y.bool().tolist()
