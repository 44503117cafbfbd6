"""Read a study of the user's own from a YAML file, and make a card from it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from striate.core.errors import SettingError
from striate.core.registry import unknown_name_error
from striate.metrics.sequential import DecisionRule
from striate.run.parse_settings import parse_setting
from striate.run.recipe import Recipe
from striate.run.yaml_io import read_settings
from striate.workflows.lab.card import Arm, ArmComparison, Card
from striate.workflows.lab.effects import error_reduction
from striate.workflows.lab.lab_data import SPLIT_SIZES
from striate.workflows.lab.train_and_test import train_and_test

KEYS = ("claim", "data", "settings", "changes", "holds", "margin", "metric", "seeds")
METRICS = ("test_error", "train_error", "test_loss", "train_loss")
EXAMPLE = """\
claim: Batch norm lowers the error of a small network.
data: digits
settings: {epochs: 3, train_images: 800, val_images: 100, test_images: 800}
changes:
  plain: {model: 8x8x1 > conv 3x3 16 same > relu > dense 10}
  norm: {model: 8x8x1 > conv 3x3 16 same > bn > relu > dense 10}
holds: norm better than plain
margin: 0.5
"""


def read_study(path: Path) -> Card:
    """Read a study file and return its card.

    Raises:
        SettingError: A key or a value is wrong; the message names the line and the key.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder, "norm.yaml")
        ...     _ = path.write_text(EXAMPLE)
        ...     card = read_study(path)
        >>> card.id, [arm.name for arm in card.arms]
        ('norm', ['plain', 'norm'])
    """
    values = read_settings(path)
    try:
        return study_card({**values, "id": path.stem, "folder": str(path.parent)})
    except SettingError as error:
        error.where = f"{path}{_line_of(path, str(error.where or ''))}"
        raise


def _line_of(path: Path, key: str) -> str:
    """Return the line number of a key, such as `:4, changes.norm.lr`."""
    name = key.rpartition(".")[2]
    lines = path.read_text(encoding="utf-8").splitlines()
    numbers = [n for n, line in enumerate(lines, 1) if f"{name}:" in line]
    return (f":{numbers[0]}" if numbers and name else "") + (f", {key}" if key else "")


def study_text(card_values: Mapping[str, Any]) -> str:
    """Return a study as one line of JSON, to send it to another process."""
    return json.dumps(card_values, sort_keys=True)


def study_card(values: Mapping[str, Any]) -> Card:
    """Make a card from the values of a study file.

    Raises:
        SettingError: A key or a value is wrong; `where` is the key.
    """
    for key in values.keys() - {*KEYS, "id", "folder"}:
        raise unknown_name_error("key of a study", key, KEYS, where=key)
    changes = values.get("changes")
    if not isinstance(changes, Mapping) or len(changes) < 2:
        what = "a study compares at least two changes"
        raise SettingError(what, where="changes", fix="see docs/lab.md for an example")
    settings = {"data": values.get("data", "digits"), **(values.get("settings") or {})}
    settings = _parsed(settings, "settings", values)
    arms = tuple(
        Arm(name=str(name), changes=_parsed(change or {}, f"changes.{name}", values))
        for name, change in changes.items()
    )
    better, baseline = _compared(str(values.get("holds", "")), [a.name for a in arms])
    metric = values.get("metric", "test_error")
    if metric not in METRICS:
        raise unknown_name_error("metric", str(metric), METRICS, where="metric")
    margin, last = _number(values, "margin", 0.5), int(_number(values, "seeds", 20, 2))
    looks = (*(look for look in DecisionRule.looks if look < last), last)
    return Card(
        id=str(values["id"]),
        title=str(values["id"]),
        claim=str(values.get("claim") or f"{better} is better than {baseline}."),
        source="study of the user",
        published="no published figure",
        rule=f"Holds if the interval of the reduction of {metric} is above 0; "
        f"equivalent if it is within ±{margin:g} points.",
        arms=arms,
        comparisons=(
            ArmComparison(
                title=f"{better} against {baseline}",
                effect=error_reduction(metric, better, baseline),
                rule=DecisionRule(goal="superior", margin=margin, looks=looks),
                expected=2 * margin,
            ),
        ),
        measure=train_and_test,
        settings=settings,
        quick={},
        seconds=30,
        columns={"test_error": "test error", "train_error": "training error"},
        study=study_text(values),
    )


def _parsed(
    settings: Mapping[str, Any], where: str, values: Mapping[str, Any]
) -> dict[str, Any]:
    """Return settings with their types; a Python file is found beside the study."""
    names = {spec.name for spec in fields(Recipe)} | {*SPLIT_SIZES}
    parsed: dict[str, Any] = {}
    for key, value in settings.items():
        name = str(key).replace("-", "_")
        if name not in names:
            raise unknown_name_error("setting", name, names, where=f"{where}.{key}")
        if name in SPLIT_SIZES:
            parsed[name] = int(value)
        else:
            parsed[name] = parse_setting(name, value)
    model = str(parsed.get("model", ""))
    if ".py" in model and not Path(model).is_absolute():
        parsed["model"] = str(Path(values["folder"]).resolve() / model)
    return parsed


def _number(
    values: Mapping[str, Any], key: str, default: float, least: int = 0
) -> float:
    value = values.get(key, default)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not least <= value < math.inf:
        what = f"{key} must be a number from {least}, got {value!r}"
        raise SettingError(what, where=key)
    return float(value)


def _compared(text: str, arms: list[str]) -> tuple[str, str]:
    """Return the two arms of a sentence such as `norm better than plain`."""
    better, _, baseline = (part.strip() for part in text.partition(" better than "))
    if not text and len(arms) == 2:
        return arms[1], arms[0]
    for name in (better, baseline):
        if name not in arms:
            what = f"no change is called '{name}'"
            fix = f"write `holds: {arms[-1]} better than {arms[0]}`"
            raise SettingError(what, where="holds", fix=fix)
    return better, baseline
