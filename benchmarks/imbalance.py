"""Effect of `--class-weights` on rare classes, on two artificially imbalanced datasets.

`digits`: one in 20 training and validation images of the digits 5–9 is kept.
`fashion`: a long tail, class k keeps 1000·100^(−k/9) training images, 1000 to 10.
The test splits keep all images, so that all classes are evaluated equally. Claim: every
value of `--class-weights` raises the balanced accuracy by more than the standard
deviation over seeds. The value that `auto` means was chosen on the digits, and
Fashion-MNIST is the independent test.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from record import mean_deviation, save
from striate.data.image_data import ImageData
from striate.data.load import load_data
from striate.run.recipe import Recipe
from striate.workflows.train.train import train_recipe

WAYS = ("none", "auto", "loss", "sampling")
RARE = 20
SETTINGS: dict[str, dict[str, Any]] = {
    "digits": {"data": "digits"},
    "fashion": {"data": "fashion-mnist", "epochs": 15},
}
SEEDS = {"digits": 5, "fashion": 3}


def thinned(data: ImageData, keep: Callable[[str, int, int], int]) -> ImageData:
    """Return data with fewer training and validation images per class.

    Args:
        data: The complete dataset.
        keep: Returns the number of images to keep, given split, class index and count.
    """
    subsets = dict(data.subsets)
    for name in ("train", "val"):
        labels = subsets[name].labels.numpy()
        members = [np.flatnonzero(labels == k) for k in range(data.num_classes)]
        kept = [m[: keep(name, k, len(m))] for k, m in enumerate(members)]
        subsets[name] = subsets[name].take(np.sort(np.concatenate(kept)).tolist())
    return replace(data, subsets=subsets)


def one_in_rare(split: str, k: int, count: int) -> int:
    """Return the number of images to keep: all of digits 0–4, one in `RARE` of 5–9."""
    return count if k < 5 else max(2, count // RARE)


def long_tail(split: str, k: int, count: int) -> int:
    """Return the number of images to keep: 1000 down to 10; a tenth for validation."""
    due = 1000 * 100 ** (-k / 9)
    return max(2, round(due if split == "train" else due / 10))


KEEP = {"digits": one_in_rare, "fashion": long_tail}


def load(name: str, seed: int) -> ImageData:
    """Load a dataset and make its classes imbalanced."""
    whole = load_data(SETTINGS[name]["data"], seed=seed, exact=True)
    return thinned(whole, KEEP[name])


def measure(name: str, way: str, folder: Path) -> list[dict[str, float]]:
    """Train with one value of `--class-weights` for all seeds; return the recalls."""
    found = []
    for seed in range(SEEDS[name]):
        recipe = Recipe(**SETTINGS[name], seed=seed, class_weights=way)
        out = folder / f"{name}-{way}-{seed}"
        run = train_recipe(recipe, data=load(name, seed), out=out, quiet=True)
        score = run.scores["test"]
        recalls = [c["recall"] for c in score["classes"]]
        found.append(
            {
                "balanced": score["balanced_accuracy"],
                "common": statistics.mean(recalls[:5]),
                "rare": statistics.mean(recalls[5:]),
            }
        )
        print(name, way, seed, found[-1], flush=True)
    return found


def table(name: str, folder: Path) -> str:
    """Measure all values of `--class-weights` on one dataset and return a table."""
    counts = load(name, 0).subset("train").labels.bincount().tolist()
    lines = [f"## {name}\n"]
    lines.append("| --class-weights | balanced accuracy | first five | last five |")
    lines.append("|---|---|---|---|")
    for way in WAYS:
        found = measure(name, way, folder)
        cells = [
            mean_deviation([run[key] for run in found])
            for key in ("balanced", "common", "rare")
        ]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    lines.append(f"\nn = {SEEDS[name]} seeds; mean recall of the first and last five")
    lines.append(f"classes; training images: {', '.join(map(str, counts))}.\n")
    return "\n".join(lines)


def main() -> None:
    """Measure the datasets given as arguments, or both; print and save results."""
    chosen = sys.argv[1:] or list(SETTINGS)
    with tempfile.TemporaryDirectory() as folder:
        body = "\n".join(table(name, Path(folder)) for name in chosen)
    print(body)
    save("-".join(["imbalance", *sys.argv[1:]]), "Uneven classes, one switch", body)


if __name__ == "__main__":
    main()
