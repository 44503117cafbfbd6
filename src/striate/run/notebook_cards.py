"""How a notebook shows runs, metrics and data sets: compact cards in HTML."""

from __future__ import annotations

from dataclasses import replace

from striate.core.errors import StriateError
from striate.core.findings import (
    Block,
    Cell,
    Column,
    Figure,
    Figures,
    Prose,
    Section,
    Table,
)
from striate.core.format import count_text
from striate.core.notebook import notebook_html
from striate.data.image_data import ImageData, images_by_class
from striate.metrics.classification import ClassificationMetrics
from striate.metrics.multi_label import MultiLabelMetrics
from striate.report.format import percent
from striate.report.html_card import render_card
from striate.run import layout as names
from striate.run.build_network import short_name
from striate.run.predict_images import LabelSetsResult, PredictResult
from striate.run.run import Run
from striate.run.scorecard import (
    confusion_block,
    errors_table,
    per_class_table,
    score_figures,
)

MAX_MATRIX = 20  # classes up to which a card has the confusion matrix
MAX_CARD_ROWS = 20  # rows of the tables of a card


@notebook_html.register
def run_card(run: Run) -> str:
    """Return a run as HTML: accuracy, confusion matrix, and links to its files."""
    folder = {"folder": run.path}
    try:
        score = run.predictions(run.evaluated_split).metrics()
        model, data = short_name(run.recipe.model), run.manifest["data"]["name"]
    except StriateError as error:
        text = f"This run has no results yet: {error.what}."
        section = Section("", (Prose(text, "warning"),))
        return render_card(run.path.name, [section], folder)
    title = f"{run.path.name}: {model} on {data}"
    blocks = _score_blocks(run.evaluated_split, score)
    links = {"report": run.path / names.REPORT, **folder}
    return render_card(title, [Section("", blocks)], links)


@notebook_html.register
def metrics_card(score: ClassificationMetrics) -> str:
    """Return metrics as HTML: accuracy, loss, confusion matrix, and each class."""
    figures, matrix = _score_blocks("", score)
    blocks = (
        _with_loss(figures, score, "cross-entropy"),
        matrix,
        per_class_table(score, MAX_CARD_ROWS),
    )
    title = f"Metrics of {count_text(score.count, 'image')}"
    return render_card(title, [Section("", blocks)])


@notebook_html.register
def label_metrics_card(score: MultiLabelMetrics) -> str:
    """Return metrics of several labels as HTML: mAP, F1, loss, and each class."""
    figures = Figures(score_figures("", score))
    table = per_class_table(score, MAX_CARD_ROWS)
    blocks = _with_loss(figures, score, "binary cross-entropy"), table
    title = f"Metrics of {count_text(score.count, 'image')}"
    return render_card(title, [Section("", blocks)])


def _with_loss(
    figures: Figures, score: ClassificationMetrics | MultiLabelMetrics, loss_name: str
) -> Figures:
    ece = Figure("calibration error (ECE)", percent(score.ece))
    loss = Figure("loss", f"{score.loss:.4f}", detail=loss_name)
    return replace(figures, figures=(*figures.figures, loss, ece))


def _score_blocks(
    split: str, score: ClassificationMetrics | MultiLabelMetrics
) -> tuple[Figures, Block]:
    """Return the accuracy, and the confusion matrix or the most frequent errors.

    For several labels per image, return mAP and F1, and the table of the classes.
    """
    if isinstance(score, MultiLabelMetrics):
        return Figures(score_figures(split, score)), per_class_table(
            score, MAX_CARD_ROWS
        )
    matrix: Block = errors_table(score, split)
    if len(score.classes) <= MAX_MATRIX:
        matrix = confusion_block(score, split, {})
    return Figures(score_figures(split, score)), matrix


@notebook_html.register
def predictions_card(result: PredictResult) -> str:
    """Return predictions as HTML: the first images, those to review before others."""
    if isinstance(result, LabelSetsResult):
        title = f"Predictions of {count_text(len(result.predictions), 'image')}"
        return render_card(title, [Section("", (result.table(most=MAX_CARD_ROWS),))])
    rest = (each for each in result.predictions if not each.review)
    listed = [*result.to_review, *rest][:MAX_CARD_ROWS]
    columns = (
        Column("image", "code", key="image_path"),
        Column("predicted", key="pred"),
        Column("probability", "probability"),
        Column("review"),
    )
    rows = tuple((p.image_path, p.pred, p.probability, p.review) for p in listed)
    more = len(result.predictions) - len(rows)
    note = f"{more:,} more." if more else ""
    table = Table(columns=columns, rows=rows, note=note)
    unused = count_text(len(result.skipped), "file")
    skipped = [Prose(f"{unused} not used.", "warning")] if result.skipped else []
    title = f"Predictions of {count_text(len(result.predictions), 'image')}"
    return render_card(title, [Section("", (table, *skipped))])


@notebook_html.register
def data_card(data: ImageData) -> str:
    """Return a data set as HTML: images of each split and class, unused files."""
    sizes = {name: len(subset) for name, subset in data.subsets.items()}
    figures = (
        *(Figure(name, f"{size:,}", detail="images") for name, size in sizes.items()),
        Figure("classes", f"{data.num_classes:,}"),
        Figure("input", str(data.preprocess.spec), detail="height×width×channels"),
    )
    notes = [*data.notes, f"{data.counts_text}."]
    blocks: list[Block] = [Figures(figures), _class_table(data, tuple(sizes))]
    blocks += [Prose(text, "warning") for text in data.warnings]
    blocks += [Prose(text) for text in notes]
    return render_card(data.name, [Section("", tuple(blocks))])


def _class_table(data: ImageData, splits: tuple[str, ...]) -> Table:
    counts = images_by_class(data)
    listed = data.labels.names[:MAX_CARD_ROWS]
    rest = data.num_classes - len(listed)
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (label, *(counts[label, split] for split in splits)) for label in listed
    )
    columns = (Column("class"), *(Column(split, "integer") for split in splits))
    total = count_text(data.num_classes, "class", "classes")
    note = f"{rest:,} more; {total} in total." if rest else ""
    return Table(columns=columns, rows=rows, note=note)
