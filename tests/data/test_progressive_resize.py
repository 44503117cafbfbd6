"""Progressive resizing: the size of each epoch; nothing else changes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from striate.core.preprocess_config import Preprocess
from striate.data.batches import Batches
from striate.data.progressive_resize import (
    ProgressiveResize,
    resize_batch,
    sides_by_epoch,
)
from striate.data.subset import Subset

TABLE = {
    ((96, 96), 0.5, 10): "48 48 64 64 64 80 80 96 96 96",
    ((224, 224), 0.5, 8): "112 128 144 160 176 192 224 224",
    ((128, 96), 0.5, 5): "64 80 96 112 128",
    ((28, 28), 0.5, 4): "16 16 16 28",
    ((100, 100), 0.25, 5): "32 48 64 80 100",
    ((8, 8), 0.5, 3): "8 8 8",
    ((96, 96), 0.5, 1): "96",
    ((96, 96), 0.5, 2): "48 96",
    ((96, 96), 1.0, 3): "96 96 96",
}


@pytest.mark.parametrize("case", TABLE)
def test_sides_by_epoch(case):
    heights = [height for height, _ in sides_by_epoch(*case)]
    assert heights == [int(side) for side in TABLE[case].split()]


@given(
    st.tuples(st.integers(1, 400), st.integers(1, 400)),
    st.floats(0.01, 1.0),
    st.integers(1, 60),
)
def test_sides_never_shrink_and_end_full(full, share, epochs):
    sides = sides_by_epoch(full, share, epochs)
    assert len(sides) == epochs
    assert sides[-1] == full
    assert all(e < 0.8 * epochs for e, side in enumerate(sides) if side != full)
    for along, most in zip(zip(*sides, strict=True), full, strict=True):
        assert list(along) == sorted(along)
        assert all(side == most or side % 16 == 0 for side in along)
        # Nearest multiple, so half of one below the share at most.
        assert along[0] >= min(share * most - 8, most)


def make_batches(**settings):
    draw = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (9, 32, 32, 1), dtype=torch.uint8, generator=draw)
    subset = Subset.of(pixels, [i % 2 for i in range(9)], [str(i) for i in range(9)])
    settings_of_images = {
        "channels": 1,
        "height": 32,
        "width": 32,
        "mean": (0.4,),
        "std": (0.3,),
    }
    return Batches(
        subset=subset,
        preprocess=Preprocess(**settings_of_images),
        batch_size=4,
        classes=2,
        **settings,
    )


@pytest.mark.parametrize("settings", [{}, {"augment": "six"}])
def test_batches_are_the_same_images_in_another_size(settings):
    plain = make_batches(**settings)
    resized = ProgressiveResize(batches=plain, sides=sides_by_epoch((32, 32), 0.5, 4))
    assert (len(resized), resized.images) == (len(plain), 9)
    assert resized.subset is plain.subset
    widths = []
    for epoch in range(6):  # a run made longer goes on at full size
        pairs = list(zip(resized(epoch), plain(epoch), strict=True))
        for (small, labels), (x, y) in pairs:
            assert torch.equal(labels, y)
            assert torch.equal(small, resize_batch(x, tuple(small.shape[-2:])))
            if small.shape == x.shape:
                assert torch.equal(small, x)
        widths.append(pairs[0][0][0].shape[-1])
        orders = zip(resized.indices(epoch, 1), plain.indices(epoch, 1), strict=True)
        assert all(torch.equal(a, b) for a, b in orders)
    assert widths == [16, 16, 32, 32, 32, 32]


def test_starting_in_the_middle_of_an_epoch():
    resized = ProgressiveResize(
        batches=make_batches(), sides=sides_by_epoch((32, 32), 0.5, 4)
    )
    whole, rest = list(resized(0)), list(resized(0, 1))
    assert len(rest) == len(whole) - 1
    for (x, _), (again, _) in zip(whole[1:], rest, strict=True):
        assert torch.equal(x, again)


def test_an_empty_share_has_the_size_of_its_batch():
    """Of three images the last processes get none."""
    ranks = [make_batches(rank=rank, world_size=6) for rank in range(6)]
    sides = sides_by_epoch((32, 32), 0.5, 4)
    last = [list(ProgressiveResize(batches=b, sides=sides)(0))[-1][0] for b in ranks]
    assert {tuple(x.shape[1:]) for x in last} == {(1, 16, 16)}
    assert 0 in [len(x) for x in last]


def test_each_new_pixel_is_the_mean_of_the_pixels_it_covers():
    """Without the filter a fine pattern would become a coarse one: moiré."""
    stripes = torch.tensor([0.0, 1.0]).repeat(32).expand(1, 1, 64, 64)
    small = resize_batch(stripes, (16, 16))
    assert (small - 0.5).abs().max() < 0.05
    assert small.is_contiguous() == stripes.contiguous().is_contiguous()
