"""Preview of the network input: images, resize modes and channel statistics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from striate.core.preprocess_config import RESIZE_MODES, Preprocess
from striate.core.seeds import permutation
from striate.data.cache.cache_folder import open_cache
from striate.data.decode.decode import ImageHeader
from striate.data.decode.file_bytes import UndecodableError
from striate.data.decode.preprocess import (
    decode_for,
    file_to_input,
    image_to_input,
    normalize,
)
from striate.data.decode.resize_effects import resize_effect
from striate.data.find_source import find_source
from striate.data.image_data import ImageData
from striate.data.load import load_data
from striate.data.scan import FileScan, scan_files
from striate.data.sources.source import Source

IMAGES_SHOWN = 6


@dataclass(frozen=True, kw_only=True)
class PreviewImage:
    """An image of the data set, as original and as 8-bit input in every resize mode."""

    path: str
    label: str
    original: np.ndarray = field(repr=False)
    sides: tuple[int, int]
    inputs: Mapping[str, Tensor] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class ResizeSummary:
    """Effect of a resize mode on all images of a data set."""

    # mean and minimum share of an image that is left after cropping
    visible: tuple[float, float]
    # mean and maximum distortion of the aspect ratio; 1: no distortion
    distortion: tuple[float, float]
    border: tuple[float, float]  # mean and maximum share of the input that is padding
    enlarged: float  # share of images that are smaller than the input


@dataclass(frozen=True, kw_only=True)
class InputStats:
    """Statistics of a normalized input channel over the displayed images."""

    channel: str
    mean: float
    std: float
    min: float
    max: float


@dataclass(frozen=True, kw_only=True)
class Preview:
    """Result of `data preview`."""

    data: ImageData = field(repr=False)  # the data set as training loads it
    images: tuple[PreviewImage, ...] = field(repr=False)  # the displayed images
    sizes: Mapping[tuple[int, int], int]  # number of images by (height, width)
    effects: Mapping[str, ResizeSummary]  # effect of each resize mode, by name
    # statistics of each channel, for the selected resize mode
    input_stats: tuple[InputStats, ...]
    recovers_pixels: bool  # true if denormalizing gives the exact 8-bit pixels

    @property
    def preprocess(self) -> Preprocess:
        """Return the preprocessing that is used in training."""
        return self.data.preprocess

    def as_dict(self) -> dict[str, Any]:
        """Return the preview as a JSON-serializable dict."""
        return {
            "data": self.data.name,
            "images": sum(self.sizes.values()),
            "preprocess": self.preprocess.as_dict(),
            "sizes": [[h, w, n] for (h, w), n in self.sizes.items()],
            "modes": {mode: vars(effect) for mode, effect in self.effects.items()},
            "input": [vars(channel) for channel in self.input_stats],
            "recovers_pixels": self.recovers_pixels,
            "shown": [image.path for image in self.images],
        }


def preview(
    data: str | Path | Source,
    *,
    count: int = IMAGES_SHOWN,
    seed: int = 0,
    **settings: Any,
) -> Preview:
    """Load images as network inputs, in every resize mode.

    Args:
        data: Data set, as for `load_data`.
        count: Number of images: the widest, tallest, largest and smallest, then others.
        seed: Random seed for the other images and for the split.
        settings: Arguments of `load_data`: `image_size`, `resize`, `background`,
            `normalize`, …

    Raises:
        DataError: The data cannot be used for training.

    Example:
        >>> result = preview("digits", image_size=16)
        >>> result.effects["pad"].enlarged, result.recovers_pixels
        (1.0, True)
    """
    source = data if isinstance(data, Source) else find_source(data)
    loaded = load_data(source, seed=seed, **settings)
    names = {"cache": "where", "cache_gb": "gigabytes"}
    store = open_cache(**{names[k]: v for k, v in settings.items() if k in names})
    scan = scan_files(source, store.file_index if store else None)
    used = {row.path for row in loaded.rows}
    index = [i for i in scan.readable if source.records[i].path in used]
    sizes = Counter(_sides(scan, i) for i in index)
    modes = {m: replace(loaded.preprocess, resize=m) for m in RESIZE_MODES}
    positions = _choose_images(scan, index, count, seed)
    images = list(filter(None, (_load_image(source, i, modes) for i in positions)))
    return Preview(
        data=loaded,
        images=tuple(images),
        sizes=dict(sizes.most_common()),
        effects={mode: _resize_summary(p, sizes) for mode, p in modes.items()},
        **_input_stats(images, loaded.preprocess),
    )


def _sides(scan: FileScan, i: int) -> tuple[int, int]:
    header = scan.headers[i]
    return (header.height, header.width) if isinstance(header, ImageHeader) else (1, 1)


def _choose_images(
    scan: FileScan, index: Sequence[int], count: int, seed: int
) -> list[int]:
    """Return image indices: the images of extreme sizes first, then random images."""
    sides = {i: _sides(scan, i) for i in index}
    extremes = [
        max(index, key=lambda i: sides[i][1] / sides[i][0]),
        max(index, key=lambda i: sides[i][0] / sides[i][1]),
        max(index, key=lambda i: sides[i][0] * sides[i][1]),
        min(index, key=lambda i: sides[i][0] * sides[i][1]),
    ]
    others = [index[k] for k in permutation(len(index), seed, "preview")]
    if len(set(sides.values())) == 1:
        extremes = []
    return list(dict.fromkeys([*extremes, *others]))[:count]


def _load_image(
    source: Source, i: int, modes: Mapping[str, Preprocess]
) -> PreviewImage | None:
    record = source.records[i]
    full = replace(next(iter(modes.values())), jpeg="full")
    try:
        if source.arrays is not None:
            original = source.arrays[i]
            inputs = {mode: image_to_input(original, p) for mode, p in modes.items()}
        else:
            payload = source.payload(i)
            original = decode_for(payload, full).pixels
            inputs = {mode: file_to_input(payload, p) for mode, p in modes.items()}
    except UndecodableError:  # removed since it was loaded
        return None
    return PreviewImage(
        path=record.path,
        label=record.label,
        original=original,
        sides=(original.shape[0], original.shape[1]),
        inputs=inputs,
    )


def _resize_summary(
    preprocess: Preprocess, sizes: Mapping[tuple[int, int], int]
) -> ResizeSummary:
    weights = list(sizes.values())
    fits = [resize_effect(preprocess, height, width) for height, width in sizes]

    def mean(values: Sequence[float]) -> float:
        return round(float(np.average(values, weights=weights)), 6)

    visible, distortion = [f.visible for f in fits], [f.distortion for f in fits]
    border = [f.border for f in fits]
    return ResizeSummary(
        visible=(mean(visible), min(visible)),
        distortion=(mean(distortion), max(distortion)),
        border=(mean(border), max(border)),
        enlarged=mean([f.scale > 1 for f in fits]),
    )


def _input_stats(
    images: Sequence[PreviewImage], preprocess: Preprocess
) -> dict[str, Any]:
    pixels = torch.stack([image.inputs[preprocess.resize] for image in images])
    x = normalize(pixels, preprocess).double()
    names = {1: ("gray",), 3: ("red", "green", "blue")}.get(x.shape[1])
    input_stats = [
        InputStats(
            channel=names[c] if names else f"channel {c}",
            mean=float(values.mean()),
            std=float(values.std(correction=0)),
            min=float(values.min()),
            max=float(values.max()),
        )
        for c, values in enumerate(x.unbind(1))
    ]
    recovers_pixels = torch.equal(denormalize(x, preprocess), pixels)
    return {"input_stats": tuple(input_stats), "recovers_pixels": recovers_pixels}


def denormalize(x: Tensor, preprocess: Preprocess) -> Tensor:
    """Denormalize network inputs to 8-bit images.

    Shapes:
        (N, C, H, W) → (N, H, W, C) uint8
    """
    mean = torch.tensor(preprocess.mean, dtype=torch.float64).view(1, -1, 1, 1)
    std = torch.tensor(preprocess.std, dtype=torch.float64).view(1, -1, 1, 1)
    levels = ((x.double() * std + mean) * 255).round().clamp(0, 255)
    return levels.permute(0, 2, 3, 1).to(torch.uint8)
