"""Dataclass fields with help text and valid ranges, and the check of values."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from striate.core.errors import SettingError
from striate.core.registry import unknown_name_error

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

AUTO = "auto"  # replaced by a value when a run starts


def setting(default: Any, words: str, **rules: Any) -> Any:
    """Return a dataclass field with a default, a help text and a valid range.

    Args:
        default: Default value.
        words: Help text for `--help`.
        rules: `choices`, or the inclusive bounds `low` and `high`, or the exclusive
            bounds `above` and `below`.
    """
    return field(default=default, metadata={"help": words, **rules})


@dataclass(frozen=True, kw_only=True)
class SettingsBase:
    """Base of all settings classes: values are checked at construction."""

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True, kw_only=True)
class SeedConfig(SettingsBase):
    """Settings with a random seed."""

    seed: int = setting(
        0,
        "random seed for the split, the initial weights, the batch order and the "
        "augmentation",
        low=0,
    )


def check_settings(settings: DataclassInstance) -> None:
    """Check the value of every field of a settings object; None is always valid.

    Raises:
        SettingError: A value is out of range; the message names the setting.
        UnknownNameError: A value is not among the choices; the message lists them.
    """
    for spec in fields(settings):
        value = getattr(settings, spec.name)
        if value is not None:
            _check(spec.name, value, spec.metadata)


def flag_name(name: str) -> str:
    """Return the command-line flag of a setting.

    Example:
        >>> flag_name("batch_size")
        '--batch-size'
    """
    return f"--{name.replace('_', '-')}"


def _check(name: str, value: Any, rules: Mapping[str, Any]) -> None:
    choices = rules.get("choices")
    if choices and value not in choices:
        raise unknown_name_error(name.replace("_", " "), str(value), choices)
    if isinstance(value, tuple):
        for item in value:
            _check(name, item, rules)
    if not isinstance(value, int | float):
        return
    # NaN, for which every comparison is false, is an error too.
    for rule, (holds, words) in _BOUNDS.items():
        if rule in rules and not holds(value, rules[rule]):
            what = f"{name} must be {words.format(bound=rules[rule], value=value)}"
            raise SettingError(what, where=flag_name(name))
    if isinstance(value, float) and not math.isfinite(value):
        what = f"{name} must be finite, got {value}"
        raise SettingError(what, where=flag_name(name))


_BOUNDS = {
    "low": (operator.ge, "at least {bound}, got {value}"),
    "high": (operator.le, "at most {bound}, got {value}"),
    "above": (operator.gt, "above {bound}"),
    "below": (operator.lt, "below {bound}, got {value}"),
}
