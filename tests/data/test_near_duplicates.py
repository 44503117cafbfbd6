"""D2: planted near-duplicates are found, and similar images are not reported.

A false pair is one whose images do not come from one original. The guards were taken
out once: without the tangents, crops are lost; without the halves, words across the
middle; without `STRICT_SCORE`, hundreds of similar cells are called copies.
"""

import collections
import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from striate.data.check import near_duplicates
from striate.data.check.duplicates import connected_components
from striate.data.check.image_stats import examine_pixels
from striate.data.check.near_duplicates import (
    find_near_duplicates,
    searchable_positions,
)
from support.images import pil_image
from support.planted_copies import CHANGES, cells, clouds, photographs


def plant(originals, each, seed=0):
    """Return images, the original of each, and (change, place) of every copy."""
    rng = np.random.default_rng(seed)
    images, roots, planted = list(originals), list(range(len(originals))), []
    for name, change in CHANGES.items():
        for k in rng.permutation(len(originals))[:each]:
            planted.append((name, len(images)))
            images.append(np.ascontiguousarray(change(originals[k], rng)))
            roots.append(int(k))
    return images, roots, planted


def find(images):
    examined = [examine_pixels(image) for image in images]
    thumbs = np.stack([image.thumb for image in examined])
    sides = [min(image.shape[:2]) for image in images]
    searched = searchable_positions(thumbs, sides, range(len(images)))
    pairs = find_near_duplicates(
        thumbs[searched], lambda k: examined[int(searched[k])].view
    )
    return [(int(searched[p.first]), int(searched[p.second])) for p in pairs]


def evaluate(images, roots, planted):
    """Return recall by change and overall, and the false pairs among all found."""
    pairs = find(images)
    false = [pair for pair in pairs if roots[pair[0]] != roots[pair[1]]]
    family = {}
    for number, group in enumerate(connected_components(len(images), pairs)):
        family |= dict.fromkeys(group, number)
    hits = collections.defaultdict(list)
    for name, position in planted:
        is_linked = family.get(position, -1) == family.get(roots[position], -2)
        hits[name].append(is_linked)
    recall = {name: float(np.mean(hits_)) for name, hits_ in hits.items()}
    overall = float(np.mean([hits_ for values in hits.values() for hits_ in values]))
    return overall, recall, false, pairs


@pytest.mark.parametrize("each", [10, pytest.param(30, marks=pytest.mark.slow)])
def test_planted_in_photographs_and_textures(each):
    originals = [*photographs(), *(clouds(k) for k in range(2 * each))]
    overall, recall, false, _ = evaluate(*plant(originals, each))
    assert overall >= 0.99, recall
    assert false == []


@pytest.mark.parametrize("each", [10, pytest.param(25, marks=pytest.mark.slow)])
def test_planted_among_similar_images(each):
    """Gray parts, all framed and lit alike: the case that hashes fail on."""
    originals = [cells(k) for k in range(6 * each)]
    overall, recall, false, pairs = evaluate(*plant(originals, each))
    assert overall >= 0.99, recall
    assert len(false) <= 0.001 * len(pairs)


def test_similar_images_are_no_duplicates():
    assert find([cells(k) for k in range(120)]) == []


def test_the_similar_images_are_hard_enough(monkeypatch):
    """Without the tight limit the test above would be red: the set is hard enough."""
    monkeypatch.setattr(near_duplicates, "STRICT_SCORE", 0.5)
    monkeypatch.setattr(near_duplicates, "MAX_DETAIL", 2.0)
    assert len(find([cells(k) for k in range(120)])) > 10


def test_blank_and_tiny_images_are_left_out():
    blank = [np.full((40, 40, 1), level, np.uint8) for level in (90, 91, 92)]
    tiny = [clouds(k, 12) for k in range(3)]
    examined = [examine_pixels(image) for image in [*blank, *tiny]]
    thumbs = np.stack([image.thumb for image in examined])
    assert searchable_positions(thumbs, [40] * 3 + [12] * 3, range(6)).tolist() == []
    assert find([*blank, *tiny]) == []
    assert find_near_duplicates(thumbs[:1], lambda k: examined[k].view) == []


def test_flips_are_named():
    image = clouds(1)
    examined = [examine_pixels(p) for p in (image, image[:, ::-1].copy(), clouds(2))]
    thumbs = np.stack([s.thumb for s in examined])
    [pair] = find_near_duplicates(thumbs, lambda k: examined[k].view)
    assert (pair.first, pair.second, pair.flip) == (0, 1, "left-right")
    examined[1] = examine_pixels(image[::-1].copy())
    thumbs = np.stack([s.thumb for s in examined])
    [pair] = find_near_duplicates(thumbs, lambda k: examined[k].view)
    assert pair.flip == "top-bottom"


def test_progress_is_reported():
    examined = [examine_pixels(p) for p in (clouds(1), clouds(1)[1:])]
    findings = []
    thumbs = np.stack([s.thumb for s in examined])
    find_near_duplicates(
        thumbs,
        lambda k: examined[k].view,
        lambda done, all_: findings.append((done, all_)),
    )
    assert findings[-1][0] == findings[-1][1] > 0


def test_through_the_command_line(striate, tmp_path):
    """Planted files under one label, in parts: near, leaked, and labeled twice."""
    originals = [clouds(k) for k in range(8)]
    rng = np.random.default_rng(5)
    root = tmp_path / "set"
    for part in ("train", "test"):
        for name in ("bark", "cloth"):
            (root / part / name).mkdir(parents=True)
    for k, pixels in enumerate(originals):
        pil_image(pixels).save(root / f"train/{('bark', 'cloth')[k % 2]}/{k}.png")
    save = {
        "test/bark/leak.jpg": CHANGES["q75"](originals[0], rng),
        "train/bark/copy.png": CHANGES["crop"](originals[2], rng),
        "train/cloth/wrong.png": CHANGES["brighter"](originals[4], rng),
        "test/cloth/new.png": clouds(99),
    }
    for name, pixels in save.items():
        Image.fromarray(pixels).save(root / name)
    result = striate("data", "check", root, "--json")
    assert result.code == 1
    findings = {f["kind"]: f for f in result.json["findings"]}

    def paths(kind):
        return [set(group["image_paths"]) for group in findings[kind]["groups"]]

    assert paths("leak") == [{"test/bark/leak.jpg", "train/bark/0.png"}]
    assert paths("near-duplicates") == [{"train/bark/2.png", "train/bark/copy.png"}]
    assert paths("near-two-labels") == [{"train/bark/4.png", "train/cloth/wrong.png"}]
    assert "two-labels" not in findings
    off = striate("data", "check", root, "--json", "--near", "off").json
    kinds = {f["kind"] for f in off["findings"]}
    assert not {"leak", "near-duplicates", "near-two-labels"} & kinds


def _elpv():
    pairs = importlib.util.find_spec("elpv_dataset")
    if pairs is None or pairs.origin is None:
        pytest.skip("elpv-dataset is not installed")
    files = sorted((Path(pairs.origin).parent / "data/images").glob("*.png"))
    return [np.asarray(Image.open(file).convert("L"))[..., None] for file in files]


@pytest.mark.slow
def test_planted_among_solar_cells():
    """2,624 real ones. Copies that the set itself holds are set aside first."""
    images = _elpv()
    existing = {i for pair in find(images) for i in pair}
    originals = [p for i, p in enumerate(images) if i not in existing and p.std() > 8]
    overall, recall, false, pairs = evaluate(*plant(originals, each=100))
    print(overall, recall, len(false), len(pairs))
    assert overall >= 0.99, recall
    assert len(false) <= 0.001 * len(pairs)


@pytest.mark.slow
def test_planted_among_20000_clothes():
    """28×28 pixels contain little: only changes that survive there are required."""
    from striate.core.errors import DataError
    from striate.data.sources.named import fashion_mnist

    try:
        arrays = fashion_mnist().arrays
    except DataError:
        pytest.skip("fashion-mnist is not installed")
    images = list(arrays[:20_000])
    existing = {i for pair in find(images) for i in pair}
    originals = [p for i, p in enumerate(images) if i not in existing]
    overall, recall, false, pairs = evaluate(*plant(originals, each=200))
    print(overall, recall, len(false), len(pairs))
    required = ("q95", "crop", "flip", "darker", "brighter", "corner", "middle")
    assert np.mean([recall[name] for name in required]) >= 0.95, recall
    assert len(false) <= 0.001 * len(pairs)
