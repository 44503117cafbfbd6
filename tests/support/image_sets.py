"""Folders of generated images, one folder per class, for tests and benchmarks.

`photographs`, `textures`, `glyphs` and `shapes` write images of known difficulty.
`random_folder` also draws the problem of the data: nothing, overfitting, labels that
do not depend on the images, or too few images. Everything follows from the seed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from support.drawn_images import (
    FIGURES,
    LETTERS,
    OBJECTS,
    TEXTURES,
    draw_glyph,
    draw_photograph,
    draw_shape,
    draw_texture,
)

Draw = Callable[[str, np.random.Generator, float], Image.Image]


def photographs(
    root: Path,
    *,
    classes: int = 4,
    images_per_class: int = 75,
    seed: int = 0,
    label_noise: float = 0.0,
    difficulty: float = 0.35,
) -> Path:
    """Write JPEG photographs of different sizes that contain one object each.

    The photographs are crops of those in scikit-learn and matplotlib. A pretrained
    network recognizes most objects; 300 images are too few to learn them from scratch.
    """
    names = tuple(OBJECTS)[:classes]
    labels = _labels(names, images_per_class, seed, label_noise)
    return _write(root, ".jpg", draw_photograph, labels, seed, difficulty)


def textures(
    root: Path,
    *,
    classes: int = 5,
    images_per_class: int = 60,
    seed: int = 0,
    label_noise: float = 0.0,
    difficulty: float = 0.6,
) -> Path:
    """Write PNG images (96×96, color) of surfaces: scale, color and light differ."""
    labels = _labels(TEXTURES[:classes], images_per_class, seed, label_noise)
    return _write(root, ".png", draw_texture, labels, seed, difficulty)


def glyphs(
    root: Path,
    *,
    classes: int = 10,
    images_per_class: int = 40,
    seed: int = 0,
    label_noise: float = 0.0,
    difficulty: float = 0.5,
) -> Path:
    """Write PNG images (32×32, gray) of letters in several fonts, turned and noisy."""
    labels = _labels(tuple(LETTERS[:classes]), images_per_class, seed, label_noise)
    return _write(root, ".png", draw_glyph, labels, seed, difficulty)


def shapes(
    root: Path,
    *,
    classes: int = 4,
    images_per_class: int = 75,
    seed: int = 0,
    label_noise: float = 0.0,
    difficulty: float = 0.5,
) -> Path:
    """Write PNG images (64×64, color) of geometric figures with noise."""
    labels = _labels(FIGURES[:classes], images_per_class, seed, label_noise)
    return _write(root, ".png", draw_shape, labels, seed, difficulty)


IMAGE_SETS: dict[str, Callable[..., Path]] = {
    f.__name__: f for f in (photographs, textures, glyphs, shapes)
}

KINDS = ("above baseline", "overfitting", "not above baseline", "too few images")


@dataclass(frozen=True, kw_only=True)
class RandomFolder:
    """Image folder with a known problem, and the training that shows the problem."""

    path: Path
    kind: str  # one of `KINDS`
    image_set: str  # name of the function that drew the images
    arguments: dict[str, Any]  # of that function
    settings: dict[str, Any] = field(default_factory=dict)  # arguments of `train`


def random_folder(root: Path, seed: int) -> RandomFolder:
    """Write a folder of a random kind; each block of four seeds has all four kinds."""
    block, place = divmod(seed, len(KINDS))
    kind = KINDS[np.random.default_rng([11, block]).permutation(len(KINDS))[place]]
    rng = np.random.default_rng([12, seed])
    image_set, arguments, settings = _PROBLEMS[kind](rng)
    path = root / f"{image_set}{seed}"
    IMAGE_SETS[image_set](path, seed=seed, **arguments)
    return RandomFolder(
        path=path,
        kind=kind,
        image_set=image_set,
        arguments=arguments,
        settings=settings,
    )


Problem = tuple[str, dict[str, Any], dict[str, Any]]


def _integer(rng: np.random.Generator, low: int, high: int) -> int:
    return int(rng.integers(low, high + 1))


def _good(rng: np.random.Generator) -> Problem:
    """Easy images, and enough of them."""
    image_set = ("textures", "shapes", "glyphs")[rng.integers(3)]
    arguments = {
        "classes": _integer(rng, 2, 4),
        "images_per_class": _integer(rng, 100, 140),
        "difficulty": float(rng.uniform(0, 0.1)),
    }
    return image_set, arguments, {"model": "fast_small", "epochs": 20}


# Difficulties at which a small network is far better than chance, yet overfits.
_HARD = {"textures": (0.1, 0.35), "shapes": (0.0, 0.2), "glyphs": (0.35, 0.5)}


def _overfitting(rng: np.random.Generator) -> Problem:
    """Hard images with wrong labels, trained for long by a network of many weights."""
    image_set = ("textures", "shapes", "glyphs")[rng.integers(3)]
    arguments = {
        "classes": _integer(rng, 3, 4),
        "images_per_class": _integer(rng, 75, 95),
        "difficulty": float(rng.uniform(*_HARD[image_set])),
        "label_noise": float(rng.uniform(0.2, 0.25)),
    }
    return image_set, arguments, {"model": "fast_small", "epochs": 30}


def _at_chance(rng: np.random.Generator) -> Problem:
    """Labels that do not depend on the images."""
    image_set = ("textures", "shapes", "glyphs")[rng.integers(3)]
    arguments = {
        "classes": _integer(rng, 2, 4),
        "images_per_class": _integer(rng, 60, 100),
        "difficulty": float(rng.uniform(0, 1)),
        "label_noise": 1.0,
    }
    return image_set, arguments, {"model": "fast_small", "epochs": 20}


def _too_few(rng: np.random.Generator) -> Problem:
    """Three to eight images in each class."""
    image_set = tuple(IMAGE_SETS)[rng.integers(4)]
    arguments = {
        "classes": _integer(rng, 2, 4),
        "images_per_class": _integer(rng, 3, 8),
        "difficulty": float(rng.uniform(0, 1)),
    }
    return image_set, arguments, {"model": "fast_small", "epochs": 10}


_PROBLEMS: dict[str, Callable[[np.random.Generator], Problem]] = dict(
    zip(KINDS, (_good, _overfitting, _at_chance, _too_few), strict=True)
)


def _labels(
    names: tuple[str, ...], count: int, seed: int, noise: float
) -> list[tuple[str, str]]:
    """Return (true class, label) of each image; every label occurs `count` times.

    `noise` is the fraction of images whose labels are shuffled among themselves: with
    1, the labels do not depend on the images.
    """
    rng = np.random.default_rng([3, seed])
    truth = rng.permutation(np.repeat(np.arange(len(names)), count))
    label = truth.copy()
    noisy = rng.permutation(len(truth))[: round(noise * len(truth))]
    label[noisy] = truth[rng.permutation(noisy)]
    return [(names[t], names[k]) for t, k in zip(truth, label, strict=True)]


def _write(
    root: Path,
    suffix: str,
    draw: Draw,
    labels: list[tuple[str, str]],
    seed: int,
    difficulty: float,
) -> Path:
    """Draw each image and save it in the folder of its label; return the root."""
    for i, (truth, label) in enumerate(labels):
        folder = root / label
        folder.mkdir(parents=True, exist_ok=True)
        image = draw(truth, np.random.default_rng([5, seed, i]), difficulty)
        image.save(folder / f"{i:04d}{suffix}", **_QUALITY[suffix])
    return root


_QUALITY: dict[str, dict[str, int]] = {
    ".jpg": {"quality": 90},
    ".png": {"compress_level": 3},
}
