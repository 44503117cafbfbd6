"""Report of a comparison, as an HTML page and for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean

from striate.core import findings as f
from striate.core.format import count_text
from striate.report.format import percent
from striate.workflows.compare.conclusion import (
    MAX_SENTENCES,
    comparison_caveats,
    comparison_conclusions,
    p_equals,
    points_interval,
    points_text,
)
from striate.workflows.compare.difference_tables import (
    class_difference_table,
    difference_table,
    other_metrics_table,
)
from striate.workflows.compare.flipped_images import flipped_blocks, flipped_table
from striate.workflows.compare.groups import RunGroup, mean_and_std
from striate.workflows.compare.result import ComparisonResult
from striate.workflows.compare.significance import PairwiseTest
from striate.workflows.compare.tables import (
    metrics_table,
    runs_table,
    setting_differences_table,
)

SEE_REPORT = "Classes and flipped images: see the report (--html FILE) or --json."
CHARTS = (
    ("Validation accuracy", "val_accuracy", "accuracy", True),
    ("Validation loss", "val_loss", "cross-entropy", False),
    ("Training loss", "train_loss", "cross-entropy", False),
)


def comparison_blocks(result: ComparisonResult) -> list[f.Block]:
    """Return the blocks of the terminal report; the conclusion comes last."""
    few = len(result.tests) <= MAX_SENTENCES
    blocks: list[f.Block | None] = [
        runs_table(result.groups),
        setting_differences_table(result.setting_differences, result.groups),
        *comparison_charts(result.groups)[:1],
        *(map(class_difference_table, result.tests) if few else ()),
        *(map(flipped_table, result.tests) if few else (f.Prose(SEE_REPORT),)),
        metrics_table(result.groups, result.split),
        other_metrics_table(result.tests),
        difference_table(result.tests),
        *comparison_conclusions(result.tests),
        *comparison_caveats(result),
    ]
    return list(_without_none(blocks))


def comparison_page(result: ComparisonResult) -> f.Page:
    """Return the HTML report; the conclusion comes first."""
    groups, tests = result.groups, result.tests
    figures = [_accuracy_figure(group) for group in groups]
    figures += [_difference_figure(test) for test in tests[:1] if len(tests) == 1]
    contents: dict[str, Sequence[f.Block | None]] = {
        "Summary": [
            f.Figures(tuple(figures)),
            *comparison_conclusions(tests),
            *comparison_caveats(result),
        ],
        "Runs": [
            runs_table(groups),
            setting_differences_table(result.setting_differences, groups),
        ],
        "Results": [
            metrics_table(groups, result.split),
            difference_table(tests),
            other_metrics_table(tests),
        ],
        "Learning curves": comparison_charts(groups),
        "By class": [class_difference_table(test) for test in tests],
    }
    present = {title: _without_none(blocks) for title, blocks in contents.items()}
    sections = [f.Section(t, b) for t, b in present.items() if b]
    sections += [_flipped_section(test) for test in tests if test.pairings]
    data = groups[0].runs[0].manifest.get("data", {})
    return f.Page(
        _title(groups),
        subtitle=f"{data.get('name', 'Data')}, {result.split} split.",
        sections=tuple(sections),
    )


def _title(groups: Sequence[RunGroup]) -> str:
    if len(groups) > 2:
        several_seeds = any(len(group.runs) > 1 for group in groups)
        return f"Comparison of {len(groups)} {'settings' if several_seeds else 'runs'}"
    return " and ".join(group.name for group in groups)


def _without_none(blocks: Sequence[f.Block | None]) -> tuple[f.Block, ...]:
    return tuple(block for block in blocks if block is not None)


def _accuracy_figure(group: RunGroup) -> f.Figure:
    mean, deviation = mean_and_std(group.values(lambda run: run.score.accuracy))
    if deviation is None:
        score = group.runs[0].score
        low, high = score.interval
        images = count_text(score.count, "image")
        detail = f"accuracy on {images}, {100 * low:.1f}–{100 * high:.1f} %"
    else:
        detail = (
            f"accuracy ± {100 * deviation:.2f} over "
            f"{count_text(len(group.runs), 'seed')}"
        )
    label = f"{group.letter} {group.name}"
    return f.Figure(label, percent(mean), detail=detail)


def _difference_figure(test: PairwiseTest) -> f.Figure:
    detail = "percentage points of accuracy"
    if test.interval:
        detail += f", {points_interval(test.interval)}, p {p_equals(test.p)}"
    value = points_text(test.difference)
    return f.Figure(test.letters, value, detail=detail)


def _flipped_section(test: PairwiseTest) -> f.Section:
    who = "only one of the two runs"
    if len(test.pairings) > 1:
        who = "more seeds of one group than of the other"
    title = f"Flipped images, {test.second.letter} against {test.first.letter}"
    lead = f"Images classified correctly by {who}, clearest first."
    return f.Section(title, tuple(flipped_blocks(test)), lead=lead)


def comparison_charts(groups: Sequence[RunGroup]) -> tuple[f.Curve, ...]:
    """Return charts of the training history, with a mean curve per group of runs."""
    several_seeds = any(len(group.runs) > 1 for group in groups)
    note = "Mean over the seeds. Shaded: minimum to maximum." * several_seeds
    return tuple(
        f.Curve(
            title,
            x_label="epoch",
            y_label=unit,
            series=tuple(_series(group, key) for group in groups),
            percent_y=share,
            note=note,
        )
        for title, key, unit, share in CHARTS
    )


def _series(group: RunGroup, key: str) -> f.Series:
    """Return the mean curve of a group of runs, up to the end of the shortest run."""
    lines = [[row[key] for row in run.run.history] for run in group.runs]
    epochs = list(zip(*lines, strict=False))

    def reduce(function: Callable[[Sequence[float]], float]) -> tuple[float, ...]:
        return tuple(function(values) for values in epochs)

    several_seeds = len(lines) > 1
    return f.Series(
        f"{group.letter} {group.name}",
        tuple(float(i + 1) for i in range(len(epochs))),
        reduce(fmean),
        low=reduce(min) if several_seeds else None,
        high=reduce(max) if several_seeds else None,
    )
