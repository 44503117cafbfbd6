"""The chance that layers draw from, dropout's above all, as a function of the step."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from striate.core.seeds import derive_seed

_NUMPY_SEEDS = 1 << 32


def seed_rng(device: torch.device, *parts: object) -> None:
    """Make everything drawn from now on a function of the parts.

    Torch's generator is seeded, and those of Python and NumPy, which networks of the
    user's own may draw from. Not `torch.manual_seed`: it asks after every kind of
    accelerator, which takes 0.25 ms against 0.02 (docs/notebook/training-speed.md).

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
    """Give every generator of the processor back in the state it was in."""
    state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(state[0])
            np.random.set_state(state[1])
