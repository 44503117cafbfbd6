"""Ablation of channels and feature visualization, against networks solved by hand."""

import pytest
import torch
from torch import nn

from striate.core.errors import GeometryError, SettingError, UnknownNameError
from striate.core.preprocess_config import Preprocess
from striate.interpret.ablation import ablate_channels
from striate.interpret.feature_visualization import visualize_channel
from support.foreign_networks import InPlace, Unchanged, stranger
from support.unusual_networks import ChannelsLast, Plain, Transformer

SPEC = Preprocess(channels=3, height=24, width=24, mean=(0.5,) * 3, std=(0.25,) * 3)


def images(count=6, side=16):
    draw = torch.Generator().manual_seed(2)
    return torch.randn(count, 3, side, side, generator=draw)


@pytest.mark.parametrize("replacement", ["zero", "mean"])
def test_ablation_of_the_last_maps_is_linear(replacement):
    """After global average pooling, a channel adds its mean times its weight."""
    model, x = Plain().eval(), images()
    batches = [x[:4], x[4:]]
    with torch.no_grad():
        maps = model.conv2(model.first(x))
    with Unchanged(model):
        result = ablate_channels(model, batches, "conv2", [1, 5], replacement)
    values = maps[:, [1, 5]].mean((0, 2, 3)) if replacement == "mean" else [0.0, 0.0]
    assert result.values == pytest.approx([float(v) for v in values], abs=1e-6)
    maps[:, 1], maps[:, 5] = values[0], values[1]
    with torch.no_grad():
        expected = model.head(maps.relu())
    assert torch.allclose(result.after, expected, atol=1e-6)
    assert torch.allclose(result.before, model(x), atol=1e-6)
    labels = result.before.argmax(1)
    assert result.accuracy(labels)[0] == 1
    changed = result.changed_predictions
    assert result.accuracy(labels)[1] == pytest.approx(1 - changed / 6)


@pytest.mark.parametrize(
    ("model", "layer", "axis"),
    [(Transformer(), "blocks.0", 2), (ChannelsLast(), "norm", 3), (Plain(), "fc", 1)],
)
def test_ablation_takes_the_axis_of_the_channels(model, layer, axis):
    model, x = model.eval(), images()
    result = ablate_channels(model, [x], layer, 2)

    def hook(module, inputs, output):
        output = output.clone()
        output.select(axis, 2).zero_()
        return output

    handle = model.get_submodule(layer).register_forward_hook(hook)
    with torch.no_grad():
        expected = model(x)
    handle.remove()
    assert not torch.equal(result.before, result.after)
    assert torch.allclose(result.after, expected, atol=1e-6)


def test_ablation_errors():
    model, x = Plain(), images()
    with pytest.raises(SettingError, match="no channel 8") as error:
        ablate_channels(model, [x], "conv", 8)
    assert "0…7" in str(error.value)
    with pytest.raises(SettingError, match="'noise' is not a replacement"):
        ablate_channels(model, [x], "conv", 1, "noise")
    with pytest.raises(UnknownNameError, match="cnov"):
        ablate_channels(model, [x], "cnov", 1)


def test_an_oriented_filter_draws_its_stripes():
    """The optimized image of a horizontal edge filter varies from row to row."""
    edge = nn.Conv2d(3, 1, 3, padding=1, bias=False)
    with torch.no_grad():
        edge.weight.zero_()
        edge.weight[0, :, 0], edge.weight[0, :, 2] = -1.0, 1.0
    model = nn.Sequential(edge, nn.ReLU(inplace=True))
    with Unchanged(model):
        result = visualize_channel(model, SPEC, "1", 0, steps=60)
    assert result.activation > 2 * result.random_activation
    assert result.pixels.shape == (24, 24, 3)
    gray = result.pixels.astype(float).mean(2)
    down, across = (abs(gray[a:, b:] - gray[: 24 - a, : 24 - b]).mean()
                    for a, b in ((2, 0), (0, 2)))  # fmt: skip
    assert down > 1.5 * across
    with torch.no_grad():
        value = float(model(result.x)[0, 0].mean())
    assert value == pytest.approx(result.activation, rel=0.05)
    again = visualize_channel(model, SPEC, "1", 0, steps=60)
    assert (again.pixels == result.pixels).all()


@pytest.mark.parametrize(
    ("model", "layer"), [(Transformer(side=24), "blocks.1"), (ChannelsLast(), "mlp")]
)
def test_visualization_of_tokens_and_channels_last(model, layer):
    result = visualize_channel(model, SPEC, layer, 3, steps=12)
    assert result.activation > result.random_activation


def test_visualization_errors():
    model = stranger(InPlace)
    with pytest.raises(SettingError, match="no channel 12"):
        visualize_channel(model, SPEC, "body.0", 12, steps=1)
    with pytest.raises(GeometryError, match="not a feature map"):
        visualize_channel(model, SPEC, "fc", 1, steps=1)
    dead = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU())
    dead[0].bias.data.fill_(-100)
    with pytest.raises(GeometryError, match="random images") as error:
        visualize_channel(dead, SPEC, "1", 0, steps=1)
    assert "before the activation" in str(error.value)
