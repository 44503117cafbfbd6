"""Options of `striate optimize`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypedDict

from striate.core.errors import SettingError
from striate.core.registry import unknown_name_error

GOALS = ("latency", "size", "both")
METHODS = ("engine", "int8")
BUDGET_SECONDS = 1800.0
_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600}


class OptimizeSettings(TypedDict, total=False):
    """Keyword arguments of `st.optimize`, as the fields of `OptimizeOptions`."""

    goal: str
    max_drop: float
    methods: tuple[str, ...]
    budget: float
    overwrite: bool


@dataclass(frozen=True, kw_only=True)
class OptimizeOptions:
    """What to optimize, the accuracy that may be lost, and the time to spend.

    Raises:
        SettingError: A value is out of range.
    """

    goal: str = "latency"  # one of GOALS
    # percentage points of accuracy that a variant may lose, with 95 % confidence
    max_drop: float = 0.5
    methods: tuple[str, ...] = METHODS  # engine: other programs; int8: 8-bit integers
    budget: float = BUDGET_SECONDS  # seconds
    overwrite: bool = False  # replace existing files

    def __post_init__(self) -> None:
        if self.goal not in GOALS:
            raise unknown_name_error("goal", self.goal, GOALS)
        if not self.methods:
            what, fix = "no method is given", f"give some of {', '.join(METHODS)}"
            raise SettingError(what, where="--methods", fix=fix)
        for name in self.methods:
            if name not in METHODS:
                raise unknown_name_error("method", name, METHODS)
        if not 0 <= self.max_drop <= 100:
            what = "the allowed loss of accuracy must be 0–100 percentage points, got "
            raise SettingError(f"{what}{self.max_drop:g}", where="--max-drop")
        if not 0 < self.budget < float("inf"):
            what = f"the time budget must be above 0 seconds, got {self.budget:g}"
            raise SettingError(what, where="--budget")


def parse_budget(text: str) -> float:
    """Return the seconds of a text such as `90s`, `30m` or `1.5h`.

    Raises:
        SettingError: The text is not a time.

    Example:
        >>> parse_budget("90s"), parse_budget("30m"), parse_budget("1.5h")
        (90.0, 1800.0, 5400.0)
    """
    match = re.fullmatch(r"(\d+\.?\d*|\.\d+) ?(s|m|min|h)", text.strip().lower())
    if match is None:
        what = f"'{text}' is not a time"
        raise SettingError(what, where="--budget", fix="give a time such as 90s or 30m")
    return float(match[1]) * _UNITS[match[2]]
