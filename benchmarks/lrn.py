"""Speed and memory of local response normalization against torch's layer (goal P12).

Claim: forward and backward are ≥ 5 times as fast at 32×96×55×55, with less memory, on
any CPU. Both layers run in turn in one process. The memory of each layer is measured in
a separate process. `--rounds` ≥ 7.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from record import save
from striate.layers.lrn import lrn, plain

SHAPE = (32, 96, 55, 55)
LAYOUTS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}
Layer = Callable[[Tensor], Tensor]


def torchs(x: Tensor) -> Tensor:
    """Normalize with torch's layer, which divides alpha by the window size."""
    return F.local_response_norm(x, 5, alpha=5e-4, beta=0.75, k=2.0)


PEERS: dict[str, Layer] = {"torch": torchs, "striate": lrn}


def operands(layout: torch.memory_format) -> tuple[Tensor, Tensor]:
    """Return an input (AlexNet feature maps after ReLU) and an output gradient."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(SHAPE, generator=draw).relu_().contiguous(memory_format=layout)
    g = torch.randn(SHAPE, generator=draw).contiguous(memory_format=layout)
    return x.requires_grad_(), g


def once(layer: Layer, x: Tensor, g: Tensor) -> tuple[float, float]:
    """Return the seconds of one forward pass and of one backward pass."""
    x.grad = None
    start = time.perf_counter()
    y = layer(x)
    middle = time.perf_counter()
    y.backward(g)
    return middle - start, time.perf_counter() - middle


def races(rounds: int, layout: torch.memory_format) -> dict[str, list[float]]:
    """Return the forward and backward seconds of each layer; the layers run in turn."""
    x, g = operands(layout)
    seconds: dict[str, list[float]] = {name: [] for name in PEERS}
    for turn in range(rounds + 1):
        for name in sorted(PEERS, reverse=turn % 2 == 1):
            taken = sum(once(PEERS[name], x, g))
            if turn:  # the first is to warm up
                seconds[name].append(taken)
    return seconds


def _peak(name: str, layout: str, threads: int, answer: multiprocessing.Queue) -> None:
    torch.set_num_threads(threads)
    x, g = operands(LAYOUTS[layout])
    # Rooms and threads of the first call are not the layer's.
    PEERS[name](x[:1].detach().requires_grad_()).sum().backward()
    before = _resident("VmRSS")
    once(PEERS[name], x, g)
    answer.put(max(_resident("VmHWM") - before, 0))


def _resident(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith(field)]
    return int(line.split()[1]) / 1024


def peak_memory(name: str, layout: str) -> float:
    """Return the MiB that forward and backward need, including output and gradient."""
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    threads = torch.get_num_threads()
    child = context.Process(target=_peak, args=(name, layout, threads, answer))
    child.start()
    mib = float(answer.get())
    child.join()
    return mib


def errors() -> dict[str, float]:
    """Return the largest error of each layer's output and gradient, against float64."""
    x, g = operands(torch.contiguous_format)
    exact = x.detach()[:4].double().requires_grad_()
    y = plain(exact, 5, 1e-4, 0.75, 2.0)
    y.backward(g[:4].double())
    assert exact.grad is not None
    far = {}
    for name, layer in PEERS.items():
        part = x.detach()[:4].requires_grad_()
        out = layer(part)
        out.backward(g[:4])
        assert part.grad is not None
        worst = max((out - y).abs().max(), (part.grad - exact.grad).abs().max())
        far[name] = worst.item()
    return far


def best(work: Callable[[], object], times: int = 5) -> float:
    """Return the seconds of the fastest of `times` runs."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return min(taken)


def limits() -> tuple[float, float]:
    """Return the machine's sgemm peak in GFLOP/s and copy bandwidth in GB/s."""
    a, out = torch.randn(2048, 2048), torch.empty(2048, 2048)
    source, target = torch.randn(1 << 25), torch.empty(1 << 25)
    product = best(lambda: torch.mm(a, a, out=out))
    copy = best(lambda: target.copy_(source))
    return 2 * 2048**3 / product / 1e9, 2 * source.nbytes / copy / 1e9


def main() -> None:
    """Measure time, memory and errors, print and save the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    sgemm, copy = limits()
    # x and y once in the forward pass; x, g and dx once in the backward pass.
    floor = 5 * 4 * torch.Size(SHAPE).numel() / copy / 1e9
    far = errors()
    rows = []
    for threads in sorted({1, os.cpu_count() or 1}):
        torch.set_num_threads(threads)
        for label, layout in LAYOUTS.items():
            seconds = races(rounds, layout)
            own = statistics.median(seconds["torch"])
            for name, taken in seconds.items():
                median = statistics.median(taken)
                cells = (
                    threads,
                    f"{label}, {name}",
                    f"{1e3 * median:.0f} ms",
                    f"{1e3 * max(taken):.0f} ms",
                    f"{own / median:.1f}×",
                    f"{100 * floor / median:.0f} %",
                    f"{peak_memory(name, label):.0f} MiB",
                    f"{far[name]:.1e}",
                )
                rows.append(f"| {' | '.join(map(str, cells))} |")
                print(rows[-1], flush=True)
    head = "| threads | layer | median | worst | speed | of copy bandwidth "
    head += "| added memory | largest error |\n|---|---|---|---|---|---|---|---|\n"
    facts = (
        f"{'×'.join(map(str, SHAPE))}, float32, forward and backward, {rounds} rounds "
        f"turn about. Machine: sgemm {sgemm:.0f} GFLOP/s, copy {copy:.1f} GB/s; at "
        f"that bandwidth the five tensors touched once take {1e3 * floor:.0f} ms. "
        "Memory is what one pass adds to the process, output and gradient (74 MiB) "
        "included. Errors are against the formula in float64."
    )
    save("lrn", "Local response normalization", head + "\n".join(rows) + f"\n\n{facts}")


if __name__ == "__main__":
    main()
