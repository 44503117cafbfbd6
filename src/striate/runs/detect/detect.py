"""`evaluate --detect`: one class among all others, as whoever must rely on it asks."""

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
from striate.report.plots import save_curve
from striate.runs import folder as names
from striate.runs.detect.chosen import Choice, check_both, choose
from striate.runs.detect.judged import Judged, judge
from striate.runs.detect.page import page_of, terminal_blocks
from striate.runs.detect.question import Question
from striate.runs.detect.record import record
from striate.runs.detect.remarks import remarks
from striate.runs.detect.seen import (
    Answered,
    Seen,
    class_number,
    judged,
    seen,
    validation,
)
from striate.runs.detect.told import Told
from striate.runs.detect.wrong import wrong_answers
from striate.runs.run import Run

WIDTH = 100  # of `print(run.detect(...))`


@dataclass(frozen=True, kw_only=True, eq=False)
class Detection:
    """How well a class is found; print it, ask it, or keep it.

    Args:
        run: Whose answers were judged.
        question: What was asked.
        part: What was judged.
        choice: What validation chose.
        judged: What the judged part shows of it.
        skipped: Files that could not be used.
    """

    run: Run
    question: Question
    part: str
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
            part=self.part,
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
        """Everything, the most wrong pictures with it, as a report."""
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
            said = {"made_by": "striate evaluate --detect", **self.as_dict()}
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


def detect(
    run: Run,
    question: Question,
    *,
    data: str | Path | None = None,
    part: str | None = None,
) -> Detection:
    """Ask how well a run finds one class among all others.

    Validation chooses temperature, thresholds and the unsure band; the judged part is
    looked at once, with what was chosen.

    Args:
        run: A finished run.
        question: What is asked.
        data: Other labelled pictures to judge; the run's test part where not given.
        part: Of other pictures, only this part.

    Raises:
        UnknownNameError: There is no such class.
        SettingError: The part is one that was learnt from, or that chooses.
        DataError: A part is missing or holds only one kind of picture, or a column is
            not there.
    """
    number = class_number(run, question.target)
    choice = choose(validation(run), number, question)
    answered = judged(run, None if data is None else str(data), part)
    view = seen(answered.part, answered.predictions, number, choice.temperature)
    check_both(view, question.target)
    columns = _columns_of(answered, question.by)
    return Detection(
        run=run,
        question=question,
        part=answered.part,
        choice=choice,
        judged=judge(view, choice, columns),
        skipped=answered.skipped,
        _answered=answered,
        _view=view,
        _columns=columns,
    )


def _columns_of(answered: Answered, by: Sequence[str]) -> dict[str, list[str]]:
    """Return the cells of the judged pictures, by column."""
    if not by:
        return {}
    if answered.table is None:
        what = f"the pictures of '{answered.part}' are listed in no CSV that is at hand"
        fix = "leave --by out, or describe them in a CSV image_path,label,… and --data"
        raise DataError(what, where=f"--by {','.join(by)}", fix=fix)
    rows = read_columns(answered.table, by)
    paths = answered.predictions.paths
    return {name: [rows.get(path, {}).get(name, "") for path in paths] for name in by}


def _charts(page: Page) -> list[Curve]:
    every = [block for section in page.sections for block in section.blocks]
    return [block for block in every if isinstance(block, Curve)]
