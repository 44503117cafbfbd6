"""Settings that state their own help and bounds, and refuse what lies outside."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import field, fields
from typing import TYPE_CHECKING, Any

from striate.core.errors import SettingError
from striate.core.registry import unknown

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def setting(default: Any, words: str, **rules: Any) -> Any:
    """Return a dataclass field that knows its help and its rules.

    Args:
        default: The value where none is given.
        words: What `--help` says.
        rules: `choices`, or the bounds `low` and `high` (allowed themselves), `above`
            and `below` (not allowed themselves).
    """
    return field(default=default, metadata={"help": words, **rules})


def check(settings: DataclassInstance) -> None:
    """Hold every field of a settings object against its rules; None is always allowed.

    Raises:
        SettingError: A value is out of range; the message names the setting.
        UnknownNameError: A value is none of the choices; lists the nearest.
    """
    for spec in fields(settings):
        value = getattr(settings, spec.name)
        if value is not None:
            _check(spec.name, value, spec.metadata)


def flag(name: str) -> str:
    """Return a setting's spelling on the command line.

    Example:
        >>> flag("batch_size")
        '--batch-size'
    """
    return f"--{name.replace('_', '-')}"


def _check(name: str, value: Any, rules: Mapping[str, Any]) -> None:
    choices = rules.get("choices")
    if choices and value not in choices:
        raise unknown(name.replace("_", " "), str(value), choices)
    if isinstance(value, tuple):
        for item in value:
            _check(name, item, rules)
    if not isinstance(value, int | float):
        return
    # Written so that NaN, which compares false with everything, is refused too.
    if "low" in rules and not value >= rules["low"]:
        what = f"{name} must be at least {rules['low']}, got {value}"
        raise SettingError(what, where=flag(name))
    if "high" in rules and not value <= rules["high"]:
        what = f"{name} must be at most {rules['high']}, got {value}"
        raise SettingError(what, where=flag(name))
    if "above" in rules and not value > rules["above"]:
        what = f"{name} must be above {rules['above']}"
        raise SettingError(what, where=flag(name))
    if "below" in rules and not value < rules["below"]:
        what = f"{name} must be below {rules['below']}, got {value}"
        raise SettingError(what, where=flag(name))
    if isinstance(value, float) and not math.isfinite(value):
        what = f"{name} must be finite, got {value}"
        raise SettingError(what, where=flag(name))
