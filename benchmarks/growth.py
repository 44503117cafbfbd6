"""Time of a training step for growing depth, width and image size (goal P16).

Claim: time is proportional to the multiply-adds within 10 %, so no part of a step grows
faster with depth, width or image size. Networks are CIFAR ResNets (He et al. 2015,
§4.2), with one of depth, width and image size doubled at a time. A step is a complete
training step. All sizes of a series run in turn.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from record import save
from speeds import speeds
from striate.audit.network import audit
from striate.core.device import flush_denormals
from striate.core.malloc import keep_freed_memory
from striate.core.preprocess_config import ImageSpec
from striate.engine.execution_config import ExecutionConfig
from striate.engine.optim import make_optimizer
from striate.engine.recoverable_step import RecoverableStep
from striate.models.resnet import ResNetConfig, cifar_resnet

BATCH, CLASSES, SECONDS = 32, 10, 0.5  # of a turn, at least


@dataclass(frozen=True)
class Size:
    """Size of a network: blocks per stage, channels, and image side in pixels."""

    blocks: int = 3  # of each of the three stages
    width: int = 16
    side: int = 32

    @property
    def name(self) -> str:
        """Return the sizes as text."""
        return f"{6 * self.blocks + 2} layers, {self.width} channels, {self.side}²"


MEASURES = {
    "depth": [Size(blocks=n) for n in (3, 6, 12, 24)],
    "width": [Size(width=n) for n in (16, 32, 64)],
    "image side": [Size(side=n) for n in (32, 64, 128)],
}


class Runner:
    """Runs training steps of a network, and counts the multiply-adds of a step."""

    def __init__(self, size: Size) -> None:
        torch.manual_seed(0)
        image = ImageSpec(channels=3, height=size.side, width=size.side)
        config = ResNetConfig(blocks=(size.blocks,) * 3, width=size.width, shortcut="A")
        model = cifar_resnet(image, CLASSES, config=config)
        model.to(memory_format=torch.channels_last)
        self.macs = BATCH * audit(model, (3, size.side, size.side)).macs
        optimizer = make_optimizer(model.train(), "adamw", 1e-3, 0.9, 0.01)
        self._learn = RecoverableStep(
            model, optimizer, F.cross_entropy, execution=ExecutionConfig()
        )
        x = torch.rand(BATCH, 3, size.side, size.side)
        self._batch = x.to(memory_format=torch.channels_last), torch.arange(BATCH) % 10
        self._done = 0

    def step(self) -> float:
        """Return the mean time of a few steps in seconds."""
        start, count = time.perf_counter(), 0
        while (taken := time.perf_counter() - start) < SECONDS or not count:
            self._learn(*self._batch, self._done)
            count, self._done = count + 1, self._done + 1
        return taken / count


def grown(sizes: list[Size], rounds: int) -> list[str]:
    """Measure the sizes in turn; return the table rows."""
    runners = [Runner(size) for size in sizes]
    found = [[runner.step() for runner in runners] for _ in range(rounds + 1)][1:]
    lines, first = [], 0.0
    for size, runner, times in zip(
        sizes, runners, zip(*found, strict=True), strict=True
    ):
        each = statistics.median(times) / runner.macs
        first = first or each
        cells = (
            size.name,
            f"{runner.macs / 1e9:,.2f} G",
            f"{1e3 * statistics.median(times):,.1f} ms",
            f"{1e3 * max(times):,.1f} ms",
            f"{each / first:.2f}",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    """Measure depth, width and image size, print and save the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    keep_freed_memory()
    head = (
        "| network | multiply-adds, forward | step | worst | time each, of the first |"
    )
    parts = []
    with flush_denormals():
        for name, sizes in MEASURES.items():
            lines = [f"**{name.capitalize()}**\n", head, "|---|---|---|---|---|"]
            parts.append("\n".join(lines + grown(sizes, options.rounds)))
            print(parts[-1], flush=True)
    facts = f"Training steps of {BATCH} images, medians of {options.rounds}. {speeds()}"
    body = "\n\n".join([*parts, facts])
    save("growth", "Steps as networks and images grow (P16)", body)


if __name__ == "__main__":
    main()
