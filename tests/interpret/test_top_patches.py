"""Top patches, selectivity and fields: against brute force and the audit's boxes."""

import pytest
import torch
from torch import nn

from striate.audit.network import audit
from striate.core.errors import DataError, GeometryError, SettingError
from striate.interpret.activations_at import activations_at
from striate.interpret.effective_receptive_field import unit_effective_field
from striate.interpret.layer_choice import layer_shapes
from striate.interpret.top_patches import channel_preferences, selectivity
from support.foreign_networks import STRANGERS, InPlace, Reused, Unchanged, stranger


def batches(count=11, channels=3, size=5):
    x = torch.randn(count, channels, 12, 12, generator=torch.Generator().manual_seed(3))
    labels = torch.arange(count) % 4
    pairs = zip(x.split(size), labels.split(size), strict=True)
    return x, labels, list(pairs)


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("kind", STRANGERS)
def test_top_patches_are_the_maxima(kind, channels):
    model = stranger(kind, channels)
    x, labels, parts = batches(channels=channels)
    calls = [c for c, s in layer_shapes(model, x).items() if len(s) == 3 and s[1] > 1]
    with Unchanged(model):
        result = channel_preferences(model, parts, calls, 4, count=3)
    assert [one.call for one in result] == calls
    for one in result:
        maps = activations_at(model, x, one.call)[one.call]
        assert len(one.patches) == maps.shape[1]
        for channel, spots in enumerate(one.patches):
            best = maps[:, channel].flatten(1).amax(1).sort(descending=True)
            assert [s.value for s in spots] == pytest.approx(
                best.values[:3].tolist(), abs=1e-6
            )
            for spot in spots:
                at = maps[spot.image, channel, spot.row, spot.column]
                assert spot.value == pytest.approx(at.item(), abs=1e-6)
        means = torch.stack(
            [maps[labels == k].clamp(min=0).mean((0, 2, 3)) for k in range(4)]
        )
        assert torch.allclose(one.by_class.float(), means, atol=1e-5)
        assert one.preferred_classes == means.argmax(0).tolist()


def test_selectivity():
    alone = torch.tensor([[0.0, 2.0], [3.0, 2.0], [0.0, 2.0]])
    assert selectivity(alone).tolist() == [1, 0]
    assert selectivity(torch.zeros(3, 1)).isnan().all()
    assert selectivity(torch.ones(1, 2)).isnan().all()
    with pytest.raises(DataError, match="no images"):
        channel_preferences(nn.Identity(), [], [], 2)


@pytest.mark.parametrize("kind", STRANGERS)
def test_the_effective_field_fills_the_theoretical_box_and_no_more(kind):
    """The audit predicts the box without running; gradients find it."""
    model = stranger(kind).eval()
    x = torch.randn(24, 3, 12, 12, generator=torch.Generator().manual_seed(3))
    sights = {
        layer.name: layer.receptive_field for layer in audit(model, (3, 12, 12)).layers
    }
    checked = 0
    for call, shape in layer_shapes(model, x).items():
        sight = sights.get(call)
        if len(shape) != 3 or shape[1] < 2 or sight is None or sight.is_bound:
            continue
        alive = activations_at(model, x, call)[call].abs().sum((0, 2, 3)).argmax()
        unit = (int(alive), shape[1] // 2, shape[2] - 1)
        with Unchanged(model):
            field = unit_effective_field(model, x, call, unit)
        rows, columns = field.energy.nonzero()
        (top, bottom), (left, right) = sight.box(*unit[1:])
        assert top <= rows.min()
        assert rows.max() <= bottom
        assert left <= columns.min()
        assert columns.max() <= right
        if call.startswith(("stem.0", "first", "left")):
            assert (rows.min(), rows.max()) == (top, bottom)
        checked += 1
    assert checked >= 3


def test_units_that_are_not_there_and_later_calls():
    model = stranger(InPlace)
    x = torch.randn(1, 3, 12, 12)
    with Unchanged(model), pytest.raises(SettingError, match="no unit"):
        unit_effective_field(model, x, "body.1", (0, 6, 0))
    with pytest.raises(GeometryError, match="not a feature map"):
        unit_effective_field(model, x, "fc", (0, 0, 0))
    x = torch.randn(9, 3, 12, 12)
    later = unit_effective_field(stranger(Reused), x, "again #2", (0, 5, 5)).energy
    sooner = unit_effective_field(stranger(Reused), x, "again", (0, 5, 5)).energy
    assert ((later > 0).sum(), (sooner > 0).sum()) == (49, 25)
