"""Images of a trial: a data set without its own split, split anew for each seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from functools import lru_cache
from typing import Any

from striate.data.config import DataConfig
from striate.data.find_source import find_source
from striate.data.image_data import ImageData
from striate.data.load import load_data
from striate.data.sources.source import Source

# Numbers of images; the rest of the data set is left out.
SPLIT_SIZES = ("train_images", "val_images", "test_images")
DATA_SETTINGS = frozenset(spec.name for spec in fields(DataConfig))


@lru_cache(maxsize=1)
def pooled_source(data: str) -> Source:
    """Return all images of a data set, without the split that the set comes with."""
    source = find_source(data)
    records = tuple(replace(record, split=None) for record in source.records)
    return replace(source, records=records)


@lru_cache(maxsize=2)
def _load(data: str, settings: tuple[tuple[str, Any], ...]) -> ImageData:
    return load_data(pooled_source(data), exact=True, **dict(settings))


def load_trial_data(settings: Mapping[str, Any], seed: int) -> ImageData:
    """Load the images of a trial, with the split of a seed.

    Arms with the same seed and the same settings of the data get the same images in
    the same splits. The settings `train_images`, `val_images` and `test_images` are
    numbers, which the split of each class meets nearly. If the data set is too small,
    all three are reduced in proportion.

    Example:
        >>> sizes = {"train_images": 100, "val_images": 20, "test_images": 200}
        >>> data = load_trial_data({"data": "digits", **sizes}, seed=0)
        >>> list(data.subsets), abs(len(data.subset("test")) - 200) < 10
        (['train', 'val', 'test'], True)
    """
    data_settings = {k: v for k, v in settings.items() if k in DATA_SETTINGS}
    data_settings |= split_fractions(
        settings, len(pooled_source(settings["data"]).records)
    )
    data_settings["seed"] = seed
    return _load(settings["data"], tuple(sorted(data_settings.items())))


def load_source(source: Source, settings: Mapping[str, Any], seed: int) -> ImageData:
    """Load the images of a source that a card makes, with the split of a seed."""
    fractions: dict[str, Any] = split_fractions(settings, len(source.records))
    return load_data(source, exact=True, seed=seed, cache="off", **fractions)


def split_fractions(settings: Mapping[str, Any], count: int) -> dict[str, float]:
    """Return the settings of the split for numbers of images, of `count` in all."""
    if not any(settings.get(name) for name in SPLIT_SIZES):
        return {}
    train, val, test = (int(settings.get(name) or 0) for name in SPLIT_SIZES)
    shrink = min(1.0, count / (train + val + test))
    train, val, test = (round(n * shrink) for n in (train, val, test))
    return {
        "val_fraction": val / count,
        "test_fraction": test / count,
        "fraction": min(1.0, train / (count - val - test)),
    }
