"""The images of a run's report: answers by cell, worst errors, filters, maps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

from torch import Tensor

from striate.audit.layer import shape_text
from striate.core.errors import StriateError
from striate.core.findings import Block, Image, Images, Prose, Section
from striate.core.preprocess import Preprocess
from striate.data.cache.pixel_rows import PixelRows
from striate.data.decode.preprocess import normalize
from striate.engine.weights_io import read_weights
from striate.interpret.feature_maps import MAX_CHANNELS, feature_maps, map_sheet
from striate.interpret.filters import filter_limits, filter_tiles, first_convolution
from striate.interpret.render import tile, to_image
from striate.report.format import percent
from striate.run import layout as names
from striate.run.predictions import Predictions

if TYPE_CHECKING:
    from striate.run.run import Run

T = TypeVar("T")

WRONG_SHOWN = 18
LAYERS_SHOWN = 12
PER_CELL = 24  # images held for a cell of wrong answers
PER_RIGHT_CELL = 6


def subset_pixels(run: Run, split: str, paths: Sequence[str]) -> PixelRows | None:
    """Return a part's images, or None where they are gone or no longer these."""
    try:
        found = run.data.subset(split)
    except StriateError:
        return None
    return found.pixels if tuple(found.paths) == tuple(paths) else None


def cell_images(
    predictions: Predictions, pixels: PixelRows
) -> dict[tuple[int, int], tuple[Image, ...]]:
    """Hold the costliest images of every cell."""
    cells: dict[tuple[int, int], list[Image]] = {}
    said = predictions.predicted
    for i in predictions.most_wrong(len(predictions.paths)):
        cell = int(predictions.truth[i]), int(said[i])
        room = PER_RIGHT_CELL if cell[0] == cell[1] else PER_CELL
        if len(cells.setdefault(cell, [])) < room:
            cells[cell].append(_captioned(predictions, pixels, i))
    return {cell: tuple(images) for cell, images in cells.items()}


def _captioned(predictions: Predictions, pixels: PixelRows, i: int) -> Image:
    true = predictions.labels[int(predictions.truth[i])]
    said = predictions.labels[int(predictions.predicted[i])]
    sure = percent(float(predictions.probs[i].max()))
    right = true == said
    caption = f"{said}, {sure}" if right else f"{said}, {sure}; is {true}"
    return to_image(pixels[i].numpy(), caption, predictions.paths[i])


def most_wrong(predictions: Predictions, pixels: PixelRows | None) -> Section:
    """Return the wrong answers that cost most, worst first."""
    wrong = [
        i
        for i in predictions.most_wrong(WRONG_SHOWN)
        if predictions.truth[i] != predictions.predicted[i]
    ]
    if not wrong:
        blocks: tuple[Block, ...] = (Prose(text="No answer is wrong.", tone="good"),)
    elif pixels is None:
        text = "\n\n".join(predictions.paths[i] for i in wrong)
        blocks = (Prose(text=text),)
    else:
        shown = tuple(_captioned(predictions, pixels, i) for i in wrong)
        blocks = (Images(images=shown, scale=_scale(pixels.shape[1])),)
    lead = "The answers that cost most: look here for wrong labels first."
    return Section(title="Most wrong", lead=lead, blocks=blocks)


def _scale(side: int, target: int = 96) -> int:
    return max(1, target // side)


def inside(
    run: Run, predictions: Predictions, pixels: PixelRows | None
) -> Iterable[Section]:
    """Yield the first filters before and after, and one image's feature maps."""
    blocks: list[Block] = _filters(run)
    if blocks:
        lead = "Nobody designed these filters: they began as noise and were learned."
        yield Section(title="First filters", lead=lead, blocks=tuple(blocks))
    if pixels is None:
        return
    chosen = _example(predictions)
    sheets = _maps(run, pixels[chosen], run.preprocess)
    shown = _captioned(predictions, pixels, chosen)
    source = Images(images=(shown,), scale=_scale(pixels.shape[1]))
    lead = "One image on its way through the network, from edges to evidence."
    yield Section(title="Feature maps", lead=lead, blocks=(source, *sheets))


def _filters(run: Run) -> list[Block]:
    first = first_convolution(run.model)
    path = run.path / names.FIRST_LAYER
    if first is None or not path.is_file():
        return []
    name, module = first
    before, after = read_weights(path)[name], module.weight
    limits = filter_limits(before, after)
    columns = 16 if before.shape[1] in (1, 3) else 4
    sheets = [
        to_image(tile(filter_tiles(weight, limits), columns), caption)
        for weight, caption in ((before, "before training"), (after, "after training"))
    ]
    count, _, rows, width = before.shape
    title = f"{name}: {count} filters of {rows}×{width}"
    note = "Blue is negative, red positive; both versions of a filter share one scale."
    note = note if before.shape[1] != 3 else "Gray is zero; a pair shares one scale."
    return [Images(title=title, note=note, images=tuple(sheets))]


def _example(predictions: Predictions) -> int:
    """Choose the image answered rightly with least doubt, else any."""
    right = predictions.truth == predictions.predicted
    order = predictions.most_wrong(len(predictions.paths))
    return next((i for i in reversed(order) if right[i]), order[0])


def _maps(run: Run, pixels: Tensor, preprocess: Preprocess) -> list[Block]:
    device = next(run.model.parameters()).device
    x = normalize(pixels[None].to(device), preprocess)
    found = feature_maps(run.model, x)
    maps = [(name, stack) for name, stack in found.items() if min(stack.shape[1:]) > 1]
    shown: list[Image] = []
    for name, stack in evenly(maps, LAYERS_SHOWN):
        count, drawn = len(stack), min(len(stack), MAX_CHANNELS)
        detail = (
            f"{drawn} of {count} channels" if drawn < count else f"{count} channels"
        )
        text = f"{name} · {shape_text(tuple(stack.shape))}"
        shown.append(to_image(map_sheet(stack), text, detail))
    note = f"{len(shown)} of {len(maps)} layers." if len(shown) < len(maps) else ""
    return [Images(images=tuple(shown), note=note)] if shown else []


def evenly(items: Sequence[T], count: int) -> list[T]:
    """Return at most `count` items, the first and the last among them.

    Example:
        >>> evenly("abcdefg", 3)
        ['a', 'd', 'g']
    """
    if len(items) <= count:
        return list(items)
    step = (len(items) - 1) / (count - 1)
    return [items[round(i * step)] for i in range(count)]
