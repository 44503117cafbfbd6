"""An epoch that shows every class equally often, as a function of seed and epoch."""

from __future__ import annotations

import numpy as np

from striate.core.seeds import permutation


def balanced_order(labels: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """Return the image numbers of a balanced epoch, as many as there are images.

    Each class has an endless row of shuffles of its own images, and an epoch takes
    the next stretch of it, 1/C of the epoch long: over the epochs, all images of a
    class are shown equally often, to one. A large class is spread over several
    epochs; a small one repeats within one.

    Args:
        labels: (N,) class numbers.
        seed: Of the run.
        epoch: Counted from 0.

    Example:
        >>> order = balanced_order(np.array([0, 0, 0, 0, 0, 1]), 0, 0)
        >>> sorted(order.tolist()).count(5), len(order)
        (3, 6)
    """
    numbers, starts = np.unique(np.sort(labels), return_index=True)
    classes = np.split(np.argsort(labels, kind="stable"), starts[1:])
    begins, ends = (_shown(len(labels) * e, len(classes)) for e in (epoch, epoch + 1))
    drawn = [
        _row(members, begin, end, seed, int(number))
        for members, begin, end, number in zip(
            classes, begins, ends, numbers, strict=True
        )
    ]
    together = np.concatenate(drawn)
    mixed: np.ndarray = together[permutation(len(together), seed, "balanced", epoch)]
    return mixed


def _shown(images: int, classes: int) -> list[int]:
    """Return how many of so many images each class has shown; they differ by one."""
    return [(images + classes - 1 - c) // classes for c in range(classes)]


def _row(
    members: np.ndarray, begin: int, end: int, seed: int, label: int
) -> np.ndarray:
    """Return places `begin` to `end` of a class's endless row of shuffles."""
    size = len(members)
    rounds = range(begin // size, -(-end // size))
    shuffles = [
        members[permutation(size, seed, "balanced", label, turn)] for turn in rounds
    ]
    first = begin - rounds.start * size
    return np.concatenate(shuffles)[first : first + end - begin]
