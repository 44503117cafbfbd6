"""Evidence over a set: against maps made one by one, and on planted shortcuts."""

import pytest
import torch
from torch import nn

from striate.core.errors import DataError, GeometryError
from striate.interpret.attribution.attribute import attribute
from striate.interpret.attribution.mean_heatmaps import (
    border_mask,
    dataset_attribution,
    foreground_mask,
)
from support.foreign_networks import STRANGERS, Unchanged, stranger


@pytest.mark.parametrize("kind", STRANGERS)
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_the_mean_map_is_the_mean_of_maps(kind, channels):
    model = stranger(kind, channels)
    x = torch.randn(9, channels, 16, 16, generator=torch.manual_seed(2))
    with Unchanged(model):
        result = dataset_attribution(model, x.split(4), 4)
    heat = torch.zeros(4, 16, 16, dtype=torch.float64)
    border, count, flat = torch.zeros(4, dtype=torch.float64), torch.zeros(4), 0
    for one in x.split(1):
        each = attribute(model, one, method="gradcam", sanity_checks=False)
        own = each.heatmap.double()
        if not own.sum():
            flat += 1
            continue
        own = own / own.sum()
        heat[each.target.class_index] += own
        border[each.target.class_index] += own[border_mask(16, 16)].sum()
        count[each.target.class_index] += 1
    seen = count > 0
    assert result.empty == flat
    assert result.counts.tolist() == count.tolist()
    assert torch.allclose(
        result.heatmap[seen], (heat / count[:, None, None])[seen], atol=1e-6
    )
    assert torch.allclose(result.border[seen], (border / count)[seen], atol=1e-6)
    assert result.border_area == pytest.approx(
        float(border_mask(16, 16).double().mean())
    )


def test_attribution_on_a_planted_frame():
    """One class is told by a mark in the corner, the other by what is in the middle."""
    model = nn.Sequential(nn.Identity(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    x = torch.zeros(2, 2, 20, 20)
    x[0, 0, 0, 0] = 4.0
    x[1, 1, 8:12, 8:12] = 4.0
    result = dataset_attribution(model, [x], 2)
    assert result.border.tolist() == [1.0, 0.0]
    assert result.background.tolist() == [0.0, 0.0]
    assert result.background_area.tolist() == [1 - 1 / 400, 1 - 16 / 400]


def test_foreground_mask_ignores_scale_and_offset():
    x = torch.zeros(1, 1, 9, 9)
    x[0, 0, 4, 3:6] = 1
    want = foreground_mask(x, border_mask(9, 9))
    assert want.sum() == 3
    for other in (x * 200 - 7, 1 - x, x.repeat(1, 4, 1, 1)):
        assert torch.equal(foreground_mask(other, border_mask(9, 9)), want)


def test_dataset_attribution_errors():
    with pytest.raises(DataError, match="no images"):
        dataset_attribution(nn.Flatten(), [], 2)
    with pytest.raises(GeometryError):
        dataset_attribution(nn.Sequential(nn.Flatten()), [torch.randn(2, 1, 3, 3)], 9)
