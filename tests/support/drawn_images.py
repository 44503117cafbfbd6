"""Drawn images of known classes: objects on photographs, textures, letters, figures.

Each function draws one image of a class; `difficulty` is 0 (easy) to 1 (hard).
"""

from __future__ import annotations

import functools
import math
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from sklearn.datasets import load_sample_images

# Symbols of the font DejaVu Sans that look like objects.
OBJECTS = {
    "umbrella": "☂",
    "telephone": "☎",
    "airplane": "✈",
    "snowman": "☃",
    "scissors": "✂",
    "horse": "♞",
    "flower": "✿",
    "anchor": "⚓",
}
TEXTURES = ("stripes", "bricks", "dots", "clouds", "rings", "checks", "cracks", "waves")
LETTERS = "AEGHKMRSTWBCDFIJLNOPQUVXYZ"
FIGURES = ("circle", "square", "triangle", "star", "cross", "ring", "hexagon", "arrow")

FONTS = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono"),
    *("DejaVuSerif", "DejaVuSerif-BoldItalic", "STIXGeneral", "STIXGeneralBol"),
    *("STIXGeneralItalic", "cmr10", "cmb10", "cmss10", "cmtt10"),
)


def draw_photograph(
    name: str, rng: np.random.Generator, difficulty: float
) -> Image.Image:
    """Draw an object at a random place in a random crop of a photograph."""
    image = _background(rng)
    side = min(image.size) * rng.uniform(
        0.75 - 0.45 * difficulty, 0.9 - 0.3 * difficulty
    )
    angle = rng.uniform(-1, 1) * 50 * difficulty
    mask = _object_mask(name).rotate(angle, Image.Resampling.BILINEAR, expand=True)
    stretch = 2 ** (rng.uniform(-0.5, 0.5) * difficulty)
    mask = mask.resize((int(side * stretch), int(side / stretch)))
    if rng.random() < 0.5:
        mask = mask.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    fill = _gradient(mask.size, rng.integers(0, 256, (2, 3)), rng)
    place = tuple(
        int(rng.uniform(0, max(1, a - b)))
        for a, b in zip(image.size, mask.size, strict=True)
    )
    shadow = mask.filter(ImageFilter.BoxBlur(4)).point(lambda v: v // 2)
    image.paste((0, 0, 0), (place[0] + 4, place[1] + 5), shadow)
    opacity = 1 - 0.35 * difficulty * rng.random()
    image.paste(fill, place, mask.point(lambda v: int(v * opacity)))
    return _with_noise(image, rng, 12 * difficulty)


@functools.cache
def _photographs() -> tuple[Image.Image, ...]:
    """Return the photographs of scikit-learn (two) and matplotlib (one portrait)."""
    sample = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    images = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    with Image.open(sample) as portrait:
        return (*images, portrait.convert("RGB"))


def _background(rng: np.random.Generator) -> Image.Image:
    """Return a random crop of a photograph, landscape, square or portrait."""
    photograph = _photographs()[rng.integers(3)]
    long = int(rng.integers(200, 321))
    short = int(long * (0.66, 0.75, 1.0)[rng.integers(3)])
    size = (long, short) if rng.random() < 0.5 else (short, long)
    zoom = rng.uniform(0.6, 1.3)
    width, height = (int(n * zoom) for n in size)
    left = rng.integers(0, max(1, photograph.width - width))
    top = rng.integers(0, max(1, photograph.height - height))
    box = (int(left), int(top), int(left + width), int(top + height))
    image = photograph.resize(
        size, Image.Resampling.BILINEAR, box=_inside(box, photograph)
    )
    gain = rng.uniform(0.6, 1.4, 3)
    image = image.point([min(255, int(v * g)) for g in gain for v in range(256)])
    return image if rng.random() < 0.5 else image.transpose(Image.Transpose(0))


def _inside(box: tuple[int, ...], image: Image.Image) -> tuple[int, int, int, int]:
    return box[0], box[1], min(box[2], image.width), min(box[3], image.height)


@functools.cache
def _object_mask(name: str) -> Image.Image:
    """Return the silhouette of an object, 200 pixels high."""
    mask = Image.new("L", (400, 400))
    ImageDraw.Draw(mask).text(
        (200, 200), OBJECTS[name], 255, _font("DejaVuSans", 240), anchor="mm"
    )
    return mask.crop(mask.getbbox())


@functools.cache
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return ImageFont.truetype(str(folder / f"{name}.ttf"), size)


def _gradient(
    size: tuple[int, int], colors: np.ndarray, rng: np.random.Generator
) -> Image.Image:
    """Return a change from one color to the other in a random direction."""
    x, y = np.linspace(-1, 1, size[0]), np.linspace(-1, 1, size[1])[:, None]
    angle = rng.uniform(0, 2 * math.pi)
    share = (0.5 + 0.35 * (x * math.cos(angle) + y * math.sin(angle)))[..., None]
    return _image(colors[0] * share + colors[1] * (1 - share))


def _with_noise(
    image: Image.Image, rng: np.random.Generator, deviation: float
) -> Image.Image:
    pixels = np.asarray(image, np.float32)
    noise = rng.standard_normal(pixels.shape, np.float32)
    return _image(pixels + deviation * noise)


def _image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def draw_texture(name: str, rng: np.random.Generator, difficulty: float) -> Image.Image:
    """Draw a surface in two colors, lit from one side, with noise."""
    side = 96
    y, x = np.mgrid[:side, :side].astype(np.float32)
    angle = rng.uniform(-1, 1) * math.pi * (0.1 + 0.4 * difficulty)
    u = x * math.cos(angle) + y * math.sin(angle) + rng.uniform(0, 99)
    v = y * math.cos(angle) - x * math.sin(angle) + rng.uniform(0, 99)
    period = 12 * 2 ** (rng.uniform(-1, 1) * (0.4 + 0.8 * difficulty))
    level = _PATTERNS[name](u / period, v / period, rng)[..., None]
    dark, light = _two_colors(rng, 160 - 110 * difficulty)
    light_from = rng.uniform(0, 2 * math.pi)
    slope = (x * math.cos(light_from) + y * math.sin(light_from)) / side
    shade = 1 + (0.3 + 0.6 * difficulty) * (slope - slope.mean())[..., None]
    pixels = (dark + (light - dark) * level) * shade
    noise = rng.standard_normal(pixels.shape, np.float32)
    return _image(pixels + (4 + 36 * difficulty) * noise)


def _two_colors(
    rng: np.random.Generator, contrast: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return two colors whose mean levels differ by at least `contrast`."""
    middle, step = rng.uniform(80, 176, 3), rng.uniform(0.8, 1.2, 3) * contrast / 2
    sign = 1 if rng.random() < 0.5 else -1
    return middle - sign * step, middle + sign * step


def _stripes(u: np.ndarray, v: np.ndarray, _rng: np.random.Generator) -> np.ndarray:
    return (np.sin(2 * math.pi * u) > 0).astype(np.float32)


def _waves(u: np.ndarray, v: np.ndarray, _rng: np.random.Generator) -> np.ndarray:
    return (np.sin(2 * math.pi * (u + 0.4 * np.sin(2 * v))) > 0).astype(np.float32)


def _bricks(u: np.ndarray, v: np.ndarray, _rng: np.random.Generator) -> np.ndarray:
    across = (u / 2 + 0.5 * (np.floor(v) % 2)) % 1
    return ((across > 0.1) & (v % 1 > 0.2)).astype(np.float32)


def _dots(u: np.ndarray, v: np.ndarray, _rng: np.random.Generator) -> np.ndarray:
    return (np.hypot(u % 1 - 0.5, v % 1 - 0.5) < 0.32).astype(np.float32)


def _checks(u: np.ndarray, v: np.ndarray, _rng: np.random.Generator) -> np.ndarray:
    return ((np.floor(u) + np.floor(v)) % 2).astype(np.float32)


def _rings(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    center = u.mean() + rng.uniform(-3, 3), v.mean() + rng.uniform(-3, 3)
    radius = np.hypot(u - center[0], v - center[1])
    return (np.sin(2 * math.pi * radius) > 0).astype(np.float32)


def _clouds(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    cells = max(2, round(np.ptp(u)))
    small = _image(rng.uniform(0, 255, (cells, cells)))
    smooth = small.resize(u.shape[::-1], Image.Resampling.BICUBIC)
    return np.asarray(smooth, np.float32) / 255


def _cracks(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    count = max(4, round(np.ptp(u) * np.ptp(v) / 4))
    centers = rng.uniform((u.min(), v.min()), (u.max(), v.max()), (count, 2))
    distance = np.hypot(u[..., None] - centers[:, 0], v[..., None] - centers[:, 1])
    nearest = np.partition(distance, 1, -1)
    return (nearest[..., 1] - nearest[..., 0] > 0.2).astype(np.float32)


_PATTERNS = {
    "stripes": _stripes,
    "bricks": _bricks,
    "dots": _dots,
    "clouds": _clouds,
    "rings": _rings,
    "checks": _checks,
    "cracks": _cracks,
    "waves": _waves,
}


def draw_glyph(name: str, rng: np.random.Generator, difficulty: float) -> Image.Image:
    """Draw a letter, white on black or black on white, in a random font."""
    fonts = FONTS[: 4 + round(9 * difficulty)]
    font = _font(fonts[rng.integers(len(fonts))], int(rng.integers(36, 53)))
    image = Image.new("L", (64, 64))
    place = 32 + rng.uniform(-12, 12, 2) * difficulty
    ImageDraw.Draw(image).text(tuple(place), name, 255, font, anchor="mm")
    angle = rng.uniform(-1, 1) * (5 + 30 * difficulty)
    image = image.rotate(angle, Image.Resampling.BILINEAR)
    ink = np.asarray(image.resize((32, 32), Image.Resampling.BOX), np.float32) / 255
    low, high = (
        40 + 50 * difficulty * rng.random(),
        230 - 80 * difficulty * rng.random(),
    )
    level = low + (high - low) * (ink if rng.random() < 0.5 else 1 - ink)
    noise = rng.standard_normal(level.shape, np.float32)
    return _image(level + (5 + 45 * difficulty) * noise)


def draw_shape(name: str, rng: np.random.Generator, difficulty: float) -> Image.Image:
    """Draw a figure in a random color, place and size, on a noisy ground."""
    side = 128  # twice the size of the image, for smooth edges
    dark, light = _two_colors(rng, 150 - 90 * difficulty)
    image = Image.new("RGB", (side, side), _color(dark))
    radius = side * rng.uniform(0.3 - 0.17 * difficulty, 0.36)
    center = side / 2 + rng.uniform(-1, 1, 2) * (side / 2 - radius) * (
        0.2 + 0.8 * difficulty
    )
    angle = rng.uniform(-1, 1) * math.pi * difficulty
    draw = ImageDraw.Draw(image)
    if name in ("circle", "ring"):
        box = [*(center - radius * 0.85), *(center + radius * 0.85)]
        width = int(radius * 0.35) if name == "ring" else None
        fill = None if width else _color(light)
        draw.ellipse(box, fill, _color(light), width or 1)
    else:
        draw.polygon(
            [tuple(p) for p in _corners(name, center, radius, angle)], _color(light)
        )
    small = image.resize((64, 64), Image.Resampling.BOX)
    return _with_noise(small, rng, 5 + 55 * difficulty)


def _color(levels: np.ndarray) -> tuple[int, ...]:
    return tuple(int(v) for v in levels.clip(0, 255))


def _corners(name: str, center: np.ndarray, radius: float, angle: float) -> np.ndarray:
    """Return the corners of a figure, turned by an angle, (corners, 2)."""
    if name in _OUTLINES:
        points = np.array(_OUTLINES[name]) @ np.array([1, 1j])
    else:
        count, inner = {
            "square": (4, 1.0),
            "triangle": (3, 1.0),
            "hexagon": (6, 1.0),
            "star": (10, 0.42),
        }[name]
        turns = np.arange(count) / count - 0.25 + (0.125 if name == "square" else 0)
        points = np.exp(2j * math.pi * turns) * np.where(np.arange(count) % 2, inner, 1)
    points = points * np.exp(1j * angle) * radius
    return center + np.stack([points.real, points.imag], -1)


_W = 0.3
_OUTLINES = {
    "cross": [
        *[(-_W, -0.95), (_W, -0.95), (_W, -_W), (0.95, -_W), (0.95, _W), (_W, _W)],
        *[(_W, 0.95), (-_W, 0.95), (-_W, _W), (-0.95, _W), (-0.95, -_W), (-_W, -_W)],
    ],
    "arrow": [
        *[(-1, -0.2), (0.1, -0.2), (0.1, -0.7), (1, 0)],
        *[(0.1, 0.7), (0.1, 0.2), (-1, 0.2)],
    ],
}
