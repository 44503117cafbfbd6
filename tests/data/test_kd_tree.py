"""The search for close pairs finds exactly what trying every pair would find."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from striate.data.check import kd_tree
from striate.data.check.kd_tree import pairs_within_radius, rank_by_distance


def brute(points, radius, others=None, tangents=None, reach=None):
    """Every pair i < j, by the definition."""
    theirs = points if others is None else others
    found = {}
    for i in range(len(points)):
        for j in range(len(points)):
            if i == j:
                continue
            error = theirs[j] - points[i]
            square = float((error**2).sum())
            if square > (reach or radius) ** 2:
                continue
            if tangents is not None:
                along = tangents(np.array([i]))[0] @ error
                square -= float((along**2).sum())
            if square <= radius**2:
                found[i, j] = square
    return found


def pairs(found):
    return {
        tuple(sorted(p))
        for p in zip(found.first.tolist(), found.second.tolist(), strict=True)
    }


@pytest.fixture
def small_leaves(monkeypatch):
    monkeypatch.setattr(kd_tree, "LEAF_SIZE", 16)
    monkeypatch.setattr(kd_tree, "LEAVES_PER_BLOCK", 2)
    monkeypatch.setattr(kd_tree, "MAX_PENDING", 1)


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), radius=st.floats(0.05, 0.8))
def test_all_pairs_of_random_points(seed, radius):
    points = np.random.default_rng(seed).random((60, 3), np.float32)
    found = pairs_within_radius(points, radius, keep=60)
    expected = {tuple(sorted(p)) for p in brute(points, radius)}
    # Rounding decides about pairs that lie on the radius itself.
    for i, j in expected ^ pairs(found):
        assert abs(np.linalg.norm(points[i] - points[j]) - radius) < 1e-3
    assert len(pairs(found)) == len(found)


def test_many_leaves_and_early_pruning(small_leaves):
    points = np.random.default_rng(1).random((300, 5)).astype(np.float32)
    found = pairs_within_radius(points, 0.3, keep=300)
    assert pairs(found) == {tuple(sorted(p)) for p in brute(points, 0.3)}


def test_only_the_nearest_pairs_of_a_point_are_kept(small_leaves):
    points = np.random.default_rng(2).random((200, 4)).astype(np.float32)
    found = pairs_within_radius(points, 0.6, keep=2)
    every = brute(points, 0.6)
    expected = set()
    for i in range(200):
        mine = sorted((square, j) for (a, j), square in every.items() if a == i)[:2]
        expected |= {tuple(sorted((i, j))) for _, j in mine}
    assert pairs(found) == expected


def test_flipped_second_points(small_leaves):
    points = np.random.default_rng(3).normal(size=(150, 6)).astype(np.float32)
    flipped = np.ascontiguousarray(points[:, ::-1])
    found = pairs_within_radius(points, 1.2, keep=150, others=flipped)
    expected = {tuple(sorted(p)) for p in brute(points, 1.2, others=flipped)}
    assert pairs(found) == expected


def test_tangents_shorten_the_distance(small_leaves):
    """Along the first axis everything is free; a tree by it alone must not prune."""
    points = np.random.default_rng(4).random((120, 3)).astype(np.float32)

    def along_first(rows):
        return np.tile(np.array([[[1, 0, 0]]], np.float32), (len(rows), 1, 1))

    found = pairs_within_radius(points, 0.1, keep=120, tangents=along_first, reach=0.7)
    expected = brute(points, 0.1, tangents=along_first, reach=0.7)
    assert pairs(found) == {tuple(sorted(p)) for p in expected}
    assert len(found) > len(pairs_within_radius(points, 0.1, keep=120))


def test_equal_points_are_all_found(small_leaves):
    points = np.zeros((40, 3), np.float32)
    assert len(pairs_within_radius(points, 0.1, keep=40)) == 40 * 39 // 2


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_points(count):
    found = pairs_within_radius(np.zeros((count, 3), np.float32), 0.5, keep=3)
    assert len(found) == (count == 2)


def test_rank_by_distance():
    ends = np.array([5, 5, 1, 5, 1])
    distances = np.array([0.3, 0.1, 0.0, 0.2, 7.0])
    assert rank_by_distance(ends, distances).tolist() == [2, 0, 0, 1, 1]
