"""No analysis writes to the images it is given, even where the network would."""

import pytest
import torch
from torch import nn

from striate.interpret.activations_at import activations_at
from striate.interpret.attribution.attribute import METHODS, attribute
from striate.interpret.attribution.cam import find_gap_head
from striate.interpret.depth.layer_profile import depth_profile
from striate.interpret.effective_receptive_field import (
    effective_receptive_fields,
    unit_effective_field,
)
from striate.interpret.feature_maps import feature_maps
from striate.interpret.layer_choice import layer_shapes, target_layer
from striate.interpret.layer_statistics import activation_statistics
from striate.interpret.top_patches import channel_preferences
from striate.interpret.trace import record_trace

LABELS = torch.tensor([0])


def rude():
    """Return a network that clears what is negative in its own input."""
    torch.manual_seed(0)
    first, second = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3)
    tail = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    return nn.Sequential(nn.ReLU(inplace=True), first, nn.ReLU(), second, *tail)


ANALYZES = {
    "feature_maps": feature_maps,
    "features": lambda model, x: activations_at(model, x, "1"),
    "depth_profile": lambda model, x: depth_profile(model, x, LABELS),
    "effective_fields": lambda model, x: effective_receptive_fields(model, x, ["1"]),
    "unit_field": lambda model, x: unit_effective_field(model, x, "1", (0, 4, 4)),
    "ending": find_gap_head,
    "habits": lambda model, x: channel_preferences(model, [(x, LABELS)], ["1"], 3),
    "calls_of": layer_shapes,
    "place": target_layer,
    "statistics": activation_statistics,
    "record": record_trace,
} | {
    method: lambda model, x, method=method: attribute(model, x, method=method, target=0)
    for method in METHODS
}


@pytest.mark.parametrize("name", ANALYZES)
def test_images_come_back_as_they_were(name):
    x = torch.randn(1, 1, 12, 12)
    before, version = x.clone(), x._version
    assert (x < 0).any()
    ANALYZES[name](rude(), x)
    assert torch.equal(x, before)
    assert x._version == version
