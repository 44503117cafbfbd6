"""How fast a run is, of what the machine could do, and what holds it up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from striate.engine.loop import Batch, Epochs

SIDE = 1024  # of the matrices whose product is the peak: 2 GFLOP, and in the cache
TRIES = 5
# Forward, the gradient of the maps, the gradient of the weights: each as much.
PASSES = 3

Clock = Callable[[], float]


def measure_peak_flops(
    device: torch.device, dtype: torch.dtype, clock: Clock = time.perf_counter
) -> float:
    """Return the FLOP/s of a matrix product on a device, the best of some.

    It takes some 50 ms. On a busy machine it is too small: keep the largest seen.
    """
    a = torch.ones(SIDE, SIDE, device=device, dtype=dtype)
    out = torch.empty_like(a)
    best = float("inf")
    for _ in range(TRIES + 1):
        start = clock()
        torch.mm(a, a, out=out)
        out[0, 0].item()  # waits for the device
        best = min(best, clock() - start)
    return 2.0 * SIDE**3 / best


class ThroughputMeter:
    """What of the time goes into waiting for images, and into the update.

    All else is computing: forward, cost, backward. Two looks at the clock a batch.

    Args:
        macs: Multiply-adds of an image's way forward, in each epoch where images
            grow; 0 where they are not known.
        peak: FLOP/s of the machine; 0 where it was not measured.
        clock: Seconds that never go backwards; tests bring their own.

    Example:
        >>> laps = ThroughputMeter(macs=2_000_000, peak=40e9)
        >>> laps.mfu(1_000.0)  # 1,000 images/s of 2 · 3 · 2 MFLOP
        0.3
    """

    def __init__(
        self,
        macs: int | Sequence[int] = 0,
        peak: float = 0.0,
        clock: Clock = time.perf_counter,
    ) -> None:
        self.macs = (macs,) if isinstance(macs, int) else tuple(macs)
        self.peak = peak
        self.epoch = 0
        self.data = self.update = 0.0
        self._clock = clock
        self._began = clock()

    def mfu(self, rate: float, epochs: int = 0) -> float:
        """Return the share of the peak that so many images a second use usefully.

        Args:
            rate: Images a second.
            epochs: Over so many from the first on; in the present one where it is 0.

        Example:
            >>> laps = ThroughputMeter(macs=[1_000_000, 3_000_000], peak=60e9)
            >>> laps.mfu(1_000.0), laps.mfu(1_000.0, epochs=2)
            (0.1, 0.2)
        """
        shown = range(epochs) if epochs else [self.epoch]
        macs = [self.macs[min(epoch, len(self.macs) - 1)] for epoch in shown]
        useful = rate * sum(macs) / len(macs) * 2 * PASSES
        return useful / self.peak if self.peak else 0.0

    def shares(self) -> dict[str, float]:
        """Return the shares of the time since it began: data, compute, optimizer."""
        whole = max(self._clock() - self._began, 1e-9)
        data, update = self.data / whole, self.update / whole
        return {"data": data, "compute": 1 - data - update, "optimizer": update}

    def words(self, rate: float) -> str:
        """Say the share of the peak and the bottleneck, for the progress line.

        Example:
            >>> ThroughputMeter(macs=2_000_000, peak=40e9).words(1_000.0)
            'MFU 30 % · compute-bound'
        """
        shares = self.shares()
        bound = f"{max(shares, key=shares.__getitem__)}-bound"
        share = self.mfu(rate)
        return f"MFU {100 * share:.0f} % · {bound}" if share else bound

    @contextmanager
    def watching(self, optimizer: Optimizer) -> Iterator[None]:
        """Time the updates of an optimizer meanwhile, by its own hooks."""
        started = 0.0

        def before(*_: Any) -> None:
            nonlocal started
            started = self._clock()

        def after(*_: Any) -> None:
            self.update += self._clock() - started

        handles = (
            optimizer.register_step_pre_hook(before),
            optimizer.register_step_post_hook(after),
        )
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def feeding(self, epochs: Epochs) -> TimedBatches:
        """Return the same batches, the waiting for each timed."""
        return TimedBatches(epochs, self)

    def waited(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yield batches, and add what they were waited for."""
        waiting = iter(batches)
        while True:
            start = self._clock()
            batch = next(waiting, None)
            self.data += self._clock() - start
            if batch is None:
                return
            yield batch


class TimedBatches:
    """Batches whose waiting is timed; else what they were."""

    def __init__(self, epochs: Epochs, laps: ThroughputMeter) -> None:
        self._epochs, self._laps = epochs, laps

    def __call__(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of an epoch, the first `start` left out."""
        self._laps.epoch = epoch
        return self._laps.waited(self._epochs(epoch, start))

    def __len__(self) -> int:
        return len(self._epochs)
