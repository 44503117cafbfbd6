"""Labels that do not survive a change are found by measurement, and only those."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from striate.core.files import read_csv
from striate.core.preprocess import ImageSpec
from striate.data.augment.augment import Augment
from striate.data.augment.single_transform import CHANGES, Trial, at, coins, furthest
from striate.metrics.significance import holm_correction, sign_test
from striate.report.terminal import Console, show
from striate.run.recipe import Recipe
from striate.workflows.data_augment.augment import preview_augment
from striate.workflows.data_augment.label_safety import Measured, dangers_of, measure
from striate.workflows.data_augment.label_safety_findings import (
    danger_dict,
    ends,
    sections,
    summary,
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


def found(safety):
    return {(d.trial.change, d.label): d for d in safety.dangers}


def test_a_mirrored_slope_is_the_other_slope(striped):
    safety = measure(striped, Augment(flip="horizontal"))
    dangers = found(safety)
    assert set(dangers) == {
        ("mirror horizontal", "rising"),
        ("mirror horizontal", "falling"),
    }
    rising = dangers["mirror horizontal", "rising"]
    assert rising.mistaken
    assert rising.taken_for == "falling"
    assert rising.before > 0.9
    assert rising.after < 0.1
    low, high = rising.interval
    assert low - 1e-9 <= rising.after < high
    assert rising.count == 24
    assert rising.chance < 1e-3
    curve = safety.curves["mirror horizontal"]
    assert curve[0].accuracy > 0.9
    assert curve[1].accuracy == pytest.approx(0.5, abs=0.1)


def test_a_quarter_turn_exchanges_all_four(striped):
    safety = measure(striped, Augment(rotate=90))
    taken = {d.label: d.taken_for for d in safety.dangers if d.mistaken}
    assert taken == {
        "across": "down",
        "down": "across",
        "rising": "falling",
        "falling": "rising",
    }
    amounts = [m.trial.amount for m in safety.curves["rotate"]]
    assert amounts == [0, 5, 10, 15, 20, 30, 45, 90, 180]
    half = safety.curves["rotate"][-1]  # stripes are the same upside down
    assert half.accuracy > 0.9


def test_a_small_range_is_found_safe_and_says_what_it_could_not_see(striped):
    safety = measure(striped, Augment(rotate=3, color=0.02, flip="none"))
    assert safety.dangers == ()
    good = summary(safety)[0]
    assert good.tone == "good"
    # 4 classes and 2 changes: 8 tests, and 2^-8 < 0.05/8 < 2^-7.
    assert "fewer than 8 of its images" in good.text


def test_the_weights_and_the_mode_are_left_alone(striped):
    before = {k: v.clone() for k, v in striped.model.state_dict().items()}
    training = striped.model.training
    measure(striped, Augment(shear=10))
    assert striped.model.training == training
    for name, value in striped.model.state_dict().items():
        assert torch.equal(value, before[name])


def test_findings_say_it_in_words_and_numbers(striped):
    safety = measure(striped, Augment(flip="both", shift=0.2))
    warning = summary(safety)[0]
    assert warning.tone == "warning"
    assert "'rising' for 'falling'" in warning.text
    first, second = sections(safety)
    assert first.title == "Does the label hold?"
    assert [curve.title for curve in second.blocks] == ["Shift"]
    assert second.blocks[0].mark == (0.2, "range")
    assert len(ends(safety).rows) == 3
    danger = danger_dict(safety.dangers[0])
    assert danger["mistaken"] is True
    assert danger["change"].startswith("flip")
    console = Console(width=100, record=True)
    show(summary(safety), console)
    assert "rising" in console.export_text()


def test_preview_of_a_run_and_of_its_data(striped, tmp_path):
    made = preview_augment(
        str(striped.path), {"flip": "horizontal"}, out=tmp_path / "a"
    )
    assert made.augment.rotate == 15  # the run had none, so six
    assert {d.label for d in made.safety.dangers} >= {"rising", "falling"}
    rows = read_csv(tmp_path / "a/amounts.csv")
    some = [
        r for r in rows if r["change"] == "mirror horizontal" and r["amount"] == "1.0"
    ]
    assert [row["class"] for row in some] == list(striped.labels.names)
    assert {row["most_frequent_error"] for row in some} >= {"rising", "falling"}
    page = (tmp_path / "a/report.html").read_text()
    for words in ("Does the label hold?", "All together", "Each alone", "Ranges"):
        assert words in page
    assert (tmp_path / "a/preview.png").read_bytes()[1:4] == b"PNG"
    only = preview_augment(striped.recipe.data, {}, out=tmp_path / "b")
    assert only.safety is None
    assert not (tmp_path / "b/amounts.csv").exists()
    nothing = preview_augment(
        striped.recipe.data, {"augment": "none"}, out=tmp_path / "c"
    )
    assert not nothing.augment.acts


# --- trials


@pytest.mark.parametrize("change", CHANGES)
def test_a_trial_is_exactly_its_amount(change):
    amount = {"rotate": 30.0, "shear": 12.0}.get(change, 0.1)
    trial = Trial(change, amount)
    signs = coins(200, trial)
    draws = at(trial, SHAPE, signs)
    name = change.partition(" ")[0]
    values = {
        "rotate": np.abs(draws.angle) / 30,
        "shear": np.abs(draws.shear) / 12,
        "warp": None if draws.net is None else np.abs(draws.net) / 0.1,
        "flip": draws.mirror.sum(1),
        "crop": (1 - draws.crop[:, 0]) / 0.1,
        "color": None if draws.color is None else np.abs(draws.color) / 0.1,
        "scale": np.abs(np.log(draws.zoom)) / np.log(1.1),
        "shift": np.abs(draws.shift) / [3, 2],
    }[name]
    assert np.allclose(values, 1)
    assert trial.augment().acts
    none = at(Trial(change, 0.0), SHAPE, signs)
    assert not none.angle.any()
    assert not none.shear.any()
    assert not none.shift.any()
    assert not none.mirror.any()
    assert (none.zoom == 1).all()
    assert (none.crop[:, 0] == 1).all()


def test_ends_of_ranges():
    augment = Augment(rotate=15, flip="both", crop=0.1, color=0.2)
    said = [(end.change, end.range) for end in furthest(augment)]
    assert said == [
        ("rotate", "±15°"),
        ("mirror horizontal", "mirrored"),
        ("mirror vertical", "mirrored"),
        ("crop", "10 %"),
        ("color", "±20 %"),
    ]
    assert str(Trial("mirror vertical", 0)) == "as it is"
    assert str(Trial("rotate", -7.5)) == "−7.5°"
    assert str(Trial("scale", 0)) == "0 %"


# --- statistics


@pytest.mark.parametrize(("lost", "won"), [(5, 0), (7, 3), (0, 4), (12, 11)])
def test_no_loss_is_the_exact_one_sided_test(lost, won):
    wanted = binomtest(lost, lost + won, 0.5, "greater").pvalue
    assert sign_test(lost, won) == pytest.approx(wanted)


def test_holm_is_monotone_and_bounded():
    assert holm_correction([]) == ()
    assert holm_correction([0.03, 0.02, 0.01, 0.9]) == pytest.approx(
        (0.06, 0.06, 0.04, 0.9)
    )
    assert holm_correction([0.7, 0.8]) == (1.0, 1.0)


def test_many_classes_are_not_named_for_what_two_would_be():
    """Six losses and no win have a chance of 1/64: enough for two classes, not ten."""

    def curve(classes):
        own = 6 * np.eye(classes, dtype=int)
        lost, counts = own.sum(1), own + np.roll(own, 1, axis=1)
        end = Measured(
            trial=Trial("rotate", 15.0),
            counts=counts,
            lost=lost,
            won=0 * lost,
            names=counts - own,
        )
        return {"rotate": (end,)}, (end.trial,), [str(k) for k in range(classes)]

    assert dangers_of(*curve(10)) == ()
    first, second = dangers_of(*curve(2))
    assert (first.before, first.after, first.chance) == (1.0, 0.5, 2 / 64)
    assert (first.taken_for, second.taken_for) == (second.label, first.label)


def measured(counts):
    counts = np.array(counts)
    nothing = np.zeros(len(counts), int)
    return Measured(
        trial=Trial("rotate", 90.0),
        counts=counts,
        lost=nothing,
        won=nothing,
        names=counts,
    )


def test_what_everything_is_called_is_no_lookalike():
    """A name for all strange images says nothing of one class."""
    specific = measured([[1, 9, 0], [0, 10, 0], [1, 0, 9]])
    assert specific.lookalike(0) == (1, 0.9)
    sink = measured([[1, 9, 0], [0, 10, 0], [0, 8, 2]])
    assert sink.lookalike(0) is None
    assert specific.lookalike(2) is None
