"""Groups of runs to compare: runs with equal settings and different seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import fmean, stdev
from typing import Any

from striate.run.recipe import NO_EFFECT_SETTINGS
from striate.workflows.compare.evaluated_run import EvaluatedRun


@dataclass(frozen=True, kw_only=True, eq=False)
class RunGroup:
    """Group of runs that differ only in the seed, or a single run."""

    letter: str  # name of the group in tables and captions
    runs: tuple[EvaluatedRun, ...]  # the runs, by seed
    # ignored runs, with the settings and seed of a run in `runs`
    duplicates: tuple[EvaluatedRun, ...] = ()

    @property
    def seeds(self) -> tuple[int, ...]:
        """Return the seeds of the runs."""
        return tuple(run.seed for run in self.runs)

    @property
    def name(self) -> str:
        """Return the folder name of the run, or of the first and the last run."""
        first, last = self.runs[0].name, self.runs[-1].name
        return first if len(self.runs) == 1 else f"{first} … {last}"

    @property
    def mean_accuracy(self) -> float:
        """Return the mean accuracy of the runs."""
        return sum(run.score.accuracy for run in self.runs) / len(self.runs)

    def values(self, metric: Callable[[EvaluatedRun], float | None]) -> list[float]:
        """Return the metric of each run, except runs that do not have the metric."""
        return [value for run in self.runs if (value := metric(run)) is not None]


def mean_and_std(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean and the sample standard deviation (None for a single value).

    Example:
        >>> mean_and_std([1.0, 3.0]), mean_and_std([2.0])
        ((2.0, 1.4142135623730951), (2.0, None))
    """
    return fmean(values), stdev(values) if len(values) > 1 else None


def group_runs(runs: Sequence[EvaluatedRun]) -> tuple[RunGroup, ...]:
    """Group runs that have the same settings.

    If all runs have the same settings, each run is a group, to compare the seeds.
    """
    by_settings: dict[tuple[Any, ...], list[EvaluatedRun]] = {}
    for run in runs:
        by_settings.setdefault(_settings_key(run), []).append(run)
    groups = list(by_settings.values())
    if len(groups) == 1 or len(groups) == len(runs):
        groups = [[run] for run in runs]
    return tuple(_group(group_letter(i), group) for i, group in enumerate(groups))


def _settings_key(run: EvaluatedRun) -> tuple[Any, ...]:
    """Return a key that is equal for two runs with the same settings and data.

    A model given as an object is identified by its class and its size; data by its
    images and labels, not by its path.
    """
    recipe = run.run.recipe.as_dict()
    ignored = {"seed", "data"} | NO_EFFECT_SETTINGS
    values = (str(value) for key, value in recipe.items() if key not in ignored)
    return (run.manifest.get("parameters"), run.data_hash, *values)


def _group(letter: str, runs: Sequence[EvaluatedRun]) -> RunGroup:
    by_seed: dict[int, EvaluatedRun] = {}
    duplicates = [run for run in runs if by_seed.setdefault(run.seed, run) is not run]
    return RunGroup(
        letter=letter,
        runs=tuple(by_seed[seed] for seed in sorted(by_seed)),
        duplicates=tuple(duplicates),
    )


def group_letter(number: int) -> str:
    """Return the letter of a group by its index: A, B, …, Z, AA, AB, ….

    Example:
        >>> group_letter(0), group_letter(25), group_letter(26)
        ('A', 'Z', 'AA')
    """
    rest, last = divmod(number, 26)
    return (group_letter(rest - 1) if rest else "") + chr(ord("A") + last)


@dataclass(frozen=True, kw_only=True)
class SettingDifference:
    """A setting or environment value that differs between groups of runs."""

    name: str
    values: tuple[str, ...]
    setting: bool = True


def setting_differences(groups: Sequence[RunGroup]) -> tuple[SettingDifference, ...]:
    """Return the settings and environment values that differ between groups."""
    settings = [[run.run.recipe.as_dict() for run in g.runs] for g in groups]
    environments = [[_environment(run) for run in g.runs] for g in groups]
    differences = [*_values(settings, True), *_values(environments, False)]
    several_seeds = any(len(group.runs) > 1 for group in groups)
    return tuple(
        each
        for each in differences
        if len(set(each.values)) > 1 and not (each.name == "seed" and several_seeds)
    )


def _values(
    groups: Sequence[Sequence[dict[str, Any]]], setting: bool
) -> Iterator[SettingDifference]:
    """Yield the values of each setting in all groups of runs, even if equal."""
    for name in dict.fromkeys(chain.from_iterable(chain(*groups))):
        texts = ([_value_text(run.get(name)) for run in group] for group in groups)
        values = tuple(" · ".join(dict.fromkeys(each)) for each in texts)
        yield SettingDifference(name=name, values=values, setting=setting)


def _environment(run: EvaluatedRun) -> dict[str, Any]:
    manifest = run.manifest
    versions = {f"version of {k}": v for k, v in manifest.get("versions", {}).items()}
    commit = str(manifest.get("git") or "")[:10]
    images = f"{sum(run.split_counts.values()):,} ({run.data_hash[:8]})"
    machine = manifest.get("machine", {})
    return {**versions, **machine, "git": commit, "images": images}


def _value_text(value: object) -> str:
    if isinstance(value, list | tuple):
        return "×".join(map(str, value))
    return "–" if value in (None, "") else str(value)
