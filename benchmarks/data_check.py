"""`data check` on real datasets: findings, run time, and recall of planted copies.

Changed copies are added to the 2,624 ELPV cells, which are all similar, and to 20,000
images of Fashion-MNIST. There are 13 changes, from JPEG at quality 50 to a word across
the middle. A false pair joins copies of two different originals. The baseline is the
usual 64-bit DCT hash ("pHash", Zauner 2010), with pairs up to a Hamming distance, also
between an image and a mirrored image.
"""

from __future__ import annotations

import argparse
import collections
import importlib.util
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.fft import dctn

from elpv import write_csv
from record import save
from striate.data.check.check import check_dataset
from striate.data.check.duplicates import connected_components
from striate.data.check.image_stats import examine_pixels
from striate.data.check.near_duplicates import (
    find_near_duplicates,
    searchable_positions,
)
from striate.data.sources.named import fashion_mnist

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.planted_copies import CHANGES

Pair = tuple[int, int]
HAMMING = (0, 4, 8, 10)


def find(images: Sequence[np.ndarray]) -> list[Pair]:
    """Return the index pairs of images that striate reports as near-duplicates."""
    seen = [examine_pixels(image) for image in images]
    thumbs = np.stack([one.thumb for one in seen])
    sides = [min(image.shape[:2]) for image in images]
    chosen = searchable_positions(thumbs, sides, range(len(images)))
    found = find_near_duplicates(thumbs[chosen], lambda k: seen[int(chosen[k])].view)
    return [(int(chosen[p.first]), int(chosen[p.second])) for p in found]


def hashed(images: Sequence[np.ndarray], most: int) -> list[Pair]:
    """Return index pairs whose pHash differs in at most `most` bits, also mirrored."""
    bits = np.stack([phash(image) for image in images]).astype(np.float32) * 2 - 1
    ways = [bits]
    for axis in (0, 1):
        turned = [phash(np.flip(image, axis)) for image in images]
        ways.append(np.stack(turned).astype(np.float32) * 2 - 1)
    found: set[Pair] = set()
    for other in ways:
        for start in range(0, len(bits), 1024):
            distance = (64 - bits[start : start + 1024] @ other.T) / 2
            for i, j in np.argwhere(distance <= most):
                if start + i < j:
                    found.add((int(start + i), int(j)))
    return sorted(found)


def phash(image: np.ndarray) -> np.ndarray:
    """Return the 64-bit pHash: whether each low DCT coefficient exceeds the median."""
    gray = Image.fromarray(np.ascontiguousarray(image[..., 0]))
    small = np.asarray(gray.resize((32, 32), Image.Resampling.LANCZOS), float)
    low = dctn(small)[:8, :8].ravel()
    return low > np.median(low)


def plant(
    originals: Sequence[np.ndarray], each: int
) -> tuple[list[np.ndarray], list[int], list[tuple[str, int]]]:
    """Return images with changed copies, each image's original, and (change, index)."""
    chance = np.random.default_rng(0)
    images, roots = list(originals), list(range(len(originals)))
    planted = []
    for name, change in CHANGES.items():
        for k in chance.permutation(len(originals))[:each]:
            planted.append((name, len(images)))
            images.append(np.ascontiguousarray(change(originals[k], chance)))
            roots.append(int(k))
    return images, roots, planted


def judge(
    found: Sequence[Pair], roots: Sequence[int], planted: Sequence[tuple[str, int]]
) -> tuple[dict[str, float], float, int]:
    """Return recall by change, mean recall, and the number of false pairs."""
    false = sum(roots[i] != roots[j] for i, j in found)
    right = [pair for pair in found if roots[pair[0]] == roots[pair[1]]]
    family: dict[int, int] = {}
    for number, group in enumerate(connected_components(len(roots), right)):
        family |= dict.fromkeys(group, number)
    hits: dict[str, list[bool]] = collections.defaultdict(list)
    for name, place in planted:
        hits[name].append(family.get(place, -1) == family.get(roots[place], -2))
    by_change = {name: statistics.mean(got) for name, got in hits.items()}
    return by_change, statistics.mean(by_change.values()), false


def planted_table(title: str, images: list[np.ndarray], each: int) -> str:
    """Return a table with the planted copies that striate and pHash find."""
    own = {i for pair in find(images) for i in pair}
    originals = [p for i, p in enumerate(images) if i not in own and p.std() > 8]
    planted = plant(originals, each)
    ways = {"striate": find(planted[0])}
    ways |= {f"pHash ≤ {most}": hashed(planted[0], most) for most in HAMMING}
    judged = {name: judge(found, *planted[1:]) for name, found in ways.items()}
    names = list(CHANGES)
    lines = [
        f"## {title}",
        f"{len(originals):,} originals (of {len(images):,}; {len(own)} are copies "
        f"already), {len(planted[2]):,} planted copies.",
        "",
        f"| | recall | false pairs | false of found | {' | '.join(names)} |",
        f"|---|---|---|---|{'---|' * len(names)}",
    ]
    for name, (by_change, recall, false) in judged.items():
        count = max(1, len(ways[name]))
        cells = " | ".join(f"{100 * by_change[n]:.0f}" for n in names)
        lines.append(
            f"| {name} | {100 * recall:.2f} % | {false:,} | {false / count:.2%} | "
            f"{cells} |"
        )
    return "\n".join(lines)


def timed(data: str | Path, rounds: int) -> str:
    """Check a dataset several times; return the findings and the run time as text."""
    walls, cores = [], []
    for _ in range(rounds):
        wall, used = time.perf_counter(), processor_seconds()
        found = check_dataset(data)
        walls.append(time.perf_counter() - wall)
        cores.append(processor_seconds() - used)
    told = "; ".join(f.what for f in found.findings) or "nothing"
    return (
        f"{found.file_count:,} files, {len(found.items):,} used. "
        f"Median {_spread(walls)}, "
        f"processor time {_spread(cores)}. Found: {told}."
    )


def processor_seconds() -> float:
    """Return the CPU seconds of this process and of finished worker processes."""
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(r.ru_utime + r.ru_stime for r in map(resource.getrusage, who))


def _spread(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds):.1f} s (worst {max(seconds):.1f})"


def cells() -> list[np.ndarray]:
    """Return the images of all ELPV solar cells."""
    found = importlib.util.find_spec("elpv_dataset")
    if found is None or found.origin is None:
        sys.exit("install elpv-dataset first: pip install --no-deps elpv-dataset")
    files = sorted((Path(found.origin).parent / "data/images").glob("*.png"))
    return [np.asarray(Image.open(file).convert("L"))[..., None] for file in files]


def main() -> None:
    """Run the benchmark, print and save the results."""
    options = argparse.ArgumentParser()
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--each", type=int, default=100)
    chosen = options.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    parts = []
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "cells.csv"
        write_csv(table)
        for name, data in (("ELPV", table), ("Fashion-MNIST", "fashion-mnist")):
            parts.append(f"## {name}\n{timed(data, chosen.rounds)}")
    parts.append(planted_table("Planted among solar cells", cells(), chosen.each))
    clothes = list(fashion_mnist().arrays[:20_000])
    parts.append(planted_table("Planted among clothes", clothes, chosen.each))
    body = "\n\n".join(parts)
    print(body)
    save("data-check", "data check on real sets, with planted copies", body)


if __name__ == "__main__":
    main()
