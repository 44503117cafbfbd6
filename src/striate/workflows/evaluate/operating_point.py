"""Operating point: a decision threshold for one class against all other classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from striate.core.errors import DataError
from striate.core.files import write_json, write_text
from striate.core.findings import Block, Curve, Page, Section
from striate.data.sources.columns import read_columns
from striate.data.sources.source import Skipped
from striate.report.html import render_page
from striate.report.html_card import render_card
from striate.report.png import save_curve
from striate.report.terminal import blocks_text
from striate.run import layout as names
from striate.run.run import Run
from striate.run.stored_operating_point import (
    StoredOperatingPoint,
    store_operating_point,
    weights_hash,
)
from striate.workflows.evaluate.as_json import operating_point_dict
from striate.workflows.evaluate.findings import (
    operating_point_blocks,
    operating_point_caveats,
    operating_point_page,
)
from striate.workflows.evaluate.misclassified import misclassified_images
from striate.workflows.evaluate.one_vs_rest import (
    EvaluatedSplit,
    OneVsRest,
    class_index_of,
    one_vs_rest,
    split_to_evaluate,
    validation_predictions,
)
from striate.workflows.evaluate.result import OperatingPointResult
from striate.workflows.evaluate.selection import (
    OperatingPointRequest,
    Selection,
    check_both_classes,
    select_operating_point,
)
from striate.workflows.evaluate.threshold_results import Evaluation, evaluate_selection


@dataclass(frozen=True, kw_only=True, eq=False)
class OperatingPoint:
    """Result of choosing and evaluating a decision threshold for one class.

    Args:
        run: The evaluated run.
        request: Class and targets.
        split: Name of the evaluated split.
        selection: Thresholds and review band, chosen on validation.
        evaluation: Results on the evaluated split.
        skipped: Files that could not be used.
    """

    run: Run
    request: OperatingPointRequest
    split: str
    selection: Selection = field(repr=False)
    evaluation: Evaluation = field(repr=False)
    skipped: tuple[Skipped, ...] = ()
    _evaluated_split: EvaluatedSplit = field(repr=False)
    _data: OneVsRest = field(repr=False)
    _columns: Mapping[str, Sequence[str]] = field(repr=False)

    @property
    def threshold(self) -> float:
        """Return the threshold of the temperature-scaled probability.

        With two classes, `selection.threshold.uncalibrated` applies before scaling.
        """
        return self.selection.threshold.probability

    @property
    def temperature(self) -> float:
        """Return the temperature by which the logits are divided."""
        return self.selection.temperature

    @cached_property
    def stored(self) -> StoredOperatingPoint:
        """Return the threshold and the review band for predictions of the run."""
        band = self.selection.band
        return StoredOperatingPoint(
            target=self.request.target,
            weights=weights_hash(self.run.path),
            temperature=self.temperature,
            threshold=self.threshold,
            review_band=(band.low, band.high) if band else None,
        )

    @cached_property
    def _result(self) -> OperatingPointResult:
        classes, data, columns = self.run.labels.names, self._data, self._columns
        run, selection = self.run, self.selection
        caveats = operating_point_caveats(run, selection, self.request, self.split)
        return OperatingPointResult(
            run=self.run.path.name,
            request=self.request,
            split=self.split,
            other_classes=[name for name in classes if name != self.request.target],
            selection=self.selection,
            evaluation=self.evaluation,
            data=data,
            scaling=run.scaling,
            caveats=tuple(caveats),
            false_negatives=misclassified_images(data, columns, positive=True),
            false_positives=misclassified_images(data, columns, positive=False),
        )

    @property
    def blocks(self) -> list[Block]:
        """Return the blocks of the terminal report."""
        return operating_point_blocks(self._result)

    @property
    def page(self) -> Page:
        """Return the full HTML report, with charts and misclassified images."""
        return operating_point_page(self._result, self._evaluated_split.pixels())

    def as_dict(self) -> dict[str, Any]:
        """Return the results as a JSON-serializable dict."""
        stored = self.stored.as_dict()
        results = operating_point_dict(self._result)
        # The review band of the results has its counts, too.
        return {"run": str(self.run.path), **stored, **results}

    def save(self, out: str | Path | None = None, overwrite: bool = False) -> Path:
        """Write `report.html`, `operating_point.json` and charts into a folder.

        The threshold and the review band are also stored in the run folder, where
        `predict` finds them.

        Args:
            out: The folder. Default: `runs/evaluate/<run>`, or `<run>-2`, `-3` … if it
                exists.
            overwrite: Replace an earlier result in `out`.

        Raises:
            RunError: `out` exists, and `overwrite` is off or striate did not write it.
            StorageError: Writing failed.
        """
        page, name = self.page, self.run.path.name
        path = None if out is None else Path(out)
        with names.new_folder("evaluate", name, path, overwrite) as folder:
            verb = {"made_by": "striate evaluate --operating-point"}
            write_json(folder / names.OPERATING_POINT, {**verb, **self.as_dict()})
            blocks = [block for section in page.sections for block in section.blocks]
            charts = [block for block in blocks if isinstance(block, Curve)]
            for number, chart in enumerate(charts, 1):
                slug = names.safe_name(chart.title.lower()).replace("--", "-")[:60]
                save_curve(chart, folder / names.PLOTS / f"{number:02d}-{slug}.png")
            write_text(folder / names.REPORT, render_page(page))
        store_operating_point(self.run.path, self.run.labels, self.stored)
        return folder

    def __str__(self) -> str:
        return blocks_text(self.blocks)

    def _repr_html_(self) -> str:
        title = f"{self.run.path.name}: operating point of {self.request.target}"
        return render_card(title, [Section("", tuple(self.blocks))])


def operating_point(
    run: Run,
    target: str,
    *,
    recall: float = 0.95,
    selective_accuracy: float = 0.98,
    by: str | Sequence[str] = (),
    data: str | Path | None = None,
    split: str | None = None,
) -> OperatingPoint:
    """Choose and evaluate a decision threshold for one class against all other classes.

    Threshold and review band are chosen on the validation split, on the probabilities
    that `predict` prints. The test split, or other labeled images, are used for
    evaluation only.

    Args:
        run: A finished run.
        target: The positive class.
        recall: Target recall of this class.
        selective_accuracy: Target accuracy of the predictions outside the review band.
        by: CSV columns; results are also computed for each value of each column.
        data: Other labeled images to evaluate. Default: the run's test split.
        split: Evaluate only this split of `data`.

    Returns:
        The results; print them, or `.save()` the report.

    Raises:
        UnknownNameError: There is no such class.
        SettingError: A share is out of range, or the split was used for training or for
            choosing the threshold.
        DataError: A split is missing or has one class only, or the CSV lacks a column.
    """
    fix = f"see the threshold of each class: striate evaluate {run.path}"
    run.labels.require_one_label("--operating-point", fix)
    request = OperatingPointRequest(
        target=target,
        recall=recall,
        selective_accuracy=selective_accuracy,
        by=(by,) if isinstance(by, str) else tuple(by),
    )
    class_index = class_index_of(run, target)
    validation = validation_predictions(run)
    selection = select_operating_point(
        validation, class_index, request, run.temperature
    )
    evaluated = split_to_evaluate(run, None if data is None else str(data), split)
    temperature, predictions = selection.temperature, evaluated.predictions
    binary = one_vs_rest(evaluated.split, predictions, class_index, temperature)
    check_both_classes(binary, target)
    columns = _column_values(evaluated, request.by)
    return OperatingPoint(
        run=run,
        request=request,
        split=evaluated.split,
        selection=selection,
        evaluation=evaluate_selection(binary, selection, columns),
        skipped=evaluated.skipped,
        _evaluated_split=evaluated,
        _data=binary,
        _columns=columns,
    )


def _column_values(
    evaluated: EvaluatedSplit, columns: Sequence[str]
) -> dict[str, list[str]]:
    """Return the values of the evaluated images in each CSV column."""
    if not columns:
        return {}
    if evaluated.csv is None:
        what = f"no CSV lists the images of '{evaluated.split}'"
        fix = "remove --by, or give a CSV with columns image_path,label,… to --data"
        raise DataError(what, where=f"--by {','.join(columns)}", fix=fix)
    rows = read_columns(evaluated.csv, columns)
    paths = evaluated.predictions.paths
    cells = [rows.get(path, {}) for path in paths]
    return {name: [row.get(name, "") for row in cells] for name in columns}
