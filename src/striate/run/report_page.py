"""Write the report of a run: `report.html` and `plots/`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from striate.audit.findings import caveats, layer_table
from striate.audit.findings import headline_figures as audit_figures
from striate.audit.network import ForwardError, audit
from striate.core import findings as f
from striate.core.files import read_csv, write_text
from striate.core.format import count_text, duration_text, file_counts_text
from striate.data.cache.image_rows import PixelRows
from striate.data.sources.source import SPLITS
from striate.metrics.classification import ClassificationMetrics
from striate.metrics.multi_label import MultiLabelMetrics
from striate.report.format import percent
from striate.report.html import render_page
from striate.report.png import save_curve, save_matrix
from striate.run import layout as names
from striate.run.baselines_table import baseline_section
from striate.run.build_network import network_title
from striate.run.check_run_files import CURVE_COLUMNS, check_finished, check_history
from striate.run.layer_norm_charts import layer_norms_blocks
from striate.run.manifest import update_manifest
from striate.run.missing_sections import missing_sections, sections_or_reason
from striate.run.multi_label_predictions import MultiLabelPredictions
from striate.run.multi_label_scorecard import label_error_blocks
from striate.run.predictions import Predictions
from striate.run.report_images import (
    confusion_images,
    filters_and_maps_sections,
    highest_loss_section,
    subset_pixels,
)
from striate.run.report_texts import (
    evaluation_text,
    loss_note,
    no_images_text,
    setting_text,
    settings_tables,
)
from striate.run.scorecard import (
    CellImages,
    confusion_block,
    other_accuracies,
    per_class_table,
    score_figures,
)
from striate.run.transfer_plan_findings import plan_section
from striate.run.verdict import run_verdict
from striate.run.verdict_findings import verdict_blocks

if TYPE_CHECKING:
    from striate.run.run import Run

Metrics = ClassificationMetrics | MultiLabelMetrics
MAX_SKIPPED = 50
CHART_COLUMNS = CURVE_COLUMNS | {"epoch", "val_balanced_accuracy", "best"}


def write_report(run: Run) -> Path:
    """Write `report.html` and `plots/` into a run folder.

    The images are read again if necessary. If the images cannot be read, the report has
    a warning and no images.

    Raises:
        RunError: A file of the run is missing or damaged, or the run is not finished.
    """
    check_finished(run)
    predictions = run.predictions(run.evaluated_split)
    score = predictions.metrics()
    page = _page(run, predictions, score)
    depth = [b for s in _norms(run) for b in s.blocks if isinstance(b, f.Curve)]
    for curve in (*_learning(run), *depth):
        name = curve.title.lower().replace(" ", "_")
        save_curve(curve, run.path / names.PLOTS / f"{name}.png")
    if isinstance(score, ClassificationMetrics):
        plain = confusion_block(score, run.evaluated_split, {})
        if isinstance(plain, f.Matrix):
            save_matrix(plain, run.path / names.PLOTS / names.CONFUSION)
    missing = missing_sections(page.sections)
    if missing or run.manifest.get("missing_sections"):
        update_manifest(run.path, missing_sections=missing)
    path = run.path / names.REPORT
    write_text(path, render_page(page))
    return path


def _page(run: Run, predictions: Predictions, score: Metrics) -> f.Page:
    pixels = subset_pixels(run, run.evaluated_split, predictions.paths)
    sections = [
        _result(run, score),
        _predictions(run, predictions, score, pixels),
        highest_loss_section(predictions, pixels),
        _learning_section(run),
        *plan_section(run.path),
        *baseline_section(run.path),
        *_norms(run),
        *sections_or_reason(
            "Filters and feature maps",
            lambda: filters_and_maps_sections(run, predictions, pixels),
        ),
        *sections_or_reason("Layers", lambda: [_layers(run)]),
        _data(run),
        _settings(run),
    ]
    versions = run.manifest["versions"]
    program = f"striate {versions['striate']} · torch {versions['torch']}"
    return f.Page(
        f"{run.manifest['data']['name']} · {network_title(run.recipe.model)}",
        subtitle=f"{run.path.name} · {_when(run.manifest['finished'])}",
        sections=tuple(sections),
        footer=f"{program} · seed {run.recipe.seed}",
    )


def _when(iso: str) -> str:
    return datetime.fromisoformat(iso).strftime("%Y-%m-%d %H:%M UTC")


def _result(run: Run, score: Metrics) -> f.Section:
    manifest = run.manifest
    wrong = score.count - round(score.accuracy * score.count)
    of = f"of {count_text(score.count, 'image')}"
    if isinstance(score, MultiLabelMetrics):
        of += ", with at least one wrong label"
    figures = f.Figures(
        (
            *score_figures(run.evaluated_split, score),
            *other_accuracies(run, run.evaluated_split),
            f.Figure("errors", f"{wrong:,}", detail=of),
            f.Figure(
                "parameters",
                f"{manifest['parameters']:,}",
                detail=network_title(run.recipe.model),
            ),
            f.Figure(
                "training time",
                duration_text(manifest["seconds"]),
                detail=f"{manifest['images_per_second']:,.0f} images/s",
            ),
        )
    )
    verdict = verdict_blocks(run_verdict(run))
    return f.Section("Result", (*verdict, figures, *_notes(run, score)))


def _notes(run: Run, score: Metrics) -> list[f.Block]:
    text, manifest = evaluation_text(run), run.manifest
    ece = f" Expected calibration error (ECE): {percent(score.ece)}."
    scaling = f" {run.scaling.sentence}" if run.scaling else ""
    notes: list[f.Block] = [f.Prose(text + ece + scaling)]
    notes += [f.Prose(w, "warning") for w in manifest["data"]["warnings"]]
    texts = [str(note).rstrip(".") for note in manifest.get("notes", ())]
    notes += [f.Prose(f"{text[:1].upper()}{text[1:]}.") for text in texts]
    return notes


def learning_charts(
    history: Sequence[dict[str, float]], note: str
) -> tuple[f.Curve, ...]:
    """Return the charts of loss and accuracy by epoch, with the best epoch marked.

    `note` is a note on the loss chart.
    """
    epochs = tuple(row["epoch"] for row in history)
    best = max(row["epoch"] for row in history if row["best"])
    mark = (best, f"best epoch: {best:.0f}")

    def series(name: str, key: str) -> f.Series:
        return f.Series(name, epochs, tuple(row[key] for row in history))

    several = "val_map" in history[0]
    loss = f.Curve(
        "Loss",
        x_label="epoch",
        y_label="binary cross-entropy" if several else "cross-entropy",
        series=(series("training", "train_loss"), series("validation", "val_loss")),
        mark=mark,
        note=note,
    )
    if several:
        curve = f.Curve(
            "mAP",
            x_label="epoch",
            y_label="mAP",
            series=(series("validation", "val_map"),),
            percent_y=True,
            mark=mark,
        )
        return loss, curve
    return (
        loss,
        f.Curve(
            "Accuracy",
            x_label="epoch",
            y_label="accuracy",
            series=(
                series("validation", "val_accuracy"),
                series("validation, balanced", "val_balanced_accuracy"),
            ),
            percent_y=True,
            mark=mark,
        ),
    )


def _learning_section(run: Run) -> f.Section:
    logistic = (run.path / names.PENALTIES).is_file()
    title = "Choice of the L2 penalty" if logistic else "Learning curves"
    return f.Section(title, _learning(run))


def _learning(run: Run) -> tuple[f.Curve, ...]:
    """Return the training charts, and the learning-rate range test chart if one ran."""
    path = run.path / names.LR_RANGE
    if (run.path / names.PENALTIES).is_file():
        return (penalty_chart(run),)
    check_history(run, CHART_COLUMNS)
    curves = learning_charts(run.history, loss_note(run.recipe))
    if not path.is_file():
        return curves
    rows = [(float(row["lr"]), float(row["loss"])) for row in read_csv(path)]
    return (*curves, lr_range_chart(rows, run.recipe.max_lr))


def _norms(run: Run) -> list[f.Section]:
    """Return the report section on the norms of each layer; empty without norms."""
    snapshots = run.layer_norms
    if not snapshots:
        return []
    lead = (
        "Norms of each layer for some training images, without augmentation. Layers "
        "with vanishing gradients do not learn."
    )
    return [f.Section("Layer norms", tuple(layer_norms_blocks(snapshots)), lead=lead)]


def penalty_chart(run: Run) -> f.Curve:
    """Return the chart of cross-validation loss by L2 penalty of the logistic head."""
    rows = read_csv(run.path / names.PENALTIES)
    penalties = tuple(float(row["penalty"]) for row in rows)
    losses = tuple(float(row["loss"]) for row in rows)
    penalty = run.manifest["transfer"]["penalty"]
    return f.Curve(
        "Penalty",
        x_label="L2 penalty of the head",
        y_label="cross-entropy",
        series=(f.Series("cross-validation", penalties, losses),),
        log_x=True,
        mark=(penalty, f"chosen: {penalty:.2g}"),
        note="Five-fold cross-validation on the training split only.",
    )


def _predictions(
    run: Run, predictions: Predictions, score: Metrics, pixels: PixelRows | None
) -> f.Section:
    if isinstance(score, MultiLabelMetrics):
        return _label_predictions(run, predictions, score, pixels)
    images: CellImages = {}
    if pixels is not None and score.confusion:
        images = confusion_images(predictions, pixels)
    matrix = confusion_block(score, run.evaluated_split, images)
    blocks: list[f.Block] = [matrix, per_class_table(score)]
    if pixels is None:
        text = f"The cells show no images: {no_images_text(run)}."
        blocks.insert(0, f.Prose(text, "warning"))
    return f.Section("Predictions", tuple(blocks))


def _label_predictions(
    run: Run,
    predictions: Predictions,
    score: MultiLabelMetrics,
    pixels: PixelRows | None,
) -> f.Section:
    """Return the section of several labels per image: classes and their errors."""
    blocks: list[f.Block] = [per_class_table(score)]
    if pixels is None:
        text = f"The errors have no images: {no_images_text(run)}."
        blocks.insert(0, f.Prose(text, "warning"))
    if isinstance(predictions, MultiLabelPredictions):
        blocks += label_error_blocks(predictions, score, pixels)
    lead = "Each class has its own threshold. Check the clearest errors for wrong "
    return f.Section("Predictions", tuple(blocks), lead=f"{lead}labels first.")


def _layers(run: Run) -> f.Section:
    shape, size = run.preprocess.spec.shape, run.recipe.images_per_step
    try:
        result = audit(run.model, shape, batch_size=size)
    except ForwardError:  # perhaps it only runs on real values
        result = audit(run.model, shape, real=True)
    lead = f"Input: {run.preprocess.spec}."
    blocks: list[f.Block] = [audit_figures(result), layer_table(result)]
    return f.Section("Layers", (*blocks, *caveats(result)), lead=lead)


def _data(run: Run) -> f.Section:
    facts = run.manifest["data"]
    splits = _split_counts(run)
    rows = tuple((split, count) for split, count in splits.items())
    table = f.Table(
        columns=(f.Column("split"), f.Column("images", "integer")),
        rows=rows,
        totals=("used", facts["used"]),
    )
    counts = "used", "unused", "left_out", "quarantined", "ignored"
    account = file_counts_text(**{name: facts.get(name, 0) for name in counts})
    blocks: list[f.Block] = [f.Prose(f"{account}."), table]
    skipped = read_csv(run.path / names.QUARANTINE)
    if skipped:
        blocks.append(_skipped_table(skipped))
    return f.Section("Data", tuple(blocks))


def _split_counts(run: Run) -> dict[str, int]:
    counts = Counter(row["split"] for row in read_csv(run.path / names.SPLIT))
    return {split: counts[split] for split in SPLITS if split in counts}


def _skipped_table(skipped: Sequence[dict[str, str]]) -> f.Table:
    keys = names.QUARANTINE_COLUMNS
    rows = tuple(tuple(row.values())[: len(keys)] for row in skipped[:MAX_SKIPPED])
    rest = len(skipped) - len(rows)
    note = f"{rest:,} more; see {names.QUARANTINE}." if rest else ""
    columns = tuple(f.Column(key.replace("_", " ")) for key in keys)
    return f.Table(title="Files not used", columns=columns, rows=rows, note=note)


def _settings(run: Run) -> f.Section:
    origin: list[tuple[f.Cell, ...]] = [
        *((f"version of {k}", v) for k, v in run.manifest["versions"].items()),
        *((k, setting_text(k, v)) for k, v in run.manifest["machine"].items()),
        ("git", run.manifest["git"]),
        ("hash of the data", run.manifest["data"]["hash"][:16]),
        ("hash of the weights", run.manifest["weights"][:16]),
    ]
    columns = (f.Column("setting", "code"), f.Column("value"))
    return f.Section(
        "Settings",
        (
            *settings_tables(run.recipe),
            f.Table(title="Environment", columns=columns, rows=tuple(origin)),
        ),
    )


def lr_range_chart(rows: list[tuple[float, float]], lr: float) -> f.Curve:
    """Return the chart of a learning-rate range test, with the chosen rate marked."""
    rates, losses = zip(*rows, strict=True)
    return f.Curve(
        "Learning-rate range test",
        x_label="learning rate",
        y_label="training loss, smoothed",
        series=(f.Series("loss", rates, losses),),
        log_x=True,
        mark=(lr, f"chosen: {lr:g}"),
        note="One training step per learning rate, on a copy of the network.",
    )
