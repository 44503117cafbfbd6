"""Mirroring: every picture both ways in two epochs, whatever the batches."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from striate.core.spec import Preprocess
from striate.data.augment import mirror, mirrored
from striate.data.batches import Batches
from striate.data.part import Part

UNCHANGED = Preprocess(channels=1, height=1, width=3, mean=(0.0,), std=(1 / 255,))


def part(count: int) -> Part:
    """Pictures that no other picture's mirror image equals: (i, 0, 100 + i)."""
    rows = torch.tensor([[[[i], [0], [100 + i]]] for i in range(count)])
    return Part.of(rows.byte(), [0] * count, [str(i) for i in range(count)])


def shown(batches: Batches, epoch: int) -> dict[int, tuple[float, ...]]:
    """Return what each picture looked like, by its number."""
    rows = [row for x, _ in batches(epoch) for row in x.flatten(1).tolist()]
    return {round(min(row[0], row[2])): tuple(round(v) for v in row) for row in rows}


@given(st.integers(2, 40), st.integers(0, 50), st.integers(0, 9))
def test_two_epochs_show_every_picture_both_ways(count, epoch, seed):
    first, second = mirrored(count, epoch, seed), mirrored(count, epoch + 1, seed)
    assert bool((first ^ second).all())
    assert torch.equal(first, mirrored(count, epoch + 2, seed))


def test_about_half_are_mirrored():
    assert 400 < int(mirrored(1000, 0, 3).sum()) < 600


def test_batch_size_changes_no_picture():
    looks = [
        shown(
            Batches(
                part=part(20), preprocess=UNCHANGED, batch_size=n, augment="mirror"
            ),
            epoch=1,
        )
        for n in (3, 7, 20)
    ]
    assert looks[0] == looks[1] == looks[2]
    flips = mirrored(20, 1, 0)
    for i, row in looks[0].items():
        assert row == ((100 + i, 0, i) if flips[i] else (i, 0, 100 + i))


def test_without_it_pictures_stay():
    batches = Batches(part=part(9), preprocess=UNCHANGED, batch_size=4)
    assert all(row == (i, 0, 100 + i) for i, row in shown(batches, 0).items())


def test_mirroring_twice_is_nothing():
    pixels = torch.randint(0, 256, (5, 4, 3, 2), dtype=torch.uint8)
    which = torch.tensor([True, False, True, True, False])
    assert torch.equal(mirror(mirror(pixels, which), which), pixels)
    assert torch.equal(mirror(pixels, which)[0], pixels[0].flip(1))
