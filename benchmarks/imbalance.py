"""What `--class-weights` does for rare classes: digits with five of ten made rare.

Of the digits 5–9 one in RARE of the training and validation pictures is kept; the test
part keeps all, so every class is judged on about 45 pictures. Claim: both ways of the
switch raise the balanced accuracy by more than their deviations, and the recall of the
rare classes by more than it costs the common ones.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from record import mean_deviation, save
from striate.data.load import ImageData, load_data
from striate.runs.recipe import Recipe
from striate.runs.train import train_recipe

SEEDS = range(5)
WAYS = ("none", "auto", "sampling")
RARE = 20


def thinned(seed: int, rare: int) -> ImageData:
    """Return the digits with one in `rare` of the upper five outside the test."""
    data = load_data("digits", seed=seed, exact=True)
    parts = dict(data.parts)
    for name in ("train", "val"):
        labels = parts[name].labels.numpy()
        kept = [np.flatnonzero(labels == digit) for digit in range(10)]
        kept[5:] = [found[: max(2, len(found) // rare)] for found in kept[5:]]
        parts[name] = parts[name].take(np.sort(np.concatenate(kept)).tolist())
    return replace(data, parts=parts)


def measure(way: str, folder: Path) -> list[dict[str, float]]:
    """Train with one way of the switch over all seeds."""
    found = []
    for seed in SEEDS:
        recipe = Recipe(data="digits", seed=seed, class_weights=way)
        data = thinned(seed, RARE)
        run = train_recipe(recipe, data=data, out=folder / f"{way}{seed}", quiet=True)
        score = run.scores["test"]
        recalls = [c["recall"] for c in score["classes"]]
        found.append(
            {
                "balanced": score["balanced_accuracy"],
                "common": statistics.mean(recalls[:5]),
                "rare": statistics.mean(recalls[5:]),
            }
        )
        print(way, seed, found[-1], flush=True)
    return found


def main() -> None:
    """Measure all ways, print, save."""
    counts = thinned(0, RARE).part("train").labels.bincount().tolist()
    lines = ["| --class-weights | balanced accuracy | recall, common | recall, rare |"]
    lines.append("|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for way in WAYS:
            found = measure(way, Path(folder))
            cells = [
                mean_deviation([run[key] for run in found])
                for key in ("balanced", "common", "rare")
            ]
            lines.append(f"| {way} | {' | '.join(cells)} |")
    body = "\n".join(lines)
    body += f"\n\nn = {len(SEEDS)} seeds; training pictures a class (seed 0): "
    body += f"{', '.join(map(str, counts))}.\n"
    print(body)
    if "--keep" in sys.argv:
        save("imbalance", "Digits with five rare classes", body)


if __name__ == "__main__":
    main()
