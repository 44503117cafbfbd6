"""Generated image sets: the seed decides everything, and every image is new."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from support.image_sets import IMAGE_SETS, KINDS, random_folder


def write(name, root, **options):
    """Write a small set and return (label, pixels) of each image, in file order."""
    folder = IMAGE_SETS[name](root, **{"classes": 3, "images_per_class": 6} | options)
    files = sorted(folder.glob("*/*"), key=lambda path: path.name)
    return [(path.parent.name, np.asarray(Image.open(path))) for path in files]


@pytest.mark.parametrize("name", IMAGE_SETS)
def test_the_seed_decides_every_byte(name, tmp_path):
    write(name, tmp_path / "a" / "set", seed=1)
    write(name, tmp_path / "b" / "set", seed=1)
    write(name, tmp_path / "c" / "set", seed=2)
    a, b, c = (
        [
            (p.relative_to(tmp_path / x), p.read_bytes())
            for p in sorted((tmp_path / x).rglob("*.*"))
        ]
        for x in "abc"
    )
    assert a == b
    assert not {data for _, data in a} & {data for _, data in c}


@pytest.mark.parametrize("name", IMAGE_SETS)
def test_counts_sizes_and_no_equal_images(name, tmp_path):
    images = write(name, tmp_path, classes=4, images_per_class=10)
    assert sorted(Counter(label for label, _ in images).values()) == [10] * 4
    assert len({pixels.tobytes() for _, pixels in images}) == 40
    sizes = {pixels.shape for _, pixels in images}
    if name == "photographs":
        assert len(sizes) > 10
        assert {h > w for h, w, _ in sizes} == {True, False}
    else:
        side = {"textures": (96, 96, 3), "glyphs": (32, 32), "shapes": (64, 64, 3)}
        assert sizes == {side[name]}


@pytest.mark.parametrize("name", IMAGE_SETS)
def test_label_noise_moves_images_and_keeps_the_counts(name, tmp_path):
    clean = write(name, tmp_path / "clean")
    noisy = write(name, tmp_path / "noisy", label_noise=1.0)
    pairs = list(zip(clean, noisy, strict=True))
    assert all(np.array_equal(a[1], b[1]) for a, b in pairs)
    assert Counter(a[0] for a, _ in pairs) == Counter(b[0] for _, b in pairs)
    moved = sum(a[0] != b[0] for a, b in pairs)
    assert 6 <= moved <= 16  # two thirds of 18 on average


def test_difficulty_hides_the_figure(tmp_path):
    """The contrast of figure and ground is lower, against the noise, if harder."""
    ratios = []
    for difficulty in (0.0, 1.0):
        images = write("shapes", tmp_path / str(difficulty), difficulty=difficulty)
        noise = [np.diff(p.astype(float), axis=1).std() for _, p in images]
        ratios.append(np.mean([p.std() for _, p in images] / np.array(noise)))
    assert ratios[0] > 2 * ratios[1]


def test_random_folders_have_every_kind_in_each_block_of_four(tmp_path):
    folders = [random_folder(tmp_path, seed) for seed in range(8)]
    for block in (folders[:4], folders[4:]):
        assert {folder.kind for folder in block} == set(KINDS)
    for folder in folders:
        counts = [len(list(path.iterdir())) for path in folder.path.iterdir()]
        assert counts == [folder.arguments["images_per_class"]] * len(counts)
        assert len(counts) == folder.arguments["classes"]
        assert (max(counts) <= 8) == (folder.kind == "too few images")


def test_random_folder_is_the_same_again(tmp_path):
    a, b = (random_folder(tmp_path / x, 3) for x in "ab")
    assert (a.kind, a.arguments, a.settings) == (b.kind, b.arguments, b.settings)
    assert [p.read_bytes() for p in sorted(a.path.glob("*/*"))] == [
        p.read_bytes() for p in sorted(b.path.glob("*/*"))
    ]
