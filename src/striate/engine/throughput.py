"""Throughput of a run: model FLOPs utilization (MFU) and bottleneck."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from striate.engine.training_loop import Batch, Epochs

SIDE = 1024  # of the matrices whose product gives the peak: 2 GFLOP, fits the cache
REPEATS = 5
# Forward, gradient of the maps, gradient of the weights: equally many FLOPs.
PASSES = 3

Clock = Callable[[], float]


def measure_peak_flops(
    device: torch.device, dtype: torch.dtype, clock: Clock = time.perf_counter
) -> float:
    """Return the peak FLOP/s of a device: the fastest of several matrix products.

    The measurement takes about 50 ms. On a busy machine the result is too low: use the
    largest of several measurements.
    """
    a = torch.ones(SIDE, SIDE, device=device, dtype=dtype)
    out = torch.empty_like(a)
    best = float("inf")
    for _ in range(REPEATS + 1):
        start = clock()
        torch.mm(a, a, out=out)
        out[0, 0].item()  # waits for the device
        best = min(best, clock() - start)
    return 2.0 * SIDE**3 / best


class ThroughputMeter:
    """Measures the time spent on data loading and on optimizer updates.

    The remaining time is compute: forward, loss and backward. The clock is read twice
    per batch.

    Args:
        macs: Multiply-adds of the forward pass per image: one number, or a number for
            each epoch (progressive resizing); 0 if unknown.
        peak_flops: Peak FLOP/s of the machine; 0 if not measured.
        clock: Monotonic clock in seconds; tests replace it.

    Example:
        >>> meter = ThroughputMeter(macs=2_000_000, peak_flops=40e9)
        >>> meter.mfu(1_000.0)  # 1,000 images/s of 2 · 3 · 2 MFLOP
        0.3
    """

    def __init__(
        self,
        macs: int | Sequence[int] = 0,
        peak_flops: float = 0.0,
        clock: Clock = time.perf_counter,
    ) -> None:
        self.macs = (macs,) if isinstance(macs, int) else tuple(macs)
        self.peak_flops = peak_flops
        self.epoch = 0
        self.data_seconds = self.update_seconds = 0.0
        self._clock = clock
        self._start = clock()

    def mfu(self, images_per_second: float, epochs: int = 0) -> float:
        """Return the model FLOPs utilization (MFU) at a throughput.

        The average over the first `epochs` epochs; 0: only the current epoch.

        Example:
            >>> meter = ThroughputMeter(macs=[1_000_000, 3_000_000], peak_flops=60e9)
            >>> meter.mfu(1_000.0), meter.mfu(1_000.0, epochs=2)
            (0.1, 0.2)
        """
        epoch_range = range(epochs) if epochs else [self.epoch]
        macs = [self.macs[min(epoch, len(self.macs) - 1)] for epoch in epoch_range]
        useful = images_per_second * sum(macs) / len(macs) * 2 * PASSES
        return useful / self.peak_flops if self.peak_flops else 0.0

    def time_shares(self) -> dict[str, float]:
        """Return the shares of elapsed time for `data`, `compute` and `optimizer`."""
        elapsed = max(self._clock() - self._start, 1e-9)
        data, update = self.data_seconds / elapsed, self.update_seconds / elapsed
        return {"data": data, "compute": 1 - data - update, "optimizer": update}

    def summary(self, images_per_second: float) -> str:
        """Return MFU and bottleneck as text for the progress line.

        Example:
            >>> ThroughputMeter(macs=2_000_000, peak_flops=40e9).summary(1_000.0)
            'MFU 30 % · compute-bound'
        """
        time_shares = self.time_shares()
        bound = f"{max(time_shares, key=time_shares.__getitem__)}-bound"
        share = self.mfu(images_per_second)
        return f"MFU {100 * share:.0f} % · {bound}" if share else bound

    @contextmanager
    def time_optimizer(self, optimizer: Optimizer) -> Iterator[None]:
        """Context manager that measures the time of optimizer updates by step hooks."""
        start = 0.0

        def on_start(*_: Any) -> None:
            nonlocal start
            start = self._clock()

        def on_end(*_: Any) -> None:
            self.update_seconds += self._clock() - start

        before = optimizer.register_step_pre_hook(on_start)
        after = optimizer.register_step_post_hook(on_end)
        try:
            yield
        finally:
            before.remove()
            after.remove()

    def time_batches(self, epochs: Epochs) -> TimedBatches:
        """Wrap a data loader so that the time spent waiting for data is measured."""
        return TimedBatches(epochs, self)

    def time_waiting(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yield batches, and add up the time spent waiting for data."""
        iterator = iter(batches)
        while True:
            start = self._clock()
            batch = next(iterator, None)
            self.data_seconds += self._clock() - start
            if batch is None:
                return
            yield batch


class TimedBatches:
    """Wrapper of a data loader that measures the time spent waiting for data."""

    def __init__(self, epochs: Epochs, meter: ThroughputMeter) -> None:
        self._epochs, self._meter = epochs, meter

    def __call__(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of an epoch, without the first `start` batches."""
        self._meter.epoch = epoch
        return self._meter.time_waiting(self._epochs(epoch, start))

    def __len__(self) -> int:
        return len(self._epochs)
