"""Speed of data loading for small images with shift and flip augmentation (goal P3).

Claim: ≥ 50 times the images per second of torch's DataLoader with torchvision's
per-image transforms (RandomCrop with padding, RandomHorizontalFlip, ToTensor,
Normalize) and as many workers as cores, at 28×28×1 and 32×32×3, batch size 128, same
number of threads. Both run in turn in one process. Use the environment that
`make twins` creates.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from peers_vision import torchvision
from record import save
from speeds import speeds
from striate.core.malloc import keep_freed_memory
from striate.core.preprocess_config import Preprocess
from striate.data.augment.augment import Augment
from striate.data.batches import Batches
from striate.data.subset import Subset

BATCH = 128
OURS = "striate"
SHAPES = {"28×28×1": (28, 1), "32×32×3": (32, 3)}


class Images(Dataset):
    """Usual dataset of tutorials: each call loads and transforms one image."""

    def __init__(self, pixels: Tensor, labels: Tensor, transform: Callable) -> None:
        self.pixels, self.labels, self.transform = pixels.numpy(), labels, transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        pixels = self.pixels[i]
        image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
        return self.transform(image), self.labels[i]


def peer(pixels: Tensor, labels: Tensor, p: Preprocess, workers: int) -> DataLoader:
    """Return a torch DataLoader with torchvision's per-image transforms."""
    t = torchvision().transforms
    transform = t.Compose(
        [
            t.RandomCrop(p.height, padding=p.height // 8),
            t.RandomHorizontalFlip(),
            t.ToTensor(),
            t.Normalize(p.mean, p.std),
        ]
    )
    images = Images(pixels, labels, transform)
    return DataLoader(
        images,
        BATCH,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )


def seconds(batches: Callable[[], object], count: int) -> float:
    """Return microseconds per image for one epoch."""
    start = time.perf_counter()
    seen = 0
    for x, y in batches():
        assert x.dtype == torch.float32
        seen += len(y)
    assert seen == count
    return 1e6 * (time.perf_counter() - start) / count


def race(side: int, channels: int, count: int, rounds: int) -> dict[str, list[float]]:
    """Return microseconds per image by loader and round; loaders run in turn."""
    cores = os.cpu_count() or 1
    draw = np.random.default_rng(0)
    shape = (count, side, side, channels)
    pixels = torch.from_numpy(draw.integers(0, 256, shape, np.uint8))
    labels = torch.zeros(count, dtype=torch.int64)
    p = Preprocess(
        channels=channels,
        height=side,
        width=side,
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
    )
    subset = Subset(pixels=pixels, labels=labels, paths=("",) * count)
    augment = Augment(shift=1 / 8, flip="horizontal")
    ours = Batches(subset=subset, preprocess=p, batch_size=BATCH, augment=augment)
    several, alone = peer(pixels, labels, p, cores), peer(pixels, labels, p, 0)
    rivals: dict[str, Callable[[], object]] = {
        OURS: lambda: ours(0),
        f"DataLoader, {cores} workers": lambda: several,
        "DataLoader, 0 workers": lambda: alone,
    }
    times: dict[str, list[float]] = {name: [] for name in rivals}
    for turn in range(rounds + 1):
        for name in sorted(rivals, reverse=turn % 2 == 1):
            taken = seconds(rivals[name], count)
            if turn:  # the first is to warm up, and starts the workers
                times[name].append(taken)
    return times


def main() -> None:
    """Run the benchmark, print and save the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--count", type=int, default=20_000)
    options = parser.parse_args()
    keep_freed_memory()
    rows = []
    for name, (side, channels) in SHAPES.items():
        times = race(side, channels, options.count, options.rounds)
        own = statistics.median(times[OURS])
        for rival, taken in times.items():
            median = statistics.median(taken)
            cells = (
                f"{name}, {rival}",
                f"{median:.2f} µs",
                f"{max(taken):.2f} µs",
                f"{1e6 / median:,.0f}",
                f"{median / own:.1f}×",
            )
            rows.append("| " + " | ".join(cells) + " |")
            print(rows[-1], flush=True)
    head = "| feeding | median an image | worst | images/s | striate is faster by |"
    facts = (
        f"{options.count:,} images, batch {BATCH}, {options.rounds} rounds turn "
        f"about, {torch.get_num_threads()} threads here, workers as said. {speeds()}"
    )
    body = head + "\n|---|---|---|---|---|\n" + "\n".join(rows) + f"\n\n{facts}"
    save("feeding", "Feeding small images, shifted and mirrored (P3)", body)


if __name__ == "__main__":
    main()
