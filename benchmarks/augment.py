"""Speed of six augmentations, and of shift and flip, against others (goals P3, P4).

Claims, in images per second on one core: rotation, shear, local warp, flip, crop and
color shift at 32² and 224² pixels are ≥ 5 times as fast as kornia, ≥ 10 times as fast
as torchvision v2 and ≥ 2 times as fast as albumentations. Shift and flip at 28² and 32²
are ≥ 50 times as fast as a DataLoader with per-image transforms. All libraries run in
turn in one process; `--rounds` ≥ 7.

`make bench-augment` creates an environment with the other libraries.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

os.environ["OMP_NUM_THREADS"] = "1"  # before any library starts its threads
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # it would ask the network for news

import numpy as np
import torch
from torch import Tensor

from lrn import limits
from record import save
from striate.core.malloc import keep_freed_memory
from striate.core.preprocess_config import Preprocess
from striate.data.augment.augment import augmentation
from striate.data.batches import Batches
from striate.data.subset import Subset

MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.26, 0.27)
BATCH = 128
ROTATE, SHEAR, CROP, COLOR = 15, 10, 0.15, 0.1
GOALS = {"kornia": 5, "torchvision": 10, "albumentations": 2, "DataLoader": 50}


@dataclass(frozen=True)
class Peer:
    """Library to compare: a function that computes images, and the number of images."""

    run: Callable[[], Tensor]
    images: int


def images(count: int, side: int, channels: int = 3) -> np.ndarray:
    """Return test images with structure at every scale, (N, side, side, channels)."""
    draw = np.random.default_rng(0)
    total = np.zeros((count, side, side, channels))
    for cell in (side // 4, side // 8 or 1, 1):
        coarse = draw.normal(size=(count, -(-side // cell), -(-side // cell), channels))
        total += coarse.repeat(cell, 1).repeat(cell, 2)[:, :side, :side]
    return (128 + 40 * total).clip(0, 255).astype(np.uint8)


def ours(pixels: np.ndarray, preset: str, **ranges: float) -> Peer:
    """Return the striate pipeline over the images; each call runs one epoch."""
    count, side, _, channels = pixels.shape
    mean, std = MEAN[:channels], STD[:channels]
    p = Preprocess(channels=channels, height=side, width=side, mean=mean, std=std)
    labels, paths = [0] * count, [str(i) for i in range(count)]
    batches = Batches(
        subset=Subset.of(torch.from_numpy(pixels), labels, paths),
        preprocess=p,
        batch_size=BATCH,
        augment=augmentation(preset, **ranges),
    )
    epoch = iter(range(1 << 30))

    def run() -> Tensor:
        for x, _ in batches(next(epoch)):
            made = x
        return made

    return Peer(run, count)


def normalizer() -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of the channels, each (1, 3, 1, 1)."""
    return torch.tensor(MEAN).view(1, 3, 1, 1), torch.tensor(STD).view(1, 3, 1, 1)


def kornia_six(pixels: np.ndarray) -> Peer:
    """Return the kornia pipeline over batches, with random numbers for each image."""
    import kornia.augmentation as K

    side = pixels.shape[1]
    low = (1 - CROP) ** 2
    steps = torch.nn.Sequential(
        K.RandomResizedCrop((side, side), scale=(low, 1.0), ratio=(1.0, 1.0)),
        K.RandomHorizontalFlip(p=0.5),
        K.RandomAffine(ROTATE, shear=SHEAR, p=1.0),
        K.RandomElasticTransform(p=1.0),
        K.RandomRGBShift(COLOR, COLOR, COLOR, p=1.0),
    )
    mean, std = normalizer()

    def run() -> Tensor:
        x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(255)
        made: Tensor = (steps(x) - mean) / std
        return made

    return Peer(run, len(pixels))


def torchvision_v2() -> object:
    """Return the module torchvision.transforms.v2, without compiled operators."""
    register = torch.library.register_fake
    torch.library.register_fake = lambda *_args, **_more: lambda function: function
    try:
        from torchvision.transforms import v2
    finally:
        torch.library.register_fake = register
    return v2


def torchvision_six(pixels: np.ndarray) -> Peer:
    """Return the torchvision pipeline, which processes one image at a time."""
    v2 = torchvision_v2()
    side = pixels.shape[1]
    low = (1 - CROP) ** 2

    def shifted(x: Tensor) -> Tensor:  # torchvision has no shift for each channel
        return (x + COLOR * (2 * torch.rand(3, 1, 1) - 1)).clamp_(0, 1)

    steps = v2.Compose(
        [
            v2.RandomResizedCrop(side, scale=(low, 1.0), ratio=(1.0, 1.0)),
            v2.RandomHorizontalFlip(),
            v2.RandomAffine(
                ROTATE, shear=SHEAR, interpolation=v2.InterpolationMode.BILINEAR
            ),
            v2.ElasticTransform(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Lambda(shifted),
            v2.Normalize(MEAN, STD),
        ]
    )
    planes = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    return Peer(lambda: torch.stack([steps(x) for x in planes]), len(pixels))


def albumentations_six(pixels: np.ndarray, local: str) -> Peer:
    """Return the albumentations pipeline with the given local warp."""
    import albumentations as A
    import cv2

    cv2.setNumThreads(1)
    side = pixels.shape[1]
    low = (1 - CROP) ** 2
    warps = {
        "elastic": A.ElasticTransform(p=1.0),
        "elastic, approximate": A.ElasticTransform(p=1.0, approximate=True),
        "grid": A.GridDistortion(p=1.0),
    }
    most = int(255 * COLOR)
    steps = A.Compose(
        [
            A.RandomResizedCrop((side, side), scale=(low, 1.0), ratio=(1.0, 1.0)),
            A.HorizontalFlip(p=0.5),
            A.Affine(rotate=(-ROTATE, ROTATE), shear=(-SHEAR, SHEAR), p=1.0),
            warps[local],
            A.RGBShift(most, most, most, p=1.0),
            A.Normalize(MEAN, STD),
        ]
    )

    def run() -> Tensor:
        made = np.stack([steps(image=image)["image"] for image in pixels])
        return torch.from_numpy(made).permute(0, 3, 1, 2)

    return Peer(run, len(pixels))


def dataloader(pixels: np.ndarray) -> Peer:
    """Return the pipeline of tutorials: a DataLoader with per-image transforms."""
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset

    v2 = torchvision_v2()
    channels = pixels.shape[-1]
    steps = v2.Compose(
        [
            v2.RandomCrop(pixels.shape[1], padding=4),
            v2.RandomHorizontalFlip(),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN[:channels], STD[:channels]),
        ]
    )

    class Images(Dataset[tuple[Tensor, int]]):
        def __len__(self) -> int:
            return len(pixels)

        def __getitem__(self, i: int) -> tuple[Tensor, int]:
            image = pixels[i] if channels == 3 else pixels[i, :, :, 0]
            return steps(Image.fromarray(image)), 0

    loader = DataLoader(Images(), batch_size=BATCH, shuffle=True)

    def run() -> Tensor:
        for x, _ in loader:
            made = x
        return made

    return Peer(run, len(pixels))


def race(peers: dict[str, Peer], rounds: int) -> dict[str, list[float]]:
    """Return images per second by library and round; the libraries run in turn."""
    speeds: dict[str, list[float]] = {name: [] for name in peers}
    for turn in range(rounds + 1):
        for name in sorted(peers, reverse=turn % 2 == 1):
            start = time.perf_counter()
            peers[name].run()
            seconds = time.perf_counter() - start
            if turn:  # the first is to warm up
                speeds[name].append(peers[name].images / seconds)
    return speeds


def rows(title: str, speeds: dict[str, list[float]]) -> list[str]:
    """Return table rows: median, worst, and how many times as fast striate is."""
    mine = statistics.median(speeds["striate"])
    lines = []
    for name, values in speeds.items():
        median = statistics.median(values)
        goals = [f"≥ {g}" for key, g in GOALS.items() if name.startswith(key)]
        ratio = f"{mine / median:.1f}×" if name != "striate" else ""
        cells = (title, name, f"{median:,.0f}", f"{min(values):,.0f}", ratio, *goals)
        lines.append("| " + " | ".join(cells) + (" |" if goals else " | |"))
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    """Run the benchmark, print and save the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    keep_freed_memory()
    sgemm, copy = limits()
    table = []
    for side, few in ((32, 128), (224, 16)):
        whole, some = images(BATCH, side), images(few, side)
        peers = {
            "striate": ours(images(BATCH * 2048 // side**2 + BATCH, side), "six"),
            "kornia": kornia_six(whole),
            "torchvision v2": torchvision_six(some[:32]),
        }
        for local in ("elastic", "elastic, approximate", "grid"):
            name = f"albumentations ({local})"
            peers[name] = albumentations_six(some, local)
        table += rows(f"six, {side}²", race(peers, rounds))
    for side, channels in ((28, 1), (32, 3)):
        many = images(2048, side, channels)
        peers = {
            "striate": ours(many, "flip", shift=4 / side),
            "DataLoader + torchvision v2": dataloader(many),
        }
        table += rows(f"shift + mirror, {side}²×{channels}", race(peers, rounds))
    head = "| work | who | images/s, median | worst | striate is | goal |\n"
    head += "|---|---|---|---|---|---|\n"
    facts = (
        f"One core, {rounds} rounds turn about, from 8-bit images in memory to a "
        "normalized float32 batch of 128; libraries that work image by image are "
        f"timed on fewer. Machine: sgemm {sgemm:.0f} GFLOP/s, copy {copy:.1f} GB/s."
    )
    save("augment", "Augmentation", head + "\n".join(table) + f"\n\n{facts}")


if __name__ == "__main__":
    main()
