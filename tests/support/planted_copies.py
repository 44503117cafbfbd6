"""Images with planted near-duplicates, as they occur in collected photographs."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_sample_images

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def clouds(seed: int, side: int = 120, channels: int = 3) -> np.ndarray:
    """An image of its own: noise of every size, like bark, water or cloth."""
    chance = np.random.default_rng([7, seed])
    total = np.zeros((side, side, channels))
    for cells in (3, 6, 12, 24, 48):
        small = chance.normal(size=(cells, cells, channels))
        small += chance.normal(size=(cells, cells, 1))
        planes = [_enlarged(small[..., c], side) for c in range(channels)]
        total += np.stack(planes, -1) / cells**0.5
    total = (total - total.mean()) / total.std()
    return (128 + 45 * total).clip(0, 255).astype(np.uint8)


def _enlarged(plane: np.ndarray, side: int) -> np.ndarray:
    image = Image.fromarray(plane.astype(np.float32))
    return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC))


def photographs(side: int = 128) -> list[np.ndarray]:
    """Pieces of scikit-learn's two photographs, a temple and a flower."""
    pieces = [
        photo[top : top + side, left : left + side]
        for photo in load_sample_images().images
        for top in range(0, photo.shape[0] - side + 1, side)
        for left in range(0, photo.shape[1] - side + 1, side)
    ]
    return [piece for piece in pieces if _detailed(piece)]


def _detailed(image: np.ndarray) -> bool:
    """Sky and blurred ground hold nothing that tells two images apart."""
    steps = np.abs(np.diff(image.astype(float).mean(-1), axis=1))
    return bool((steps > 4).mean() > 0.1)


def cells(seed: int, side: int = 150) -> np.ndarray:
    """One of many that look alike: a machine part, always lit and framed the same."""
    rows, columns = np.mgrid[:side, :side] / side
    part = 150 + 30 * rows - 20 * (columns - 0.5) ** 2
    part[np.abs(rows - 0.3) < 0.02] = 60
    part[np.abs(rows - 0.7) < 0.02] = 60
    part[
        (np.minimum(rows, 1 - rows) < 0.03) | (np.minimum(columns, 1 - columns) < 0.03)
    ] = 40
    own = clouds(seed, side, 1)[..., 0].astype(float) - 128
    return (part + 0.06 * own).clip(0, 255).astype(np.uint8)[..., None]


def squeezed(quality: int) -> Change:
    def change(image: np.ndarray, chance: np.random.Generator) -> np.ndarray:
        file = io.BytesIO()
        _image(image).save(file, "JPEG", quality=quality)
        return _pixels(Image.open(file))

    return change


def resized(ratio: float) -> Change:
    ways = (
        Image.Resampling.BICUBIC,
        Image.Resampling.BILINEAR,
        Image.Resampling.LANCZOS,
    )

    def change(image: np.ndarray, chance: np.random.Generator) -> np.ndarray:
        size = [max(1, round(n * ratio)) for n in image.shape[1::-1]]
        return _pixels(_image(image).resize(size, ways[chance.integers(3)]))

    return change


def cropped(image: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """Take 3 % of both sides away, more or less of it at either end."""
    height, width = image.shape[:2]
    top, left = (chance.uniform(0, 0.03, 2) * (height, width)).round().astype(int)
    down, right = round(0.03 * height) - top, round(0.03 * width) - left
    return image[top : height - max(0, down), left : width - max(0, right)]


def flipped(image: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    return image[:, ::-1] if chance.random() < 0.7 else image[::-1]


def lit(gain: float) -> Change:
    def change(image: np.ndarray, chance: np.random.Generator) -> np.ndarray:
        return (image * gain).round().clip(0, 255).astype(np.uint8)

    return change


def marked(where: str) -> Change:
    """Write on it: a signature in the corner, or a word across the middle."""

    def change(image: np.ndarray, chance: np.random.Generator) -> np.ndarray:
        height, width = image.shape[:2]
        level = 255 if chance.random() < 0.5 else 0
        ground = _image(image).convert("RGBA")
        layer = Image.new("RGBA", ground.size, (0, 0, 0, 0))
        size, place, ink, word = {
            "corner": (height // 14, (0.6, 0.9), 200, "(c) photo"),
            "middle": (height // 8, (0.15, 0.45), 110, "SAMPLE"),
        }[where]
        font = ImageFont.load_default(max(6, size))
        at = (place[0] * width, place[1] * height)
        ImageDraw.Draw(layer).text(at, word, fill=(level,) * 3 + (ink,), font=font)
        out = Image.alpha_composite(ground, layer)
        return _pixels(out.convert("L" if image.shape[-1] == 1 else "RGB"))

    return change


CHANGES: dict[str, Change] = {
    "q50": squeezed(50),
    "q75": squeezed(75),
    "q95": squeezed(95),
    "half": resized(0.5),
    "smaller": resized(0.8),
    "larger": resized(1.5),
    "double": resized(2.0),
    "crop": cropped,
    "flip": flipped,
    "darker": lit(0.9),
    "brighter": lit(1.1),
    "corner": marked("corner"),
    "middle": marked("middle"),
}


def _image(image: np.ndarray) -> Image.Image:
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def _pixels(image: Image.Image) -> np.ndarray:
    pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels
