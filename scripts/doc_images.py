"""Make the images of the README and of the tutorial from runs of striate.

Usage: `python scripts/doc_images.py FOLDER`. FOLDER gets the photographs and the runs.
Runs that already exist in it are used again.
The program needs Chromium and the MobileNetV2 weights.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

IMAGES = ROOT / "docs" / "images"
WINDOW = (720, 790)  # width and height of a browser window in pixels
# Images of `striate explain`: the name in the tutorial, and a pattern of the file.
DIGITS = {
    "input": "*-correct-input-image.png",
    "filters": "*-conv1-25-filters-*.png",
    "conv1": "*-1-conv1-feature-maps-*.png",
    "pool1": "*-pool1-feature-maps-*.png",
    "receptive-field": "*-one-unit-receptive-field.png",
    "patches": "*-top-patches-*.png",
    "grad-cam": "*-correct-grad-cam.png",
    "occlusion": "*-correct-occlusion.png",
}
PHOTOS = {
    "photo-input": "01-*-input-image.png",
    "photo-cam": "01-*-cam.png",
    "photo-occlusion": "01-*-occlusion.png",
}


def striate(folder: Path, out: str, *words: str) -> Path:
    """Run a command of striate in a folder if its output does not exist."""
    if not (folder / out).exists():
        command = [sys.executable, "-m", "striate", *words, "--out", out]
        subprocess.run(command, cwd=folder, check=True)
    return folder / out


def copy_images(source: Path, names: dict[str, str]) -> None:
    """Copy images of an explanation to the images of the tutorial."""
    for name, pattern in names.items():
        file = sorted((source / "images").glob(pattern))[0]
        shutil.copyfile(file, IMAGES / "tutorial" / f"{name}.png")


def screenshot(page: Path, out: Path) -> Image.Image:
    """Draw the top of an HTML page in Chromium."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    assert browser, "install Chromium"
    size = f"--window-size={WINDOW[0]},{WINDOW[1]}"
    flags = ["--headless", "--no-sandbox", "--hide-scrollbars", size]
    command = [browser, *flags, f"--screenshot={out}", page.resolve().as_uri()]
    subprocess.run(command, check=True, capture_output=True)
    return Image.open(out).convert("RGB")


def side_by_side(images: list[Image.Image]) -> Image.Image:
    """Put images of one height next to each other, with a gray line between them."""
    width = sum(image.width for image in images) + 4 * (len(images) - 1)
    sheet = Image.new("RGB", (width, images[0].height), "gray")
    left = 0
    for image in images:
        sheet.paste(image, (left, 0))
        left += image.width + 4
    return sheet


def digits(folder: Path) -> None:
    """Train on the digits and copy the images of the tutorial."""
    words = ("train", "digits", "--epochs", "8")
    run = striate(folder, "runs/train/tutorial", *words)
    unit = ("--unit", "conv2 3,1,1")
    pages = striate(folder, "runs/explain/tutorial", "explain", str(run), *unit)
    copy_images(pages, DIGITS)
    shutil.copyfile(run / "plots/confusion.png", IMAGES / "tutorial/confusion.png")


def photos(folder: Path) -> None:
    """Train on generated photographs, and draw the image of the README."""
    from support.image_sets import photographs

    if not (folder / "photos").exists():
        photographs(folder / "photos", seed=1, difficulty=0.2)
    run = striate(folder, "runs/train/photos", "train", "photos")
    image = "photos/airplane/0139.jpg"
    pages = striate(folder, "runs/explain/photos", "explain", str(run), image)
    copy_images(pages, PHOTOS)
    reports = [run / "report.html", pages / "report.html"]
    windows = [screenshot(page, folder / "window.png") for page in reports]
    sheet = side_by_side(windows).quantize(128, dither=Image.Dither.NONE)
    sheet.save(IMAGES / "photos.png", optimize=True)


if __name__ == "__main__":
    (IMAGES / "tutorial").mkdir(parents=True, exist_ok=True)
    digits(Path(sys.argv[1]))
    photos(Path(sys.argv[1]))
