"""Image grids of augmented images: all transforms combined, and each alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from striate.core.derive_seed import derive_seed
from striate.core.findings import Column, Image, Images, Section, Table
from striate.core.preprocess_config import Preprocess
from striate.data.augment.augment import Augment
from striate.data.augment.pipeline import AugmentPipeline, augment_batch
from striate.data.augment.single_transform import (
    SIGNED,
    TRANSFORM_NAMES,
    SingleTransform,
    random_signs,
    range_ends,
    single_params,
)
from striate.data.image_data import ImageData
from striate.data.subset import Subset
from striate.finetune.logistic import label_strata
from striate.interpret.render import enlarge, tile, to_image
from striate.run.report_images import evenly_spaced

SINGLE_COUNT, COMBINED_COUNT = 3, 8  # images shown
SIGNED_STEPS = (-1.0, -0.5, 0.0, 0.5, 1.0)
UNSIGNED_STEPS = (0.0, 0.25, 0.5, 0.75, 1.0)
EPOCHS = 7
MIN_HEIGHT, MAX_HEIGHT = 48, 112  # display height in pixels


def preview_sections(data: ImageData, augment: Augment, seed: int) -> list[Section]:
    """Return report sections: image grids, and a table of the augmentation ranges."""
    subset = data.subset("train")
    index = _one_per_class(subset)
    return [
        Section(
            "All transforms combined",
            (combined_grid(data, augment, index[:COMBINED_COUNT], seed),),
            lead="Left: the original image. Then the augmented inputs of the first "
            f"{EPOCHS} epochs of a run with seed {seed}.",
        ),
        Section(
            "Each transform alone",
            (single_grids(data, augment, index[:SINGLE_COUNT]),),
            lead="From one end of its range to the other.",
        ),
        Section("Ranges", (range_table(augment),)),
    ]


def _one_per_class(subset: Subset) -> Tensor:
    """Return the index of one image per class, for some evenly spaced classes."""
    labels = label_strata(subset.labels)
    first = {int(label): i for i, label in reversed(list(enumerate(labels)))}
    positions = evenly_spaced([first[label] for label in sorted(first)], COMBINED_COUNT)
    return torch.tensor(positions)


def combined_grid(
    data: ImageData, augment: Augment, index: Tensor, seed: int
) -> Images:
    """Return a grid of augmented images: one row per image, one column per epoch."""
    subset, p = data.subset("train"), data.preprocess
    pixels = subset.gather(index)
    pipeline = AugmentPipeline(
        subset=subset,
        preprocess=p,
        augment=augment,
        seed=seed,
        classes=data.num_classes,
    )
    columns = [pixels]
    epochs = range(EPOCHS if augment.is_active else 0)
    columns += [to_pixels(pipeline(pixels, index, epoch)[0], p) for epoch in epochs]
    labels = ", ".join(data.labels.text(subset.labels[i].numpy()) for i in index)
    caption = f"original, then epochs 1–{EPOCHS}"
    grid = _grid_image(columns, caption, f"classes {labels}")
    return Images(images=(grid,))


def single_grids(data: ImageData, augment: Augment, index: Tensor) -> Images:
    """Return a grid for each transform that is enabled."""
    pixels = data.subset("train").gather(index)
    p, border = data.preprocess, augment.border
    images = [_amounts_grid(end, pixels, p, border) for end in range_ends(augment)]
    return Images(images=tuple(images))


def _amounts_grid(
    range_end: SingleTransform, pixels: Tensor, preprocess: Preprocess, border: str
) -> Image:
    """Return a grid of one transform: one row per image, one column per amount."""
    name = range_end.name
    steps: Sequence[float] = SIGNED_STEPS if name in SIGNED else UNSIGNED_STEPS
    if name.startswith("flip"):
        steps = (0.0, 1.0)
    transforms = [SingleTransform(name, range_end.amount * step) for step in steps]
    columns = []
    for number, transform in enumerate(transforms):
        signs = random_signs(len(pixels), transform, derive_seed(number))
        if name in ("shear", "shift"):
            signs[:] = 1
        elif name in SIGNED:  # alternate, or a color shift would change the brightness
            signs[:] = 1 - 2 * (np.arange(signs.shape[1]) % 2)
        params = single_params(transform, preprocess.spec, signs)
        x = augment_batch(pixels, params, preprocess, range_end.augment(border))
        columns.append(to_pixels(x, preprocess))
    words = " · ".join(map(str, transforms))
    return _grid_image(columns, TRANSFORM_NAMES[name].capitalize(), words)


def to_pixels(x: Tensor, preprocess: Preprocess) -> Tensor:
    """Denormalize inputs to 8-bit pixels, (N, C, H, W) → (N, H, W, C)."""
    mean = torch.tensor(preprocess.mean).view(1, -1, 1, 1)
    std = torch.tensor(preprocess.std).view(1, -1, 1, 1)
    values = (255 * (x.cpu() * std + mean)).round_().clamp_(0, 255)
    return values.byte().permute(0, 2, 3, 1)


def _grid_image(columns: Sequence[Tensor], caption: str, detail: str) -> Image:
    """Join batches of images into a grid: one row per image, one column per batch."""
    cells = [_display_size(x) for row in zip(*columns, strict=True) for x in row]
    return to_image(tile(cells, len(columns)), caption, detail)


def _display_size(pixels: Tensor) -> np.ndarray:
    """Resize an image for display; small images are enlarged by an integer factor."""
    height, width, channels = pixels.shape
    if height > MAX_HEIGHT:
        planes = pixels.permute(2, 0, 1)[None].float()
        sides = (MAX_HEIGHT, max(1, round(width * MAX_HEIGHT / height)))
        small = F.interpolate(planes, sides, mode="area")
        pixels = small[0].permute(1, 2, 0).round().byte()
    image: np.ndarray = pixels.numpy()
    if channels != 3:
        image = image.mean(-1, keepdims=True).round().astype(np.uint8).repeat(3, -1)
    return enlarge(image, MIN_HEIGHT)


def range_table(augment: Augment) -> Table:
    """Return a table of all augmentation settings and their values."""
    rows = []
    for field in fields(augment):
        value = getattr(augment, field.name)
        text = value if isinstance(value, str) else f"{value:g}" if value else "off"
        rows.append((f"--{field.name}", text, field.metadata["help"]))
    columns = (Column("Setting", "code"), Column("Range"), Column("Meaning"))
    return Table(columns=columns, rows=tuple(rows))


def section_images(sections: Sequence[Section]) -> Iterator[Image]:
    """Yield all images in a list of report sections."""
    for section in sections:
        for block in section.blocks:
            if isinstance(block, Images):
                yield from block.images
