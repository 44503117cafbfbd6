"""Images of the run report: confusion matrix, errors, filters, feature maps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from striate.audit.layer import shape_text
from striate.core.errors import StriateError
from striate.core.findings import Block, Image, Images, Prose, Section
from striate.core.format import count_text
from striate.core.preprocess_config import Preprocess
from striate.data.cache.image_rows import DisplayRows, PixelRows, display_rows
from striate.data.decode.preprocess import normalize
from striate.engine.weights_io import read_weights
from striate.interpret.feature_maps import MAX_CHANNELS, feature_maps, map_sheet
from striate.interpret.filters import filter_limits, filter_tiles, first_convolution
from striate.interpret.render import tile, to_image
from striate.layers.whiten import whiten_layers
from striate.report.format import probability_text
from striate.run import layout as names
from striate.run.predictions import Predictions
from striate.run.report_texts import first_filters_texts

if TYPE_CHECKING:
    from striate.run.run import Run

T = TypeVar("T")

MAX_ERRORS = 18
MAX_LAYERS = 12
PER_CELL = 24  # maximum number of images per off-diagonal cell (errors)
PER_CORRECT_CELL = 6


def subset_pixels(run: Run, split: str, paths: Sequence[str]) -> PixelRows | None:
    """Return the images of a split for display, or None if they are unavailable.

    They are unavailable if files changed or are unreadable, or if the run was trained
    on images in memory that are not given.
    """
    try:
        subset = run.data.subset(split)
    except StriateError:
        return None
    if tuple(subset.paths) != tuple(paths):
        return None
    return display_rows(subset.pixels, run.preprocess)


def confusion_images(
    predictions: Predictions, pixels: PixelRows
) -> dict[tuple[int, int], tuple[Image, ...]]:
    """Return the images with the highest loss for each cell of the confusion matrix."""
    cells: dict[tuple[int, int], list[Image]] = {}
    predicted = predictions.predicted
    for i in predictions.highest_losses(len(predictions.paths)):
        cell = int(predictions.truth[i]), int(predicted[i])
        most = PER_CORRECT_CELL if cell[0] == cell[1] else PER_CELL
        if len(cells.setdefault(cell, [])) < most:
            cells[cell].append(_captioned(predictions, pixels, i))
    return {cell: tuple(images) for cell, images in cells.items()}


def _captioned(predictions: Predictions, pixels: PixelRows, i: int) -> Image:
    true, predicted = predictions.true_label(i), predictions.predicted_label(i)
    caption = f"predicted {predicted or 'none'}"
    if not predictions.labels.multi_label:
        caption += f" ({probability_text(float(predictions.probs[i].max()))})"
    caption += "" if predicted == true else f", true {true or 'none'}"
    return to_image(pixels[i].numpy(), caption, predictions.paths[i])


def highest_loss_section(predictions: Predictions, pixels: PixelRows | None) -> Section:
    """Return the report section of misclassified images with the highest loss."""
    correct = predictions.correct
    order = predictions.highest_losses(len(predictions.paths))
    wrong = [i for i in order if not correct[i]][:MAX_ERRORS]
    if not wrong:
        block: Block = Prose(text="All predictions are correct.", tone="good")
    elif pixels is None:
        block = Prose(text="\n\n".join(predictions.paths[i] for i in wrong))
    else:
        images = tuple(_captioned(predictions, pixels, i) for i in wrong)
        block = Images(images=images, scale=_scale(pixels.shape[1]))
    lead = "Errors with the highest loss. Check these for wrong labels first."
    return Section(title="Highest-loss errors", lead=lead, blocks=(block,))


def _scale(side: int) -> int:
    return max(1, 96 // side)


def filters_and_maps_sections(
    run: Run, predictions: Predictions, pixels: PixelRows | None
) -> Iterable[Section]:
    """Yield report sections: filters of the first convolution, and feature maps."""
    yield from _filters_section(run)
    if pixels is None:
        return
    example = _example(predictions)
    stored = pixels.pixels if isinstance(pixels, DisplayRows) else pixels
    sheets = _maps(run, stored[example], run.preprocess)
    image = _captioned(predictions, pixels, example)
    source = Images(images=(image,), scale=_scale(pixels.shape[1]))
    image_text = f"one image of the {run.evaluated_split} split"
    lead = f"Activations of {image_text}, layer by layer from input to output."
    yield Section("Feature maps", (source, *sheets), lead=lead)


def _filters_section(run: Run) -> Iterable[Section]:
    first = first_convolution(run.model)
    path = run.path / names.FIRST_LAYER
    if first is None or not path.is_file():
        return
    name, module = first
    before, after = read_weights(path)[name], module.weight.detach().cpu()
    unchanged = torch.equal(before, after)
    computed = any(layer.conv is module for layer in whiten_layers(run.model))
    lead, caption = first_filters_texts(
        run, name, unchanged=unchanged, computed=computed
    )
    limits = filter_limits(before, after)
    shown = [(before, caption)] + [(after, "after training")] * (not unchanged)
    columns = 16 if before.shape[1] in (1, 3) else 4
    sheets = [
        to_image(tile(filter_tiles(weight, limits), columns), caption)
        for weight, caption in shown
    ]
    count, _, rows, width = before.shape
    title = f"{name}: {count_text(count, 'filter')} of {rows}×{width}"
    colors = "Gray: zero" if before.shape[1] == 3 else "Blue: negative, red: positive"
    note = f"{colors}" + ("." if unchanged else "; same color scale for both.")
    block = Images(title=title, note=note, images=tuple(sheets))
    yield Section("First filters", (block,), lead=lead)


def _example(predictions: Predictions) -> int:
    """Return an image index: the most confident correct prediction, if there is one."""
    correct = predictions.correct
    order = predictions.highest_losses(len(predictions.paths))
    return next((i for i in reversed(order) if correct[i]), order[0])


def _maps(run: Run, pixels: Tensor, preprocess: Preprocess) -> list[Block]:
    device = next(run.model.parameters()).device
    x = normalize(pixels[None].to(device), preprocess)
    all_maps = feature_maps(run.model, x).items()
    maps = [(name, stack) for name, stack in all_maps if min(stack.shape[1:]) > 1]
    images: list[Image] = []
    for name, stack in evenly_spaced(maps, MAX_LAYERS):
        count, visible = len(stack), min(len(stack), MAX_CHANNELS)
        channels = count_text(count, "channel")
        channels = f"{visible} of {channels}" if visible < count else channels
        text = f"{name} · {shape_text(tuple(stack.shape))}"
        images.append(to_image(map_sheet(stack), text, channels))
    note = (
        f"{len(images)} of {count_text(len(maps), 'layer')}."
        if len(images) < len(maps)
        else ""
    )
    return [Images(images=tuple(images), note=note)] if images else []


def evenly_spaced(items: Sequence[T], count: int) -> list[T]:
    """Return at most `count` evenly spaced items, including the first and the last.

    Example:
        >>> evenly_spaced("abcdefg", 3)
        ['a', 'd', 'g']
    """
    if len(items) <= count:
        return list(items)
    step = (len(items) - 1) / (count - 1)
    return [items[round(i * step)] for i in range(count)]
