"""ELPV solar cells loaded from a CSV file and trained from scratch.

Grayscale images of 300×300 pixels; two classes, defect probability ≥ 0.5 and below.
The split is stratified, 75 % for training and validation, 25 % for testing. The dataset
has no module ids, so cells of one module can be in both splits. The purpose is to check
CSV loading with a real dataset, not to reach a record.
"""

from __future__ import annotations

import csv
import importlib.util
import sys
import tempfile
from pathlib import Path

from record import save
from striate.run.recipe import Recipe
from striate.run.run import Run
from striate.workflows.train.train import train_recipe


def write_csv(path: Path) -> None:
    """Write a CSV file with columns `image_path,label` for all ELPV cells."""
    found = importlib.util.find_spec("elpv_dataset")
    if found is None or found.origin is None:
        sys.exit("install elpv-dataset first: pip install --no-deps elpv-dataset")
    root = Path(found.origin).parent / "data"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("image_path", "label"))
        for line in (root / "labels.csv").read_text().splitlines():
            name, probability, _ = line.split()
            label = "defect" if float(probability) >= 0.5 else "sound"
            writer.writerow((root / name, label))


def describe(run: Run) -> str:
    """Describe the data, the training and the results of a run."""
    score, counts = run.scores["test"], run.manifest["data"]
    low, high = (100 * bound for bound in score["interval"])
    lines = [
        f"{counts['seen']} cells seen, {counts['used']} used, "
        f"{counts['quarantined']} quarantined. `{run.recipe.model}` at "
        f"{run.preprocess.spec}, {run.recipe.epochs} epochs, "
        f"{run.manifest['seconds']:.0f} s.",
        f"Test accuracy {100 * score['accuracy']:.2f} % (95 % interval "
        f"{low:.1f}–{high:.1f} %, n = {score['count']}), balanced "
        f"{100 * score['balanced_accuracy']:.2f} %. One split, one seed.",
        f"Warnings: {counts['warnings'] or 'none'}.",
    ]
    return "\n\n".join(lines)


def main() -> None:
    """Train once, print and save the results."""
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "cells.csv"
        write_csv(table)
        recipe = Recipe(data=str(table), epochs=2, batch_size=32, lr=1e-3)
        run = train_recipe(recipe, out=Path(folder) / "run")
        body = describe(run)
    print(body)
    save("elpv", "ELPV from scratch, CSV route", body)


if __name__ == "__main__":
    main()
