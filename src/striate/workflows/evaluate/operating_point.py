"""Operating point: a decision threshold for one class against the rest."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from striate.core.errors import DataError
from striate.core.files import write_json, write_text
from striate.core.findings import Block, Curve, Page
from striate.data.sources.columns import read_columns
from striate.data.sources.source import Skipped
from striate.report.html import render
from striate.report.png import save_curve
from striate.run import layout as names
from striate.run.run import Run
from striate.workflows.evaluate.as_json import record
from striate.workflows.evaluate.caveats import remarks
from striate.workflows.evaluate.errors import wrong_answers
from striate.workflows.evaluate.evaluation import Judged, judge
from striate.workflows.evaluate.findings import page_of, terminal_blocks
from striate.workflows.evaluate.one_vs_rest import (
    Answered,
    Seen,
    class_number,
    judged,
    seen,
    validation,
)
from striate.workflows.evaluate.request import OperatingPointRequest
from striate.workflows.evaluate.result import Told
from striate.workflows.evaluate.selection import Choice, check_both, choose

WIDTH = 100  # of `print(operating_point(run, …))`


@dataclass(frozen=True, kw_only=True, eq=False)
class OperatingPoint:
    """How well a class is found; print it, ask it, or keep it.

    Args:
        run: Whose answers were judged.
        question: What was asked.
        split: What was judged.
        choice: What validation chose.
        judged: What the judged split shows of it.
        skipped: Files that could not be used.
    """

    run: Run
    question: OperatingPointRequest
    split: str
    choice: Choice = field(repr=False)
    judged: Judged = field(repr=False)
    skipped: tuple[Skipped, ...] = ()
    _answered: Answered = field(repr=False)
    _view: Seen = field(repr=False)
    _columns: Mapping[str, Sequence[str]] = field(repr=False)

    @property
    def threshold(self) -> float:
        """The least probability that is called by the class's name.

        After temperature scaling; `choice.aimed.plain` is the same before it, of two
        classes.
        """
        return self.choice.aimed.threshold

    @property
    def temperature(self) -> float:
        """What the logits are divided by."""
        return self.choice.temperature

    @cached_property
    def _told(self) -> Told:
        labels = self.run.labels.names
        return Told(
            run=self.run.path.name,
            question=self.question,
            split=self.split,
            others=[name for name in labels if name != self.question.target],
            choice=self.choice,
            judged=self.judged,
            view=self._view,
            remarks=tuple(remarks(self.run, self.choice, self._view)),
            wrong=wrong_answers(self._view, self._columns),
        )

    @property
    def blocks(self) -> list[Block]:
        """Everything that fits a terminal, as findings."""
        return terminal_blocks(self._told)

    @property
    def page(self) -> Page:
        """Everything, the most wrong images with it, as a report."""
        return page_of(self._told, self._answered.pixels())

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {"run": str(self.run.path), **record(self._told)}

    def save(self, out: str | Path | None = None, overwrite: bool = False) -> Path:
        """Keep `report.html`, `detection.json` and charts in a folder of their own.

        Args:
            out: The folder; `runs/evaluate/<run>` where not given, with -2, -3 …
                behind it where that is taken.
            overwrite: Replace what was kept there before.

        Raises:
            RunError: `out` exists and `overwrite` is off, or is none of ours.
            StorageError: The disk refused.
        """
        page, name = self.page, self.run.path.name
        place = None if out is None else Path(out)
        with names.new_folder("evaluate", name, place, overwrite) as folder:
            said = {"made_by": "striate evaluate --operating-point", **self.as_dict()}
            write_json(folder / names.DETECTED, said)
            for number, chart in enumerate(_charts(page), 1):
                slug = names.plain_name(chart.title.lower()).replace("--", "-")[:60]
                save_curve(chart, folder / names.PLOTS / f"{number:02d}-{slug}.png")
            write_text(folder / names.REPORT, render(page))
        return folder

    def __str__(self) -> str:
        from rich.console import Console

        from striate.report.terminal import show

        paper = io.StringIO()
        console = Console(file=paper, width=WIDTH, highlight=False, color_system=None)
        show(self.blocks, console)
        return "\n".join(line.rstrip() for line in paper.getvalue().splitlines())


def operating_point(
    run: Run,
    target: str,
    *,
    recall: float = 0.95,
    band: float = 0.98,
    by: str | Sequence[str] = (),
    data: str | Path | None = None,
    split: str | None = None,
) -> OperatingPoint:
    """Choose a decision threshold for one class against the rest, and evaluate it.

    The validation set chooses temperature, threshold and abstain band. The test set, or
    other labeled images, evaluates them once.

    Args:
        run: A finished run.
        target: The class.
        recall: The share of this class that is to be found.
        band: The share of correct predictions wanted outside the abstain band.
        by: Columns of the CSV by whose values the figures are also shown.
        data: Other labeled images to evaluate; the run's test set where not given.
        split: Of other images, only this split.

    Returns:
        Figures and findings; print it, or `.save()` its page.

    Raises:
        UnknownNameError: There is no such class.
        SettingError: A share is out of range, or the split chose or was trained on.
        DataError: A split is missing or holds one kind of image only, or the CSV lacks
            a column.
    """
    columns = (by,) if isinstance(by, str) else tuple(by)
    question = OperatingPointRequest(
        target=target, recall=recall, band=band, by=columns
    )
    number = class_number(run, question.target)
    choice = choose(validation(run), number, question)
    answered = judged(run, None if data is None else str(data), split)
    view = seen(answered.split, answered.predictions, number, choice.temperature)
    check_both(view, question.target)
    values = _columns_of(answered, question.by)
    return OperatingPoint(
        run=run,
        question=question,
        split=answered.split,
        choice=choice,
        judged=judge(view, choice, values),
        skipped=answered.skipped,
        _answered=answered,
        _view=view,
        _columns=values,
    )


def _columns_of(answered: Answered, by: Sequence[str]) -> dict[str, list[str]]:
    """Return the cells of the judged images, by column."""
    if not by:
        return {}
    if answered.table is None:
        what = f"the images of '{answered.split}' are listed in no CSV that is at hand"
        fix = "leave --by out, or describe them in a CSV image_path,label,… and --data"
        raise DataError(what, where=f"--by {','.join(by)}", fix=fix)
    rows = read_columns(answered.table, by)
    paths = answered.predictions.paths
    return {name: [rows.get(path, {}).get(name, "") for path in paths] for name in by}


def _charts(page: Page) -> list[Curve]:
    every = [block for section in page.sections for block in section.blocks]
    return [block for block in every if isinstance(block, Curve)]
