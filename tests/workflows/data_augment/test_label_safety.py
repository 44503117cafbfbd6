"""Label safety: classes that lose accuracy under a transform are found, only those."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from striate.core.files import read_csv
from striate.core.preprocess_config import ImageSpec
from striate.data.augment.augment import Augment
from striate.data.augment.single_transform import (
    TRANSFORM_NAMES,
    SingleTransform,
    random_signs,
    range_ends,
    single_params,
)
from striate.metrics.significance import holm_correction, sign_test
from striate.report.terminal import Console, print_blocks
from striate.run.recipe import Recipe
from striate.workflows.data_augment.augment import preview_augment
from striate.workflows.data_augment.label_safety import (
    TransformedAccuracy,
    measure_label_safety,
    unsafe_labels,
)
from striate.workflows.data_augment.label_safety_findings import (
    label_safety_sections,
    label_safety_summary,
    range_end_table,
    unsafe_label_dict,
)
from striate.workflows.train.train import train_recipe
from support.images import write_folder

SHAPE = ImageSpec(channels=3, height=20, width=30)


@pytest.fixture(scope="module")
def striped(tmp_path_factory):
    """Stripes across, down, rising, falling: mirrored, the last two change places.

    A quarter turn exchanges across and down too.
    """
    root = tmp_path_factory.mktemp("striped")
    names = ("across", "down", "rising", "falling")
    folder = write_folder(root / "stripes", names, count=80)
    recipe = Recipe(data=str(folder), epochs=6, batch_size=16, val_fraction=0.3)
    return train_recipe(recipe, quiet=True, out=root / "run")


def unsafe_by_transform(safety):
    return {(d.transform.name, d.label): d for d in safety.unsafe}


def test_a_flip_that_changes_the_label_is_unsafe(striped):
    safety = measure_label_safety(striped, Augment(flip="horizontal"))
    unsafe = unsafe_by_transform(safety)
    assert set(unsafe) == {
        ("flip horizontal", "rising"),
        ("flip horizontal", "falling"),
    }
    rising = unsafe["flip horizontal", "rising"]
    assert rising.mistaken
    assert rising.predicted == "falling"
    assert rising.before > 0.9
    assert rising.after < 0.1
    low, high = rising.interval
    assert low - 1e-9 <= rising.after < high
    assert rising.count == 24
    assert rising.p_value < 1e-3
    curve = safety.curves["flip horizontal"]
    assert curve[0].accuracy > 0.9
    assert curve[1].accuracy == pytest.approx(0.5, abs=0.1)


def test_a_rotation_by_90_degrees_is_unsafe_for_all_classes(striped):
    safety = measure_label_safety(striped, Augment(rotate=90))
    mistaken = {d.label: d.predicted for d in safety.unsafe if d.mistaken}
    assert mistaken == {
        "across": "down",
        "down": "across",
        "rising": "falling",
        "falling": "rising",
    }
    amounts = [m.transform.amount for m in safety.curves["rotate"]]
    assert amounts == [0, 5, 10, 15, 20, 30, 45, 90, 180]
    half = safety.curves["rotate"][-1]  # stripes are the same upside down
    assert half.accuracy > 0.9


def test_a_small_range_is_safe_and_names_the_smallest_detectable_loss(striped):
    safety = measure_label_safety(striped, Augment(rotate=3, color=0.02, flip="none"))
    assert safety.unsafe == ()
    good = label_safety_summary(safety)[0]
    assert good.tone == "good"
    # 4 classes and 2 changes: 8 tests, and 2^-8 < 0.05/8 < 2^-7.
    assert "fewer than 8 images" in good.text


def test_weights_and_mode_are_unchanged(striped):
    before = {k: v.clone() for k, v in striped.model.state_dict().items()}
    training = striped.model.training
    measure_label_safety(striped, Augment(shear=10))
    assert striped.model.training == training
    for field, value in striped.model.state_dict().items():
        assert torch.equal(value, before[field])


def test_label_safety_sections_and_tables(striped):
    safety = measure_label_safety(striped, Augment(flip="both", shift=0.2))
    warning = label_safety_summary(safety)[0]
    assert warning.tone == "warning"
    assert "'rising' for 'falling'" in warning.text
    first, second = label_safety_sections(safety)
    assert first.title == "Do labels survive the transforms?"
    assert [curve.title for curve in second.blocks] == ["Shift"]
    assert second.blocks[0].mark == (0.2, "range")
    assert len(range_end_table(safety).rows) == 3
    row = unsafe_label_dict(safety.unsafe[0])
    assert row["mistaken"] is True
    assert row["transform"].startswith("flip")
    console = Console(width=100, record=True)
    print_blocks(label_safety_summary(safety), console)
    assert "rising" in console.export_text()


def test_preview_of_a_run_and_of_its_data(striped, tmp_path):
    preview = preview_augment(
        str(striped.path), {"flip": "horizontal"}, out=tmp_path / "a"
    )
    assert preview.augment.rotate == 15  # the run had none, so six
    assert {d.label for d in preview.safety.unsafe} >= {"rising", "falling"}
    rows = read_csv(tmp_path / "a/amounts.csv")
    flipped_rows = [
        r for r in rows if r["transform"] == "flip horizontal" and r["amount"] == "1.0"
    ]
    assert [row["class"] for row in flipped_rows] == list(striped.labels.names)
    assert {row["most_frequent_error"] for row in flipped_rows} >= {"rising", "falling"}
    page = (tmp_path / "a/report.html").read_text()
    for words in ("Do labels survive", "All transforms combined", "Ranges"):
        assert words in page
    assert (tmp_path / "a/preview.png").read_bytes()[1:4] == b"PNG"
    data_preview = preview_augment(striped.recipe.data, {}, out=tmp_path / "b")
    assert data_preview.safety is None
    assert not (tmp_path / "b/amounts.csv").exists()
    zeros = preview_augment(
        striped.recipe.data, {"augment": "none"}, out=tmp_path / "c"
    )
    assert not zeros.augment.is_active


# --- single transforms


@pytest.mark.parametrize("name", TRANSFORM_NAMES)
def test_a_single_transform_has_exactly_its_amount(name):
    amount = {"rotate": 30.0, "shear": 12.0}.get(name, 0.1)
    transform = SingleTransform(name, amount)
    signs = random_signs(200, transform)
    params = single_params(transform, SHAPE, signs)
    field = name.partition(" ")[0]
    shifts = params.control_shifts
    values = {
        "rotate": np.abs(params.angle) / 30,
        "shear": np.abs(params.shear) / 12,
        "warp": None if shifts is None else np.abs(shifts) / 0.1,
        "flip": params.flip.sum(1),
        "crop": (1 - params.crop[:, 0]) / 0.1,
        "color": None if params.color is None else np.abs(params.color) / 0.1,
        "scale": np.abs(np.log(params.zoom)) / np.log(1.1),
        "shift": np.abs(params.shift) / [3, 2],
    }[field]
    assert np.allclose(values, 1)
    assert transform.augment().is_active
    identity = single_params(SingleTransform(name, 0.0), SHAPE, signs)
    assert not identity.angle.any()
    assert not identity.shear.any()
    assert not identity.shift.any()
    assert not identity.flip.any()
    assert (identity.zoom == 1).all()
    assert (identity.crop[:, 0] == 1).all()


def test_range_ends():
    augment = Augment(rotate=15, flip="both", crop=0.1, color=0.2)
    ranges = [(end.name, end.range) for end in range_ends(augment)]
    assert ranges == [
        ("rotate", "±15°"),
        ("flip horizontal", "flipped"),
        ("flip vertical", "flipped"),
        ("crop", "10 %"),
        ("color", "±20 %"),
    ]
    assert str(SingleTransform("flip vertical", 0)) == "original"
    assert str(SingleTransform("rotate", -7.5)) == "−7.5°"
    assert str(SingleTransform("scale", 0)) == "0 %"


# --- statistics


@pytest.mark.parametrize(("lost", "gained"), [(5, 0), (7, 3), (0, 4), (12, 11)])
def test_no_loss_is_the_exact_one_sided_test(lost, gained):
    expected = binomtest(lost, lost + gained, 0.5, "greater").pvalue
    assert sign_test(lost, gained) == pytest.approx(expected)


def test_holm_is_monotone_and_bounded():
    assert holm_correction([]) == ()
    assert holm_correction([0.03, 0.02, 0.01, 0.9]) == pytest.approx(
        (0.06, 0.06, 0.04, 0.9)
    )
    assert holm_correction([0.7, 0.8]) == (1.0, 1.0)


def test_p_values_are_adjusted_for_the_number_of_classes():
    """Six losses and no gain have p = 1/64: enough for two classes, not for ten."""

    def curve(classes):
        own = 6 * np.eye(classes, dtype=int)
        lost, counts = own.sum(1), own + np.roll(own, 1, axis=1)
        end = TransformedAccuracy(
            transform=SingleTransform("rotate", 15.0),
            counts=counts,
            lost=lost,
            gained=0 * lost,
            lost_counts=counts - own,
        )
        return {"rotate": (end,)}, (end.transform,), [str(k) for k in range(classes)]

    assert unsafe_labels(*curve(10)) == ()
    first, second = unsafe_labels(*curve(2))
    assert (first.before, first.after, first.p_value) == (1.0, 0.5, 2 / 64)
    assert (first.predicted, second.predicted) == (second.label, first.label)


def accuracy_of(counts):
    counts = np.array(counts)
    zeros = np.zeros(len(counts), int)
    return TransformedAccuracy(
        transform=SingleTransform("rotate", 90.0),
        counts=counts,
        lost=zeros,
        gained=zeros,
        lost_counts=counts,
    )


def test_a_class_predicted_for_everything_is_not_a_confusion():
    """A prediction for all unusual images says nothing about one class."""
    specific = accuracy_of([[1, 9, 0], [0, 10, 0], [1, 0, 9]])
    assert specific.mistaken_for(0) == (1, 0.9)
    sink = accuracy_of([[1, 9, 0], [0, 10, 0], [0, 8, 2]])
    assert sink.mistaken_for(0) is None
    assert specific.mistaken_for(2) is None
