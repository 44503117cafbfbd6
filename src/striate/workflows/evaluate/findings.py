"""What a detection says, on a terminal and on a page: the answer first."""

from __future__ import annotations

import math
from collections.abc import Iterator

from striate.core.findings import Block, Figure, Figures, Page, Prose, Section
from striate.data.cache.pixel_rows import PixelRows
from striate.report.format import counted, percent
from striate.run.scorecard import span
from striate.workflows.evaluate.charts import (
    calibration_chart,
    fall_chart,
    precision_chart,
    sureness_chart,
)
from striate.workflows.evaluate.errors import wrong_section
from striate.workflows.evaluate.result import Told
from striate.workflows.evaluate.tables import (
    band_table,
    calibration_table,
    chosen_table,
    fall_table,
    group_table,
    judged_table,
)

SMALL = 0.05  # of a temperature's logarithm: nothing that one would see


def terminal_blocks(told: Told) -> list[Block]:
    """Return everything but charts and images, the answer last."""
    blocks: list[Block | None] = [
        chosen_table(told.choice, told.target),
        judged_table(told),
        calibration_table(told),
        band_table(told),
    ]
    for column, groups in told.judged.by.items():
        blocks += [group_table(told, column, groups), fall_table(told, column, groups)]
    blocks += [*told.remarks, headlines(told), *answers(told)]
    return [block for block in blocks if block is not None]


def page_of(told: Told, pixels: PixelRows | None) -> Page:
    """Return everything as a report."""
    sections = [
        Section(
            title="Answer", blocks=(headlines(told), *answers(told), *told.remarks)
        ),
        _thresholds(told),
        _calibration(told),
        _unsure(told),
        *_by(told),
        wrong_section(told, pixels),
    ]
    whole = told.judged.whole.counts
    return Page(
        title=f"Finding '{told.target}'",
        subtitle=f"{told.run}, judged on {told.split}: {whole.count:,} images, "
        f"{whole.positives:,} of them {told.target}. Everything was chosen on "
        f"validation ({counted(told.choice.count, 'image')}); what is judged here "
        "chose nothing.",
        sections=tuple(sections),
    )


def headlines(told: Told) -> Figures:
    """Return the figures that a decision rests on."""
    whole, one = told.judged.whole, told.judged.whole.counts
    area = whole.auc
    precise, around = told.judged.average_precision
    shares = (
        ("recall", one.recall, one.recall_interval, one.positives),
        ("precision", one.precision, one.precision_interval, one.predicted_positives),
        ("specificity", one.specificity, one.specificity_interval, one.negatives),
    )
    figures = [_share(*share) for share in shares]
    if area:
        detail = f"{area[1][0]:.3f}–{area[1][1]:.3f}; 1 orders all rightly, 0.5 none"
        figures.append(Figure(label="ROC-AUC", value=f"{area[0]:.3f}", detail=detail))
    figures.append(
        Figure(
            label="average precision",
            value=percent(precise),
            detail=f"about {span(around)}; {percent(one.positives / one.count)} by "
            "tossing a coin",
        )
    )
    if whole.sorted:
        band = whole.sorted
        figures += [
            _share(
                "to a person",
                band.abstention_rate,
                band.abstention_rate_interval,
                band.count,
            ),
            _share(
                "right outside", band.accuracy, band.accuracy_interval, band.answered
            ),
        ]
    return Figures(figures=tuple(figures))


def _share(
    label: str, value: float, interval: tuple[float, float], count: int
) -> Figure:
    detail = f"95 % interval {span(interval)}, n = {count:,}"
    return Figure(label=label, value=percent(value) if count else "–", detail=detail)


def answers(told: Told) -> Iterator[Prose]:
    """Yield in words what the thresholds and the band do."""
    yield _at_threshold(told)
    yield _temperature(told)
    yield _at_band(told)


def _at_threshold(told: Told) -> Prose:
    one, wish = told.judged.whole.counts, told.question.recall
    low, high = one.recall_interval
    text = (
        f"Called {told.target} from {percent(told.choice.aimed.threshold, 2)} on, "
        f"{one.tp:,} of {one.positives:,} are found and {one.fn:,} missed: "
        f"{percent(one.recall)} ({span((low, high))}) where {percent(wish)} was "
        f"wanted. It costs {counted(one.fp, 'false alarm')} among "
        f"{one.negatives:,} that are {told.rest}."
    )
    if high < wish:
        return Prose(text=f"{text} The wish is missed.", tone="warning")
    if low >= wish:
        return Prose(text=f"{text} The wish is met.", tone="good")
    return Prose(text=f"{text} So few images neither confirm nor deny the wish.")


def _temperature(told: Told) -> Prose:
    warm, found = told.choice.temperature, told.judged
    how = "too sure" if warm > 1 else "not sure enough"
    if abs(math.log(warm)) < SMALL:
        how = "about as sure as it should be"
    text = (
        f"The network is {how}: its temperature is {warm:.3g}. Scaled by it, the "
        f"calibration error is {percent(found.after.gap)} in place of "
        f"{percent(found.before.gap)}; perfect probabilities would show "
        f"{percent(found.after.by_chance)} on {counted(told.view.count, 'image')}."
    )
    return Prose(text=text)


def _at_band(told: Told) -> Prose:
    band, one = told.choice.band, told.judged.whole.sorted
    wish = told.question.band
    if band is None or one is None:
        text = (
            f"No unsure band was found on validation outside which {percent(wish)} of "
            "the answers are right: everything goes to a person."
        )
        return Prose(text=text, tone="warning")
    low, high = one.accuracy_interval
    text = (
        f"Between {percent(band.low)} and {percent(band.high)} the network is unsure. "
        f"{one.abstained:,} of {one.count:,} go to a person; of the other "
        f"{one.answered:,} answers {percent(one.accuracy)} ({span((low, high))}) are "
        f"right where {percent(wish)} was wanted, and {one.fn:,} of "
        f"{one.positives:,} that are {told.target} slip through."
    )
    if high < wish:
        return Prose(text=f"{text} The wish is missed.", tone="warning")
    return Prose(text=text, tone="good" if low >= wish else "plain")


def _thresholds(told: Told) -> Section:
    lead = (
        "Validation chose the thresholds: the highest that finds the wished share, and "
        "the one that does so with 95 % certainty on new images like these."
    )
    tables = chosen_table(told.choice, told.target), judged_table(told)
    blocks = (*tables, precision_chart(told))
    return Section(title="Threshold", lead=lead, blocks=blocks)


def _calibration(told: Told) -> Section:
    lead = (
        "Logits are divided by one number, fitted on validation (Guo et al. 2017). It "
        "changes how sure answers are, and never which class is the likeliest. All "
        "probabilities on this page are after it."
    )
    blocks = (calibration_table(told), calibration_chart(told))
    return Section(title="Calibration", lead=lead, blocks=blocks)


def _unsure(told: Told) -> Section:
    table = band_table(told)
    lead = (
        "The least sure answers go to a person: a band of probabilities around one "
        "half, the narrowest outside which validation's answers were right often "
        "enough."
    )
    blocks: tuple[Block, ...] = (_at_band(told), sureness_chart(told))
    if table:
        blocks = (table, sureness_chart(told))
    return Section(title="Unsure", lead=lead, blocks=blocks)


def _by(told: Told) -> Iterator[Section]:
    for column, groups in told.judged.by.items():
        blocks = (
            group_table(told, column, groups),
            fall_table(told, column, groups),
            fall_chart(told, column, groups),
        )
        yield Section(title=f"By {column}", blocks=blocks)
