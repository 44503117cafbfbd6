"""Throughput meter, with a clock that the test sets."""

import pytest
import torch
from torch import nn

from striate.engine.throughput import PASSES, SIDE, ThroughputMeter, measure_peak_flops


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_peak_flops_of_the_fastest_product():
    moments = iter([0, 1, 1, 3, 3, 3.5, 3.5, 9, 9, 10, 10, 11.0])
    peak = measure_peak_flops(torch.device("cpu"), torch.float32, lambda: next(moments))
    assert peak == 2 * SIDE**3 / 0.5


def test_mfu():
    meter = ThroughputMeter(macs=1_000_000, peak_flops=1e9)
    assert meter.mfu(100) == pytest.approx(100 * 2 * PASSES * 1e6 / 1e9)
    assert ThroughputMeter().mfu(100) == 0.0


@pytest.mark.parametrize(
    ("data", "update", "bottleneck"),
    [(6.0, 1.0, "data"), (1.0, 6.0, "optimizer"), (1.0, 1.0, "compute")],
)
def test_bottleneck(data, update, bottleneck):
    clock = Clock()
    meter = ThroughputMeter(clock=clock)

    def batches(epoch, start):
        for number in range(start, 3):
            clock.now += data
            yield number, epoch

    class Epochs:
        __call__ = staticmethod(batches)

        def __len__(self):
            return 3

    weight = nn.Parameter(torch.ones(1))
    weight.grad = torch.ones(1)
    optimizer = torch.optim.SGD([weight], lr=1.0)
    # Part of an update, as its hooks see it.
    real = optimizer.step
    fed = meter.time_batches(Epochs())
    slow = torch.optim.Optimizer.register_step_pre_hook
    assert len(fed) == 3
    with meter.time_optimizer(optimizer):
        handle = slow(optimizer, lambda *_: setattr(clock, "now", clock.now + update))
        seen = []
        for batch in fed(7, 1):
            seen.append(batch)
            real()
            clock.now += 2.0
        handle.remove()
    assert seen == [(1, 7), (2, 7)]
    whole = 2 * (data + update + 2.0)
    shares = meter.time_shares()
    assert shares["data"] == pytest.approx(2 * data / whole)
    assert shares["optimizer"] == pytest.approx(2 * update / whole)
    assert sum(shares.values()) == pytest.approx(1)
    assert meter.summary(5.0) == f"{bottleneck}-bound"


def test_time_optimizer_removes_its_hooks():
    weight = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    with ThroughputMeter().time_optimizer(optimizer):
        assert optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
