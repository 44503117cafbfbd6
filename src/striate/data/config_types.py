"""Types of the settings that `load_data` and `train` accept as keyword arguments."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict


class DataSettings(TypedDict, total=False):
    """Fields of `DataConfig`, as keyword arguments of `load_data`."""

    seed: int
    image_size: int | tuple[int, int] | None
    in_chans: int | None
    resize: str | None
    background: int | None
    white_level: int | None
    jpeg: str
    normalize: str
    mean: Sequence[float] | float | None
    std: Sequence[float] | float | None
    val_fraction: float
    test_fraction: float
    fraction: float
    folds: int | None
    fold: int | None
    split: str | Path | None
    cache: str
    cache_gb: float
    workers: int
