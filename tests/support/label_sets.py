"""Generated images with several labels: each class is a colored square or nothing."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image

COLORS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (50, 60, 230)}


def draw_squares(labels, rng: np.random.Generator, side: int = 16) -> Image.Image:
    """A noisy gray image with one square of the color of each label."""
    pixels = rng.normal(120, 12, (side, side, 3))
    size = side // 4
    places = rng.permutation(16)
    for place, label in zip(places, labels, strict=False):
        row, column = divmod(int(place), 4)
        rows = slice(row * size, (row + 1) * size)
        pixels[rows, column * size : (column + 1) * size] = COLORS[label]
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write_label_sets(
    root: Path,
    count: int = 120,
    side: int = 16,
    seed: int = 0,
    column: str = "label",
    name: str = "table.csv",
) -> Path:
    """Write images, and a CSV with the label sets `red;blue`; return the CSV.

    Red is in half of the images, green in a third, and blue in a tenth.
    """
    rng = np.random.default_rng(seed)
    folder = root / "images"
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    shares = {"red": 0.5, "green": 0.35, "blue": 0.12}
    for i in range(count):
        labels = [color for color, share in shares.items() if rng.random() < share]
        draw_squares(labels, rng, side).save(folder / f"{i:03d}.png")
        rows.append((f"images/{i:03d}.png", ";".join(labels)))
    table = root / name
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([("image_path", column), *rows])
    return table
