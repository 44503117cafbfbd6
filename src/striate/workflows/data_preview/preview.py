"""What the network will really see of a set: rules, costs, images, numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from striate.core.seeds import permutation
from striate.core.spec import RESIZES, Preprocess
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

SHOWN = 6


@dataclass(frozen=True, kw_only=True)
class Seen:
    """An image of the set: as its file holds it, and as 8-bit input in every mode."""

    path: str
    label: str
    original: np.ndarray = field(repr=False)
    sides: tuple[int, int]
    inputs: Mapping[str, Tensor] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a resize mode does to a set, over all of its images.

    Args:
        kept: Mean share of an image that is seen, and the least.
        bent: Mean distortion of the aspect, and the most; 1 is none.
        border: Mean share of the input that is background, and the most.
        enlarged: Share of images that are smaller than the input.
    """

    kept: tuple[float, float]
    bent: tuple[float, float]
    border: tuple[float, float]
    enlarged: float


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """A channel of the network's input over the images shown, after normalizing."""

    channel: str
    mean: float
    std: float
    least: float
    most: float


@dataclass(frozen=True, kw_only=True)
class Preview:
    """What was found; `runs.preview_page` puts it into findings.

    Args:
        data: The set as training would have it.
        seen: Chosen images.
        sizes: How many images have which (height, width).
        costs: By resize mode.
        numbers: By channel, of the chosen mode.
        recovered: Whether the 8-bit pixels come back exactly from the numbers.
    """

    data: ImageData = field(repr=False)
    seen: tuple[Seen, ...] = field(repr=False)
    sizes: Mapping[tuple[int, int], int]
    costs: Mapping[str, Cost]
    numbers: tuple[Numbers, ...]
    recovered: bool

    @property
    def preprocess(self) -> Preprocess:
        """Return the preprocessing that training would use."""
        return self.data.preprocess

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "data": self.data.name,
            "images": sum(self.sizes.values()),
            "preprocess": self.preprocess.as_dict(),
            "sizes": [[h, w, n] for (h, w), n in self.sizes.items()],
            "modes": {mode: vars(cost) for mode, cost in self.costs.items()},
            "input": [vars(channel) for channel in self.numbers],
            "recovered": self.recovered,
            "shown": [one.path for one in self.seen],
        }


def preview(
    data: str | Path | Source, *, count: int = SHOWN, seed: int = 0, **settings: Any
) -> Preview:
    """Look at a set the way a network will, in every resize mode.

    Args:
        data: As for `load_data`.
        count: Images to show: the widest, tallest, largest and smallest, then others.
        seed: Chooses the others, and deals the split.
        settings: Of `load_data`: `image_size`, `resize`, `background`, `normalize`, …

    Raises:
        DataError: The data does not admit training.

    Example:
        >>> found = preview("digits", image_size=16)
        >>> found.costs["pad"].enlarged, found.recovered
        (1.0, True)
    """
    source = data if isinstance(data, Source) else find_source(data)
    loaded = load_data(source, seed=seed, **settings)
    store = open_cache(**_cache_settings(settings))
    scan = scan_files(source, store.file_index if store else None)
    used = {row.path for row in loaded.rows}
    index = [i for i in scan.readable if source.records[i].path in used]
    sizes = Counter(_sides(scan, i) for i in index)
    modes = {m: replace(loaded.preprocess, resize=m) for m in RESIZES}
    chosen = _choose(scan, index, count, seed)
    seen = [one for i in chosen if (one := _look(source, i, modes)) is not None]
    return Preview(
        data=loaded,
        seen=tuple(seen),
        sizes=dict(sizes.most_common()),
        costs={mode: _cost(p, sizes) for mode, p in modes.items()},
        **_measured(seen, loaded.preprocess),
    )


def _cache_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    names = {"cache": "where", "cache_gb": "gigabytes"}
    return {ours: settings[key] for key, ours in names.items() if key in settings}


def _sides(scan: FileScan, i: int) -> tuple[int, int]:
    header = scan.headers[i]
    return (header.height, header.width) if isinstance(header, ImageHeader) else (1, 1)


def _choose(scan: FileScan, index: Sequence[int], count: int, seed: int) -> list[int]:
    """Return the extremes, where rules bite, then others at random."""
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


def _look(source: Source, i: int, modes: Mapping[str, Preprocess]) -> Seen | None:
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
    except UndecodableError:  # gone since it was loaded
        return None
    return Seen(
        path=record.path,
        label=record.label,
        original=original,
        sides=(original.shape[0], original.shape[1]),
        inputs=inputs,
    )


def _cost(preprocess: Preprocess, sizes: Mapping[tuple[int, int], int]) -> Cost:
    weights = list(sizes.values())
    fits = [resize_effect(preprocess, *sides) for sides in sizes]

    def mean(values: Sequence[float]) -> float:
        return round(float(np.average(values, weights=weights)), 6)

    kept, bent, border = zip(
        *((f.visible, f.distortion, f.border) for f in fits), strict=True
    )
    return Cost(
        kept=(mean(kept), min(kept)),
        bent=(mean(bent), max(bent)),
        border=(mean(border), max(border)),
        enlarged=mean([f.scale > 1 for f in fits]),
    )


def _measured(seen: Sequence[Seen], preprocess: Preprocess) -> dict[str, Any]:
    pixels = torch.stack([one.inputs[preprocess.resize] for one in seen])
    x = normalize(pixels, preprocess).double()
    names = {1: ("gray",), 3: ("red", "green", "blue")}.get(x.shape[1])
    numbers = [
        Numbers(
            channel=names[c] if names else f"channel {c}",
            mean=float(values.mean()),
            std=float(values.std(correction=0)),
            least=float(values.min()),
            most=float(values.max()),
        )
        for c, values in enumerate(x.unbind(1))
    ]
    recovered = torch.equal(unnormalized(x, preprocess), pixels)
    return {"numbers": tuple(numbers), "recovered": recovered}


def unnormalized(x: Tensor, preprocess: Preprocess) -> Tensor:
    """Return the 8-bit images that a network's input was made of.

    Shapes:
        (N, C, H, W) → (N, H, W, C) uint8
    """
    mean, std = (
        torch.tensor(values, dtype=torch.float64).view(1, -1, 1, 1)
        for values in (preprocess.mean, preprocess.std)
    )
    levels = ((x.double() * std + mean) * 255).round().clamp(0, 255)
    return levels.permute(0, 2, 3, 1).to(torch.uint8)
