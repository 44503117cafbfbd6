"""What a learning curve says, in findings: measured, foretold, and tried on itself."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from striate.core.files import read_json, write_json, write_text
from striate.core.findings import (
    Block,
    Cell,
    Column,
    Curve,
    Figure,
    Figures,
    Page,
    Prose,
    Section,
    Series,
    Table,
)
from striate.report.format import percent
from striate.report.html import render
from striate.report.png import save_curve
from striate.run import layout as names
from striate.run.report_page import plain
from striate.run.scorecard import span
from striate.workflows.data_curve.learning_curve import LearningCurve
from striate.workflows.data_curve.power_law import Foretold, Point
from striate.workflows.data_curve.runs import PLAN

TIMES = (2, 4)  # as many images as there are, foretold
FAR = 1024  # times as many, beyond which no goal is looked for
STEP = 2**0.25
WORDS = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy"}


@dataclass(frozen=True, kw_only=True)
class Reach:
    """How many training images a goal takes; None for more than `FAR` times."""

    goal: float
    images: int | None
    low: int | None
    high: int | None


def foretold(curve: LearningCurve) -> list[Foretold]:
    """Return what more images would show."""
    return [curve.law.foretell(n * curve.points[-1].images) for n in TIMES]


def reach(curve: LearningCurve, goal: float) -> Reach:
    """Return how many images bring the metric to `goal`, with the 95 % interval."""
    found: dict[str, int | None] = {"low": None, "error": None, "high": None}
    images = curve.points[0].images
    while None in found.values() and images <= FAR * curve.points[-1].images:
        told = curve.law.foretell(images)
        for name, had in found.items():
            if had is None and getattr(told, name) <= 1 - goal:
                found[name] = round(images)
        images *= STEP
    # The least error that fits reaches the goal first.
    return Reach(goal=goal, images=found["error"], low=found["low"], high=found["high"])


def verdict(curve: LearningCurve) -> Prose:
    """Say what twice the images would buy, or that it cannot be told."""
    last, told = curve.points[-1], foretold(curve)[0]
    now, word = 1 - last.mean, WORDS[curve.metric]
    bring = (
        f"twice as many training images, {told.images:,.0f}, are expected to bring "
        f"{percent(1 - told.error, 2)} {word} (95 % interval "
        f"{span((1 - told.high, 1 - told.low), 2)}), where {percent(now, 2)} is "
        f"measured with {last.images:,.0f}"
    )
    if 1 - told.high > now:
        return Prose(text=f"More images would help: {bring}.", tone="good")
    unsure = "Whether more images would help is within the noise of these runs: "
    return Prose(text=f"{unsure}{bring}. More seeds would narrow it.")


def law_words(curve: LearningCurve) -> Prose:
    """Say which law was fitted."""
    law = curve.law
    floor = f"{law.floor:.4f} + " if law.floor > 5e-5 else ""
    text = (
        f"The error falls as {floor}{law.gain:.3g} · n^−{law.exponent:.2f} in the "
        "number n of training images. The intervals hold every such law that the "
        "runs do not refute, and the scatter of a mean of as many runs."
    )
    return Prose(text=text)


def trial(curve: LearningCurve) -> Prose | None:
    """Tell what the smaller fractions foretold of the largest, and if it came true."""
    if curve.earlier_law is None:
        return None
    last = curve.points[-1]
    told = curve.earlier_law.foretell(last.images)
    came = told.low <= last.mean <= told.high
    said = (
        f"Trial on itself: from the fractions up to {curve.fractions[-2]:g} alone, "
        f"{percent(1 - told.error, 2)} (95 % interval "
        f"{span((1 - told.high, 1 - told.low), 2)}) is foretold for "
        f"{last.images:,.0f} images; measured {percent(1 - last.mean, 2)}"
    )
    if came:
        return Prose(text=f"{said}, within it.", tone="good")
    return Prose(text=f"{said}, outside. Take the forecast with care.", tone="warning")


def reach_words(found: Reach, metric: str) -> Prose:
    """Say how many images a goal takes."""
    goal = f"{percent(found.goal, 2)} {WORDS[metric]}"
    if found.low is None:
        text = f"no law that fits reaches it with {FAR:,} times the images"
    elif found.images is None:
        text = f"not to be expected, though {found.low:,} images could reach it"
    else:
        most = f"{found.high:,}" if found.high else "no number"
        text = f"expected at about {found.images:,} training images "
        text += f"(95 % interval {found.low:,} to {most})"
    return Prose(text=f"{goal}: {text}.")


def points_table(curve: LearningCurve) -> Table:
    """Return mean and deviation of every fraction, with the number of runs."""
    columns = (
        Column(title="fraction", key="fraction"),
        Column(title="images", kind="integer", hint="training, mean over seeds"),
        Column(title="runs", kind="integer"),
        Column(title="accuracy", kind="ratio", hint="mean over seeds"),
        Column(title="± deviation", kind="ratio", key="deviation"),
        Column(title="balanced", kind="ratio", hint="mean recall of the classes"),
        Column(title="± deviation", kind="ratio", key="balanced_deviation", rank=1),
    )
    return Table(
        title=f"Measured on the {curve.split} split",
        columns=columns,
        rows=tuple(_point_row(curve, fraction) for fraction in curve.fractions),
    )


def _point_row(curve: LearningCurve, fraction: float) -> tuple[Cell, ...]:
    runs = [run for run in curve.runs if run.fraction == fraction]
    plain = [run.accuracy for run in runs]
    balanced = [run.balanced_accuracy for run in runs]
    return (
        f"{fraction:.4g}",
        round(statistics.mean(run.images for run in runs)),
        len(runs),
        statistics.mean(plain),
        statistics.stdev(plain),
        statistics.mean(balanced),
        statistics.stdev(balanced),
    )


def foretold_table(curve: LearningCurve) -> Table:
    """Return what more images would show."""
    rows = tuple(
        (
            f"× {times}",
            round(told.images),
            1 - told.error,
            1 - told.high,
            1 - told.low,
        )
        for times, told in zip(TIMES, foretold(curve), strict=True)
    )
    columns = (
        Column(title="of today's", key="times"),
        Column(title="images", kind="integer"),
        Column(title=WORDS[curve.metric], kind="ratio", key="expected"),
        Column(title="95 % from", kind="ratio", key="low"),
        Column(title="to", kind="ratio", key="high"),
    )
    return Table(title="Foretold", columns=columns, rows=rows)


def charts(curve: LearningCurve) -> tuple[Curve, Curve]:
    """Return the error on two logarithms, where the law is straight, and accuracy."""
    measured = _measured(curve.points)
    law = _law_line(curve)
    mark = (curve.points[-1].images, "today")
    common: dict[str, Any] = {
        "x_label": "training images",
        "percent_y": True,
        "log_x": True,
        "mark": mark,
    }
    word = WORDS[curve.metric]
    note = "Bands: one deviation of the runs; 95 % interval of the forecast."
    return (
        Curve(
            title="Error",
            y_label=f"1 − {word}",
            series=(measured, law),
            log_y=True,
            note=note,
            **common,
        ),
        Curve(
            title=word.capitalize(),
            y_label=word,
            series=(_flipped(measured), _flipped(law)),
            note=note,
            **common,
        ),
    )


def _measured(points: tuple[Point, ...]) -> Series:
    return Series(
        name="measured",
        x=tuple(point.images for point in points),
        y=tuple(point.mean for point in points),
        low=tuple(max(point.mean - point.deviation, 0.0) for point in points),
        high=tuple(min(point.mean + point.deviation, 1.0) for point in points),
    )


def _law_line(curve: LearningCurve) -> Series:
    first, last = curve.points[0].images, curve.points[-1].images
    x = [first]
    while x[-1] < TIMES[-1] * last * 0.99:
        x.append(min(x[-1] * STEP, TIMES[-1] * last))
    told = [curve.law.foretell(n) for n in x]
    return Series(
        name="foretold",
        x=tuple(x),
        y=tuple(one.error for one in told),
        low=tuple(one.low for one in told),
        high=tuple(one.high for one in told),
    )


def _flipped(series: Series) -> Series:
    def flip(values: tuple[float, ...] | None) -> tuple[float, ...]:
        return tuple(1 - value for value in values or ())

    return Series(
        name=series.name,
        x=series.x,
        y=flip(series.y),
        low=flip(series.high),
        high=flip(series.low),
    )


def findings(curve: LearningCurve, goal: float | None = None) -> list[Block]:
    """Return what is shown first, on a terminal and on the page."""
    blocks: list[Block] = [points_table(curve), foretold_table(curve), verdict(curve)]
    if goal is not None:
        blocks.append(reach_words(reach(curve, goal), curve.metric))
    if (tried := trial(curve)) is not None:
        blocks.append(tried)
    return blocks


def facts(curve: LearningCurve, goal: float | None = None) -> dict[str, Any]:
    """Return all of it as JSON values."""
    law = curve.law
    early = curve.earlier_law
    told = early.foretell(curve.points[-1].images) if early else None
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
        "foretold": [_told(one) for one in foretold(curve)],
        "trial": {**_told(told), "measured": 1 - curve.points[-1].mean}
        if told
        else None,
        "goal": asdict(reach(curve, goal)) if goal is not None else None,
        "runs": [{**asdict(run), "path": str(run.path)} for run in curve.runs],
    }


def _told(one: Foretold) -> dict[str, float]:
    return {
        "images": one.images,
        "expected": 1 - one.error,
        "low": 1 - one.high,
        "high": 1 - one.low,
    }


def write_curve(curve: LearningCurve, goal: float | None = None) -> Path:
    """Write `curve.json`, `report.html` and `plots/`; return the report's path."""
    for chart, name in zip(charts(curve), ("error", "accuracy"), strict=True):
        save_curve(chart, curve.path / names.PLOTS / f"{name}.png")
    path = curve.path / names.REPORT
    write_text(path, render(_page(curve, goal)))
    plan = read_json(curve.path / PLAN)["plan"]
    write_json(curve.path / PLAN, {"plan": plan, **facts(curve, goal)})
    return path


def _page(curve: LearningCurve, goal: float | None) -> Page:
    last = curve.points[-1]
    word = WORDS[curve.metric]
    scatter = f"± {percent(last.deviation, 2)} over {len(last.errors)} runs"
    figures = [
        Figure(
            label=f"{word}, {last.images:,.0f} images",
            value=percent(1 - last.mean, 2),
            detail=scatter,
        )
    ]
    figures += [
        Figure(
            label=f"foretold for {told.images:,.0f}",
            value=percent(1 - told.error, 2),
            detail=f"95 % interval {span((1 - told.high, 1 - told.low), 2)}",
        )
        for told in foretold(curve)
    ]
    words = [b for b in findings(curve, goal) if isinstance(b, Prose)]
    head: list[Block] = [Figures(figures=tuple(figures)), *words, law_words(curve)]
    sections = (
        Section(title="What more images would buy", blocks=tuple(head)),
        Section(title="Curve", blocks=charts(curve)),
        Section(title="Figures", blocks=(points_table(curve), foretold_table(curve))),
        _runs(curve),
        Section(title="Settings", blocks=(_settings(curve),)),
    )
    return Page(
        title=f"Learning curve · {Path(curve.recipe.data).name} · {curve.model}",
        subtitle=curve.path.name,
        sections=sections,
    )


def _settings(curve: LearningCurve) -> Table:
    columns = (Column(title="setting", kind="code"), Column(title="value"))
    settings = {**curve.recipe.as_dict(), "model": curve.model}
    rows = tuple((name, plain(value)) for name, value in settings.items())
    note = "Of all runs, but for seed, fraction and epochs, which fit the fraction."
    return Table(columns=columns, rows=rows, note=note)


def _runs(curve: LearningCurve) -> Section:
    columns = (
        Column(title="run", kind="code"),
        Column(title="images", kind="integer"),
        Column(title="judged on", kind="integer"),
        Column(title="accuracy", kind="ratio"),
        Column(title="balanced", kind="ratio"),
    )
    rows = tuple(
        (run.path.name, run.images, run.judged, run.accuracy, run.balanced_accuracy)
        for run in curve.runs
    )
    lead = "Each is a run folder of its own, with its own report."
    return Section(title="Runs", lead=lead, blocks=(Table(columns=columns, rows=rows),))
