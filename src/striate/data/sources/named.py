"""Named data sets, which a library or a system package provides."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from striate.core.errors import DataError
from striate.core.registry import Registry
from striate.data.sources.idx import has_idx, read_idx
from striate.data.sources.source import Source, from_arrays

FASHION_CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)

NAMED: Registry[Callable[[], Source]] = Registry("data set")


@NAMED.add("digits")
def digits() -> Source:
    """Return scikit-learn's 1,797 handwritten digits: 8×8 pixels, 17 gray levels."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    return from_arrays("digits", pixels, [str(n) for n in bunch.target])


@NAMED.add("fashion-mnist")
def fashion_mnist() -> Source:
    """Return Fashion-MNIST: 60,000 training and 10,000 test images, 28×28, gray.

    Raises:
        DataError: The data set is not installed.
    """
    home = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local/share")
    shared = os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share"
    folders = [home, *filter(None, shared.split(":"))]
    places = [Path(folder) / "datasets/fashion-mnist" for folder in folders]
    for place in places:
        if has_idx(place):
            return read_idx(place, FASHION_CLASSES)
    searched = ", ".join(map(str, places))
    fix = (
        "install the system package dataset-fashion-mnist (Debian, Ubuntu), or give "
        "the folder of the four IDX files instead of the name"
    )
    raise DataError("fashion-mnist is not on this machine", where=searched, fix=fix)
