"""Defects in solar cells, from labels to a report (docs/example_solar_cells.md).

The cells are 2,624 electroluminescence images of 300×300 pixels (ELPV, Deitsch et al.
2019). Their license is CC BY-NC-SA, so striate does not contain them. Install them
first, then run:

    pip install --no-deps elpv-dataset
    python examples/solar_cells.py
"""

from __future__ import annotations

import csv
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from sklearn.model_selection import train_test_split

from striate.cli.main import main

TABLE = Path("cells.csv")
COLUMNS = ("image_path", "label", "kind", "probability", "split")
RUN = "runs/transfer/cells"
SEED = 0

Cell = tuple[Path, float, str]


def read_cells() -> list[Cell]:
    """Return image, probability of a defect, and kind (mono or poly) of each cell."""
    package = importlib.util.find_spec("elpv_dataset")
    if package is None or package.origin is None:
        sys.exit("install the images first: pip install --no-deps elpv-dataset")
    root = Path(package.origin).parent / "data"
    lines = (root / "labels.csv").read_text().splitlines()
    rows = [line.split() for line in lines]
    return [(root / name, float(prob), kind) for name, prob, kind in rows]


def assign_splits(cells: Sequence[Cell]) -> list[str]:
    """Split off a quarter as test, then 15 % of the rest as validation, stratified."""
    strata = [f"{prob:.2f} {kind}" for _, prob, kind in cells]
    splits = ["train"] * len(cells)
    rest = list(range(len(cells)))
    for split, share in (("test", 0.25), ("val", 0.15)):
        rest, selected = train_test_split(
            rest, test_size=share, random_state=SEED, stratify=[strata[i] for i in rest]
        )
        for i in selected:
            splits[i] = split
    return splits


def write_table(cells: Sequence[Cell], path: Path) -> None:
    """Write one row per cell; from probability 0.5 on, it is labeled a defect."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for (image, prob, kind), split in zip(cells, assign_splits(cells), strict=True):
            label = "defect" if prob >= 0.5 else "sound"
            writer.writerow((image, label, kind, f"{prob:.2g}", split))


def striate(*words: str) -> None:
    """Run a striate command, as a user would type it."""
    print("\n$ striate", *words, flush=True)
    if main(words) == 2:  # 1 is not an error: there are findings
        sys.exit(2)


if __name__ == "__main__":
    write_table(read_cells(), TABLE)
    striate("data", "check", str(TABLE))
    reuse = ("--model", "mobilenet_v2", "--pretrained", "mobilenet_v2")
    size = ("--image-size", "224", "--in-chans", "1")
    striate("transfer", str(TABLE), *reuse, *size, "--out", RUN, "--overwrite")
    flags = ("--operating-point", "defect", "--recall", "0.95")
    striate("evaluate", RUN, *flags, "--by", "kind,probability")
