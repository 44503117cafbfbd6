"""Accuracy and run time of the Fashion-MNIST presets, over four seeds.

Goals: `fashion-gray` ≥ 91.6 % (published for two convolutions with pooling),
`fashion-best` ≥ 93.4 %, `fashion-large` ≥ 94.5 %. The validation split is a part of
the 60,000 training images. The 10,000 test images are evaluated once per seed.
"""

from __future__ import annotations

import os
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch

from record import mean_deviation, save
from striate.run.parse_settings import make_recipe
from striate.run.presets import PRESETS
from striate.workflows.train.train import train_recipe

SEEDS = range(4)
GOALS = {"fashion-gray": 91.6, "fashion-best": 93.4, "fashion-large": 94.5}


def train(preset: str, seed: int, folder: str) -> tuple[float, float, float]:
    """Train on one thread; return test accuracy, validation accuracy and seconds."""
    torch.set_num_threads(1)
    recipe = make_recipe(PRESETS[preset].settings, {"seed": seed})
    run = train_recipe(recipe, out=Path(folder) / f"{preset}-{seed}", quiet=True)
    test, val = (run.scores[split]["accuracy"] for split in ("test", "val"))
    return test, val, run.manifest["seconds"]


def measure(preset: str, folder: str) -> str:
    """Train one preset with all seeds, each on one core, and return a table."""
    workers = get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), workers) as pool:
        count = len(SEEDS)
        results = list(pool.map(train, [preset] * count, SEEDS, [folder] * count))
    lines = [f"## {preset}\n", "| seed | test accuracy | validation | training |"]
    lines.append("|---|---|---|---|")
    for seed, (test, val, seconds) in zip(SEEDS, results, strict=True):
        share = f"{100 * test:.2f} % | {100 * val:.2f} %"
        lines.append(f"| {seed} | {share} | {seconds:.0f} s |")
    mean = mean_deviation([test for test, _, _ in results])
    lines.append(f"\nMean {mean} (n = {len(SEEDS)} seeds; goal {GOALS[preset]} %).\n")
    return "\n".join(lines)


def main() -> None:
    """Measure the presets given on the command line, or all presets."""
    chosen = sys.argv[1:] or list(GOALS)
    with tempfile.TemporaryDirectory(prefix="fashion-") as folder:
        tables = [measure(preset, folder) for preset in chosen]
    body = "Each run used one thread; as many ran at once as there are cores.\n\n"
    body += "\n".join(tables)
    print(body)
    save("-".join(chosen), "Fashion-MNIST, bundled recipes", body)


if __name__ == "__main__":
    main()
