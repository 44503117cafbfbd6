"""Named data sets, which a library or a system package provides."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from striate.core.errors import DataError
from striate.core.registry import Registry
from striate.data.sources.downloads import PUBLIC_DATASETS, dataset_folders
from striate.data.sources.folder import read_folder
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
    for place in dataset_folders("fashion-mnist"):
        if has_idx(place):
            return read_idx(place, FASHION_CLASSES)
    also = (
        "or install the system package dataset-fashion-mnist (Debian, Ubuntu), or give "
        "the folder of the four IDX files instead of the name"
    )
    raise _not_here("fashion-mnist", also)


@NAMED.add("trashnet")
def trashnet() -> Source:
    """Return TrashNet: 2,527 color photographs of waste, 512×384, in 6 classes.

    Raises:
        DataError: The data set was not downloaded.
    """
    for place in dataset_folders("trashnet"):
        if place.is_dir():
            return read_folder(place)
    raise _not_here("trashnet", "or give the folder of its class folders instead")


def _not_here(name: str, also: str) -> DataError:
    """Return the error for a public data set that is not on this machine."""
    dataset = PUBLIC_DATASETS[name]
    size = f"{dataset.size / 1e6:.0f} MB, license {dataset.license}"
    searched = ", ".join(map(str, dataset_folders(name)))
    fix = f"download it with `striate data fetch {name}` ({size}), {also}"
    return DataError(f"{name} is not on this machine", where=searched, fix=fix)
