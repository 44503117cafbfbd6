"""Every command and every Python block of the README and the manual runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from sklearn import datasets
from sklearn.utils import Bunch

from striate.cli.main import main
from support.images import pil_image, stripes, write_folder
from support.label_sets import write_label_sets

ROOT = Path(__file__).parents[1]
# The first page's runs are drawn whole, the other pages' without their PNG files.
PAGES = [
    pytest.param(ROOT / "README.md", marks=pytest.mark.charts, id="README.md"),
    *(pytest.param(page, id=page.name) for page in sorted(ROOT.glob("docs/*.md"))),
]
# These take small shares of the data set, or split it into shards.
LARGE = ("transfer.md", "data_loading.md")
BLOCK = re.compile(r"^```(console|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("page", PAGES)
def test_what_the_manual_shows_works(page, every, tmp_path, monkeypatch, capfd):
    """Blocks run top to bottom in one empty folder, as a reader would run them.

    In fast tests with the first of the 1,797 digits, but where all are counted.
    """
    images = 600 if page.name in LARGE else 300
    if every or page.name == "python_api.md":
        images = None
    bunch = datasets.load_digits()
    digits = Bunch(images=bunch.images[:images], target=bunch.target[:images])
    monkeypatch.setattr(datasets, "load_digits", lambda: digits)
    monkeypatch.chdir(tmp_path)
    text = page.read_text(encoding="utf-8")
    if "photos" in text:
        write_photos()
    if "labels.csv" in text:
        write_label_sets(tmp_path, count=120, name="labels.csv")
    names: dict[str, object] = {}
    for kind, body in BLOCK.findall(text):
        if kind == "python":
            exec(compile(body, str(page), "exec"), names)  # noqa: S102 - our own manual
            continue
        for line in body.splitlines():
            program, *words = shlex.split(line.removeprefix("$ "))
            run_command(program, words)


def write_photos() -> None:
    """Write the reader's own images, small ones that are quick to train on."""
    classes, size = ("cat", "dog", "horse"), (12, 12)
    write_folder(Path("photos"), classes, count=20, size=size, channels=3)
    new = Path("new-photos")
    new.mkdir()
    for i in range(4):
        image = pil_image(stripes(i % 3, 90_000 + i, *size, channels=3))
        image.save(new / f"{i:02}.jpg")


def run_command(program: str, words: list[str]) -> None:
    if program == "make":
        makefile = (ROOT / "Makefile").read_text()
        assert re.search(rf"^{words[0]}:", makefile, re.MULTILINE), words
        return
    assert program == "striate", f"the manual shows an unknown program: {program}"
    assert main(words) == 0, words


def test_the_flag_table_names_real_flags():
    from dataclasses import fields

    from striate.run.recipe import Recipe

    text = (ROOT / "docs" / "train.md").read_text()
    shown = set(re.findall(r"^\| `--([a-z-]+)` \|", text, re.MULTILINE))
    real = {field.name.replace("_", "-") for field in fields(Recipe)}
    assert shown
    assert shown <= real
