"""What is compared: single runs, or settings with a run for each of several seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from striate.run.recipe import INCIDENTAL
from striate.workflows.compare.evaluated_run import Contender


@dataclass(frozen=True, kw_only=True, eq=False)
class Side:
    """A run, or runs that differ in nothing but the seed.

    Args:
        letter: What tables and captions call it.
        runs: In the order of their seeds.
        repeats: Runs left out: their setting and seed stand in `runs` already.
    """

    letter: str
    runs: tuple[Contender, ...]
    repeats: tuple[Contender, ...] = ()

    @property
    def seeds(self) -> tuple[int, ...]:
        """Return the seeds."""
        return tuple(run.seed for run in self.runs)

    @property
    def name(self) -> str:
        """Return the folder's name, or those of the first and the last."""
        first, last = self.runs[0].name, self.runs[-1].name
        return first if len(self.runs) == 1 else f"{first} … {last}"

    def values(self, ask: Callable[[Contender], float | None]) -> list[float]:
        """Return a figure of each run that has it."""
        return [value for run in self.runs if (value := ask(run)) is not None]


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean and the sample's standard deviation, None of one value.

    Example:
        >>> mean_and_deviation([1.0, 3.0]), mean_and_deviation([2.0])
        ((2.0, 1.4142135623730951), (2.0, None))
    """
    return fmean(values), stdev(values) if len(values) > 1 else None


def sides(found: Sequence[Contender]) -> tuple[Side, ...]:
    """Unite runs of one setting, where there are several settings to compare.

    Runs that differ in their seeds alone stay apart: then the seeds are the question.
    """
    settings: dict[tuple[Any, ...], list[Contender]] = {}
    for one in found:
        settings.setdefault(_setting(one), []).append(one)
    groups = list(settings.values())
    if len(groups) == 1 or len(groups) == len(found):
        groups = [[one] for one in found]
    return tuple(_side(letter(i), group) for i, group in enumerate(groups))


def _setting(one: Contender) -> tuple[Any, ...]:
    """Return everything that makes two runs repetitions of one another.

    A model handed in as an object is known by its class and its size; data by its
    images and labels, wherever they lay.
    """
    recipe = one.run.recipe.as_dict()
    dropped = {"seed", "data"} | INCIDENTAL
    kept = (str(value) for key, value in recipe.items() if key not in dropped)
    return (one.facts.get("parameters"), one.data, *kept)


def _side(name: str, group: Sequence[Contender]) -> Side:
    first: dict[int, Contender] = {}
    repeats = [one for one in group if first.setdefault(one.seed, one) is not one]
    runs = tuple(first[seed] for seed in sorted(first))
    return Side(letter=name, runs=runs, repeats=tuple(repeats))


def letter(number: int) -> str:
    """Name the sides A, B, … Z, AA, AB and so on.

    Example:
        >>> letter(0), letter(25), letter(26)
        ('A', 'Z', 'AA')
    """
    rest, place = divmod(number, 26)
    return (letter(rest - 1) if rest else "") + chr(ord("A") + place)


@dataclass(frozen=True, kw_only=True)
class Differing:
    """A setting or circumstance that is not the same on all sides."""

    name: str
    values: tuple[str, ...]
    setting: bool = True


def differing(compared: Sequence[Side]) -> tuple[Differing, ...]:
    """Return what differs between the sides: settings first, then circumstances."""
    found = [_asked(compared, name, True) for name in _names(compared)]
    found += [_asked(compared, name, False) for name in _circumstances(compared)]
    return tuple(one for one in found if len(set(one.values)) > 1)


def _names(compared: Sequence[Side]) -> list[str]:
    names = list(compared[0].runs[0].run.recipe.as_dict())
    several = any(len(side.runs) > 1 for side in compared)
    return [name for name in names if not (name == "seed" and several)]


def _circumstances(compared: Sequence[Side]) -> list[str]:
    told = [_circumstance(run) for side in compared for run in side.runs]
    return list(dict.fromkeys(name for facts in told for name in facts))


def _asked(compared: Sequence[Side], name: str, setting: bool) -> Differing:
    def ask(run: Contender) -> str:
        facts = run.run.recipe.as_dict() if setting else _circumstance(run)
        return _plain(facts.get(name))

    values = (" · ".join(dict.fromkeys(map(ask, side.runs))) for side in compared)
    return Differing(name=name, values=tuple(values), setting=setting)


def _circumstance(run: Contender) -> dict[str, Any]:
    facts = run.facts
    versions = {f"version of {k}": v for k, v in facts.get("versions", {}).items()}
    commit = str(facts.get("git") or "")[:10]
    images = f"{sum(run.splits.values()):,} ({run.data[:8]})"
    return {**versions, **facts.get("machine", {}), "git": commit, "images": images}


def _plain(value: object) -> str:
    if isinstance(value, list | tuple):
        return "×".join(map(str, value))
    return "–" if value in (None, "") else str(value)
