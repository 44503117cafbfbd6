"""Solar cells, from a table of labels to a report (docs/example_solar_cells.md).

The cells are 2,624 electroluminescence images of 300×300 pixels (ELPV, Deitsch et al.
2019), CC BY-NC-SA and hence not a part of striate. Install them first, then run:

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


def cells() -> list[Cell]:
    """Return each cell's image, its probability of a defect, and mono or poly."""
    package = importlib.util.find_spec("elpv_dataset")
    if package is None or package.origin is None:
        sys.exit("install the images first: pip install --no-deps elpv-dataset")
    root = Path(package.origin).parent / "data"
    lines = (root / "labels.csv").read_text().splitlines()
    rows = [line.split() for line in lines]
    return [(root / name, float(probs), kind) for name, probs, kind in rows]


def splits(every: Sequence[Cell]) -> list[str]:
    """Deal a quarter to test and 15 % of the rest to validation, alike in all kinds."""
    strata = [f"{probs:.2f} {kind}" for _, probs, kind in every]
    dealt = ["train"] * len(every)
    left = list(range(len(every)))
    for split, share in (("test", 0.25), ("val", 0.15)):
        left, taken = train_test_split(
            left, test_size=share, random_state=SEED, stratify=[strata[i] for i in left]
        )
        for i in taken:
            dealt[i] = split
    return dealt


def write_table(every: Sequence[Cell], path: Path) -> None:
    """Write one row a cell: a defect where the experts gave it one half or more."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for (image, probs, kind), split in zip(every, splits(every), strict=True):
            label = "defect" if probs >= 0.5 else "sound"
            writer.writerow((image, label, kind, f"{probs:.2g}", split))


def striate(*words: str) -> None:
    """Run a command line as a user would type it."""
    print("\n$ striate", *words, flush=True)
    if main(words) == 2:  # 1 is no mistake: something was found
        sys.exit(2)


if __name__ == "__main__":
    write_table(cells(), TABLE)
    striate("data", "check", str(TABLE))
    reuse = ("--model", "mobilenet_v2", "--pretrained", "mobilenet_v2")
    size = ("--image-size", "224", "--in-chans", "1")
    striate("transfer", str(TABLE), *reuse, *size, "--out", RUN, "--overwrite")
    flags = ("--operating-point", "defect", "--recall", "0.95")
    striate("evaluate", RUN, *flags, "--by", "kind,probability")
