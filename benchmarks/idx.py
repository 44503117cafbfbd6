"""Read Fashion-MNIST files into arrays, for programs that do not import striate."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np

PLACES = ("/usr/share/datasets/fashion-mnist", "~/.cache/fashion-mnist")
Half = tuple[np.ndarray, np.ndarray]


def fashion(folder: str = "") -> tuple[Half, Half]:
    """Return (images, labels) of the training split and of the test split.

    Images are (N, 28, 28) float32 with values 0–255, labels (N,) int64.
    """
    places = [Path(p).expanduser() for p in ((folder,) if folder else PLACES)]
    found = next((p for p in places if p.is_dir()), places[0])
    return _half(found, "train"), _half(found, "t10k")


def _half(folder: Path, split: str) -> Half:
    images = _read(folder, f"{split}-images")[16:].reshape(-1, 28, 28)
    labels = _read(folder, f"{split}-labels")[8:]
    return images.astype(np.float32), labels.astype(np.int64)


def _read(folder: Path, name: str) -> np.ndarray:
    path = next(p for p in sorted(folder.rglob("*")) if p.name.startswith(name))
    payload = path.read_bytes()
    if path.suffix == ".gz":
        payload = gzip.decompress(payload)
    return np.frombuffer(payload, np.uint8)
