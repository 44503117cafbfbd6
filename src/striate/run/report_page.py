"""What a run's report says, in findings; `report` decides how it looks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from striate.audit.findings import caveats, headline_figures, layer_table
from striate.audit.network import audit
from striate.core.files import read_csv, write_text
from striate.core.findings import (
    Block,
    Cell,
    Column,
    Curve,
    Figure,
    Figures,
    Matrix,
    Page,
    Prose,
    Section,
    Series,
    Table,
)
from striate.data.cache.pixel_rows import PixelRows
from striate.metrics.classification import ClassificationMetrics
from striate.report.format import percent
from striate.report.html import render
from striate.report.png import save_curve, save_matrix
from striate.run import layout as names
from striate.run.baselines_table import rival_section
from striate.run.charts import course_blocks, range_curve
from striate.run.images import cell_images, inside, most_wrong, subset_pixels
from striate.run.integrity import CURVES, check_ended, check_history
from striate.run.predictions import Predictions
from striate.run.scorecard import class_table, confusion, headlines
from striate.run.transfer_plan_findings import plan_section

if TYPE_CHECKING:
    from striate.run.run import Run

SKIPPED_SHOWN = 50
DRAWN = CURVES | {"epoch", "val_balanced_accuracy", "best"}


def write_report(run: Run) -> Path:
    """Write `report.html` and `plots/` into a run folder, from what lies in it.

    The images are read again where they are not at hand; if they are gone, the
    report says so and shows the rest.

    Raises:
        RunError: A file of the run is missing or damaged, or the run has not ended.
    """
    check_ended(run)
    predictions = run.predictions(run.evaluated_split)
    score = predictions.score()
    page = _page(run, predictions, score)
    depth = [b for s in _norms(run) for b in s.blocks if isinstance(b, Curve)]
    for curve in (*_learning(run), *depth):
        name = curve.title.lower().replace(" ", "_")
        save_curve(curve, run.path / names.PLOTS / f"{name}.png")
    plain = confusion(score, run.evaluated_split, {})
    if isinstance(plain, Matrix):
        save_matrix(plain, run.path / names.PLOTS / names.CONFUSION)
    path = run.path / names.REPORT
    write_text(path, render(page))
    return path


def _page(run: Run, predictions: Predictions, score: ClassificationMetrics) -> Page:
    pixels = subset_pixels(run, run.evaluated_split, predictions.paths)
    sections = [
        _result(run, score),
        Section(title="Learning", blocks=_learning(run)),
        *plan_section(run.path),
        *rival_section(run.path),
        *_norms(run),
        _answers(run, predictions, score, pixels),
        most_wrong(predictions, pixels),
        *inside(run, predictions, pixels),
        _layers(run),
        _data(run),
        _settings(run),
    ]
    versions = run.manifest["versions"]
    made = f"striate {versions['striate']} · torch {versions['torch']}"
    return Page(
        title=f"{run.manifest['data']['name']} · {run.recipe.model}",
        subtitle=f"{run.path.name} · {_when(run.manifest['finished'])}",
        sections=tuple(sections),
        footer=f"{made} · seed {run.recipe.seed}",
    )


def _when(iso: str) -> str:
    return datetime.fromisoformat(iso).strftime("%Y-%m-%d %H:%M UTC")


def _result(run: Run, score: ClassificationMetrics) -> Section:
    manifest = run.manifest
    wrong = score.count - round(score.accuracy * score.count)
    figures = Figures(
        figures=(
            *headlines(run.evaluated_split, score),
            Figure(
                label="wrong", value=f"{wrong:,}", detail=f"of {score.count:,} images"
            ),
            Figure(
                label="parameters",
                value=f"{manifest['parameters']:,}",
                detail=run.recipe.model,
            ),
            Figure(
                label="training time",
                value=duration(manifest["seconds"]),
                detail=f"{manifest['images_per_second']:,.0f} images/s",
            ),
        )
    )
    return Section(title="Result", blocks=(figures, *_remarks(run, score)))


def _remarks(run: Run, score: ClassificationMetrics) -> list[Block]:
    manifest = run.manifest
    once = (
        "The test split was judged once, with the weights that were best on validation"
        if run.evaluated_split == "test"
        else "There is no test split; validation chose the weights: this is optimistic"
    )
    best = f"{once} (epoch {manifest['best_epoch']} of {manifest['epochs']})."
    if (run.path / names.PENALTIES).is_file():
        best = "The head is logistic regression on features of a frozen network. Its "
        best += "penalty was chosen by cross-validation within the training split; "
        best += f"the {run.evaluated_split} split was judged once."
    gap = f" Expected calibration error: {percent(score.ece)}."
    blocks: list[Block] = [Prose(text=best + gap)]
    blocks += [Prose(text=w, tone="warning") for w in manifest["data"]["warnings"]]
    blocks += [Prose(text=note) for note in manifest.get("notes", ())]
    return blocks


def duration(seconds: float) -> str:
    """Write seconds for people.

    Example:
        >>> duration(7.3), duration(90), duration(4000)
        ('7.3 s', '1 min 30 s', '1 h 6 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def learning_curves(history: Sequence[dict[str, float]]) -> tuple[Curve, ...]:
    """Return loss and accuracy by epoch, the best epoch marked."""
    epochs = tuple(row["epoch"] + 1 for row in history)
    best = max(row["epoch"] + 1 for row in history if row["best"])
    mark = (best, f"best: {best:.0f}")

    def series(name: str, key: str) -> Series:
        return Series(name=name, x=epochs, y=tuple(row[key] for row in history))

    return (
        Curve(
            title="Loss",
            x_label="epoch",
            y_label="cross-entropy, nats",
            series=(series("training", "train_loss"), series("validation", "val_loss")),
            mark=mark,
            note="The training loss includes label smoothing, and class weights where "
            "there are any; validation's does not.",
        ),
        Curve(
            title="Accuracy",
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


def _learning(run: Run) -> tuple[Curve, ...]:
    """Return the curves, and the range test that chose the rate if there was one."""
    path = run.path / names.LR_RANGE
    if (run.path / names.PENALTIES).is_file():
        return (penalty_curve(run),)
    check_history(run, DRAWN)
    curves = learning_curves(run.history)
    if not path.is_file():
        return curves
    rows = [(float(row["lr"]), float(row["cost"])) for row in read_csv(path)]
    return (*curves, range_curve(rows, run.recipe.rate))


def _norms(run: Run) -> list[Section]:
    """Return layers by depth through training, where the run kept them."""
    kept = run.norms
    if not kept:
        return []
    lead = (
        "Sizes by layer, of some training images without augmentation. Where "
        "gradients vanish, layers stay as they were drawn."
    )
    return [
        Section(title="Layers by depth", lead=lead, blocks=tuple(course_blocks(kept)))
    ]


def penalty_curve(run: Run) -> Curve:
    """Return what each penalty of a logistic head came to, the chosen one marked."""
    rows = read_csv(run.path / names.PENALTIES)
    penalties = tuple(float(row["penalty"]) for row in rows)
    costs = tuple(float(row["cost"]) for row in rows)
    chosen = run.manifest["transfer"]["penalty"]
    return Curve(
        title="Penalty",
        x_label="penalty on the head's weights",
        y_label="cross-entropy, nats",
        series=(Series(name="cross-validation", x=penalties, y=costs),),
        log_x=True,
        mark=(chosen, f"chosen: {chosen:.2g}"),
        note="Five folds of the training split; validation and test played no part.",
    )


def _answers(
    run: Run,
    predictions: Predictions,
    score: ClassificationMetrics,
    pixels: PixelRows | None,
) -> Section:
    held = {}
    if pixels is not None and score.confusion:
        held = cell_images(predictions, pixels)
    matrix = confusion(score, run.evaluated_split, held)
    blocks: list[Block] = [matrix, class_table(score)]
    if pixels is None:
        text = "The images could not be read again, so the cells open nothing."
        blocks.insert(0, Prose(text=text, tone="warning"))
    lead = ""
    if score.confusion:
        lead = "Rows are the truth, columns the answer. A cell opens its images."
    return Section(title="Answers", lead=lead, blocks=tuple(blocks))


def _layers(run: Run) -> Section:
    size = run.recipe.images_a_step
    found = audit(run.model, run.preprocess.spec.shape, batch_size=size)
    lead = f"For an image of {run.preprocess.spec}."
    blocks: list[Block] = [headline_figures(found), layer_table(found), *caveats(found)]
    return Section(title="Layers", lead=lead, blocks=tuple(blocks))


def _data(run: Run) -> Section:
    facts = run.manifest["data"]
    splits = _split_counts(run)
    rows = tuple((split, count) for split, count in splits.items())
    table = Table(
        columns=(Column(title="split"), Column(title="images", kind="integer")),
        rows=rows,
        totals=("used", facts["used"]),
    )
    spare = facts.get("spare", 0)
    beyond = f"{spare:,} beyond the fraction, " if spare else ""
    account = (
        f"{facts['seen']:,} files were seen: {facts['used']:,} used, {beyond}"
        f"{facts['quarantined']:,} quarantined, {facts['ignored']:,} ignored."
    )
    blocks: list[Block] = [Prose(text=account), table]
    skipped = read_csv(run.path / names.QUARANTINE)
    if skipped:
        blocks.append(_skipped_table(skipped))
    return Section(title="Data", blocks=tuple(blocks))


def _split_counts(run: Run) -> dict[str, int]:
    counts: dict[str, int] = {}
    for row in read_csv(run.path / names.SPLIT):
        counts[row["split"]] = counts.get(row["split"], 0) + 1
    return {
        split: counts[split] for split in ("train", "val", "test") if split in counts
    }


def _skipped_table(skipped: Sequence[dict[str, str]]) -> Table:
    keys = ("status", "path", "reason", "detail")
    rows = tuple(tuple(row[key] for key in keys) for row in skipped[:SKIPPED_SHOWN])
    rest = len(skipped) - len(rows)
    note = f"{rest:,} more stand in {names.QUARANTINE}." if rest else ""
    columns = tuple(Column(title=key) for key in keys)
    return Table(title="Not used", columns=columns, rows=rows, note=note)


def _settings(run: Run) -> Section:
    settings: list[tuple[Cell, ...]] = [
        (name, plain(value)) for name, value in run.recipe.as_dict().items()
    ]
    origin: list[tuple[Cell, ...]] = [
        *((f"version of {k}", v) for k, v in run.manifest["versions"].items()),
        *((k, plain(v)) for k, v in run.manifest["machine"].items()),
        ("git", run.manifest["git"]),
        ("data hash", run.manifest["data"]["hash"][:16]),
        ("weights", run.manifest["weights"][:16]),
    ]
    columns = (Column(title="setting", kind="code"), Column(title="value"))
    return Section(
        title="Settings",
        blocks=(
            Table(columns=columns, rows=tuple(settings)),
            Table(title="Origin", columns=columns, rows=tuple(origin)),
        ),
    )


def plain(value: object) -> str:
    """Write a setting's value; nothing for None, 28×28 for a size."""
    if isinstance(value, list | tuple):
        return "×".join(map(str, value))
    return "" if value is None else str(value)
