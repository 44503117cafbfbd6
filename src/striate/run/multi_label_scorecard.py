"""Report blocks of images with several labels: mAP, F1, and a table of the classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from striate.core.findings import Block, Column, Figure, Images, Prose, Table
from striate.core.format import count_text
from striate.data.cache.image_rows import PixelRows
from striate.interpret.render import to_image
from striate.metrics.multi_label import LabelMetrics, MultiLabelMetrics
from striate.report.format import NO_BREAK_SPACE, n_text, percent
from striate.run.multi_label_predictions import MultiLabelPredictions

MAX_ERROR_CLASSES = 20  # classes whose errors are shown as images
MAX_ERROR_IMAGES = 12  # images of the false positives, or negatives, of a class
SIDE = 96  # pixels of an image on the page
HINTS = {
    "average_precision": "average precision (AP): area under the precision-recall "
    "curve; independent of the threshold",
    "threshold": "probability from which on the class is predicted: highest F1 on the "
    "validation split",
    "recall": "share of the images with this class that were predicted to have it",
    "precision": "share of predictions of this class that are correct",
    "f1": "harmonic mean of precision and recall",
}


def interval_text(interval: tuple[float, float]) -> str:
    """Format a confidence interval of a fraction as percentages.

    Example:
        >>> interval_text((0.9455, 0.9982)).replace(NO_BREAK_SPACE, " ")
        '94.5–99.8 %'
    """
    low, high = (100 * bound for bound in interval)
    return f"{low:.1f}–{high:.1f}{NO_BREAK_SPACE}%"


def label_figures(split: str, score: MultiLabelMetrics) -> tuple[Figure, ...]:
    """Return mAP, micro and macro F1, and the share of exact matches."""
    wide, name = f"95{NO_BREAK_SPACE}% interval", f"{split} mAP".strip()
    limits = f"{wide} {interval_text(score.map_interval)}, {n_text(score.count)}"
    exact = f"all labels of the image are right; {wide} {interval_text(score.interval)}"
    pairs = (
        (percent(score.micro_precision), percent(score.micro_recall)),
        (percent(score.macro_precision), percent(score.macro_recall)),
    )
    micro, macro = (f"precision {p}, recall {r}" for p, r in pairs)
    return (
        Figure(name, "–" if score.map is None else percent(score.map), detail=limits),
        Figure("F1, micro", percent(score.micro_f1), detail=f"all labels: {micro}"),
        Figure(
            "F1, macro", percent(score.macro_f1), detail=f"mean of classes: {macro}"
        ),
        Figure("exact match", percent(score.accuracy), detail=exact),
    )


def other_map_figures(records: Mapping[str, Mapping[str, Any]]) -> tuple[Figure, ...]:
    """Return the mAP of other splits from their records, by name of the split."""
    return tuple(
        Figure(
            f"{split} mAP",
            percent(record["map"]),
            detail=f"exact match {percent(record['accuracy'])}, "
            f"{n_text(record['count'])}",
        )
        for split, record in records.items()
        if record.get("map") is not None
    )


def label_table(score: MultiLabelMetrics, most: int) -> Table:
    """Return the table of AP, precision, recall and F1 of each class.

    With more than `most` classes, only the classes with the lowest AP are listed.
    """
    columns = (
        Column("class"),
        Column("images", "integer", key="support"),
        Column("AP", "share", key="average_precision", hint=HINTS["average_precision"]),
        Column("threshold", "ratio", hint=HINTS["threshold"], rank=2),
        Column("precision", "percent", hint=HINTS["precision"]),
        Column("95 % interval", key="precision_interval", rank=4),
        Column("recall", "percent", hint=HINTS["recall"]),
        Column("95 % interval", key="recall_interval", rank=3),
        Column("F1", "percent", hint=HINTS["f1"]),
        Column("false positives", "integer", key="fp", rank=1),
        Column("false negatives", "integer", key="fn", rank=1),
    )
    classes, note, title = score.classes, "", "By class"
    if len(classes) > most:
        known = [c for c in classes if c.average_precision is not None]
        order = sorted(known, key=lambda c: (c.average_precision, c.name))
        classes = tuple(order[:most])
        title = f"By class, the {len(classes):,} with the lowest AP"
        total = count_text(len(score.classes), "class", "classes")
        note = f"scores.json has all {total}."
    rows = tuple(
        (
            c.name,
            c.support,
            c.average_precision,
            c.threshold,
            c.precision if c.predicted else None,
            interval_text(c.precision_interval) if c.predicted else "never predicted",
            c.recall if c.support else None,
            interval_text(c.recall_interval) if c.support else "no images",
            c.f1,
            c.fp,
            c.fn,
        )
        for c in classes
    )
    return Table(title=title, columns=columns, rows=rows, note=note)


def label_error_blocks(
    predictions: MultiLabelPredictions,
    score: MultiLabelMetrics,
    pixels: PixelRows | None,
) -> Iterator[Block]:
    """Yield the false positives and false negatives of each class, as images.

    The classes with the most errors come first, and the clearest errors of a class.
    """
    errors = [c for c in score.classes if c.fp + c.fn]
    errors.sort(key=lambda c: (-c.fp - c.fn, c.name))
    if not errors:
        yield Prose("All labels of all images are correct.", "good")
        return
    names = [c.name for c in score.classes]
    for metrics in errors[:MAX_ERROR_CLASSES]:
        index = names.index(metrics.name)
        yield from _class_errors(predictions, metrics, index, pixels)
    rest = len(errors) - MAX_ERROR_CLASSES
    if rest > 0:
        more = count_text(rest, "more class", "more classes")
        yield Prose(f"{more} with errors; see the table of the classes.")


def _class_errors(
    predictions: MultiLabelPredictions,
    metrics: LabelMetrics,
    index: int,
    pixels: PixelRows | None,
) -> Iterator[Block]:
    actual = predictions.truth[:, index] > 0
    positive, probs = predictions.decisions[:, index], predictions.probs[:, index]
    name = metrics.name
    kinds = (
        (f"False positives of '{name}'", ~actual & positive, -probs),
        (f"False negatives of '{name}'", actual & ~positive, probs),
    )
    for title, mask, key in kinds:
        rows = [i for i in key.argsort(kind="stable").tolist() if mask[i]]
        if not rows:
            continue
        visible = rows[:MAX_ERROR_IMAGES]
        rest = len(rows) - len(visible)
        note = f"{rest:,} more; see the predictions file." if rest else ""
        heading = f"{title}: {count_text(len(rows), 'image')}"
        if pixels is None:
            columns = Column("image", key="image_path"), Column(f"P({name})", "percent")
            cells = tuple((predictions.paths[i], float(probs[i])) for i in visible)
            yield Table(title=heading, columns=columns, rows=cells, note=note)
            continue
        images = tuple(
            to_image(
                pixels[i].numpy(),
                f"P({name}) {percent(float(probs[i]))}",
                f"true: {predictions.true_label(i) or 'none'} · {predictions.paths[i]}",
            )
            for i in visible
        )
        scale = max(1, SIDE // max(max(t.width, t.height) for t in images))
        yield Images(title=heading, images=images, note=note, scale=scale)
