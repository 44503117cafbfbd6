"""Trials of a transfer plan: their images, their epochs and their losses."""

import math
from dataclasses import replace

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from striate.core.errors import DataError
from striate.engine.evaluate import Outputs
from striate.run.prepare_run import load_recipe
from striate.run.recipe import Recipe
from striate.workflows.transfer import trials


@given(data=st.data(), groups=st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_every_class_trains_and_evaluates(data, groups):
    """For any number and size of groups; no group on both sides."""
    rows = [
        (label, f"{label} {number}")
        for label, count in enumerate(groups)
        for number in range(count)
        for _ in range(data.draw(st.integers(1, 700)))
    ]
    y, names = torch.tensor([label for label, _ in rows]), [name for _, name in rows]
    if max(groups) == 1:
        with pytest.raises(DataError, match="no images are left to evaluate"):
            trials.split_for_trials(y, names, 0)
        return
    train, evaluate = trials.split_for_trials(y, names, 0)
    assert set(y[train].tolist()) == set(range(len(groups)))
    assert set(y[evaluate].tolist()) == {k for k, n in enumerate(groups) if n > 1}
    sides = ({names[k] for k in index.tolist()} for index in (train, evaluate))
    assert not set.intersection(*sides)


def test_rare_classes_keep_two_images(shared_folder, monkeypatch):
    """The limit holds, and each class keeps one image to train and one to evaluate."""
    monkeypatch.setattr(trials, "MAX_PLAN_IMAGES", 9)
    data = load_recipe(Recipe(data=str(shared_folder), cache="off"))
    subset = data.subset("train")
    first = (subset.labels == 0).nonzero().flatten()
    rare = torch.cat([first, (subset.labels == 1).nonzero().flatten()[:3]])
    uneven = replace(
        data, subsets={**data.subsets, "train": subset.take(rare.tolist())}
    )
    labels = trials.limit_training_images(uneven, 0).subset("train").labels
    assert labels.bincount().tolist()[1] == 2
    assert len(labels) < 12 < len(rare)


def test_the_loss_does_not_depend_on_confidence():
    """A trial has fewer epochs than the full training, and is less confident."""
    draw = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(50, 3, generator=draw), torch.arange(50) % 3
    cautious, confident = (
        trials._losses(Outputs(logits=logits * k, labels=labels, losses=labels * 0.0))
        for k in (0.5, 3)
    )
    assert cautious == pytest.approx(confident, abs=1e-6)
    assert cautious.mean() <= math.log(3)


@pytest.mark.parametrize(
    ("images", "batch", "epochs"),
    [(500, 32, 8), (264, 32, 8), (200, 32, 10), (40, 32, 12), (64, 8, 8)],
)
def test_a_trial_has_two_thirds_of_the_epochs_or_enough_steps(images, batch, epochs):
    recipe = Recipe(data="digits", epochs=12, batch_size=batch)
    assert trials.trial_epochs(recipe, images) == epochs
