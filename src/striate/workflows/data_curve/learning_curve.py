"""A learning curve: one recipe at growing fractions of its images, over seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from striate.core.errors import SettingError
from striate.engine.distributed.rank_info import check_alone
from striate.run.recipe import Recipe
from striate.run.run import Run
from striate.workflows.data_curve.power_law import Law, Point, fit_law
from striate.workflows.data_curve.runs import CurveRun, Make, Study

FRACTIONS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
SEEDS = 3


@dataclass(frozen=True, kw_only=True)
class LearningCurve:
    """A finished curve.

    Args:
        path: Its folder.
        recipe: What was trained, at all fractions.
        split: What was judged: test, or val where there is no test.
        runs: One a fraction and seed, small fractions first.
    """

    path: Path
    recipe: Recipe
    split: str
    runs: tuple[CurveRun, ...]

    @property
    def model(self) -> str:
        """Return the network's name, decided by the data where it was `auto`."""
        return Run(self.runs[0].path).recipe.model

    @property
    def metric(self) -> str:
        """Return what is foretold: balanced accuracy where classes are evened out."""
        even = self.recipe.class_weights != "none"
        return "balanced_accuracy" if even else "accuracy"

    @cached_property
    def fractions(self) -> tuple[float, ...]:
        """Return the fractions, the smallest first."""
        return tuple(sorted({run.fraction for run in self.runs}))

    @cached_property
    def points(self) -> tuple[Point, ...]:
        """Return images and errors of each fraction, over its seeds."""
        return tuple(self._point(fraction) for fraction in self.fractions)

    def _point(self, fraction: float) -> Point:
        runs = [run for run in self.runs if run.fraction == fraction]
        return Point(
            images=sum(run.images for run in runs) / len(runs),
            errors=tuple(1 - getattr(run, self.metric) for run in runs),
            judged=round(sum(run.judged for run in runs) / len(runs)),
        )

    @cached_property
    def law(self) -> Law:
        """Return the law fitted to all points."""
        return fit_law(self.points)

    @cached_property
    def earlier_law(self) -> Law | None:
        """Return the law fitted without the largest fraction, to be tried on it."""
        return fit_law(self.points[:-1]) if len(self.points) > 3 else None


def learning_curve(
    recipe: Recipe,
    *,
    fractions: Sequence[float] = FRACTIONS,
    seeds: int = SEEDS,
    make: Make | None = None,
    out: Path | None = None,
    overwrite: bool = False,
    told: Callable[[str], None] = lambda line: None,
) -> LearningCurve:
    """Train at growing fractions, over seeds, and return the curve.

    Args:
        recipe: What to train. Seeds count up from its own, and with the seed change
            the split, the fraction and the initial weights.
        fractions: Of the training split, at least three.
        seeds: Trainings at each fraction, at least two: one has no deviation.
        make: From data to a network, where it is not the recipe's by name.
        out: The folder; `runs/curve/<data>-<model>` where not given. A curve of the
            same settings that is there goes on where it stopped.
        overwrite: Begin anew in `out`.
        told: Gets a line when a run ends.

    Raises:
        SettingError: Too few fractions or seeds, a fraction that cannot be, or several
            processes.
        RunError: Something else is in `out`.
    """
    check_alone("a learning curve")
    wanted = _checked(recipe, fractions, seeds)
    study = Study(recipe=recipe, fractions=wanted, seeds=seeds, make=make)
    place = study.folder(out, overwrite)
    runs, split = study.run_all(place, told)
    return LearningCurve(path=place, recipe=recipe, split=split, runs=tuple(runs))


def _checked(
    recipe: Recipe, fractions: Sequence[float], seeds: int
) -> tuple[float, ...]:
    wanted = sorted(set(fractions))
    if len(wanted) < 3 or not wanted[0] > 0 or wanted[-1] > 1:
        said = ", ".join(f"{fraction:g}" for fraction in fractions)
        what = f"a curve needs three fractions above 0 and up to 1, got {said}"
        raise SettingError(what, where="--fractions", fix="for example 0.1,0.3,1")
    if seeds < 2:
        what = f"a curve needs two seeds or more for its intervals, got {seeds}"
        raise SettingError(what, where="--seeds")
    if recipe.fraction != 1:
        fix = "leave out --fraction; the curve ends at the largest of --fractions"
        raise SettingError("a curve goes through the fractions itself", fix=fix)
    return tuple(wanted)
