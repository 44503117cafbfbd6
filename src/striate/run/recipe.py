"""Every setting of a run, once: flags, YAML and Python are spellings of this value."""

from __future__ import annotations

import functools
import reprlib
import types
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal

from striate.core.errors import SettingError
from striate.core.format import parse_image_size
from striate.core.preprocess import (
    JPEG_MODES,
    MAX_WHITE_LEVEL,
    NORMALIZATIONS,
    RESIZE_MODES,
)
from striate.core.registry import unknown_name_error
from striate.core.settings import check_settings, flag_name
from striate.core.settings import setting as _setting
from striate.data.augment.augment import PRESETS as AUGMENTS
from striate.data.augment.augment import RANGES, Augment, augmentation
from striate.data.split.hash_split import SplitConfig

# For small networks from scratch; measured in docs/notebook/accuracy-recipes.md.
DEFAULT_LR = {"sgd": 0.05, "adam": 3e-3, "adamw": 3e-3, "muon": 3e-3}
AUTO = "auto"  # found out when a run begins, see runs/auto
PER_CHANNEL = ("mean", "std")
PATTERNS = ("freeze",)
AUTOMATIC = ("lr", "batch_size")
SHAPES = {
    "image_size": "a side or HEIGHTxWIDTH",
    "mean": "numbers parted by commas",
    "std": "numbers parted by commas",
    "freeze": "names or patterns parted by commas",
    "sync_batch_norm": "true or false",
}
SCHEDULE_NAMES = ("one_cycle", "cosine", "step", "constant")
VIEW_NAMES = ("plain", "flip", "flip_shift")
NONFINITE_ANSWERS = ("stop", "skip", "lower-lr")
# Of the loop that shows images, and of processes that learn together: nothing that
# learns from features has them.
LOOP_ONLY = (
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
    """Return a range of `Augment` as a setting; None leaves what --augment says."""
    (own,) = [spec for spec in fields(Augment) if spec.name == name]
    return field(default=None, metadata=own.metadata)


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
        "network by name (see `striate models`), or timm:NAME; auto: the notes' net",
    )
    pretrained: str | None = _setting(
        None, "begin with these weights: a run, a file, or a name (models --weights)"
    )
    freeze: tuple[str, ...] | None = _setting(
        None, "layers that stay as they are, by name or 'pattern*'; may be repeated"
    )
    trust: bool = _setting(
        False, "read a .pth of unknown origin: tensors alone, no code", incidental=True
    )
    epochs: int = _setting(30, "times through the training images", low=1)
    batch_size: int | Literal["auto"] = _setting(
        64, "images a step; auto: the most that fit", low=1
    )
    accumulate: int = _setting(
        1, "learn from each batch in so many pieces, where memory is short", low=1
    )
    sync_batch_norm: bool = _setting(
        False, "under torchrun, batch norm over the whole batch, not each rank's share"
    )
    lr: float | Literal["auto"] | None = _setting(
        None,
        "largest learning rate; auto: by a range test; else sgd 0.05, others 0.003",
        above=0,
    )
    optimizer: str = _setting("adamw", "optimizer", choices=tuple(DEFAULT_LR))
    momentum: float = _setting(
        0.9, "momentum of sgd, first beta of adam", low=0, below=1
    )
    weight_decay: float = _setting(0.01, "decay of kernels, not of biases", low=0)
    head_hidden: int = _setting(
        0, "units of a hidden layer between features and classes; 0: none", low=0
    )
    dropout: float | None = _setting(
        None, "rate of every dropout layer; the network's own", low=0, below=1
    )
    drop_path: float = _setting(
        0.0, "how often the last residual branch is left out", low=0, below=1
    )
    ema: float = _setting(
        0.0, "judge and keep a moving average of the weights; its decay", low=0, below=1
    )
    tta: str = _setting(
        "plain", "how images are seen where they are judged", choices=VIEW_NAMES
    )
    schedule: str = _setting(
        "one_cycle", "learning-rate schedule", choices=SCHEDULE_NAMES
    )
    progressive_resize: float = _setting(
        1.0, "share of the side that images begin with, and grow", above=0, high=1
    )
    label_smoothing: float = _setting(
        0.1, "share of the target spread over all classes", low=0, below=1
    )
    augment: str = _setting(
        "none", "changes to training images", choices=tuple(AUGMENTS)
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
        0, "stop after so many epochs without a better validation; 0: never", low=0
    )
    image_size: int | tuple[int, int] | None = _setting(
        None,
        "input side, or HEIGHTxWIDTH; the images' own if they share one, else 64",
    )
    in_chans: int | None = _setting(
        None, "1 gray, 3 color; gray if every image is", low=1
    )
    resize: str | None = _setting(
        None,
        "how images meet that size; the weights' own, or stretch",
        choices=RESIZE_MODES,
    )
    background: int | None = _setting(
        None, "gray under transparency; the weights' own, or 255", low=0, below=256
    )
    white_level: int | None = _setting(
        None,
        "16-bit gray for 255; the weights' own, or all",
        low=255,
        below=MAX_WHITE_LEVEL + 1,
    )
    jpeg: str = _setting(
        "reduced", "large JPEGs decoded at a fraction, or full", choices=JPEG_MODES
    )
    normalize: str = _setting(
        "auto",
        "mean and deviation; auto: the weights' own, or of the data",
        choices=("auto", *NORMALIZATIONS),
    )
    mean: tuple[float, ...] | None = _setting(
        None, "mean of v/255, one number or one a channel: 0.5,0.5,0.5; with --std"
    )
    std: tuple[float, ...] | None = _setting(None, "deviation, likewise")
    val_fraction: float = _setting(
        0.15, "validation share where none is given", above=0
    )
    test_fraction: float = _setting(0.25, "test share where none is given", low=0)
    fraction: float = _setting(
        1.0, "train on this share of the training split, alike in every class", above=0
    )
    folds: int | None = _setting(None, "deal so many folds for cross-validation", low=2)
    fold: int | None = _setting(None, "the fold to judge, counted from 0", low=0)
    split: str | None = _setting(
        None, "a run, or a CSV path,split, whose images stay where they are"
    )
    class_weights: str = _setting(
        "none",
        "make up for uneven classes: auto adjusts for how frequent each is, loss "
        "weighs images, sampling shows classes equally often",
        choices=("none", "auto", "loss", "sampling"),
    )
    seed: int = _setting(
        0, "split, initial weights and order are functions of it", low=0
    )
    layout: str = _setting(
        "auto", "order of pixels in memory", choices=("auto", "nhwc", "nchw")
    )
    compile: str = _setting(
        "auto",
        "torch.compile, tried by auto in runs of an hour and more",
        choices=("auto", "on", "off"),
    )
    precision: str = _setting(
        "auto",
        "of products; auto: bf16 where the processor clearly gains by it",
        choices=("auto", "fp32", "bf16"),
    )
    device: str = _setting("auto", "auto, cpu, cuda, …", incidental=True)
    cache: str = _setting(
        "auto", "keeps decoded images: auto, off or a folder", incidental=True
    )
    cache_gb: float = _setting(
        20.0, "the most the cache may hold, in GB", low=0, incidental=True
    )
    workers: int = _setting(
        0,
        "processes that decode sets too large to hold; 0: threads",
        low=0,
        incidental=True,
    )
    save_every: float = _setting(
        60.0, "seconds between checkpoints; 0: after each step", low=0, incidental=True
    )
    track_norms: bool = _setting(
        False, "write sizes of activations and gradients by layer", incidental=True
    )
    on_nonfinite: str = _setting(
        "stop",
        "where a number becomes NaN or infinite",
        choices=NONFINITE_ANSWERS,
        incidental=True,
    )

    def __post_init__(self) -> None:
        check_settings(self)
        _ = self.deal

    @property
    def augmentation(self) -> Augment:
        """Return what is done to training images: the preset, and ranges given."""
        ranges = {name: getattr(self, name) for name in RANGES}
        return augmentation(self.augment, **ranges)

    @property
    def deal(self) -> SplitConfig:
        """Return how images without a part are dealt; wrong shares are refused."""
        return SplitConfig(
            val=self.val_fraction,
            test=self.test_fraction,
            fraction=self.fraction,
            folds=self.folds,
            fold=self.fold,
            seed=self.seed,
        )

    @property
    def rate(self) -> float:
        """Return the largest learning rate, which must have been decided."""
        if not isinstance(self.lr, float | int):
            raise undecided("lr")
        return self.lr

    @property
    def images_a_step(self) -> int:
        """Return the batch size, which must have been decided."""
        if not isinstance(self.batch_size, int):
            raise undecided("batch_size")
        return self.batch_size

    def resolved(self) -> Recipe:
        """Return the recipe with every automatic value that needs no data decided."""
        lr = DEFAULT_LR[self.optimizer] if self.lr is None else self.lr
        return replace(self, lr=lr, **asdict(self.augmentation))

    def as_dict(self) -> dict[str, Any]:
        """Return plain values in the order of definition."""
        plain = asdict(self)
        lists = (name for name, value in plain.items() if isinstance(value, tuple))
        return plain | {name: list(plain[name]) for name in lists}


def undecided(name: str) -> SettingError:
    """Say that a setting is still automatic where its value is needed."""
    fix = "give a number; only `striate train` finds it out"
    return SettingError(f"{name} is not decided yet", where=flag_name(name), fix=fix)


# Settings that no result depends on.
INCIDENTAL = {spec.name for spec in fields(Recipe) if spec.metadata.get("incidental")}


@functools.cache  # asked for every setting of every file and command line
def setting_types() -> Mapping[str, Any]:
    """Return each setting's type, None and auto taken out of unions."""
    hints = typing.get_type_hints(Recipe)
    return {spec.name: _without_none(hints[spec.name]) for spec in fields(Recipe)}


def _without_none(hint: Any) -> Any:
    if typing.get_origin(hint) not in (types.UnionType, typing.Union):
        return hint
    undecided = type(None), Literal["auto"]
    kept = [part for part in typing.get_args(hint) if part not in undecided]
    return kept[0] if len(kept) == 1 else kept


def coerce(name: str, value: Any) -> Any:
    """Bring a value from a flag or YAML to its setting's type.

    Raises:
        SettingError: It cannot be read as that type.

    Example:
        >>> coerce("lr", "1e-3"), coerce("image_size", "64x48"), coerce("epochs", "5")
        (0.001, (64, 48), 5)
    """
    kind = setting_types()[name]
    if value == AUTO and name in AUTOMATIC:
        return AUTO
    if value is None and Recipe.__dataclass_fields__[name].default is None:
        return None
    try:
        if name == "image_size":
            return _size(value)
        if name in PER_CHANNEL:
            return _per_channel(value)
        if name in PATTERNS:
            return _patterns(value)
        return _exactly(kind, value)
    except (TypeError, ValueError) as error:
        expected = SHAPES.get(name) or kind.__name__
        what = f"{name} must be {expected}, got {reprlib.repr(value)}"
        raise SettingError(what, where=flag_name(name)) from error


def _exactly(kind: Any, value: Any) -> Any:
    """Convert without loss: int() would cut 2.5 to 2 and take yes for 1 in silence."""
    if kind is bool and value in ("True", "true", "False", "false"):
        return value.lower() == "true"
    allowed = (str, int) if kind is int else (str, int, float)
    if isinstance(value, bool) is not (kind is bool) or not isinstance(value, allowed):
        raise ValueError
    return kind(value)


def _per_channel(value: Any) -> tuple[float, ...]:
    if isinstance(value, str):
        value = value.split(",")
    values = value if isinstance(value, list | tuple) else [value]
    if not values:
        raise ValueError
    return tuple(_exactly(float, number) for number in values)


def _patterns(value: Any) -> tuple[str, ...]:
    values = value if isinstance(value, list | tuple) else [value]
    if not all(isinstance(text, str) for text in values):
        raise TypeError
    parts = [part.strip() for text in values for part in text.split(",")]
    if not parts or not all(parts):
        raise ValueError
    return tuple(dict.fromkeys(parts))


def _size(value: Any) -> int | tuple[int, int]:
    if isinstance(value, str):
        return parse_image_size(value)
    if isinstance(value, list | tuple):
        height, width = value
        return _exactly(int, height), _exactly(int, width)
    return int(_exactly(int, value))


def make_recipe(*layers: Mapping[str, Any]) -> Recipe:
    """Build a recipe from layers of settings, later ones winning.

    Raises:
        UnknownNameError: A setting has no such name; lists the nearest.
        SettingError: A value is of the wrong kind or out of range.

    Example:
        >>> make_recipe({"data": "digits", "epochs": 9}, {"epochs": "3"}).epochs
        3
    """
    known = setting_types()
    merged: dict[str, Any] = {}
    for layer in layers:
        if "augment" in layer:  # a preset starts afresh: no range below it stays
            merged = {key: merged[key] for key in merged if key not in RANGES}
        for name, value in layer.items():
            if name not in known:
                raise unknown_name_error("setting", name, known)
            merged[name] = coerce(name, value)
    if not merged.get("data"):
        fix = "give a folder, a CSV, or digits: `striate train digits`"
        raise SettingError("no data was given", where="DATA", fix=fix)
    return Recipe(**merged)
