"""Stateless random numbers: each is a function of a key (seed, purpose, epoch, …).

A random number does not depend on earlier ones, so workers, batch size and resuming
do not change it.
"""

from __future__ import annotations

import numpy as np

from striate.core.derive_seed import derive_seed

# SplitMix64's step and multipliers (Steele, Lea & Flood 2014, "Fast splittable
# pseudorandom number generators"; the constants are those of Java 8).
_STEP = np.uint64(0x9E3779B97F4A7C15)
_MIX = (
    (np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)),
    (np.uint64(27), np.uint64(0x94D049BB133111EB)),
)
COLUMNS = 1024  # maximum number of random numbers per sample


def numpy_generator(*parts: object) -> np.random.Generator:
    """Return a NumPy random generator seeded with the parts of a key."""
    return np.random.Generator(np.random.PCG64(derive_seed(*parts)))


def permutation(count: int, *parts: object) -> np.ndarray:
    """Return a random permutation of range(count) that depends only on the key.

    Example:
        >>> sorted(permutation(4, 0, "order", 0).tolist())
        [0, 1, 2, 3]
    """
    return numpy_generator(*parts).permutation(count)


def uniform(samples: np.ndarray, columns: range, *parts: object) -> np.ndarray:
    """Return uniform random numbers in [0, 1) for each sample index and column.

    Entry (i, k) is element `samples[i] * COLUMNS + columns[k]` of the SplitMix64
    sequence with seed `derive_seed(*parts)`. The numbers of a sample therefore do not
    depend on the other samples of the batch.

    Args:
        samples: (N,) sample indices.
        columns: Indices of the random numbers of a sample, below `COLUMNS`.
        parts: The key, for example seed, purpose and epoch.

    Shapes:
        (N,) → (N, len(columns)), float64

    Example:
        >>> both = uniform(np.array([3, 8]), range(2), 0, "rotate", 1)
        >>> bool((both[1:] == uniform(np.array([8]), range(2), 0, "rotate", 1)).all())
        True
    """
    if columns and not 0 <= min(columns) <= max(columns) < COLUMNS:
        raise ValueError(f"columns {columns} are not within 0–{COLUMNS - 1}")
    first = samples.astype(np.uint64)[:, None] * np.uint64(COLUMNS)
    places = first + np.array(columns, np.uint64)
    bits = np.uint64(derive_seed(*parts)) + (places + np.uint64(1)) * _STEP
    for shift, factor in _MIX:
        bits = (bits ^ (bits >> shift)) * factor
    bits ^= bits >> np.uint64(31)
    # A float64 in [0, 1) has 53 random bits.
    return (bits >> np.uint64(11)) * 2.0**-53
