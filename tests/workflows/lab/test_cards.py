"""The cards: each arm runs, and what can be exact is exact."""

import json

import pytest
import torch

from striate.audit.network import audit
from striate.metrics.sequential import ClaimVerdict
from striate.run.build_network import build_network
from striate.workflows.lab.card import Card
from striate.workflows.lab.catalogue import CARD_FILES, all_cards, load_card
from striate.workflows.lab.catalogue.e01_relu_against_tanh import TrainingErrorCurve
from striate.workflows.lab.catalogue.e10_dilation_groups import DISTANCES, dot_pairs
from striate.workflows.lab.catalogue.e11_selectivity import class_selectivity
from striate.workflows.lab.executors import run_trial
from striate.workflows.lab.outcome import card_outcome
from striate.workflows.lab.store import ResultStore

SMALL = {"train_images": 60, "val_images": 20, "test_images": 60, "epochs": 1}
EXACT = ("P1", "P2", "P3", "P4")
TRAINED = [name for name in CARD_FILES if name not in EXACT]


def sketch_model(text):
    height, width, channels = (int(n) for n in text.split(" ")[0].split("x"))
    size = height, width
    return build_network(text, num_classes=10, in_chans=channels, image_size=size)


def trial_of(card: Card, arm: str, folder):
    """Return a trial of digits at 28 pixels, which every machine has."""
    changes = {"data": "digits", **SMALL, "image_size": 28}
    if card.settings.get("image_size"):
        changes["image_size"] = card.settings["image_size"]
    return ResultStore(folder, card, changes).trial(arm, 0)


@pytest.mark.parametrize("name", TRAINED)
def test_every_arm_runs_and_gives_plain_numbers(name, tmp_path, monkeypatch):
    card = load_card(name)
    results = []
    for arm in card.arms:
        trial = trial_of(card, arm.name, tmp_path)
        settings = {**trial.settings, **SMALL}  # also where the arm has own sizes
        result = run_trial(type(trial)(**{**vars(trial), "settings": settings}))
        assert json.loads(json.dumps(result.measurements)) == result.measurements
        results.append(result)
    outcome = card_outcome(card, results)
    assert all(len(each.effects) == 1 for each in outcome.outcomes)
    assert outcome.verdict is ClaimVerdict.UNDECIDED
    for column in card.columns:
        assert all(column in r.measurements for r in results), column
    for plot in card.plots:
        for r in results:
            assert len(r.measurements[plot.x]) == len(r.measurements[plot.y])


@pytest.mark.parametrize("name", EXACT)
def test_exact_claims_hold(name, tmp_path):
    card = load_card(name)
    result = run_trial(ResultStore(tmp_path, card, {}).trial(card.arms[0].name, 0))
    outcome = card_outcome(card, [result])
    assert outcome.verdict is ClaimVerdict.HOLDS
    assert outcome.is_final
    assert outcome.statement


def test_cards_state_their_claims():
    for card in all_cards():
        assert card.claim.endswith(".")
        assert card.source
        assert card.rule.startswith("Holds if")
        assert card.seconds > 0
        assert card.check is not None or card.comparisons
        names = {arm.name for arm in card.arms}
        assert len(names) == len(card.arms)


def test_pooling_arms_have_equal_maps_and_weights():
    card = load_card("E2")
    models = [sketch_model(arm.changes["model"]) for arm in card.arms]
    weights = {sum(p.numel() for p in model.parameters()) for model in models}
    shapes = [
        [tuple(row.output) for row in audit(model, (1, 28, 28)).layers]
        for model in models
    ]
    assert len(weights) == 1
    assert shapes[0] == shapes[1]


def test_small_kernels_have_equal_receptive_fields_and_weights():
    card = load_card("E5")
    models = {arm.name: sketch_model(arm.changes["model"]) for arm in card.arms}
    weights = {n: sum(p.numel() for p in m.parameters()) for n, m in models.items()}
    assert weights["two 3x3, equal weights"] == pytest.approx(weights["5x5"], rel=0.01)
    assert weights["three 3x3, equal weights"] == pytest.approx(
        weights["7x7"], rel=0.01
    )
    fields = {}
    for name, model in models.items():
        rows = audit(model, (1, 28, 28)).layers
        convolutions = [row for row in rows if row.kind == "Conv2d"]
        fields[name] = convolutions[-1].receptive_field.sides
    assert fields["5x5"] == fields["two 3x3"] == fields["two 3x3, equal weights"]
    assert fields["7x7"] == fields["three 3x3"] == fields["three 3x3, equal weights"]


def test_the_bottleneck_has_a_tenth_of_the_macs():
    card = load_card("E6")
    macs = {}
    for arm in card.arms:
        rows = audit(sketch_model(arm.changes["model"]), (1, 28, 28)).layers
        convolutions = [row.macs for row in rows if row.kind == "Conv2d"]
        macs[arm.name] = sum(convolutions[3:])  # behind the stem of three
    ratio = macs["bottleneck"] / macs["direct"]
    assert ratio == pytest.approx(12_443_648 / 120_422_400)


def test_dilated_arms_have_equal_weights():
    card = load_card("E10")
    for distance in DISTANCES:
        models = [
            sketch_model(card.arm(f"{kind}, dots {distance} apart").changes["model"])
            for kind in ("plain", "dilated")
        ]
        assert len({sum(p.numel() for p in m.parameters()) for m in models}) == 1


def test_dots_are_as_far_apart_as_said():
    source = dot_pairs(4, 40, seed=1)
    for record, pixels in zip(source.records, source.arrays, strict=True):
        rows, columns = (pixels[:, :, 0] == 255).nonzero()
        assert len(rows) == 2
        far = (abs(rows[0] - rows[1]), abs(columns[0] - columns[1]))
        assert far == ((0, 4) if record.label == "beside" else (4, 0))


def test_class_selectivity_of_morcos():
    means = torch.tensor([[4.0, 2.0, 0.0], [1.0, 2.0, 0.0], [1.0, 2.0, 0.0]])
    expected = [(4 - 1) / (4 + 1), 0.0, 0.0]
    assert class_selectivity(means).tolist() == pytest.approx(expected)


def test_steps_to_an_error_are_interpolated():
    curve = TrainingErrorCurve.__new__(TrainingErrorCurve)
    curve.steps, curve.errors = [10, 20, 30], [0.5, 0.3, 0.2]
    assert curve.steps_to(0.25) == pytest.approx(25)
    assert curve.steps_to(0.6) == 10
    assert curve.steps_to(0.1) is None
