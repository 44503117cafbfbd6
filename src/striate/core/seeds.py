"""Stateless randomness: every draw is a function of what it is for.

A draw named by (seed, purpose, epoch, …) is the same whatever was drawn before it,
so that workers, batch size and resumption cannot change it.
"""

from __future__ import annotations

import hashlib

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


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


def uniforms(index: np.ndarray, *parts: object) -> np.ndarray:
    """Return a draw in [0, 1) for each number, a function of it and the parts alone.

    The finaliser of SplitMix64 (Steele, Lea, Flood 2014) over counter and key: no draw
    depends on how many others are made, or in which order.

    Example:
        >>> both = uniforms(np.array([7, 8]), 0, "shift", 3)
        >>> bool(uniforms(np.array([8]), 0, "shift", 3)[0] == both[1])
        True
    """
    with np.errstate(over="ignore"):
        x = (index.astype(np.uint64) + np.uint64(1)) * _GOLDEN + np.uint64(
            derive(*parts)
        )
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x ^= x >> np.uint64(31)
    return (x >> np.uint64(11)).astype(np.float64) * 2.0**-53
