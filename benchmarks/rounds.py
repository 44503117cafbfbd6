"""Measure functions in turn in one process, and the peak speeds of the machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch

Rival = Callable[[], object]


def interleaved(rivals: Mapping[str, Rival], rounds: int) -> dict[str, list[float]]:
    """Return seconds by function; each round runs every function once."""
    for rival in rivals.values():
        rival()
    times: dict[str, list[float]] = {name: [] for name in rivals}
    for number in range(rounds):
        order = list(rivals.items())
        for name, rival in order if number % 2 else reversed(order):
            start = time.perf_counter()
            rival()
            times[name].append(time.perf_counter() - start)
    return times


def table(times: Mapping[str, Sequence[float]], unit: str) -> str:
    """Return a Markdown table: median, worst, and median ratio to `unit`."""
    rows = ["| what | median | worst | × " + unit + " |", "|---|---|---|---|"]
    for name, seconds in times.items():
        pairs = zip(seconds, times[unit], strict=True)
        ratio = statistics.median(mine / other for mine, other in pairs)
        middle, worst = statistics.median(seconds), max(seconds)
        rows.append(
            f"| {name} | {1e3 * middle:,.1f} ms | {1e3 * worst:,.1f} ms | {ratio:.3f} |"
        )
    return "\n".join(rows) + f"\n\n{len(next(iter(times.values())))} rounds."


def speeds() -> str:
    """Return the machine's matrix-product speed and copy bandwidth as text."""
    a = torch.randn(1536, 1536)
    wide = torch.randn(1 << 25)
    target = torch.empty_like(wide)
    product = min(interleaved({"p": lambda: a @ a}, 9)["p"])
    copy = min(interleaved({"c": lambda: target.copy_(wide)}, 9)["c"])
    flops, bandwidth = 2 * 1536**3 / product / 1e9, 2 * wide.numel() * 4 / copy / 1e9
    return (
        f"Machine: {flops:,.0f} GFLOP/s in a 1536² single-precision product, "
        f"{bandwidth:,.1f} GB/s copying (read and written)."
    )
