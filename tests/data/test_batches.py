"""Batches: the order is f(seed, epoch); all images once; no batch of one."""

from itertools import chain

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from striate.core.preprocess_config import Preprocess
from striate.data.batches import Batches
from striate.data.subset import Subset

PLAIN = Preprocess(channels=1, height=1, width=1, mean=(0.0,), std=(1.0,))


def batches(count, size, **options):
    pixels = torch.arange(count).byte().view(-1, 1, 1, 1)
    subset = Subset.of(pixels, list(range(count)), [str(i) for i in range(count)])
    return Batches(subset=subset, preprocess=PLAIN, batch_size=size, **options)


@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 3), st.booleans())
def test_every_image_once(count, size, epoch, shuffle):
    loader = batches(count, size, shuffle=shuffle)
    labels = [y.tolist() for _, y in loader(epoch)]
    assert sorted(chain.from_iterable(labels)) == list(range(count))
    assert len(labels) == len(loader)
    assert loader.images == count
    if size > 1 and count > 1:
        assert min(map(len, labels)) > 1
        assert max(map(len, labels)) <= size + 1
    else:
        assert {len(batch) for batch in labels} == {1}


def test_the_order_depends_on_seed_and_epoch():
    def order(seed, epoch):
        return torch.cat(batches(20, 8, seed=seed).indices(epoch)).tolist()

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)
    still = batches(20, 8, shuffle=False)
    assert torch.cat(still.indices(3)).tolist() == list(range(20))


def test_pixels_match_their_labels():
    for x, y in batches(10, 3)(1):
        assert torch.allclose(x.view(-1), y / 255)
        assert x.dtype == torch.float32


@pytest.mark.parametrize(
    ("count", "sizes"), [(1, [1]), (4, [4]), (5, [5]), (6, [4, 2])]
)
def test_a_last_batch_of_one_is_merged(count, sizes):
    """Batch norm has no variance over one image."""
    assert [len(y) for _, y in batches(count, 4, shuffle=False)()] == sizes


def test_mirroring_shows_every_image_both_ways_in_two_epochs():
    """The dark side of these images shows whether they are flipped."""
    pixels = torch.tensor([0, 200]).byte().view(1, 1, 2, 1).repeat(30, 1, 1, 1)
    subset = Subset.of(pixels, list(range(30)), [str(i) for i in range(30)])
    p = Preprocess(channels=1, height=1, width=2, mean=(0.0,), std=(1.0,))

    def turned(epoch, size=8, seed=0):
        loader = Batches(
            subset=subset, preprocess=p, batch_size=size, augment="flip", seed=seed
        )
        return {
            int(y): bool(x[0, 0, 0] > 0)
            for xs, ys in loader(epoch)
            for x, y in zip(xs, ys, strict=True)
        }

    first, second = turned(0), turned(1)
    assert all(first[i] != second[i] for i in range(30))
    assert 5 < sum(first.values()) < 25
    assert turned(0, size=30) == first
    assert turned(0, seed=1) != first
    plain = Batches(subset=subset, preprocess=p, batch_size=8)
    assert all(x[..., 0].eq(0).all() for x, _ in plain())
