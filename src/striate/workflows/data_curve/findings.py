"""Report of `data curve`: measured accuracies, forecast, backtest and charts."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from striate.core import findings as f
from striate.core.files import read_json, write_json, write_text
from striate.core.format import count_text
from striate.core.notebook import notebook_html
from striate.report.format import percent
from striate.report.html import render_page
from striate.report.html_card import render_card
from striate.report.png import save_curve
from striate.run import layout as names
from striate.run.report_texts import setting_text
from striate.run.scorecard import ci_text
from striate.workflows.data_curve.learning_curve import LearningCurve
from striate.workflows.data_curve.power_law import CurvePoint, Forecast
from striate.workflows.data_curve.runs import CURVE_FILE

FORECAST_FACTORS = (2, 4)  # multiples of the current number of images
MAX_FACTOR = 1024  # largest multiple of the current number of images for a goal
STEP = 2**0.25
METRIC_NAMES = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy"}


@dataclass(frozen=True, kw_only=True)
class GoalEstimate:
    """Estimated number of training images for a target accuracy, with an interval."""

    goal: float
    images: int | None
    low: int | None
    high: int | None


def forecasts(curve: LearningCurve) -> list[Forecast]:
    """Return forecasts of the error for more training images than were measured."""
    return [curve.law.forecast(n * curve.points[-1].images) for n in FORECAST_FACTORS]


def images_for_goal(curve: LearningCurve, goal: float) -> GoalEstimate:
    """Estimate the number of images to reach accuracy `goal`, with a 95 % interval."""
    reached: dict[str, int | None] = {"low": None, "error": None, "high": None}
    images = curve.points[0].images
    while None in reached.values() and images <= MAX_FACTOR * curve.points[-1].images:
        forecast = curve.law.forecast(images)
        for name, value in reached.items():
            if value is None and getattr(forecast, name) <= 1 - goal:
                reached[name] = round(images)
        images *= STEP
    # The lower bound of the error reaches the goal first.
    low, high = reached["low"], reached["high"]
    return GoalEstimate(goal=goal, images=reached["error"], low=low, high=high)


def conclusion(curve: LearningCurve) -> f.Prose:
    """Return a sentence on whether twice as many images would help."""
    last, forecast = curve.points[-1], forecasts(curve)[0]
    now, metric = 1 - last.mean, METRIC_NAMES[curve.metric]
    text = (
        f"with twice as many training images ({forecast.images:,.0f}), the expected "
        f"{metric} is {percent(1 - forecast.error, 2)} (95 % interval "
        f"{ci_text((1 - forecast.high, 1 - forecast.low), 2)}); it is "
        f"{percent(now, 2)} with {last.images:,.0f}"
    )
    if 1 - forecast.high > now:
        return f.Prose(f"More images would help: {text}.", "good")
    prefix = "It is not clear whether more images would help: "
    return f.Prose(f"{prefix}{text}. More seeds give a smaller interval.")


def law_text(curve: LearningCurve) -> f.Prose:
    """Return a sentence on the fitted power law."""
    law = curve.law
    floor = f"{law.floor:.4f} + " if law.floor > 5e-5 else ""
    text = (
        f"Fitted law: error = {floor}{law.gain:.3g} · n^−{law.exponent:.2f} for n "
        "training images. The intervals contain all such laws that fit the runs, and "
        "the noise of a mean over as many runs."
    )
    return f.Prose(text)


def backtest(curve: LearningCurve) -> f.Prose | None:
    """Compare the largest fraction's accuracy with a forecast from smaller ones."""
    if curve.backtest_law is None:
        return None
    last = curve.points[-1]
    forecast = curve.backtest_law.forecast(last.images)
    text = (
        f"Backtest: the fractions up to {curve.fractions[-2]:g} alone predict "
        f"{percent(1 - forecast.error, 2)} (95 % interval "
        f"{ci_text((1 - forecast.high, 1 - forecast.low), 2)}) for {last.images:,.0f} "
        f"images. Measured: {percent(1 - last.mean, 2)}"
    )
    if forecast.low <= last.mean <= forecast.high:
        return f.Prose(f"{text}, inside the interval.", "good")
    text += ", outside the interval. The forecast is unreliable."
    return f.Prose(text, "warning")


def goal_text(estimate: GoalEstimate, metric: str) -> f.Prose:
    """Return a sentence on the number of images for a target accuracy."""
    goal = f"{percent(estimate.goal, 2)} {METRIC_NAMES[metric]}"
    if estimate.low is None:
        text = f"not reached with {MAX_FACTOR:,} times as many images"
    elif estimate.images is None:
        text = f"not expected, but possible from {count_text(estimate.low, 'image')}"
    else:
        most = f"{estimate.high:,}" if estimate.high else "no upper limit"
        text = f"expected at about {count_text(estimate.images, 'training image')} "
        text += f"(95 % interval {estimate.low:,} to {most})"
    return f.Prose(f"{goal}: {text}.")


def measured_table(curve: LearningCurve) -> f.Table:
    """Return a table of accuracy (mean, std) by fraction of the training images."""
    columns = (
        f.Column("fraction"),
        f.Column("images", "integer", hint="training images, mean over seeds"),
        f.Column("runs", "integer"),
        f.Column("accuracy", "ratio", hint="mean over seeds"),
        f.Column("± std", "ratio", hint="over seeds"),
        f.Column("balanced accuracy", "ratio"),
        f.Column("± std", "ratio", key="balanced_std", rank=1),
    )
    return f.Table(
        title=f"Measured on the {curve.split} split",
        columns=columns,
        rows=tuple(_point_row(curve, fraction) for fraction in curve.fractions),
    )


def _point_row(curve: LearningCurve, fraction: float) -> tuple[f.Cell, ...]:
    runs = [run for run in curve.runs if run.fraction == fraction]
    plain = [run.accuracy for run in runs]
    balanced = [run.balanced_accuracy for run in runs]
    images = round(statistics.mean(run.images for run in runs))
    mean, stdev = statistics.mean, statistics.stdev
    statistics_of = [(mean(values), stdev(values)) for values in (plain, balanced)]
    return (f"{fraction:.4g}", images, len(runs), *chain(*statistics_of))


def forecast_table(curve: LearningCurve) -> f.Table:
    """Return a table of forecast accuracies for larger training sets."""
    rows = tuple(
        (f"× {times}", round(at.images), 1 - at.error, 1 - at.high, 1 - at.low)
        for times, at in zip(FORECAST_FACTORS, forecasts(curve), strict=True)
    )
    columns = (
        f.Column("times", hint="multiple of the current images"),
        f.Column("images", "integer"),
        f.Column(METRIC_NAMES[curve.metric], "ratio", key="expected"),
        f.Column("95 % low", "ratio", key="low"),
        f.Column("95 % high", "ratio", key="high"),
    )
    return f.Table(title="Forecast", columns=columns, rows=rows)


def curve_charts(curve: LearningCurve) -> tuple[f.Curve, f.Curve]:
    """Return two charts by training set size: error on log-log axes, and accuracy."""
    measured = _measured_series(curve.points)
    law = _forecast_series(curve)
    metric = METRIC_NAMES[curve.metric]
    accuracy_chart = f.Curve(
        metric.capitalize(),
        x_label="training images",
        y_label=metric,
        series=(_complement(measured), _complement(law)),
        percent_y=True,
        log_x=True,
        mark=(curve.points[-1].images, "now"),
        note="Bands: ± one std over seeds; 95 % interval of the forecast.",
    )
    error_chart = replace(
        accuracy_chart,
        title="Error",
        y_label=f"1 − {metric}",
        series=(measured, law),
        log_y=True,
    )
    return error_chart, accuracy_chart


def _measured_series(points: tuple[CurvePoint, ...]) -> f.Series:
    return f.Series(
        "measured",
        tuple(point.images for point in points),
        tuple(point.mean for point in points),
        low=tuple(max(point.mean - point.deviation, 0.0) for point in points),
        high=tuple(min(point.mean + point.deviation, 1.0) for point in points),
    )


def _forecast_series(curve: LearningCurve) -> f.Series:
    first, last = curve.points[0].images, curve.points[-1].images
    x = [first]
    while x[-1] < FORECAST_FACTORS[-1] * last * 0.99:
        x.append(min(x[-1] * STEP, FORECAST_FACTORS[-1] * last))
    line = [curve.law.forecast(n) for n in x]
    return f.Series(
        "forecast",
        tuple(x),
        tuple(forecast.error for forecast in line),
        low=tuple(forecast.low for forecast in line),
        high=tuple(forecast.high for forecast in line),
    )


def _complement(series: f.Series) -> f.Series:
    def flip(values: tuple[float, ...] | None) -> tuple[float, ...]:
        return tuple(1 - value for value in values or ())

    y, low, high = flip(series.y), flip(series.high), flip(series.low)
    return replace(series, y=y, low=low, high=high)


def curve_blocks(curve: LearningCurve, goal: float | None = None) -> list[f.Block]:
    """Return the blocks of the terminal report."""
    blocks: list[f.Block] = [
        measured_table(curve),
        forecast_table(curve),
        conclusion(curve),
    ]
    if goal is not None:
        blocks.append(goal_text(images_for_goal(curve, goal), curve.metric))
    if (backtest_block := backtest(curve)) is not None:
        blocks.append(backtest_block)
    return blocks


@notebook_html.register
def curve_card(curve: LearningCurve) -> str:
    """Return a learning curve as HTML for a notebook: chart, table and forecast."""
    title = f"Learning curve of {curve.path.name}"
    blocks = (curve_charts(curve)[0], *curve_blocks(curve))
    return render_card(title, [f.Section("", blocks)])


def curve_dict(curve: LearningCurve, goal: float | None = None) -> dict[str, Any]:
    """Return the curve and its forecasts as a JSON-serializable dict."""
    law = curve.law
    backtest_law = curve.backtest_law
    forecast = backtest_law.forecast(curve.points[-1].images) if backtest_law else None
    return {
        "curve": str(curve.path),
        "split": curve.split,
        "metric": curve.metric,
        "points": [
            {
                "fraction": fraction,
                "images": point.images,
                "runs": len(point.errors),
                "mean": 1 - point.mean,
                "deviation": point.deviation,
            }
            for fraction, point in zip(curve.fractions, curve.points, strict=True)
        ],
        "law": {k: getattr(law, k) for k in ("floor", "gain", "exponent", "misfit")},
        "forecasts": [_forecast_dict(forecast) for forecast in forecasts(curve)],
        "backtest": {**_forecast_dict(forecast), "measured": 1 - curve.points[-1].mean}
        if forecast
        else None,
        "goal": asdict(images_for_goal(curve, goal)) if goal is not None else None,
        "runs": [{**asdict(run), "path": str(run.path)} for run in curve.runs],
    }


def _forecast_dict(forecast: Forecast) -> dict[str, float]:
    return {
        "images": forecast.images,
        "expected": 1 - forecast.error,
        "low": 1 - forecast.high,
        "high": 1 - forecast.low,
    }


def write_curve_report(curve: LearningCurve, goal: float | None = None) -> Path:
    """Write `curve.json`, `report.html` and `plots/`; return the report's path."""
    for chart, name in zip(curve_charts(curve), ("error", "accuracy"), strict=True):
        save_curve(chart, curve.path / names.PLOTS / f"{name}.png")
    path = curve.path / names.REPORT
    write_text(path, render_page(_curve_page(curve, goal)))
    plan = read_json(curve.path / CURVE_FILE)["plan"]
    write_json(curve.path / CURVE_FILE, {"plan": plan, **curve_dict(curve, goal)})
    return path


def _curve_page(curve: LearningCurve, goal: float | None) -> f.Page:
    last = curve.points[-1]
    metric = METRIC_NAMES[curve.metric]
    scatter = (
        f"± {percent(last.deviation, 2)} over {count_text(len(last.errors), 'run')}"
    )
    label = f"{metric}, {last.images:,.0f} images"
    figures = [f.Figure(label, percent(1 - last.mean, 2), detail=scatter)]
    figures += [
        f.Figure(
            f"forecast, {forecast.images:,.0f} images",
            percent(1 - forecast.error, 2),
            detail=f"95 % interval {ci_text((1 - forecast.high, 1 - forecast.low), 2)}",
        )
        for forecast in forecasts(curve)
    ]
    settings = {**curve.recipe.as_dict(), "model": curve.model}
    settings_table = f.Table(
        columns=(f.Column("setting", "code"), f.Column("value")),
        rows=tuple(
            (name, setting_text(name, value)) for name, value in settings.items()
        ),
        note="Of all runs; seed, fraction and epochs differ between runs.",
    )
    texts = [b for b in curve_blocks(curve, goal) if isinstance(b, f.Prose)]
    head: list[f.Block] = [f.Figures(tuple(figures)), *texts, law_text(curve)]
    sections = (
        f.Section("Would more images help?", tuple(head)),
        f.Section("Curve", curve_charts(curve)),
        f.Section("Tables", (measured_table(curve), forecast_table(curve))),
        _runs_section(curve),
        f.Section("Settings", (settings_table,)),
    )
    return f.Page(
        f"Learning curve · {Path(curve.recipe.data).name} · {curve.model}",
        subtitle=curve.path.name,
        sections=sections,
    )


def _runs_section(curve: LearningCurve) -> f.Section:
    columns = (
        f.Column("run", "code"),
        f.Column("images", "integer"),
        f.Column("test images", "integer"),
        f.Column("accuracy", "ratio"),
        f.Column("balanced accuracy", "ratio"),
    )
    rows = tuple(
        (r.path.name, r.images, r.test_images, r.accuracy, r.balanced_accuracy)
        for r in curve.runs
    )
    lead = "Each run has its own folder and report."
    return f.Section("Runs", (f.Table(columns=columns, rows=rows),), lead=lead)
