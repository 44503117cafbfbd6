"""RNG state: seeded for each step, so that dropout is a function of seed and step."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from striate.core.seeds import derive_seed

_NUMPY_SEEDS = 1 << 32


def seed_rng(device: torch.device, *parts: object) -> None:
    """Seed the RNGs of torch, Python and NumPy by the parts of a key.

    Networks of the user may draw from any of them. Not `torch.manual_seed`: it looks
    for every kind of accelerator, which takes 0.25 ms against 0.02
    (docs/notebook/training-speed.md).

    Example:
        >>> seed_rng(torch.device("cpu"), 0, "dropout", 12)
        >>> first = torch.rand(2)
        >>> seed_rng(torch.device("cpu"), 0, "dropout", 12)
        >>> bool((torch.rand(2) == first).all())
        True
    """
    seed = derive_seed(*parts)
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % _NUMPY_SEEDS)


@contextmanager
def preserve_rng_state() -> Iterator[None]:
    """Context manager: restore the RNG states of torch (CPU), Python and NumPy."""
    state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(state[0])
            np.random.set_state(state[1])
