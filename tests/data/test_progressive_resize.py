"""Images that grow: which size in which epoch, and that nothing else changes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from striate.core.preprocess import Preprocess
from striate.data.batches import Batches
from striate.data.progressive_resize import ProgressiveResize, growing_sides, resized
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
    heights = [height for height, _ in growing_sides(*case)]
    assert heights == [int(side) for side in TABLE[case].split()]


@given(
    st.tuples(st.integers(1, 400), st.integers(1, 400)),
    st.floats(0.01, 1.0),
    st.integers(1, 60),
)
def test_sides_never_shrink_and_end_full(full, share, epochs):
    sides = growing_sides(full, share, epochs)
    assert len(sides) == epochs
    assert sides[-1] == full
    assert all(e < 0.8 * epochs for e, side in enumerate(sides) if side != full)
    for along, most in zip(zip(*sides, strict=True), full, strict=True):
        assert list(along) == sorted(along)
        assert all(side == most or side % 16 == 0 for side in along)
        # Nearest multiple, so half of one below the share at most.
        assert along[0] >= min(share * most - 8, most)


def made(**settings):
    draw = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (9, 32, 32, 1), dtype=torch.uint8, generator=draw)
    subset = Subset.of(pixels, [i % 2 for i in range(9)], [str(i) for i in range(9)])
    how = {"channels": 1, "height": 32, "width": 32, "mean": (0.4,), "std": (0.3,)}
    return Batches(
        subset=subset, preprocess=Preprocess(**how), batch_size=4, classes=2, **settings
    )


@pytest.mark.parametrize("settings", [{}, {"augment": "six"}])
def test_batches_are_the_same_images_in_another_size(settings):
    plain = made(**settings)
    growing = ProgressiveResize(batches=plain, sides=growing_sides((32, 32), 0.5, 4))
    assert (len(growing), growing.images) == (len(plain), 9)
    assert growing.subset is plain.subset
    seen = []
    for epoch in range(6):  # a run made longer goes on at full size
        pairs = list(zip(growing(epoch), plain(epoch), strict=True))
        for (small, labels), (x, y) in pairs:
            assert torch.equal(labels, y)
            assert torch.equal(small, resized(x, tuple(small.shape[-2:])))
            if small.shape == x.shape:
                assert torch.equal(small, x)
        seen.append(pairs[0][0][0].shape[-1])
        orders = zip(growing.indices(epoch, 1), plain.indices(epoch, 1), strict=True)
        assert all(torch.equal(one, other) for one, other in orders)
    assert seen == [16, 16, 32, 32, 32, 32]


def test_begun_in_the_middle_of_an_epoch():
    growing = ProgressiveResize(batches=made(), sides=growing_sides((32, 32), 0.5, 4))
    whole, rest = list(growing(0)), list(growing(0, 1))
    assert len(rest) == len(whole) - 1
    for (x, _), (again, _) in zip(whole[1:], rest, strict=True):
        assert torch.equal(x, again)


def test_a_share_of_nothing_has_the_size_of_its_batch():
    """Of three images the fourth process gets none."""
    ranks = [made(rank=rank, world=6) for rank in range(6)]
    sides = growing_sides((32, 32), 0.5, 4)
    last = [list(ProgressiveResize(batches=b, sides=sides)(0))[-1][0] for b in ranks]
    assert {tuple(x.shape[1:]) for x in last} == {(1, 16, 16)}
    assert 0 in [len(x) for x in last]


def test_each_new_pixel_is_a_mean_over_what_it_covers():
    """Without the filter a fine pattern would become a coarse one: moiré."""
    stripes = torch.tensor([0.0, 1.0]).repeat(32).expand(1, 1, 64, 64)
    small = resized(stripes, (16, 16))
    assert (small - 0.5).abs().max() < 0.05
    assert small.is_contiguous() == stripes.contiguous().is_contiguous()
