"""Time from JPEG folder to augmented 160² images, first and later epochs (goal P5).

The baseline is ImageFolder with PIL's random resized crop and a DataLoader with 2
workers. Goal: the first epoch is ≥ 3 times as fast (list the folder; hash, check and
decode every file; write the cache; load batches). Later epochs load from the cache and
are ≥ 15 times as fast. The first epoch reaches the goal at 4000×3000 pixels, later
epochs at 1600×1200 and more. For smaller images, decoding (first epoch) and resizing
(later epochs) alone take the time of the goal (docs/notebook/image-decoding.md).
Both produce normalized float batches of 64 images, and run in turn. Use the environment
that `make twins` creates.

The images are crops of two real photographs in several sizes, JPEG quality 90.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch.utils.data import DataLoader

from peers_vision import torchvision
from record import save
from speeds import speeds
from striate.core.malloc import keep_freed_memory
from striate.data.augment.augment import Augment
from striate.data.augment.random_crop import crop_margin
from striate.data.batches import Batches
from striate.data.load import load_data

SIDE, BATCH, WORKERS = 160, 64, 2
# Sides of the images, and how many: 500×375 is ImageNet's habit, 1600×1200 what
# messengers send, 4000×3000 what telephones take.
SETS = {"500×375": (500, 375, 1500), "1600×1200": (1600, 1200, 300)}
LARGE = {"4000×3000": (4000, 3000, 60)}
AUGMENT = Augment(crop=0.4, flip="horizontal")


def write_folder(root: Path, width: int, height: int, count: int) -> int:
    """Write JPEG files of two classes; return the total number of bytes."""
    draw = np.random.default_rng(0)
    size = 0
    for i in range(count):
        kind = i % 2
        photo = Image.fromarray(load_sample_images().images[kind])
        scale = 1 / draw.uniform(1.0, 1.6)
        wide = int(min(photo.width, photo.height * width / height) * scale)
        tall = int(wide * height / width)
        left = int(draw.integers(0, photo.width - wide + 1))
        top = int(draw.integers(0, photo.height - tall + 1))
        window = photo.crop((left, top, left + wide, top + tall))
        path = root / ("temple", "flower")[kind] / f"{i:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        window.resize((width, height), Image.Resampling.LANCZOS).save(path, quality=90)
        size += path.stat().st_size
    return size


def theirs(root: Path) -> DataLoader:
    """Return the baseline of tutorials: ImageFolder with a DataLoader."""
    vision = torchvision()
    t = vision.transforms
    low = (1 - AUGMENT.crop) ** 2
    transform = t.Compose(
        [
            t.RandomResizedCrop(SIDE, scale=(low, 1.0)),
            t.RandomHorizontalFlip(),
            t.ToTensor(),
            t.Normalize((0.5,) * 3, (0.25,) * 3),
        ]
    )
    folder = vision.datasets.ImageFolder(str(root), transform)
    return DataLoader(
        folder, BATCH, shuffle=True, num_workers=WORKERS, persistent_workers=True
    )


def ours(root: Path, cache: Path) -> Batches:
    """Return striate's training batches, which contain nearly all images."""
    data = load_data(
        root,
        image_size=SIDE,
        normalize="none",
        val_fraction=0.02,
        exact=True,
        test_fraction=0,
        margin=crop_margin(AUGMENT),
        cache=str(cache),
    )
    subset = data.subset("train")
    return Batches(
        subset=subset, preprocess=data.preprocess, batch_size=BATCH, augment=AUGMENT
    )


def epoch(batches: object, number: int) -> int:
    """Run through one epoch and return the number of images."""
    made = batches(number) if callable(batches) else batches
    seen = 0
    for x, y in made:
        assert x.shape[1:] == (3, SIDE, SIDE)
        assert x.dtype == torch.float32
        seen += len(y)
    return seen


def timed(make: object, later: int) -> tuple[float, float]:
    """Return microseconds per image for the first epoch and for a later epoch."""
    start = time.perf_counter()
    batches = make()
    seen = epoch(batches, 0)
    first = 1e6 * (time.perf_counter() - start) / seen
    start = time.perf_counter()
    seen = sum(epoch(batches, 1 + number) for number in range(later))
    return first, 1e6 * (time.perf_counter() - start) / seen


def race(root: Path, rounds: int, later: int) -> dict[str, list[tuple[float, float]]]:
    """Return (first, later) epoch times by loader; each round has a new cache."""
    times: dict[str, list[tuple[float, float]]] = {"striate": [], "peer": []}
    for turn in range(rounds):
        for name in sorted(times, reverse=turn % 2 == 1):
            cache = Path(tempfile.mkdtemp(prefix="striate-bench-"))
            if name == "striate":
                times[name].append(timed(lambda c=cache: ours(root, c), 10 * later))
            else:
                times[name].append(timed(lambda: theirs(root), later))
            shutil.rmtree(cache)
    return times


def main() -> None:
    """Run the benchmark for every image size, print and save the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--later", type=int, default=1, help="later baseline epochs")
    parser.add_argument("--share", type=float, default=1.0, help="share of images")
    parser.add_argument("--large", action="store_true", help="add 12 megapixels")
    options = parser.parse_args()
    keep_freed_memory()
    rows = []
    for name, (width, height, count) in (
        SETS | (LARGE if options.large else {})
    ).items():
        root = Path(tempfile.mkdtemp(prefix="striate-bench-jpeg-"))
        size = write_folder(root, width, height, max(40, int(options.share * count)))
        times = race(root, options.rounds, options.later)
        shutil.rmtree(root)
        for k, when in enumerate(("first", "later")):
            own = [pair[k] for pair in times["striate"]]
            other = [pair[k] for pair in times["peer"]]
            cells = (
                f"{name}, {when}",
                f"{statistics.median(own):,.0f} µs",
                f"{max(own):,.0f} µs",
                f"{statistics.median(other):,.0f} µs",
                f"{max(other):,.0f} µs",
                f"{statistics.median(other) / statistics.median(own):.1f}×",
            )
            rows.append("| " + " | ".join(cells) + " |")
            print(rows[-1], f"({size / 1e6:.0f} MB)", flush=True)
    head = "| images, epoch | striate | worst | ImageFolder | worst | faster by |"
    facts = (
        f"Microseconds an image; {options.rounds} rounds turn about, each with a new "
        f"cache; {torch.get_num_threads()} threads, {WORKERS} workers of the peer, "
        f"{os.cpu_count()} cores. {speeds()}"
    )
    body = head + "\n|---|---|---|---|---|---|\n" + "\n".join(rows) + f"\n\n{facts}"
    save("jpeg", f"JPEG folders to {SIDE}² samples (P5)", body)


if __name__ == "__main__":
    main()
