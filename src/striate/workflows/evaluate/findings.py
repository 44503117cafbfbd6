"""Report on an operating point, for the terminal and as an HTML page."""

from __future__ import annotations

import math
from collections.abc import Iterator

from striate.core.findings import Block, Figure, Figures, Page, Prose, Section
from striate.core.format import count_text
from striate.data.cache.image_rows import PixelRows
from striate.metrics.selective import SelectiveCounts
from striate.metrics.temperature import MAX_TEMPERATURE
from striate.metrics.threshold import ConfusionCounts
from striate.report.format import percent
from striate.run.run import Run
from striate.run.scorecard import ci_text
from striate.workflows.evaluate.charts import (
    calibration_chart,
    distribution_chart,
    precision_recall_chart,
    review_chart,
)
from striate.workflows.evaluate.misclassified import misclassified_section
from striate.workflows.evaluate.result import OperatingPointResult
from striate.workflows.evaluate.selection import (
    GUARANTEED,
    OperatingPointRequest,
    Selection,
)
from striate.workflows.evaluate.tables import (
    band_table,
    calibration_table,
    distribution_table,
    group_table,
    selection_table,
    threshold_table,
)

SMALL = 0.05  # |log temperature| below this is no visible miscalibration
FEW = 59  # with fewer, even 100 % correct does not show 95 % with 95 % confidence


THRESHOLD = (
    "The thresholds were chosen on validation: the highest one that reaches the target "
    "recall there, and the highest one that reaches it on new images of the same kind "
    "with 95 % confidence."
)
CALIBRATION = (
    "Temperature scaling divides the logits by one number, fitted on validation after "
    "training (Guo et al. 2017). It changes the probabilities, but never the predicted "
    "class. This report has the probabilities that `striate predict` prints."
)
REVIEW_BAND = (
    "The least confident images are sent to manual review (selective prediction). The "
    "review band is the narrowest range of probabilities around 0.5 outside which the "
    "target accuracy is reached on validation."
)


def operating_point_blocks(result: OperatingPointResult) -> list[Block]:
    """Return the blocks of the terminal report; the conclusions come last."""
    blocks: list[Block | None] = [
        selection_table(result.selection, result.target),
        threshold_table(result),
        calibration_table(result),
        band_table(result),
    ]
    for column, groups in result.evaluation.by.items():
        blocks.append(group_table(result, column, groups))
        blocks.append(distribution_table(result, column, groups))
    blocks += [*result.caveats, operating_point_figures(result), *conclusions(result)]
    return [block for block in blocks if block is not None]


def operating_point_page(
    result: OperatingPointResult, pixels: PixelRows | None
) -> Page:
    """Return the full HTML report."""
    summary: tuple[Block, ...] = (
        operating_point_figures(result),
        *conclusions(result),
        *result.caveats,
    )
    threshold: tuple[Block, ...] = (
        selection_table(result.selection, result.target),
        threshold_table(result),
        precision_recall_chart(result),
    )
    calibration = (calibration_table(result), calibration_chart(result))
    band = (band_table(result) or _band_conclusion(result), review_chart(result))
    sections = [
        Section("Summary", summary),
        Section("Threshold", threshold, lead=THRESHOLD),
        Section("Calibration", calibration, lead=CALIBRATION),
        Section("Review band", band, lead=REVIEW_BAND),
        *_group_sections(result),
        misclassified_section(result, pixels),
    ]
    counts = result.evaluation.overall.counts
    return Page(
        f"Operating point for '{result.target}'",
        subtitle=f"Run {result.run}, evaluated on {result.split}: "
        f"{count_text(counts.count, 'image')}, {counts.positives:,} of "
        f"them {result.target}. The thresholds and the review band were chosen on "
        "validation "
        f"({count_text(result.selection.count, 'image')}).",
        sections=tuple(sections),
    )


def operating_point_figures(result: OperatingPointResult) -> Figures:
    """Return the key figures, such as recall and precision."""
    overall, counts = result.evaluation.overall, result.evaluation.overall.counts
    precision, interval = result.evaluation.average_precision
    figures = [
        _share_figure("recall", counts, "recall", counts.positives),
        _share_figure("precision", counts, "precision", counts.predicted_positives),
        _share_figure("specificity", counts, "specificity", counts.negatives),
    ]
    if overall.roc_auc:
        auc, (low, high) = overall.roc_auc
        detail = f"95 % interval {low:.3f}–{high:.3f}; 1 = perfect, 0.5 = random"
        figures.append(Figure("ROC-AUC", f"{auc:.3f}", detail=detail))
    baseline = percent(counts.positives / counts.count)
    detail = f"about {ci_text(interval)}; random baseline: {baseline}"
    average = Figure("average precision", percent(precision), detail=detail)
    figures.append(average)
    if band := overall.selective:
        figures += [
            _share_figure("manual review", band, "abstention_rate", band.count),
            _share_figure("automatic accuracy", band, "accuracy", band.answered),
        ]
    return Figures(tuple(figures))


def _share_figure(
    label: str, counts: ConfusionCounts | SelectiveCounts, share: str, total: int
) -> Figure:
    """Return a key figure: a percentage of `total` images with its interval, or `–`."""
    interval = ci_text(getattr(counts, f"{share}_interval"))
    detail = f"95 % interval {interval}, n = {total:,}"
    value = percent(getattr(counts, share)) if total else "–"
    return Figure(label, value, detail=detail)


def conclusions(result: OperatingPointResult) -> Iterator[Prose]:
    """Yield sentences on the threshold, the calibration and the review band."""
    yield _threshold_conclusion(result)
    yield _temperature_conclusion(result)
    yield _band_conclusion(result)


def _threshold_conclusion(result: OperatingPointResult) -> Prose:
    counts, goal = result.evaluation.overall.counts, result.request.recall
    low, high = counts.recall_interval
    threshold = percent(result.selection.threshold.probability, 2)
    others = "other" if len(result.other_classes) > 1 else result.rest
    text = (
        f"With threshold {threshold}, {counts.tp:,} of {counts.positives:,} "
        f"'{result.target}' images are found: recall {percent(counts.recall)} (95 % "
        f"interval {ci_text((low, high))}), target {percent(goal)}. "
        f"{count_text(counts.fp, 'false positive')} among {counts.negatives:,} "
        f"{others} images."
    )
    if high < goal:
        return Prose(f"{text} Target not reached.", "warning")
    if low >= goal:
        return Prose(f"{text} Target reached.", "good")
    return Prose(f"{text} Too few images to tell whether the target is reached.")


def _temperature_conclusion(result: OperatingPointResult) -> Prose:
    temperature, evaluation = result.selection.temperature, result.evaluation
    perfect = (
        f"With {count_text(result.data.count, 'image')}, a perfectly calibrated model "
        f"would show {percent(evaluation.calibrated.expected_ece)}."
    )
    if not result.is_scaled:
        ece = percent(evaluation.calibrated.ece)
        text = f"The expected calibration error (ECE) is {ece}. {perfect}"
        return Prose(f"{result.scaling_text} {text}")
    state = "overconfident" if temperature > 1 else "underconfident"
    if abs(math.log(temperature)) < SMALL:
        state = "well calibrated"
    text = (
        f"Without scaling, the model is {state} (temperature {temperature:.3g}). "
        "Temperature scaling changes the expected calibration error (ECE) from "
        f"{percent(evaluation.uncalibrated.ece)} to "
        f"{percent(evaluation.calibrated.ece)}. {perfect}"
    )
    return Prose(text)


def _band_conclusion(result: OperatingPointResult) -> Prose:
    band, selective = result.selection.band, result.evaluation.overall.selective
    goal = result.request.selective_accuracy
    if band is None or selective is None:
        text = (
            f"No review band reaches {percent(goal)} accuracy outside it on "
            "validation, so all images are sent to manual review."
        )
        return Prose(text, "warning")
    low, high = selective.accuracy_interval
    text = (
        f"Images with a probability between {percent(band.low)} and "
        f"{percent(band.high)} are sent to manual review: {selective.abstained:,} of "
        f"{selective.count:,}. The other {selective.answered:,} are decided "
        f"automatically: accuracy {percent(selective.accuracy)} (95 % interval "
        f"{ci_text((low, high))}), target {percent(goal)}. {selective.fn:,} of "
        f"{selective.positives:,} '{result.target}' images are missed without review."
    )
    if high < goal:
        return Prose(f"{text} Target not reached.", "warning")
    return Prose(text, "good" if low >= goal else "plain")


def _group_sections(result: OperatingPointResult) -> Iterator[Section]:
    for column, groups in result.evaluation.by.items():
        blocks = (
            group_table(result, column, groups),
            distribution_table(result, column, groups),
            distribution_chart(result, column, groups),
        )
        yield Section(f"By {column}", blocks)


def operating_point_caveats(
    run: Run, selection: Selection, request: OperatingPointRequest, split: str
) -> Iterator[Prose]:
    """Yield the limitations of the results, the most important first."""
    texts = [
        *_too_few_images(selection, request.target),
        *_temperature_limits(selection),
    ]
    if run.manifest.get("transfer", {}).get("head") != "logistic":
        texts.append(
            "Validation also chose the epoch whose weights were saved, so results on "
            f"validation are slightly too good. Results on {split} are not affected."
        )
    for text in texts:
        yield Prose(text, "warning")
    yield Prose(
        "The 95 % intervals assume independent images. Several images of one "
        "object (a module, a patient, a batch) make them too narrow; if some of these "
        "images were used for training, the results are also too good. List the "
        "objects in a group column to keep their images in one split.",
        "advice",
    )


def _too_few_images(selection: Selection, target: str) -> Iterator[str]:
    if not any(each.key == GUARANTEED for each in selection.thresholds):
        yield (
            f"Validation has only {count_text(selection.positives, 'image')} of "
            f"'{target}': too few to guarantee the target recall with any threshold. "
            "Use a larger --val-fraction, or more images."
        )
    if selection.selective is None:
        yield "Even the most confident predictions do not reach the target accuracy."
    elif selection.selective.answered < FEW:
        answered = count_text(selection.selective.answered, "validation image")
        yield f"The review band was chosen from only {answered} outside it."


def _temperature_limits(selection: Selection) -> Iterator[str]:
    if not selection.errors:
        yield (
            "All validation predictions are correct. So validation does not tell how "
            "confident the model should be, and the probabilities are uncertain."
        )
    if selection.temperature >= MAX_TEMPERATURE * 0.999:
        yield "The temperature is at its upper limit: probabilities are meaningless."
