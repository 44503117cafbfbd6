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
AUTO = "auto"  # replaced by a value when a run starts
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
    """Return a field of `Augment` as a setting; None uses the value of the preset."""
    (spec,) = [spec for spec in fields(Augment) if spec.name == name]
    return field(default=None, metadata=spec.metadata)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The settings of a training run; the constructor checks every value.

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
        "network: a name listed by `striate models`, or timm:NAME; auto: tutorial_gray "
        "for gray images, tutorial_color for color images",
    )
    pretrained: str | None = _setting(
        None,
        "pretrained weights: a run folder, a .safetensors or .pth file, timm:NAME, or "
        "a name listed by `striate models --weights` (default: random weights)",
    )
    freeze: tuple[str, ...] | None = _setting(
        None,
        "layers to freeze: comma-separated names, or patterns such as 'layer1*' "
        "(default: none)",
    )
    trust: bool = _setting(
        False,
        "load a .pth file of unknown origin; only tensors are loaded, no code is run",
        incidental=True,
    )
    epochs: int = _setting(30, "number of training epochs", low=1)
    batch_size: int | Literal["auto"] = _setting(
        64, "batch size in images; auto: the largest that fits in memory", low=1
    )
    accumulate: int = _setting(
        1,
        "gradient accumulation: split each batch into this number of micro-batches, to "
        "save memory; 1: off",
        low=1,
    )
    sync_batch_norm: bool = _setting(
        False,
        "with torchrun: compute batch norm statistics over the images of all processes "
        "(default: each process uses only its own images)",
    )
    rank_timeout: float = _setting(
        60.0,
        "under torchrun: seconds until a process that does not answer ends the run",
        above=0,
        incidental=True,
    )
    lr: float | Literal["auto"] | None = _setting(
        None,
        "maximum learning rate; auto: chosen by a learning-rate range test (default: "
        "0.05 for sgd, 0.003 for other optimizers)",
        above=0,
    )
    optimizer: str = _setting("adamw", "optimizer", choices=tuple(DEFAULT_LR))
    momentum: float = _setting(
        0.9, "momentum (sgd, muon) or beta1 (adam, adamw)", low=0, below=1
    )
    weight_decay: float = _setting(
        0.01, "weight decay; not applied to biases and normalization layers", low=0
    )
    head_hidden: int = _setting(
        0, "units of an extra hidden layer in the classifier head; 0: none", low=0
    )
    dropout: float | None = _setting(
        None,
        "dropout probability of all dropout layers (default: as the network defines)",
        low=0,
        below=1,
    )
    drop_path: float = _setting(
        0.0,
        "stochastic depth: drop probability of the last residual block; earlier blocks "
        "get proportionally less; 0: off",
        low=0,
        below=1,
    )
    ema: float = _setting(
        0.0,
        "decay of an exponential moving average (EMA) of the weights, e.g. 0.999; the "
        "averaged weights are evaluated and saved; 0: off",
        low=0,
        below=1,
    )
    tta: str = _setting(
        "plain",
        "test-time augmentation: plain: off; flip: average over the image and its "
        "mirror image; flip_shift: also over shifts by one pixel",
        choices=TTA_NAMES,
    )
    schedule: str = _setting(
        "one_cycle", "learning-rate schedule", choices=SCHEDULE_NAMES
    )
    progressive_resize: float = _setting(
        1.0,
        "progressive resizing: start training at this fraction of the image size and "
        "increase it to the full size; 1: off",
        above=0,
        high=1,
    )
    label_smoothing: float = _setting(
        0.1, "label smoothing factor; 0: off", low=0, below=1
    )
    augment: str = _setting(
        "none",
        "augmentation preset; each flag from --rotate to --border overrides one of its "
        "values",
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
        0,
        "early stopping: stop after this many epochs without a better validation "
        "accuracy; 0: off",
        low=0,
    )
    image_size: int | tuple[int, int] | None = _setting(
        None,
        "input size in pixels: one side, or HEIGHTxWIDTH (default: as the pretrained "
        "weights expect, else the image size if all images have the same, else 64)",
    )
    in_chans: int | None = _setting(
        None,
        "number of input channels: 1 gray, 3 color (default: 1 if all images are gray, "
        "else 3)",
        low=1,
    )
    resize: str | None = _setting(
        None,
        "resize mode: stretch changes the aspect ratio, crop cuts the longer side, pad "
        "adds background; default: as the pretrained weights expect, else stretch",
        choices=RESIZE_MODES,
    )
    background: int | None = _setting(
        None,
        "gray level 0-255 for transparent pixels and padding (default: as the "
        "pretrained weights expect, else 255)",
        low=0,
        below=256,
    )
    white_level: int | None = _setting(
        None,
        "for 16-bit images: pixel value that is mapped to white (default: as the "
        "pretrained weights expect, else 65535)",
        low=255,
        below=MAX_WHITE_LEVEL + 1,
    )
    jpeg: str = _setting(
        "reduced",
        "decoding of large JPEGs: full resolution, or reduced resolution (faster)",
        choices=JPEG_MODES,
    )
    normalize: str = _setting(
        "auto",
        "input normalization: data (mean and std of the training split), imagenet or "
        "none; auto: as the pretrained weights expect, else data",
        choices=("auto", *NORMALIZATIONS),
    )
    mean: tuple[float, ...] | None = _setting(
        None,
        "mean of each channel for pixel values scaled to 0-1, e.g. 0.485,0.456,0.406; "
        "needs --std (default: see --normalize)",
    )
    std: tuple[float, ...] | None = _setting(
        None,
        "standard deviation of each channel for pixel values scaled to 0-1, e.g. "
        "0.229,0.224,0.225; needs --mean (default: see --normalize)",
    )
    val_fraction: float = _setting(
        0.15,
        "fraction of the images for the validation split, if the data has no "
        "validation split",
        above=0,
    )
    test_fraction: float = _setting(
        0.25,
        "fraction of the images for the test split, if the data has no test split",
        low=0,
    )
    fraction: float = _setting(
        1.0,
        "train on this fraction of the training split, stratified by class",
        above=0,
    )
    folds: int | None = _setting(
        None, "number of cross-validation folds; needs --fold (default: none)", low=2
    )
    fold: int | None = _setting(
        None,
        "index of the cross-validation fold to use as the test split, from 0; needs "
        "--folds",
        low=0,
    )
    split: str | None = _setting(
        None,
        "reuse an earlier split: a run folder, or a CSV file with the columns path and "
        "split (default: a new split from --seed)",
    )
    class_weights: str = _setting(
        "none",
        "method for class imbalance: auto (logit adjustment by class frequency), "
        "loss (class-weighted loss), sampling (class-balanced batches)",
        choices=("none", "auto", "loss", "sampling"),
    )
    seed: int = _setting(
        0,
        "random seed for the split, the initial weights, the batch order and the "
        "augmentation",
        low=0,
    )
    layout: str = _setting(
        "auto",
        "memory format of tensors: nhwc (torch.channels_last) or nchw; auto: measure "
        "both and use the faster",
        choices=("auto", "nhwc", "nchw"),
    )
    compile: str = _setting(
        "auto",
        "torch.compile; auto: on if it is faster, tried only if the run takes an hour "
        "or more",
        choices=("auto", "on", "off"),
    )
    precision: str = _setting(
        "auto",
        "compute precision; auto: bf16 if it is clearly faster on this device, else "
        "fp32",
        choices=("auto", "fp32", "bf16"),
    )
    device: str = _setting(
        "auto",
        "torch device: cpu, cuda, cuda:1, …; auto: the first accelerator, else cpu",
        incidental=True,
    )
    cache: str = _setting(
        "auto",
        "cache folder for decoded images; auto: ~/.cache/striate; off: no cache",
        incidental=True,
    )
    cache_gb: float = _setting(
        20.0, "maximum size of the image cache in GB", low=0, incidental=True
    )
    workers: int = _setting(
        0,
        "number of processes that decode images, if the data does not fit in memory; "
        "0: use threads",
        low=0,
        incidental=True,
    )
    save_every: float = _setting(
        60.0,
        "seconds between checkpoints; 0: a checkpoint after every step",
        low=0,
        incidental=True,
    )
    track_norms: bool = _setting(
        False,
        "write activation and gradient norms of each layer to norms.csv in the run "
        "folder",
        incidental=True,
    )
    on_nonfinite: str = _setting(
        "stop",
        "action on a NaN or infinite loss or gradient: stop; skip the batch; lower-lr: "
        "restart from the last checkpoint with a lower learning rate",
        choices=NONFINITE_ACTIONS,
        incidental=True,
    )

    def __post_init__(self) -> None:
        check_settings(self)
        _ = self.split_config

    @property
    def augmentation(self) -> Augment:
        """Return the augmentation settings: the preset, with the given overrides."""
        ranges = {name: getattr(self, name) for name in RANGES}
        return augmentation(self.augment, **ranges)

    @property
    def split_config(self) -> SplitConfig:
        """Return the fractions and the seed of the split; raise if they are invalid."""
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
        """Return the maximum learning rate; raise if it is still `auto`."""
        if not isinstance(self.lr, float | int):
            raise undecided_error("lr")
        return self.lr

    @property
    def images_per_step(self) -> int:
        """Return the batch size; raise if it is still `auto`."""
        if not isinstance(self.batch_size, int):
            raise undecided_error("batch_size")
        return self.batch_size

    def resolved(self) -> Recipe:
        """Return a copy with the default learning rate and augmentation filled in."""
        lr = DEFAULT_LR[self.optimizer] if self.lr is None else self.lr
        return replace(self, lr=lr, **asdict(self.augmentation))

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as a dict of plain values, in order of definition."""
        values = asdict(self)
        tuples = (name for name, value in values.items() if isinstance(value, tuple))
        return values | {name: list(values[name]) for name in tuples}


def undecided_error(name: str) -> SettingError:
    """Return the error for a setting that is still `auto` when a number is needed."""
    fix = "give a number; only `striate train` can choose this setting"
    return SettingError(
        f"{name} must be a number, got auto", where=flag_name(name), fix=fix
    )


# Settings that do not change any result.
NO_EFFECT_SETTINGS = {
    spec.name for spec in fields(Recipe) if spec.metadata.get("incidental")
}
