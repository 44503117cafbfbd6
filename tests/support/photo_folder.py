"""A small folder of JPEG files of several sizes, some with an EXIF orientation."""

from pathlib import Path

import numpy as np
from PIL import Image

TURNED = 0x0112, 6  # EXIF: the camera was held upright


def write_photos(folder: Path, count: int = 40) -> Path:
    """Two classes: bright centers and bright corners, with noise."""
    draw = np.random.default_rng(0)
    for i in range(count):
        height, width = draw.integers(18, 70, 2)
        pixels = draw.integers(0, 120, (height, width, 3), np.uint8)
        h, w = height // 2, width // 2
        name = ("center", "corner")[i % 2]
        if name == "center":
            pixels[h // 2 : h + h // 2, w // 2 : w + w // 2, :2] += 130
        else:
            pixels[:h, :w, 1:] += 130
        exif = Image.Exif()
        if i % 3 == 0:
            exif[TURNED[0]] = TURNED[1]
        (folder / name).mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / name / f"{i}.jpg", exif=exif)
    return folder
