"""Stateless randomness: every draw is a function of what it is for.

A draw named by (seed, purpose, epoch, …) is the same whatever was drawn before it,
so that workers, batch size and resumption cannot change it.
"""

from __future__ import annotations

import hashlib

import numpy as np


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
