"""All settings of a training run; flags, YAML files and Python arguments share them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal

from striate.core.errors import SettingError
from striate.core.preprocess_config import (
    JPEG_MODES,
    MAX_WHITE_LEVEL,
    NORMALIZATIONS,
    RESIZE_MODES,
)
from striate.core.settings import check_settings, flag_name
from striate.core.settings import setting as _setting
from striate.data.augment.augment import PRESETS as AUGMENTS
from striate.data.augment.augment import RANGES, Augment, augmentation
from striate.data.split.hash_split import SplitConfig

# For small networks from scratch; measured in docs/notebook/accuracy-recipes.md.
DEFAULT_LR = {"sgd": 0.05, "adam": 3e-3, "adamw": 3e-3, "muon": 3e-3}
AUTO = "auto"  # decided when a run begins
SCHEDULE_NAMES = ("one_cycle", "cosine", "step", "constant")
TTA_NAMES = ("plain", "flip", "flip_shift")
NONFINITE_ACTIONS = ("stop", "skip", "lower-lr")
# Settings of the training loop and of distributed training; a linear head on
# extracted features has none of them.
TRAINING_LOOP_SETTINGS = (
    *(
        "accumulate",
        "sync_batch_norm",
        "drop_path",
        "ema",
        "progressive_resize",
        "save_every",
    ),
    *("on_nonfinite", "layout", "compile", "precision", "track_norms"),
)


def _augment(name: str) -> Any:
    """Return a range of `Augment` as a setting; None keeps the value of --augment."""
    (spec,) = [spec for spec in fields(Augment) if spec.name == name]
    return field(default=None, metadata=spec.metadata)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The settings of a training run; wrong ones are refused at construction.

    Raises:
        SettingError: A value is out of range; the message names the setting.

    Example:
        >>> Recipe(data="digits", epochs=5).resolved().lr
        0.003
        >>> Recipe(data="digits", epochs=0)
        Traceback (most recent call last):
        ...
        striate.core.errors.SettingError: epochs must be at least 1, got 0
          where: --epochs
    """

    data: str
    model: str = _setting(
        "auto",
        "network name (see `striate models`), or timm:NAME; auto: a small CNN for gray "
        "or for color images",
    )
    pretrained: str | None = _setting(
        None,
        "pretrained weights: a run folder, a file, or a name from `striate models "
        "--weights`",
    )
    freeze: tuple[str, ...] | None = _setting(
        None, "layers to freeze, by name or 'pattern*'; may be repeated"
    )
    trust: bool = _setting(
        False,
        "load a .pth file of unknown origin (tensors only, no code)",
        incidental=True,
    )
    epochs: int = _setting(30, "number of epochs", low=1)
    batch_size: int | Literal["auto"] = _setting(
        64, "images per batch; auto: as many as memory allows", low=1
    )
    accumulate: int = _setting(
        1,
        "gradient accumulation: number of micro-batches per batch, to save memory",
        low=1,
    )
    sync_batch_norm: bool = _setting(
        False, "under torchrun: batch norm statistics over the batch of all processes"
    )
    rank_timeout: float = _setting(
        60.0,
        "under torchrun: seconds until a process that does not answer ends the run",
        above=0,
        incidental=True,
    )
    lr: float | Literal["auto"] | None = _setting(
        None,
        "maximum learning rate; auto: chosen by a range test (default sgd 0.05, others "
        "0.003)",
        above=0,
    )
    optimizer: str = _setting("adamw", "optimizer", choices=tuple(DEFAULT_LR))
    momentum: float = _setting(
        0.9, "momentum of sgd and muon, beta1 of adam and adamw", low=0, below=1
    )
    weight_decay: float = _setting(
        0.01, "weight decay, not applied to biases and norms", low=0
    )
    head_hidden: int = _setting(
        0, "units of a hidden layer in the classifier head; 0: none", low=0
    )
    dropout: float | None = _setting(
        None,
        "dropout rate of all dropout layers (default: as in the network)",
        low=0,
        below=1,
    )
    drop_path: float = _setting(
        0.0, "stochastic depth: drop rate of the last residual branch", low=0, below=1
    )
    ema: float = _setting(
        0.0,
        "EMA decay (0: off); the averaged weights are evaluated and saved",
        low=0,
        below=1,
    )
    tta: str = _setting("plain", "test-time augmentation", choices=TTA_NAMES)
    schedule: str = _setting(
        "one_cycle", "learning-rate schedule", choices=SCHEDULE_NAMES
    )
    progressive_resize: float = _setting(
        1.0,
        "progressive resizing: start at this fraction of the image size; 1: off",
        above=0,
        high=1,
    )
    label_smoothing: float = _setting(0.1, "label smoothing", low=0, below=1)
    augment: str = _setting(
        "none",
        "augmentation preset; the flags below change single values",
        choices=tuple(AUGMENTS),
    )
    rotate: float | None = _augment("rotate")
    shear: float | None = _augment("shear")
    warp: float | None = _augment("warp")
    flip: str | None = _augment("flip")
    crop: float | None = _augment("crop")
    color: float | None = _augment("color")
    scale: float | None = _augment("scale")
    shift: float | None = _augment("shift")
    erase: float | None = _augment("erase")
    mixup: float | None = _augment("mixup")
    cutmix: float | None = _augment("cutmix")
    border: str | None = _augment("border")
    patience: int = _setting(
        0, "early stopping: epochs without improvement on validation; 0: off", low=0
    )
    image_size: int | tuple[int, int] | None = _setting(
        None,
        "input size in pixels, or HEIGHTxWIDTH (default: common size of the images, "
        "else 64)",
    )
    in_chans: int | None = _setting(
        None,
        "input channels: 1 gray, 3 color (default: 1 if all images are gray)",
        low=1,
    )
    resize: str | None = _setting(
        None,
        "how images are resized; default as the pretrained weights expect, or stretch",
        choices=RESIZE_MODES,
    )
    background: int | None = _setting(
        None,
        "gray level 0-255 behind transparent pixels (default: as the pretrained "
        "weights expect, else 255)",
        low=0,
        below=256,
    )
    white_level: int | None = _setting(
        None,
        "16-bit value that becomes white (default: as the pretrained weights expect, "
        "else the full range)",
        low=255,
        below=MAX_WHITE_LEVEL + 1,
    )
    jpeg: str = _setting(
        "reduced",
        "decode large JPEGs at reduced resolution (faster), or in full",
        choices=JPEG_MODES,
    )
    normalize: str = _setting(
        "auto",
        "mean and std of the input; auto: as the pretrained weights expect, else data",
        choices=("auto", *NORMALIZATIONS),
    )
    mean: tuple[float, ...] | None = _setting(
        None, "per-channel mean of pixels in 0-1, e.g. 0.485,0.456,0.406; needs --std"
    )
    std: tuple[float, ...] | None = _setting(
        None, "per-channel standard deviation, e.g. 0.229,0.224,0.225"
    )
    val_fraction: float = _setting(
        0.15, "validation fraction, if the data has no validation split", above=0
    )
    test_fraction: float = _setting(
        0.25, "test fraction, if the data has no test split", low=0
    )
    fraction: float = _setting(
        1.0, "use this fraction of the training split, stratified by class", above=0
    )
    folds: int | None = _setting(None, "number of cross-validation folds", low=2)
    fold: int | None = _setting(None, "fold to evaluate, from 0", low=0)
    split: str | None = _setting(
        None, "reuse a split: a run folder, or a CSV with the columns path,split"
    )
    class_weights: str = _setting(
        "none",
        "for imbalanced classes: auto (logits adjusted by class frequency), loss "
        "(class-weighted loss) or sampling (class-balanced batches)",
        choices=("none", "auto", "loss", "sampling"),
    )
    seed: int = _setting(
        0, "random seed of split, initial weights, batch order and augmentation", low=0
    )
    layout: str = _setting(
        "auto", "memory format; auto: the faster one", choices=("auto", "nhwc", "nchw")
    )
    compile: str = _setting(
        "auto",
        "torch.compile; auto: tried in runs of an hour or more",
        choices=("auto", "on", "off"),
    )
    precision: str = _setting(
        "auto",
        "compute precision; auto: bf16 if it is clearly faster on this CPU or GPU",
        choices=("auto", "fp32", "bf16"),
    )
    device: str = _setting(
        "auto", "torch device: auto, cpu, cuda, cuda:1, …", incidental=True
    )
    cache: str = _setting(
        "auto", "cache of decoded images: auto, off, or a folder", incidental=True
    )
    cache_gb: float = _setting(
        20.0, "maximum size of the cache in GB", low=0, incidental=True
    )
    workers: int = _setting(
        0,
        "decoding processes for data that does not fit in memory; 0: threads",
        low=0,
        incidental=True,
    )
    save_every: float = _setting(
        60.0, "seconds between checkpoints; 0: after every step", low=0, incidental=True
    )
    track_norms: bool = _setting(
        False,
        "write activation and gradient norms of each layer to norms.csv",
        incidental=True,
    )
    on_nonfinite: str = _setting(
        "stop",
        "what to do if loss or gradient becomes NaN or infinite",
        choices=NONFINITE_ACTIONS,
        incidental=True,
    )

    def __post_init__(self) -> None:
        check_settings(self)
        _ = self.split_config

    @property
    def augmentation(self) -> Augment:
        """Return the augmentation: the preset, with the given ranges."""
        ranges = {name: getattr(self, name) for name in RANGES}
        return augmentation(self.augment, **ranges)

    @property
    def split_config(self) -> SplitConfig:
        """Return how images without a split are divided; wrong shares are refused."""
        return SplitConfig(
            val=self.val_fraction,
            test=self.test_fraction,
            fraction=self.fraction,
            folds=self.folds,
            fold=self.fold,
            seed=self.seed,
        )

    @property
    def max_lr(self) -> float:
        """Return the maximum learning rate; `auto` must have been decided."""
        if not isinstance(self.lr, float | int):
            raise undecided_error("lr")
        return self.lr

    @property
    def images_per_step(self) -> int:
        """Return the batch size; `auto` must have been decided."""
        if not isinstance(self.batch_size, int):
            raise undecided_error("batch_size")
        return self.batch_size

    def resolved(self) -> Recipe:
        """Return the recipe with all defaults that need no data filled in."""
        lr = DEFAULT_LR[self.optimizer] if self.lr is None else self.lr
        return replace(self, lr=lr, **asdict(self.augmentation))

    def as_dict(self) -> dict[str, Any]:
        """Return plain values in the order of definition."""
        values = asdict(self)
        tuples = (name for name, value in values.items() if isinstance(value, tuple))
        return values | {name: list(values[name]) for name in tuples}


def undecided_error(name: str) -> SettingError:
    """Return the error for a setting that is still `auto` when its value is needed."""
    fix = "give a number; only `striate train` decides it"
    return SettingError(f"{name} is not decided yet", where=flag_name(name), fix=fix)


# Settings that do not change any result.
NO_EFFECT_SETTINGS = {
    spec.name for spec in fields(Recipe) if spec.metadata.get("incidental")
}
