"""Presets: named sets of training settings, each with its measured result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from striate.core.registry import Registry


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Training settings of a preset, and the result that they reached."""

    claim: str
    settings: dict[str, Any]


PRESETS: Registry[Preset] = Registry("preset")

# Settings that the fast presets share; they differ in width and in epochs.
_FAST: dict[str, Any] = {
    "data": "fashion-mnist",
    "batch_size": 256,
    "optimizer": "muon",
    "lr": 0.02,
    "weight_decay": 0.05,
    "augment": "flip",
    "tta": "flip",
    "val_fraction": 0.05,
}

PRESETS.add("fashion-fast")(
    Preset(
        claim="test accuracy 91.58 ± 0.12 % over 5 seeds, 28 s after a cold start on "
        "two cores",
        settings=_FAST | {"model": "fast_small", "epochs": 3},
    )
)

PRESETS.add("fashion-wide")(
    Preset(
        claim="test accuracy 93.57 ± 0.09 % over 5 seeds, 117 s after a cold start on "
        "two cores",
        settings=_FAST | {"model": "fast_small_wide", "epochs": 8},
    )
)

PRESETS.add("fashion-large")(
    Preset(
        claim="test accuracy 94.70 ± 0.09 % (n = 4) in 43 minutes on one thread",
        settings=_FAST
        | {
            "model": "fast_small_large",
            "epochs": 36,
            "shift": 0.036,
            "erase": 0.25,
            "tta": "flip_shift",
        },
    )
)

# No data: the user gives a folder. Settings from the literature;
# `benchmarks/photographs.py` measures the effect of each.
PRESETS.add("photographs")(
    Preset(
        claim="validation accuracy 80.0 % (n = 410) on 2,624 images of solar cells, "
        "one seed; the default settings reach the same, 79.0 % without progressive "
        "resizing",
        settings={
            "model": "antialiased_resnet18_slim",
            "image_size": 96,
            "epochs": 30,
            "batch_size": 32,
            "optimizer": "adamw",
            "lr": 2e-3,
            "weight_decay": 0.05,
            "schedule": "cosine",
            "label_smoothing": 0.1,
            "progressive_resize": 0.5,
            "augment": "flip",
            "scale": 0.15,
            "shift": 0.0625,
            "color": 0.1,
            "mixup": 0.2,
        },
    )
)

# No flip: it changes letters and digits.
PRESETS.add("small-images")(
    Preset(
        claim="400 letters of 32 pixels: test accuracy 96.1 % (n = 102); 1,000 images "
        "of Fashion-MNIST: 84.0 % (n = 238); one seed each",
        settings={
            "model": "fast_small",
            "epochs": 40,
            "batch_size": 32,
            "optimizer": "muon",
            "lr": 0.02,
            "weight_decay": 0.05,
            "shift": 0.07,
        },
    )
)

PRESETS.add("fashion-best")(
    Preset(
        claim="test accuracy 93.69 ± 0.16 % over 3 seeds",
        settings={
            "data": "fashion-mnist",
            "model": "cifar_resnet20",
            "epochs": 9,
            "batch_size": 128,
            "optimizer": "sgd",
            "lr": 0.2,
            "weight_decay": 5e-4,
            "augment": "flip",
            "val_fraction": 0.05,
        },
    )
)

PRESETS.add("fashion-gray")(
    Preset(
        claim="test accuracy 91.97 ± 0.23 % over 3 seeds",
        settings={
            "data": "fashion-mnist",
            "model": "tutorial_gray",
            "epochs": 10,
            "batch_size": 128,
            "val_fraction": 0.1,
        },
    )
)
