"""Every setting of a run, once: flags, YAML and Python are spellings of this value."""

from __future__ import annotations

import reprlib
import types
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

from striate.core.errors import SettingError
from striate.core.registry import unknown
from striate.core.spec import RESIZES

# What works for small networks from scratch; measured in NOTEBOOK.md.
DEFAULT_LR = {"sgd": 0.05, "adam": 3e-3, "adamw": 3e-3}
SCHEDULE_NAMES = ("one_cycle", "cosine", "step", "constant")


def _setting(default: Any, words: str, **extra: Any) -> Any:
    return field(default=default, metadata={"help": words, **extra})


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
        "auto", "network by name (see `striate models`); auto: the notes' net"
    )
    epochs: int = _setting(30, "times through the training pictures", low=1)
    batch_size: int = _setting(64, "pictures a step", low=1)
    lr: float | None = _setting(
        None, "largest learning rate; sgd 0.05, adam and adamw 0.003", above=0
    )
    optimizer: str = _setting("adamw", "optimiser", choices=tuple(DEFAULT_LR))
    momentum: float = _setting(
        0.9, "momentum of sgd, first beta of adam", low=0, below=1
    )
    weight_decay: float = _setting(0.01, "decay of kernels, not of biases", low=0)
    schedule: str = _setting(
        "one_cycle", "learning-rate schedule", choices=SCHEDULE_NAMES
    )
    label_smoothing: float = _setting(
        0.1, "share of the target spread over all classes", low=0, below=1
    )
    augment: str = _setting(
        "none", "changes to training pictures", choices=("none", "mirror")
    )
    patience: int = _setting(
        0, "stop after so many epochs without a better validation; 0: never", low=0
    )
    image_size: int | tuple[int, int] | None = _setting(
        None,
        "input side, or HEIGHTxWIDTH; the pictures' own if they share one, else 64",
    )
    in_chans: int | None = _setting(
        None, "1 grey, 3 colour; grey if every picture is", low=1
    )
    resize: str = _setting("squash", "how pictures meet that size", choices=RESIZES)
    val_fraction: float = _setting(
        0.15, "validation share where none is given", above=0
    )
    test_fraction: float = _setting(0.25, "test share where none is given", low=0)
    seed: int = _setting(
        0, "split, initial weights and order are functions of it", low=0
    )
    device: str = _setting("auto", "auto, cpu, cuda, …", incidental=True)

    def __post_init__(self) -> None:
        for spec in fields(self):
            _check(spec.name, getattr(self, spec.name), spec.metadata)

    def resolved(self) -> Recipe:
        """Return the recipe with every automatic value that needs no data decided."""
        lr = DEFAULT_LR[self.optimizer] if self.lr is None else self.lr
        return replace(self, lr=lr)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values in the order of definition."""
        plain = asdict(self)
        if isinstance(self.image_size, tuple):
            plain["image_size"] = list(self.image_size)
        return plain


def _check(name: str, value: Any, rules: Mapping[str, Any]) -> None:
    flag = f"--{name.replace('_', '-')}"
    choices = rules.get("choices")
    if choices and value not in choices:
        raise unknown(name.replace("_", " "), str(value), choices)
    if value is None or not isinstance(value, int | float):
        return
    if "low" in rules and not value >= rules["low"]:
        what = f"{name} must be at least {rules['low']}, got {value}"
        raise SettingError(what, where=flag)
    if "above" in rules and not value > rules["above"]:
        raise SettingError(f"{name} must be above {rules['above']}", where=flag)
    if "below" in rules and not value < rules["below"]:
        what = f"{name} must be below {rules['below']}, got {value}"
        raise SettingError(what, where=flag)


def setting_types() -> dict[str, Any]:
    """Return each setting's type, None taken out of unions."""
    hints = typing.get_type_hints(Recipe)
    return {spec.name: _without_none(hints[spec.name]) for spec in fields(Recipe)}


def _without_none(hint: Any) -> Any:
    if not isinstance(hint, types.UnionType):
        return hint
    kept = [part for part in typing.get_args(hint) if part is not type(None)]
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
    if value is None and Recipe.__dataclass_fields__[name].default is None:
        return None
    try:
        if name == "image_size":
            return _size(value)
        return _exactly(kind, value)
    except (TypeError, ValueError) as error:
        expected = "a side or HEIGHTxWIDTH" if name == "image_size" else kind.__name__
        what = f"{name} must be {expected}, got {reprlib.repr(value)}"
        raise SettingError(what, where=f"--{name.replace('_', '-')}") from error


def _exactly(kind: Any, value: Any) -> Any:
    """Convert without loss: int() would cut 2.5 to 2 and take yes for 1 in silence."""
    allowed = (str, int) if kind is int else (str, int, float)
    if isinstance(value, bool) or not isinstance(value, allowed):
        raise ValueError
    return kind(value)


def _size(value: Any) -> int | tuple[int, int]:
    if isinstance(value, str) and "x" in value.lower():
        value = value.lower().split("x")
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
        for name, value in layer.items():
            if name not in known:
                raise unknown("setting", name, known)
            merged[name] = coerce(name, value)
    if not merged.get("data"):
        fix = "give a folder, a CSV, or digits: `striate train digits`"
        raise SettingError("no data was given", where="DATA", fix=fix)
    return Recipe(**merged)


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML that refuses what would surprise."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Refuse a key given twice, where the last would win unseen."""
        keys = [str(key.value).replace("-", "_") for key, _ in node.value]
        twice = [key for key in keys if keys.count(key) > 1]
        if twice:
            raise SettingError(f"'{twice[0]}' is set twice", where=node.start_mark)
        return super().construct_mapping(node, deep)

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuse aliases: a few lines of them can unfold to gigabytes."""
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise SettingError("aliases (*name) are not read", where=mark)
        return super().compose_node(parent, index)


def read_settings(path: Path) -> dict[str, Any]:
    """Read a YAML file of settings; nothing in it can run.

    Raises:
        SettingError: No such file, not YAML, or not a mapping.
    """
    try:
        with path.open(encoding="utf-8") as file:
            loaded = yaml.load(file, _StrictLoader)  # noqa: S506, TID251 - a SafeLoader
    except OSError as error:
        what = f"cannot read the settings: {error.strerror}"
        raise SettingError(what, where=path) from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise SettingError(f"not plain YAML: {error}", where=path) from error
    if not isinstance(loaded, dict):
        raise SettingError("the file holds no `name: value` lines", where=path)
    return {str(name).replace("-", "_"): value for name, value in loaded.items()}


def settings_text(recipe: Recipe) -> str:
    """Write a recipe as YAML that `read_settings` reads back."""
    return yaml.safe_dump(recipe.as_dict(), sort_keys=False, allow_unicode=True)
