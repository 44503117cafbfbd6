"""Ways that a plan tries: on which images, for how long, and how they are judged."""

import math
from dataclasses import replace

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from striate.core.errors import DataError
from striate.engine.evaluate import Outputs
from striate.run.recipe import Recipe
from striate.run.setup import load_recipe
from striate.workflows.transfer import trials


@given(data=st.data(), groups=st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_every_class_is_learned_and_judged(data, groups):
    """Of as many groups a class, of any sizes; none on both sides."""
    rows = [
        (label, f"{label} {number}")
        for label, count in enumerate(groups)
        for number in range(count)
        for _ in range(data.draw(st.integers(1, 700)))
    ]
    y, names = torch.tensor([label for label, _ in rows]), [name for _, name in rows]
    if max(groups) == 1:
        with pytest.raises(DataError, match="nothing to judge by"):
            trials.dealt(y, names, 0)
        return
    learns, judges = trials.dealt(y, names, 0)
    assert set(y[learns].tolist()) == set(range(len(groups)))
    assert set(y[judges].tolist()) == {k for k, n in enumerate(groups) if n > 1}
    sides = ({names[k] for k in index.tolist()} for index in (learns, judges))
    assert not set.intersection(*sides)


def test_a_plan_knows_rare_classes(shared_folder, monkeypatch):
    """As many as fit, and of each class one to learn from and one to judge by."""
    monkeypatch.setattr(trials, "MOST", 9)
    data = load_recipe(Recipe(data=str(shared_folder), cache="off"))
    subset = data.subset("train")
    first = (subset.labels == 0).nonzero().flatten()
    rare = torch.cat([first, (subset.labels == 1).nonzero().flatten()[:3]])
    uneven = replace(
        data, subsets={**data.subsets, "train": subset.take(rare.tolist())}
    )
    labels = trials.some_of(uneven, 0).subset("train").labels
    assert labels.bincount().tolist()[1] == 2
    assert len(labels) < 12 < len(rare)


def test_a_network_is_not_judged_by_how_sure_it_is():
    """A trial has fewer epochs than what it stands for, and is less sure."""
    draw = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(50, 3, generator=draw), torch.arange(50) % 3
    unsure, sure = (
        trials._costs(Outputs(logits=logits * k, labels=labels, losses=labels * 0.0))
        for k in (0.5, 3)
    )
    assert unsure == pytest.approx(sure, abs=1e-6)
    assert unsure.mean() <= math.log(3)


@pytest.mark.parametrize(
    ("images", "batch", "epochs"),
    [(500, 32, 8), (264, 32, 8), (200, 32, 10), (40, 32, 12), (64, 8, 8)],
)
def test_a_trial_has_two_thirds_of_the_epochs_or_steps_enough(images, batch, epochs):
    recipe = Recipe(data="digits", epochs=12, batch_size=batch)
    assert trials.epochs_of(recipe, images) == epochs
