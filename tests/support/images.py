"""Generated images and image folders: small, and quick to train on."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path

import numpy as np
from PIL import Image


def stripes(kind: int, seed: int, height: int = 8, width: int = 8, channels: int = 1):
    """A noisy image whose stripes run across (0), down (1) or aslant (2 …)."""
    rows, columns = np.mgrid[:height, :width]
    phase = (rows, columns, rows + columns, rows - columns)[kind % 4]
    clean = np.where(phase // 2 % 2, 200, 55)[..., None]
    noise = np.random.default_rng(seed).integers(-40, 41, (height, width, channels))
    return (clean + noise).clip(0, 255).astype(np.uint8)


def pil_image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def write_folder(
    root: Path,
    classes=("across", "down"),
    count: int = 12,
    size: tuple[int, int] = (8, 8),
    channels: int = 1,
    suffix: str = ".png",
    seed: int = 0,
) -> Path:
    """Write `count` images for each class and return the folder."""
    for kind, name in enumerate(classes):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            pixels = stripes(kind, 1000 * kind + i + 10_000 * seed, *size, channels)
            pil_image(pixels).save(root / name / f"{i:02d}{suffix}")
    return root


def write_table(root: Path, count: int = 12, **options) -> Path:
    """Write images and a CSV that names them, and return the CSV."""
    write_folder(root / "images", count=count, **options)
    paths = sorted((root / "images").rglob("*.png"))
    lines = [f"images/{p.parent.name}/{p.name},{p.parent.name}" for p in paths]
    table = root / "table.csv"
    table.write_text("\n".join(["image_path,label", *lines, ""]))
    return table


def snapshot(root: Path) -> dict[bytes, tuple[str, int, int]]:
    """Content, mode and time of everything below a folder, to prove it untouched."""
    found = {}
    for folder, folders, files in os.walk(os.fsencode(root)):
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            status = os.lstat(path)
            plain = os.path.isfile(path) and not os.path.islink(path)
            content = ""
            if plain and status.st_mode & 0o400:
                with open(path, "rb") as file:
                    content = hashlib.sha256(file.read()).hexdigest()
            found[path] = (content, status.st_mode, status.st_mtime_ns)
    return found
