"""Folders of drawings, one folder per class: letters, flags drawn by code, emoji.

In such images, large areas are flat, all edges are sharp, and two classes may differ
in one stroke. `plant_faults` adds the faults that a data check must still find.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from support.drawn_images import FONTS, _font
from support.planted_copies import CHANGES

# E and F, I and l, O and Q differ in a stroke; b and d, p and q in a flip.
CHARACTERS = "ABCDEFGIKLMNOPQRSTXbdpqlhncu"
# Of the fonts, DejaVu Sans Mono has the same letters as DejaVu Sans.
DESIGNS = tuple(name for name in FONTS if name != "DejaVuSansMono")[:10]

COLORS = (
    *("#ce1126", "#ffffff", "#006847", "#0052b4", "#fcd116", "#000000", "#ff8200"),
    "#6c207e",
)
# Number of colors of each layout.
LAYOUTS = {
    **{"vertical": 3, "horizontal": 3, "disk": 2, "cross": 3, "canton": 4},
    "triangle": 3,
}

EMOJI_FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
EMOJI = {
    "faces": range(0x1F600, 0x1F637, 2),
    "animals": range(0x1F400, 0x1F43F, 2),
    "food": range(0x1F32D, 0x1F37F, 2),
    "vehicles": range(0x1F680, 0x1F6C0, 2),
}


def letters(root: Path) -> Path:
    """Write black letters on white, of ten fonts, light and bold (64×64, gray)."""
    for character in CHARACTERS:
        folder = root / f"{ord(character):x}"
        folder.mkdir(parents=True)
        for name in DESIGNS:
            image = Image.new("L", (64, 64), 255)
            font = _font(name, 46)
            ImageDraw.Draw(image).text((32, 46), character, 0, font, anchor="ms")
            image.save(folder / f"{name}.png")
    return root


def flags(root: Path, each: int = 25) -> Path:
    """Write flags of six layouts (144×96), each in colors of its own."""
    rng = np.random.default_rng(0)
    for layout, used in LAYOUTS.items():
        (root / layout).mkdir(parents=True)
        palettes = list(combinations(COLORS, used))
        for number, i in enumerate(rng.permutation(len(palettes))[:each]):
            image = _flag(layout, rng.permutation(palettes[i]).tolist(), rng)
            image.save(root / layout / f"{number:02d}.png")
    return root


def _flag(layout: str, colors: list[str], rng: np.random.Generator) -> Image.Image:
    width, height = 144, 96
    image = Image.new("RGB", (width, height), colors[0])
    draw = ImageDraw.Draw(image)
    place, size = (int(rng.integers(*limits)) for limits in ((40, 105), (10, 30)))
    if layout == "vertical":
        draw.rectangle([width // 3, 0, width, height], colors[1])
        draw.rectangle([2 * width // 3, 0, width, height], colors[2])
    elif layout == "horizontal":
        draw.rectangle([0, height // 3, width, height], colors[1])
        draw.rectangle([0, 2 * height // 3, width, height], colors[2])
    elif layout == "disk":
        draw.ellipse([place - size, 48 - size, place + size, 48 + size], colors[1])
    elif layout == "cross":
        for wide, color in ((size // 2 + 4, colors[1]), (size // 2, colors[2])):
            draw.rectangle([place - wide, 0, place + wide, height], color)
            draw.rectangle([0, 48 - wide, width, 48 + wide], color)
    elif layout == "canton":
        for top in range(12, height, 24):
            draw.rectangle([0, top, width, top + 11], colors[1])
        draw.rectangle([0, 0, place, 47], colors[2])
        draw.ellipse([20 - size // 2, 9, 20 + size // 2, 9 + size], colors[3])
    else:
        draw.rectangle([0, 48, width, height], colors[1])
        draw.polygon([(0, 0), (place, 48), (0, height)], colors[2])
    return image


def emoji(root: Path) -> Path:
    """Write the emoji of Noto (136×136, color); skip the test without the font."""
    if not EMOJI_FONT.is_file():
        pytest.skip("the font Noto Color Emoji is not installed")
    font = ImageFont.truetype(str(EMOJI_FONT), 109)
    for name, numbers in EMOJI.items():
        (root / name).mkdir(parents=True)
        for number in numbers:
            image = Image.new("RGB", (136, 136), "white")
            draw = ImageDraw.Draw(image)
            draw.text((0, 0), chr(number), font=font, embedded_color=True)
            image.save(root / name / f"{number:x}.png")
    return root


def plant_faults(root: Path) -> dict[str, set[str]]:
    """Add copies and a blurred image; return the paths of each finding's images."""
    rng, files = np.random.default_rng(1), sorted(root.rglob("*.png"))
    folders = sorted({file.parent for file in files})
    chosen = iter([files[i] for i in rng.permutation(len(files))])
    planted: dict[str, set[str]] = {"near-duplicates": set()}
    for name in ("q75", "double", "darker"):
        planted["near-duplicates"] |= set(_copy(next(chosen), name, rng))
    original = next(chosen)
    other = folders[folders.index(original.parent) - 3]
    planted["near-two-labels"] = set(_copy(original, "q75", rng, other))
    soft = next(chosen)
    with Image.open(soft) as image:
        blurred = image.filter(ImageFilter.GaussianBlur(4))
    blurred.save(soft)
    planted["blurred"] = {_name(soft)}
    return planted


def _copy(
    file: Path, change: str, rng: np.random.Generator, folder: Path | None = None
) -> Iterator[str]:
    """Write a changed copy of an image; yield the names of both."""
    with Image.open(file) as image:
        pixels = np.asarray(image)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    changed = CHANGES[change](pixels, rng)
    changed = changed[..., 0] if changed.shape[-1] == 1 else changed
    copy = (folder or file.parent) / f"copy-of-{file.stem}.png"
    Image.fromarray(changed).save(copy)
    yield from (_name(file), _name(copy))


def _name(file: Path) -> str:
    return f"{file.parent.name}/{file.name}"
