"""`data augment`: what training images will look like, and what that may spoil."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from striate.core.findings import Column, Image, Images, Section, Table
from striate.core.seeds import derive
from striate.core.spec import Preprocess
from striate.data.augment.augment import Augment
from striate.data.augment.pipeline import Views, changed
from striate.data.augment.single_transform import (
    DIRECTED,
    WORDS,
    Trial,
    at,
    coins,
    furthest,
)
from striate.data.image_data import ImageData
from striate.data.subset import Subset
from striate.interpret.render import enlarge, tile, to_image
from striate.run.images import evenly

ALONE, TOGETHER = 3, 8  # images shown of single changes, and of all at once
BOTH_WAYS = (-1.0, -0.5, 0.0, 0.5, 1.0)
ONE_WAY = (0.0, 0.25, 0.5, 0.75, 1.0)
EPOCHS = 7
LEAST, MOST = 48, 112  # pixels an image is drawn high


def sections(data: ImageData, augment: Augment, seed: int) -> list[Section]:
    """Return the ranges, each change alone, and all of them together, as images."""
    subset = data.subset("train")
    chosen = _one_of_each(subset)
    return [
        Section(
            title="All together",
            lead="Left the image as it is, then as the network sees it in the "
            f"first {EPOCHS} epochs of a run with seed {seed}.",
            blocks=(together(data, augment, chosen[:TOGETHER], seed),),
        ),
        Section(
            title="Each alone",
            lead="From one end of its range to the other. Geometry is one warp and "
            "color one map, however many changes are on.",
            blocks=(alone(data, augment, chosen[:ALONE]),),
        ),
        Section(title="Ranges", blocks=(ranges(augment),)),
    ]


def _one_of_each(subset: Subset) -> Tensor:
    """Return the first image of each class, of classes spread over all of them."""
    first = {int(label): i for i, label in reversed(list(enumerate(subset.labels)))}
    kept = evenly([first[label] for label in sorted(first)], TOGETHER)
    return torch.tensor(kept)


def together(data: ImageData, augment: Augment, chosen: Tensor, seed: int) -> Images:
    """Return a sheet: a row for each image, the first epochs from left to right."""
    subset, p = data.subset("train"), data.preprocess
    pixels = subset.gather(chosen)
    views = Views(
        subset=subset,
        preprocess=p,
        augment=augment,
        seed=seed,
        classes=data.num_classes,
    )
    columns = [pixels]
    if augment.acts:
        columns += [
            levels(views(pixels, chosen, epoch)[0], p) for epoch in range(EPOCHS)
        ]
    labels = ", ".join(data.labels[int(subset.labels[i])] for i in chosen)
    caption = f"The image, and epochs 1–{EPOCHS}"
    sheet = _sheet(columns, caption, f"classes {labels}")
    return Images(images=(sheet,))


def alone(data: ImageData, augment: Augment, chosen: Tensor) -> Images:
    """Return a sheet for each change that is on."""
    pixels = data.subset("train").gather(chosen)
    made = [
        _stages(end, pixels, data.preprocess, augment.border)
        for end in furthest(augment)
    ]
    return Images(images=tuple(made))


def _stages(end: Trial, pixels: Tensor, preprocess: Preprocess, border: str) -> Image:
    """Draw one change step by step to the end of its range."""
    steps = [Trial(end.change, end.amount * step) for step in _steps(end)]
    columns = []
    for place, trial in enumerate(steps):
        signs = coins(len(pixels), trial, derive(place))
        if end.change in DIRECTED:  # channels apart, or color would be brightness
            signs[:] = 1 - 2 * (np.arange(signs.shape[1]) % 2)
        if end.change in ("shear", "shift"):
            signs[:] = 1
        draws = at(trial, preprocess.spec, signs)
        columns.append(
            levels(changed(pixels, draws, preprocess, end.augment(border)), preprocess)
        )
    words = " · ".join(map(str, steps))
    return _sheet(columns, WORDS[end.change].capitalize(), words)


def _steps(end: Trial) -> Sequence[float]:
    if end.change.startswith("flip"):
        return (0.0, 1.0)
    return BOTH_WAYS if end.change in DIRECTED else ONE_WAY


def levels(x: Tensor, preprocess: Preprocess) -> Tensor:
    """Turn a network's input back into 8-bit pixels, (N, H, W, C)."""
    mean = torch.tensor(preprocess.mean).view(1, -1, 1, 1)
    std = torch.tensor(preprocess.std).view(1, -1, 1, 1)
    values = (255 * (x.cpu() * std + mean)).round_().clamp_(0, 255)
    return values.byte().permute(0, 2, 3, 1)


def _sheet(columns: Sequence[Tensor], caption: str, detail: str) -> Image:
    """Lay batches out side by side: a row an image, a column a batch."""
    drawn = [[_drawn(one) for one in column] for column in columns]
    cells = [column[row] for row in range(len(drawn[0])) for column in drawn]
    return to_image(tile(cells, len(columns)), caption, detail)


def _drawn(pixels: Tensor) -> np.ndarray:
    """Bring an image to a size for people: small ones pixel by pixel."""
    height, width, channels = pixels.shape
    if height > MOST:
        planes = pixels.permute(2, 0, 1)[None].float()
        sides = (MOST, max(1, round(width * MOST / height)))
        small = F.interpolate(planes, sides, mode="area")
        pixels = small[0].permute(1, 2, 0).round().byte()
    shown: np.ndarray = pixels.numpy()
    if channels != 3:
        shown = shown.mean(-1, keepdims=True).round().astype(np.uint8).repeat(3, -1)
    return enlarge(shown, LEAST)


def ranges(augment: Augment) -> Table:
    """Return every setting and its value; what is off says so."""
    rows = tuple(_row(name, value) for name, value in asdict(augment).items())
    columns = (
        Column(title="Setting", kind="code"),
        Column(title="Range"),
        Column(title="Meaning"),
    )
    return Table(columns=columns, rows=rows)


def _row(name: str, value: float | str) -> tuple[str, str, str]:
    help_ = Augment.__dataclass_fields__[name].metadata["help"]
    said = value if isinstance(value, str) else f"{value:g}" if value else "off"
    return f"--{name}", said, help_


def sheets(found: Sequence[Section]) -> Iterator[Image]:
    """Yield all images of sections."""
    for section in found:
        for block in section.blocks:
            if isinstance(block, Images):
                yield from block.images
