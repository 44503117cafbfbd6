"""Types of the settings that `train` and `transfer` accept by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypedDict

from striate.data.config_types import DataSettings


class TrainSettings(TypedDict, total=False):
    """Fields of `TrainConfig` and `freeze`, as keyword arguments of `train`."""

    seed: int
    freeze: str | Sequence[str] | None
    epochs: int
    batch_size: int | Literal["auto"]
    accumulate: int
    lr: float | Literal["auto"] | None
    optimizer: str
    momentum: float
    weight_decay: float
    schedule: str
    progressive_resize: float
    label_smoothing: float
    dropout: float | None
    drop_path: float
    ema: float
    tta: str
    class_weights: str
    patience: int
    augment: str
    rotate: float | None
    shear: float | None
    warp: float | None
    flip: str | None
    crop: float | None
    color: float | None
    scale: float | None
    shift: float | None
    erase: float | None
    mixup: float | None
    cutmix: float | None
    border: str | None
    device: str
    layout: str
    compile: str
    precision: str
    sync_batch_norm: bool
    rank_timeout: float
    save_every: float
    track_norms: bool
    on_nonfinite: str


class TransferSettings(TrainSettings, DataSettings, total=False):
    """Fields of `Recipe` and `TransferOptions`, as keyword arguments of `transfer`."""

    model: str
    offline: bool
    trust: bool
    head_hidden: int
    cut: str | None
    head: str | None
    views: int
    layer_decay: float | None
    unfreeze: int
    batch_norm: str | None
