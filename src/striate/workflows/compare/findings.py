"""A comparison as blocks: the page leads with the answer, the terminal ends with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from striate.core.findings import (
    Block,
    Curve,
    Figure,
    Figures,
    Page,
    Prose,
    Section,
    Series,
)
from striate.report.format import counted, percent
from striate.workflows.compare.difference_tables import (
    class_table,
    differences_table,
    other_measures,
)
from striate.workflows.compare.flipped_images import flipped_blocks, flipped_list
from striate.workflows.compare.groups import Side, mean_and_deviation
from striate.workflows.compare.significance import Match
from striate.workflows.compare.tables import differing_table, results_table, runs_table
from striate.workflows.compare.verdict import (
    TOLD_SINGLY,
    p_equals,
    points,
    remarks,
    span,
    verdicts,
)

if TYPE_CHECKING:
    from striate.workflows.compare.compare import Comparison

ELSEWHERE = "Classes and flipped images: in the page (--html FILE) and in --json."
CHARTS = (
    ("Validation accuracy", "val_accuracy", "accuracy", True),
    ("Validation loss", "val_loss", "cross-entropy, nats", False),
    ("Training loss", "train_loss", "cross-entropy, nats", False),
)


def terminal_blocks(found: Comparison) -> list[Block]:
    """Return everything but the images, the answer last."""
    few = len(found.matches) <= TOLD_SINGLY
    blocks: list[Block | None] = [
        runs_table(found.sides),
        differing_table(found.differing, found.sides),
        *curves(found.sides)[:1],
        *(map(class_table, found.matches) if few else ()),
        *(map(flipped_list, found.matches) if few else (Prose(text=ELSEWHERE),)),
        results_table(found.sides, found.split),
        other_measures(found.matches),
        differences_table(found.matches),
        *answer(found),
    ]
    return [block for block in blocks if block is not None]


def answer(found: Comparison) -> Iterator[Prose]:
    """Yield what each match shows, and what limits it."""
    yield from verdicts(found.matches)
    yield from remarks(found.sides, found.matches, found.split)


def page_of(found: Comparison) -> Page:
    """Return everything as a report, the answer first."""
    result = (differences_table(found.matches), other_measures(found.matches))
    what = (
        runs_table(found.sides),
        differing_table(found.differing, found.sides),
    )
    sections = [
        Section(title="Answer", blocks=(_figures(found), *answer(found))),
        Section(title="Runs", blocks=what),
        Section(
            title="Results",
            blocks=_kept([results_table(found.sides, found.split), *result]),
        ),
        Section(title="Learning", blocks=curves(found.sides)),
    ]
    classes = _kept([class_table(match) for match in found.matches])
    if classes:
        sections.append(Section(title="By class", blocks=classes))
    sections += [_flips(match) for match in found.matches if match.pairings]
    data = found.sides[0].runs[0].facts.get("data", {})
    return Page(
        title=_title(found.sides),
        subtitle=f"On the {found.split} split of {data.get('name', 'the data')}.",
        sections=tuple(sections),
    )


def _title(compared: Sequence[Side]) -> str:
    if len(compared) > 2:
        several = any(len(side.runs) > 1 for side in compared)
        return f"{len(compared)} {'settings' if several else 'runs'} compared"
    return " and ".join(side.name for side in compared)


def _kept(blocks: Sequence[Block | None]) -> tuple[Block, ...]:
    return tuple(block for block in blocks if block is not None)


def _figures(found: Comparison) -> Figures:
    figures = [_figure(side) for side in found.sides]
    if len(found.matches) == 1:
        figures.append(_apart(found.matches[0]))
    return Figures(figures=tuple(figures))


def _figure(side: Side) -> Figure:
    mean, deviation = mean_and_deviation(side.values(lambda run: run.score.accuracy))
    if deviation is None:
        score = side.runs[0].score
        low, high = score.interval
        images = counted(score.count, "image")
        detail = f"accuracy on {images}, {100 * low:.1f}–{100 * high:.1f} %"
    else:
        detail = f"accuracy ± {100 * deviation:.2f} over {len(side.runs)} seeds"
    label = f"{side.letter} {side.name}"
    return Figure(label=label, value=percent(mean), detail=detail)


def _apart(match: Match) -> Figure:
    detail = "points of accuracy"
    if match.interval:
        detail += f", {span(match.interval)}, p {p_equals(match.p)}"
    value = points(match.difference)
    return Figure(label=match.letters, value=value, detail=detail)


def _flips(match: Match) -> Section:
    a, b = match.first.letter, match.second.letter
    lead = "The images whose answers changed sides, the plainest first."
    if len(match.pairings) > 1:
        lead = (
            "The images that one side gets right with more of its seeds than the "
            "other, the plainest first."
        )
    blocks = tuple(flipped_blocks(match))
    return Section(title=f"Flipped, {b} against {a}", lead=lead, blocks=blocks)


def curves(compared: Sequence[Side]) -> tuple[Curve, ...]:
    """Return learning curves, all sides in one chart; seeds as a mean with a band."""
    several = any(len(side.runs) > 1 for side in compared)
    note = "Mean over the seeds; the band is from the least to the most." * several
    return tuple(
        Curve(
            title=title,
            x_label="epoch",
            y_label=unit,
            series=tuple(_series(side, key) for side in compared),
            percent_y=share,
            note=note,
        )
        for title, key, unit, share in CHARTS
    )


def _series(side: Side, key: str) -> Series:
    """Return a side's curve, over the epochs that all its runs reached."""
    lines = [[row[key] for row in run.run.history] for run in side.runs]
    columns = list(zip(*lines, strict=False))

    def over(fold: Callable[[Sequence[float]], float]) -> tuple[float, ...]:
        return tuple(fold(column) for column in columns)

    several = len(lines) > 1
    return Series(
        name=f"{side.letter} {side.name}",
        x=tuple(float(i + 1) for i in range(len(columns))),
        y=over(fmean),
        low=over(min) if several else None,
        high=over(max) if several else None,
    )
