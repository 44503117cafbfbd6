"""Small image sets of different kinds, on which the default of `striate train` runs.

Four sets are drawn by the tests' generators. The others are in packages, which are read
in place: `apt-get install dataset-fashion-mnist openclipart-png openarena-081-textures
fonts-noto-color-emoji unicode-data` and `pip install --no-deps elpv-dataset`. No image
of a package becomes part of this project. ELPV is CC BY-NC-SA.
"""

from __future__ import annotations

import io
import re
import sys
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from elpv_cells import cells
from idx import fashion

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.image_sets import IMAGE_SETS

OPENCLIPART = Path("/usr/share/openclipart/png")
OPENARENA = Path("/usr/share/games/openarena/baseoa/pak4-textures.pk3")
EMOJI_FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
EMOJI_LIST = Path("/usr/share/unicode/emoji/emoji-test.txt")

EMOJI_GROUPS = (
    *("Animals & Nature", "Food & Drink", "Travel & Places", "Objects"),
    "Smileys & Emotion",
)
CLOTHES = (
    *("t-shirt", "trousers", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "boot"),
)
SURFACES = {
    "wall": ("base_wall", "base_wall2"),
    "floor": ("base_floor", "gothic_floor"),
    "block": ("gothic_block", "gothic_wall", "cosmo_block"),
    "trim": ("gothic_trim", "base_trim"),
    "light": ("base_light", "gothic_light", "cosmo_light"),
    "sky": ("skies",),
}


def _drawn(name: str) -> Callable[[Path], str]:
    def make(folder: Path) -> str:
        return str(IMAGE_SETS[name](folder, seed=0))

    return make


def _digits(folder: Path) -> str:
    """Return the name that striate knows: scikit-learn's 1,797 gray digits, 8×8."""
    return "digits"


def _fashion(per_class: int) -> Callable[[Path], str]:
    """Return a function that writes the same number of training images per class."""

    def make(folder: Path) -> str:
        (images, labels), _ = fashion()
        rng = np.random.default_rng(0)
        for k, name in enumerate(CLOTHES):
            members = np.flatnonzero(labels == k)
            for i in sorted(rng.choice(members, per_class, replace=False)):
                _save(Image.fromarray(images[i].astype(np.uint8)), folder, name, i)
        return str(folder)

    return make


def _elpv(folder: Path) -> str:
    """Write a table of 600 solar cells: 300 defect, 300 sound."""
    rng = np.random.default_rng(0)
    solar_cells = cells()
    lines = ["image_path,label"]
    for label in ("defect", "sound"):
        members = [cell for cell in solar_cells if cell.label == label]
        numbers = sorted(rng.choice(len(members), 300, replace=False))
        lines += [f"{members[i].path},{label}" for i in numbers]
    folder.mkdir(parents=True)
    table = folder / "elpv600.csv"
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(table)


def _clipart(folder: Path) -> str:
    """Write 75 drawings of each of four subjects, at most 320 pixels a side."""
    rng = np.random.default_rng(0)
    for name in ("animals", "food", "people", "transportation"):
        files = sorted((OPENCLIPART / name).rglob("*.png"))
        _need(files, "openclipart-png")
        for i in sorted(rng.choice(len(files), 75, replace=False)):
            with Image.open(files[i]) as image:
                image = image.convert("RGBA")
            image.thumbnail((320, 320))
            _save(image, folder, name, i)
    return str(folder)


def _surfaces(folder: Path) -> str:
    """Write textures of a game, by what they cover, at most 256 pixels a side."""
    _need([OPENARENA] * OPENARENA.exists(), "openarena-081-textures")
    with zipfile.ZipFile(OPENARENA) as archive:
        for name, places in SURFACES.items():
            files = [
                file
                for file in sorted(archive.namelist())
                if file.endswith((".jpg", ".tga"))
                and file.split("/")[1] in places
                and not re.search("blend|glow|mask|fx", file)
            ]
            for i, file in enumerate(files[:60]):
                with Image.open(io.BytesIO(archive.read(file))) as image:
                    image.thumbnail((256, 256))
                    _save(image.convert("RGB"), folder, name, i)
    return str(folder)


def _emoji(folder: Path) -> str:
    """Write the emoji of five groups of Unicode, at most 80 each, 136×128 pixels."""
    _need([f for f in (EMOJI_FONT,) if f.exists()], "fonts-noto-color-emoji")
    font = ImageFont.truetype(str(EMOJI_FONT), 109)  # the font's only size
    rng = np.random.default_rng(0)
    for name, characters in _emoji_groups().items():
        count = min(80, len(characters))
        for i in sorted(rng.choice(len(characters), count, replace=False)):
            image = Image.new("RGB", (136, 128), "white")
            draw = ImageDraw.Draw(image)
            draw.text((0, 0), characters[i], font=font, embedded_color=True)
            _save(image, folder, name, i)
    return str(folder)


def _emoji_groups() -> dict[str, list[str]]:
    """Return the emoji of one character, by group."""
    groups: dict[str, list[str]] = defaultdict(list)
    group = ""
    for line in EMOJI_LIST.read_text(encoding="utf-8").splitlines():
        if line.startswith("# group: "):
            group = line.removeprefix("# group: ")
        points, _, rest = line.partition(";")
        single = len(points.split()) == 1 and rest.strip().startswith("fully-qualified")
        if group in EMOJI_GROUPS and single:
            groups[group.split()[0].lower()].append(chr(int(points, 16)))
    return groups


def _save(image: Image.Image, folder: Path, name: str, i: int) -> None:
    (folder / name).mkdir(parents=True, exist_ok=True)
    image.save(folder / name / f"{i:05d}.png", compress_level=1)


def _need(files: Iterable[Path], package: str) -> None:
    if not list(files):
        sys.exit(f"install {package} first: apt-get install {package}")


# Each function takes a folder to write and returns DATA for `striate train DATA`.
SMALL_SETS: dict[str, Callable[[Path], str]] = {
    **{name: _drawn(name) for name in IMAGE_SETS},
    "digits": _digits,
    "fashion-1000": _fashion(100),
    "fashion-300": _fashion(30),
    "elpv-600": _elpv,
    "clipart": _clipart,
    "surfaces": _surfaces,
    "emoji": _emoji,
}
