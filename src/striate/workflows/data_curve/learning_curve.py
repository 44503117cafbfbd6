"""Learning curve: accuracy at increasing training set sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from striate.core.errors import SettingError
from striate.core.notebook import NotebookResult
from striate.data.config import DataConfig
from striate.data.find_source import find_source
from striate.run.build_network import network_title
from striate.run.recipe import Recipe
from striate.run.refuse_torchrun import check_single_process
from striate.run.run import Run
from striate.workflows.data_curve.power_law import CurvePoint, PowerLaw, fit_power_law
from striate.workflows.data_curve.runs import CurvePlan, CurveRun, Make

FRACTIONS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
SEEDS = 3


@dataclass(frozen=True, kw_only=True)
class LearningCurve(NotebookResult):
    """Result of a learning curve: one run per fraction and seed.

    Args:
        path: Folder of the curve.
        recipe: Training settings.
        split: Evaluated split: test, or val if there is no test split.
        runs: One run per fraction and seed, the smallest fraction first.
    """

    path: Path
    recipe: Recipe
    split: str
    runs: tuple[CurveRun, ...]

    @property
    def model(self) -> str:
        """Return the name of the network, with `auto` resolved."""
        return network_title(Run(self.runs[0].path).recipe.model)

    @property
    def metric(self) -> str:
        """Return `balanced_accuracy` if class weights are used, else `accuracy`."""
        is_weighted = self.recipe.class_weights != "none"
        return "balanced_accuracy" if is_weighted else "accuracy"

    @cached_property
    def fractions(self) -> tuple[float, ...]:
        """Return the fractions of training images, the smallest first."""
        return tuple(sorted({run.fraction for run in self.runs}))

    @cached_property
    def points(self) -> tuple[CurvePoint, ...]:
        """Return the measured errors of each fraction, over all seeds."""
        return tuple(self._point(fraction) for fraction in self.fractions)

    def _point(self, fraction: float) -> CurvePoint:
        runs = [run for run in self.runs if run.fraction == fraction]
        return CurvePoint(
            images=sum(run.images for run in runs) / len(runs),
            errors=tuple(1 - getattr(run, self.metric) for run in runs),
            test_images=round(sum(run.test_images for run in runs) / len(runs)),
        )

    @cached_property
    def law(self) -> PowerLaw:
        """Return the power law fitted to all points."""
        return fit_power_law(self.points)

    @cached_property
    def backtest_law(self) -> PowerLaw | None:
        """Return the power law fitted without the largest fraction (backtest)."""
        return fit_power_law(self.points[:-1]) if len(self.points) > 3 else None


def learning_curve(
    recipe: Recipe,
    *,
    fractions: Sequence[float] = FRACTIONS,
    seeds: int = SEEDS,
    make: Make | None = None,
    out: Path | None = None,
    overwrite: bool = False,
    log: Callable[[str], None] = lambda line: None,
) -> LearningCurve:
    """Train with increasing fractions of the training images; return a learning curve.

    Args:
        recipe: Training settings. Seeds count up from `recipe.seed`; a seed changes the
            split, the fraction and the initial weights.
        fractions: Fractions of the training split, at least three.
        seeds: Number of runs at each fraction, at least two.
        make: Function from data to a network; default: the model of the recipe.
        out: Folder; default `runs/curve/<data>-<model>`. A curve with the same settings
            is continued.
        overwrite: Delete an earlier curve in `out`.
        log: Called with a line of text after each run.

    Raises:
        SettingError: Too few fractions or seeds, an invalid fraction, or several
            processes.
        RunError: `out` contains something else.
    """
    check_single_process("a learning curve")
    sorted_fractions = _check_fractions(recipe, fractions, seeds)
    path = Path(recipe.data)
    if path.suffix.lower() in (".csv", ".tsv") and path.is_file():
        fix = "train with several fractions yourself: striate train DATA --fraction 0.5"
        find_source(path).labels.require_one_label("a learning curve", fix)
    plan = CurvePlan(recipe=recipe, fractions=sorted_fractions, seeds=seeds, make=make)
    folder = plan.folder(out, overwrite)
    runs, split = plan.run_all(folder, log)
    return LearningCurve(path=folder, recipe=recipe, split=split, runs=tuple(runs))


def _check_fractions(
    config: DataConfig, fractions: Sequence[float], seeds: int
) -> tuple[float, ...]:
    sorted_fractions = sorted(set(fractions))
    if len(sorted_fractions) < 3 or not all(0 < f <= 1 for f in sorted_fractions):
        text = ", ".join(f"{fraction:g}" for fraction in fractions)
        what = f"a learning curve needs at least three fractions in (0, 1], got {text}"
        raise SettingError(what, where="--fractions", fix="use, for example, 0.1,0.3,1")
    if seeds < 2:
        what = f"a learning curve needs at least two seeds, got {seeds}"
        raise SettingError(what, where="--seeds")
    if config.fraction != 1:
        fix = "use --fractions: the largest is the last point of the curve"
        raise SettingError("a learning curve cannot use --fraction", fix=fix)
    return tuple(sorted_fractions)
