"""Convert, check and merge settings from flags, YAML files and Python."""

from __future__ import annotations

import functools
import reprlib
import types
import typing
from collections.abc import Collection, Mapping
from dataclasses import Field, fields
from typing import Any, Literal

from striate.core.errors import SettingError
from striate.core.format import parse_image_size
from striate.core.settings import AUTO, flag_name
from striate.core.synonyms import unknown_setting_error
from striate.data.augment.augment import RANGES
from striate.run.recipe import Recipe

PER_CHANNEL = ("mean", "std")
PATTERNS = ("freeze",)
AUTO_SETTINGS = ("lr", "batch_size")
SHAPES = {
    "image_size": "a number of pixels or HEIGHTxWIDTH",
    "mean": "comma-separated numbers",
    "std": "comma-separated numbers",
    "freeze": "comma-separated names or patterns",
    "sync_batch_norm": "true or false",
}


def setting_fields(names: Collection[str]) -> list[Field[Any]]:
    """Return the dataclass fields of some settings, in the order of definition."""
    return [spec for spec in fields(Recipe) if spec.name in names]


@functools.cache  # called once per setting
def setting_types() -> Mapping[str, Any]:
    """Return the type of each setting by name, without None and "auto"."""
    hints = typing.get_type_hints(Recipe)
    return {spec.name: _without_none(hints[spec.name]) for spec in fields(Recipe)}


def _without_none(hint: Any) -> Any:
    if typing.get_origin(hint) not in (types.UnionType, typing.Union):
        return hint
    placeholders = type(None), Literal["auto"]
    kinds = [kind for kind in typing.get_args(hint) if kind not in placeholders]
    return kinds[0] if len(kinds) == 1 else kinds


def parse_setting(name: str, value: Any) -> Any:
    """Convert a value from a flag or a YAML file to the type of the setting.

    Example:
        >>> parse_setting("lr", "1e-3"), parse_setting("image_size", "64x48")
        (0.001, (64, 48))
    """
    kind = setting_types()[name]
    if value == AUTO and name in AUTO_SETTINGS:
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
        if kind is str and isinstance(value, bool):
            return _switch(name, value)
        return _exactly(kind, value)
    except (TypeError, ValueError) as error:
        expected = SHAPES.get(name) or kind.__name__
        what = f"{name} must be {expected}, got {reprlib.repr(value)}"
        raise SettingError(what, where=flag_name(name)) from error


def _exactly(kind: Any, value: Any) -> Any:
    """Convert a value without loss; int() would silently convert 2.5 to 2."""
    if kind is bool and value in ("True", "true", "False", "false"):
        return value.lower() == "true"
    allowed = (str, int) if kind is int else (str, int, float)
    if isinstance(value, bool) is not (kind is bool) or not isinstance(value, allowed):
        raise ValueError
    return kind(value)


def _switch(name: str, value: bool) -> str:
    """Return the word that YAML reads as true or false: `on`, `off`, or `none`.

    Example:
        >>> _switch("compile", False), _switch("normalize", False)
        ('off', 'none')
    """
    choices = Recipe.__dataclass_fields__[name].metadata.get("choices") or ("off",)
    off = "off" if "off" in choices else "none"
    return "on" if value else off


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


def merge_settings(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the converted settings of all dicts; later dicts override earlier dicts.

    Raises:
        UnknownNameError: There is no such setting; the message lists similar names.
        SettingError: A value has the wrong type.

    Example:
        >>> merge_settings({"flip": "both", "lr": "0.1"}, {"augment": "none"})
        {'lr': 0.1, 'augment': 'none'}
    """
    types = setting_types()
    merged: dict[str, Any] = {}
    for layer in layers:
        if "augment" in layer:  # a preset replaces all earlier augmentation values
            merged = {key: merged[key] for key in merged if key not in RANGES}
        for name, value in layer.items():
            if name not in types:
                raise unknown_setting_error(name, types)
            merged[name] = parse_setting(name, value)
    return merged


def make_recipe(*layers: Mapping[str, Any]) -> Recipe:
    """Create a recipe from dicts of settings; later dicts override earlier dicts.

    Raises:
        UnknownNameError: There is no such setting; the message lists similar names.
        SettingError: A value has the wrong type or is out of range.

    Example:
        >>> make_recipe({"data": "digits", "epochs": 9}, {"epochs": "3"}).epochs
        3
    """
    merged = merge_settings(*layers)
    if not merged.get("data"):
        fix = "give a folder, a CSV file, or the name of a data set: `striate train "
        fix += "photos` or `striate train digits`"
        raise SettingError("no data set is given", where="DATA", fix=fix)
    return Recipe(**merged)
