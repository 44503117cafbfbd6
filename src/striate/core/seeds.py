"""Stateless randomness: every draw is a function of what it is for.

A draw named by (seed, purpose, epoch, …) is the same whatever was drawn before it,
so that workers, batch size and resumption cannot change it.
"""

from __future__ import annotations

import hashlib

import numpy as np

# SplitMix64's step and multipliers (Steele, Lea & Flood 2014, "Fast splittable
# pseudorandom number generators"; the constants are those of Java 8).
_STEP = np.uint64(0x9E3779B97F4A7C15)
_MIX = (
    (np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)),
    (np.uint64(27), np.uint64(0x94D049BB133111EB)),
)
COLUMNS = 1024  # draws that a sample may have; they stand side by side


def derive(*parts: object) -> int:
    """Hash the parts into a 63-bit seed.

    Example:
        >>> derive(0, "order", 1) == derive(0, "order", 1)
        True
        >>> derive(0, "order", 1) == derive(0, "order", 2)
        False
    """
    text = "\x1f".join(repr(part) for part in parts).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def generator(*parts: object) -> np.random.Generator:
    """Return a NumPy generator that belongs to these parts alone."""
    return np.random.Generator(np.random.PCG64(derive(*parts)))


def permutation(count: int, *parts: object) -> np.ndarray:
    """Return an order of `count` things that is a function of the parts.

    Example:
        >>> sorted(permutation(4, 0, "order", 0).tolist())
        [0, 1, 2, 3]
    """
    return generator(*parts).permutation(count)


def uniform(samples: np.ndarray, columns: range, *parts: object) -> np.ndarray:
    """Return numbers in [0, 1), each a function of parts, sample and column alone.

    Entry (i, k) is the number at place `samples[i] * COLUMNS + columns[k]` of the
    SplitMix64 sequence that starts at `derive(*parts)`; nothing is stepped through, so
    a sample's draws do not depend on who else is in its batch.

    Args:
        samples: (N,) numbers of the samples, from 0.
        columns: Which of a sample's draws, below `COLUMNS`.
        parts: What they are for: seed, purpose, epoch.

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
    bits = np.uint64(derive(*parts)) + (places + np.uint64(1)) * _STEP
    for shift, factor in _MIX:
        bits = (bits ^ (bits >> shift)) * factor
    bits ^= bits >> np.uint64(31)
    # 53 bits are what a float64 in [0, 1) holds evenly.
    return (bits >> np.uint64(11)) * 2.0**-53
