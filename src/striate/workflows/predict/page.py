"""HTML page of predictions: thumbnails, the images to review first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from striate.core.class_names import split_label
from striate.core.findings import (
    Block,
    Column,
    Figure,
    Figures,
    Image,
    Images,
    Page,
    Prose,
    Section,
    Table,
)
from striate.core.format import count_text
from striate.data.decode.file_bytes import UndecodableError
from striate.data.decode.preprocess import display_pixels
from striate.interpret.render import limit_side, to_image
from striate.report.format import percent
from striate.run.build_network import network_title
from striate.run.predict_images import (
    NO_LABEL,
    TOP,
    ImagePredictor,
    LabelSetsResult,
    Prediction,
    PredictResult,
    class_text,
)
from striate.run.run import Run

MAX_THUMBNAILS = 1000  # thumbnails on a page of about 20 MB
SIDE = 128  # longest side of a thumbnail in pixels


def predictions_page(run: Run, result: PredictResult, top: int = TOP) -> Page:
    """Return the page: images to review, the other images, files that were not used."""
    first = result.to_review
    rest = [each for each in result.predictions if not each.review]
    groups = [("Needs review", first[:MAX_THUMBNAILS])] if first else []
    groups.append(("Predictions", tuple(rest[: max(0, MAX_THUMBNAILS - len(first))])))
    predictor = run.image_predictor
    sections = [Section("Summary", tuple(_summary(run, result)))]
    for title, predictions in groups:
        if predictions:
            blocks = _gallery(predictor, result, predictions, top)
            sections.append(Section(title, (blocks,), lead=_lead(title, predictions)))
    if result.skipped:
        sections.append(Section("Files not used", (_skipped_table(result),)))
    return Page(
        f"Predictions of {run.path.name}",
        subtitle=f"{count_text(len(result.predictions), 'image')}, "
        f"network {network_title(run.recipe.model)}",
        sections=tuple(sections),
    )


def _lead(title: str, predictions: Sequence[Prediction]) -> str:
    count = count_text(len(predictions), "image")
    if title == "Predictions":
        return f"{count}, in the order of the input."
    return f"{count}, the least confident first. Please check these predictions."


def _summary(run: Run, result: PredictResult) -> Iterator[Block]:
    """Yield the numbers of images, and sentences on review and probabilities."""
    total = len(result.predictions)
    figures = [Figure("images", f"{total:,}")]
    if result.rule.is_active:
        count = len(result.to_review)
        share = f"{percent(count / total)} of the images"
        figures.append(Figure("need review", f"{count:,}", detail=share))
    if result.skipped:
        figures.append(Figure("files not used", f"{len(result.skipped):,}"))
    yield Figures(tuple(figures))
    sentences = [
        *result.rule.sentences,
        *([run.scaling.sentence] if run.scaling else []),
    ]
    if sentences:
        yield Prose(" ".join(sentences))
    yield _class_table(result)
    if total > MAX_THUMBNAILS:
        text = f"This page shows {MAX_THUMBNAILS:,} of {total:,} images. "
        text += "`--out FILE.csv` saves the predictions of all images."
        yield Prose(text, "warning")


def _class_table(result: PredictResult) -> Table:
    """Return the number of images predicted as each class."""
    counts: dict[str, list[int]] = {}
    for each in result.predictions:
        several = isinstance(result, LabelSetsResult)
        names = (split_label(each.pred) or (NO_LABEL,)) if several else (each.pred,)
        for name in names:
            pair = counts.setdefault(name, [0, 0])
            pair[0] += 1
            pair[1] += bool(each.review)
    rows = sorted(counts.items(), key=lambda item: -item[1][0])
    active = result.rule.is_active
    columns = (
        Column("predicted class", key="pred"),
        Column("images", "integer"),
        *([Column("to review", "integer")] if active else []),
    )
    return Table(
        columns=columns,
        rows=tuple((name, *pair[: 1 + active]) for name, pair in rows),
    )


def _gallery(
    predictor: ImagePredictor,
    result: PredictResult,
    predictions: Sequence[Prediction],
    top: int,
) -> Images:
    images = tuple(_tile(predictor, result, each, top) for each in predictions)
    scale = max(1, SIDE // max(max(i.width, i.height) for i in images))
    return Images(images=images, scale=scale)


def _tile(
    predictor: ImagePredictor, result: PredictResult, each: Prediction, top: int
) -> Image:
    several = isinstance(result, LabelSetsResult)
    others = [class_text(*pair) for pair in each.top(top)[0 if several else 1 :]]
    marks = [f"⚑ {each.review}"] if each.review else []
    if result.rule.overrules(each.pred, each.decision):
        marks.append(f"decision (operating point): {each.decision}")
    name = Path(each.image_path).name
    caption = each.pred or NO_LABEL
    if not several:
        caption = class_text(each.pred, each.probability)
    image = to_image(_thumbnail(predictor, each.image_path), caption, name)
    return replace(image, lines=(*marks, *others))


def _thumbnail(predictor: ImagePredictor, path: str) -> np.ndarray:
    """Return the image as the network receives it, at most `SIDE` pixels wide."""
    try:
        stored = predictor.read_input(Path(path))
        pixels = display_pixels(stored, predictor.preprocess).numpy()
    except UndecodableError:  # deleted since the prediction
        return np.full((SIDE, SIDE, 1), 128, np.uint8)
    return limit_side(pixels, SIDE)


def _skipped_table(result: PredictResult) -> Table:
    columns = Column("image", key="image_path"), Column("reason"), Column("detail")
    rows = tuple((skip.path, skip.reason, skip.detail) for skip in result.skipped)
    return Table(columns=columns, rows=rows)
