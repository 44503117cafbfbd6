"""Drawings are not accused: letters, flags and emoji have flat areas and sharp edges.

Without the limit of the change, E and F of one font are near-duplicates; without the
tint, flags of two colors; without the edges, bold letters are blurred.
"""

from collections import defaultdict

import numpy as np
import pytest
from PIL import Image, ImageDraw

from striate.data.check.align_images import align_and_compare
from striate.data.check.check import check_dataset
from striate.data.check.duplicates import Duplicates, NearPair
from striate.data.check.image_stats import measure_image
from striate.data.check.near_duplicates import MAX_CHANGE
from striate.data.check.similar_classes import (
    separate_similar_classes,
    similar_class_findings,
)
from striate.data.check.tint import same_tint
from striate.data.sources.source import from_arrays
from support.drawing_sets import emoji, flags, letters, plant_faults
from support.planted_copies import CHANGES, clouds, photographs

MAX_ACCUSED = 0.02  # share of the images in findings that nobody planted


def accused_images(result):
    """Return the names of the images in each problem and warning."""
    accused = defaultdict(set)
    for finding in result.findings:
        for group in finding.groups if finding.tone != "note" else ():
            accused[finding.kind] |= {
                "/".join(result.items[i].record.path.split("/")[-2:])
                for i in group.members
            }
    return accused


@pytest.mark.parametrize("draw", [letters, flags, emoji])
def test_only_planted_faults_are_reported(draw, tmp_path):
    root = draw(tmp_path / "drawings")
    planted = plant_faults(root)
    result = check_dataset(root)
    accused = accused_images(result)
    missed = {kind: names - accused[kind] for kind, names in planted.items()}
    assert not any(missed.values()), missed
    others = set().union(*accused.values()) - set().union(*planted.values())
    assert len(others) <= MAX_ACCUSED * len(result.items), dict(accused)


# --- near-duplicates


def drawing(bars):
    image = Image.new("L", (64, 64), 255)
    for bar in bars:
        ImageDraw.Draw(image).rectangle(bar, 0)
    return np.asarray(image)[None]


def test_a_stroke_is_a_large_change():
    stem, top, middle = (14, 8, 22, 56), (14, 8, 46, 15), (14, 28, 40, 35)
    e = drawing([stem, top, middle, (14, 49, 46, 56)])
    assert align_and_compare(e, drawing([stem, top, middle])).change[0] > MAX_CHANGE
    assert align_and_compare(e, e).change[0] < 0.01


def test_a_watermark_is_a_small_change():
    rng = np.random.default_rng(0)
    for image in [*photographs()[:6], *(clouds(k) for k in range(6))]:
        gray = image.mean(-1, keepdims=True).astype(np.uint8)
        for name in ("corner", "middle"):
            marked = CHANGES[name](gray, rng)[None, ..., 0]
            difference = align_and_compare(gray[None, ..., 0], marked)
            assert difference.change[0] < MAX_CHANGE


def test_equal_shapes_of_other_colors_are_no_near_duplicates():
    pixels = np.full((3, 40, 60, 3), 255, np.uint8)
    pixels[0, 8:30, 10:40] = (200, 30, 40)
    pixels[1, 8:30, 10:40] = (30, 90, 140)  # of the same gray level
    pixels[2] = pixels[0, :, ::-1]
    result = check_dataset(from_arrays("hearts", pixels, ["a"] * 3))
    [finding] = [f for f in result.findings if f.kind == "near-duplicates"]
    assert [group.members for group in finding.groups] == [(0, 2)]
    assert finding.groups[0].note == "flipped left-right"


@pytest.mark.parametrize("name", CHANGES)
def test_a_copy_has_the_same_tint(name):
    rng = np.random.default_rng(0)
    for number, image in enumerate([*photographs()[:8], clouds(1), clouds(2)]):
        copy = np.ascontiguousarray(CHANGES[name](image, rng))
        tints = [measure_image(pixels)[0].tint for pixels in (image, copy)]
        flips = ("left-right", "top-bottom") if name == "flip" else ("",)
        pairs = [NearPair(0, 1, flip, 0.0) for flip in flips]
        assert any(same_tint(pair, tints) for pair in pairs), number


# --- classes that differ in fine detail


def near_pairs(first, second, count, flip=""):
    return [NearPair(first + i, second + i, flip, 0.01) for i in range(count)]


def separate(labels, pairs):
    duplicates = Duplicates(count=len(labels), near=tuple(pairs))
    return separate_similar_classes(duplicates, labels)


def test_similar_classes_are_named_once():
    labels = ["b"] * 30 + ["d"] * 30 + ["x"] * 30
    planted = NearPair(0, 70, "", 0.01)
    rest, similar = separate(labels, [*near_pairs(0, 30, 9, "left-right"), planted])
    assert rest.near == (planted,)
    [finding] = similar_class_findings(similar)
    assert (finding.tone, finding.groups) == ("note", ())
    assert finding.what == "1 pair of classes differ only in fine detail or by a flip"
    assert "b and d, flipped left-right (9×)" in finding.why
    assert "18 images" in finding.why


def test_few_copies_with_other_labels_are_still_reported():
    labels = ["cat"] * 100 + ["dog"] * 100
    pairs = near_pairs(0, 100, 5)
    rest, similar = separate(labels, pairs)
    assert rest.near == tuple(pairs)
    assert similar_class_findings(similar) == []


def test_copies_within_a_class_make_others_label_errors():
    """12 of 100 cats are copies of dogs, but 20 are copies of cats."""
    labels = ["cat"] * 100 + ["dog"] * 100
    across, within = near_pairs(0, 100, 12), near_pairs(20, 60, 20)
    assert separate(labels, [*across, *within])[0].near == (*across, *within)
    assert separate(labels, across)[0].near == ()
    many = near_pairs(0, 100, 40)
    assert separate(labels, [*many, *near_pairs(50, 95, 5)])[1].images == 80


def test_a_symmetric_drawing_has_any_flip():
    labels = ["I"] * 20 + ["l"] * 20
    plain, flipped = near_pairs(0, 20, 3), near_pairs(5, 25, 3, "left-right")
    assert separate(labels, [*plain, *flipped])[0].near == ()


def test_one_image_per_class_may_differ_everywhere():
    labels = [f"symbol {i}" for i in range(100)]
    rest, similar = separate(labels, near_pairs(0, 50, 12))
    assert (rest.near, similar.images) == ((), 24)
    [finding] = similar_class_findings(similar)
    assert finding.what.startswith("12 pairs of classes differ only")
    assert finding.why.count("symbol") == 10
    assert "; and 7 more" in finding.why


# --- blurred images


def test_flat_areas_with_sharp_edges_are_not_blurred():
    pixels = np.full((64, 64, 1), 255, np.uint8)
    pixels[10:50, 12:40] = 0
    stats = measure_image(pixels)[0]
    assert stats.sharpness < 0.25
    assert stats.edge_sharpness == 1.0
    flat = measure_image(np.full((64, 64, 1), 9, np.uint8))[0]
    assert flat.edge_sharpness == 1.0


def test_colors_of_one_gray_level_are_no_blank_image():
    pixels = np.full((40, 40, 3), (200, 30, 40), np.uint8)
    pixels[10:30, 10:30] = (30, 90, 140)
    result = check_dataset(from_arrays("flags", pixels[None], ["a"]))
    assert "blank" not in {finding.kind for finding in result.findings}
