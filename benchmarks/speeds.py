"""Measure the machine's peak matrix-product speed and copy bandwidth."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch


def best(work: Callable[[], object], times: int = 9) -> float:
    """Return the seconds of the fastest of `times` runs."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return min(taken)


def speeds() -> str:
    """Return the peak matrix-product speed and the copy bandwidth as a sentence."""
    a, out = torch.randn(2048, 2048), torch.empty(2048, 2048)
    source, target = torch.randn(1 << 25), torch.empty(1 << 25)
    product = best(lambda: torch.mm(a, a, out=out))
    copy = best(lambda: target.copy_(source))
    return (
        f"Machine: sgemm {2 * 2048**3 / product / 1e9:.0f} GFLOP/s, "
        f"copy {2 * source.nbytes / copy / 1e9:.1f} GB/s."
    )
