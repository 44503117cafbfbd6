"""Maps and arithmetic of networks as users write them: right, or refused by name."""

import numpy as np
import pytest
import torch
from captum import attr
from torch import nn
from torch.nn import functional as F

from striate.core.errors import GeometryError
from striate.core.logits import find_logits, logits_of
from striate.interpret.arithmetic.contributions import contributions
from striate.interpret.arithmetic.unit_arithmetic import UnitArithmetic
from striate.interpret.attribution.attribute import attribute
from striate.interpret.attribution.cam import find_gap_head
from striate.interpret.attribution.grad_cam import grad_cam_map
from striate.interpret.attribution.occlusion import (
    OcclusionWindow,
    average_over_windows,
    full_forward_scores,
    occlusion,
)
from striate.interpret.attribution.target import AttributionTarget
from striate.interpret.layer_choice import layers_with_maps, target_layer
from striate.interpret.trace import TensorRef
from support.foreign_networks import Unchanged
from support.unusual_networks import (
    AddsIntoZeros,
    Attention,
    Autocasts,
    Branches,
    ChannelsLast,
    Detached,
    Encoder,
    FrozenBackbone,
    InferenceBackbone,
    NoGradients,
    Normalizes,
    Plain,
    ReadsItem,
    Recurrent,
    Returns,
    Transformer,
    Twice,
    Windowed,
    WithConstantChannel,
    WritesSlices,
)

CLASS_1 = AttributionTarget(class_index=1, text="1")
SIDE = 16


def image():
    return torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def occlusion_by_full_passes(model, x):
    """The map of occlusion without any trick: one forward pass for each window."""
    window = OcclusionWindow.of(SIDE, SIDE)
    boxes = window.boxes(SIDE, SIDE)
    model.eval()
    with torch.no_grad():
        score = CLASS_1.score(logits_of(model(x)))
        drops = score - full_forward_scores(model, x, CLASS_1, window, boxes)
    return average_over_windows(drops, window, SIDE, SIDE)


@pytest.mark.parametrize(
    "kind",
    [
        *(Branches, ReadsItem, AddsIntoZeros, WritesSlices, Windowed, Twice),
        *(WithConstantChannel, Normalizes, Attention, Encoder, FrozenBackbone),
        *(NoGradients, InferenceBackbone, Detached, Transformer, ChannelsLast),
    ],
)
def test_occlusion_is_that_of_full_passes(kind):
    model, x = kind(), image()
    with Unchanged(model):
        actual = occlusion(model, x, CLASS_1)
    expected = occlusion_by_full_passes(model, x)
    assert torch.allclose(actual, expected, atol=1e-5)


@pytest.mark.parametrize(
    "kind", [AddsIntoZeros, WritesSlices, Windowed, Twice, ReadsItem, Attention]
)
def test_arithmetic_adds_up(kind):
    """Every unit is the sum of its terms; pixels and biases add up to the logit."""
    model, x = kind().eval(), image()
    arithmetic = UnitArithmetic(model, x)
    for number in range(1, len(arithmetic.trace.steps)):
        shape = arithmetic.shape(TensorRef(number))
        if not arithmetic.trace.value(TensorRef(number)).ndim:
            continue
        unit = tuple(side // 2 for side in shape)
        assert arithmetic.open(f"@{number}", unit).error < 1e-5
    result = contributions(arithmetic, "output", (1,))
    with torch.no_grad():
        expected = float(model(x)[0, 1])
    assert result.total == pytest.approx(expected, abs=1e-4)
    assert result.value == pytest.approx(expected, abs=1e-5)


def test_a_sum_in_place_has_the_values_before_it():
    """`out = zeros; out += conv(x)`: the sum has the terms 0 and conv(x)."""
    arithmetic = UnitArithmetic(AddsIntoZeros().eval(), image())
    steps = [step.name for step in arithmetic.trace.steps]
    unit = arithmetic.open(f"@{steps.index('add_')}", (2, 5, 5))
    assert unit.constant == 0
    (term,) = unit.terms
    assert float(term.contributions.sum()) == pytest.approx(unit.value)


# --- gradients through no_grad -------------------------------------------------------


@pytest.mark.parametrize("kind", [FrozenBackbone, NoGradients])
def test_no_grad_in_forward_does_not_matter(kind):
    x, plain = image(), Plain()
    model = kind()
    model.load_state_dict(plain.state_dict())
    for method in ("gradcam", "integrated_gradients"):
        with Unchanged(model):
            actual = attribute(model, x, method=method, sanity_checks=False)
        expected = attribute(plain, x, method=method, sanity_checks=False)
        assert torch.allclose(actual.heatmap, expected.heatmap, atol=1e-6)


@pytest.mark.parametrize("kind", [Detached, InferenceBackbone])
@pytest.mark.parametrize("method", ["gradcam", "integrated_gradients"])
def test_a_cut_gradient_is_named(kind, method):
    with pytest.raises(GeometryError, match="gradient") as error:
        attribute(kind(), image(), method=method, layer="conv2")
    assert "occlusion" in str(error.value)
    for works in ("occlusion", "scorecam", "cam"):
        result = attribute(kind(), image(), method=works, sanity_checks=False)
        assert result.heatmap.shape == (SIDE, SIDE)


# --- precision -----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_cam_in_other_precisions(dtype):
    plain, x = Plain(), image()
    expected = attribute(plain, x, method="cam", sanity_checks=False)
    actual = attribute(
        Plain().to(dtype), x.to(dtype), method="cam", sanity_checks=False
    )
    assert actual.heatmap.dtype in (torch.float32, torch.float64)
    error = (actual.heatmap - expected.heatmap).abs().max()
    assert error < 0.05 * expected.heatmap.abs().max()
    assert attribute(Plain().to(dtype), x.to(dtype)).method == "cam"


def test_half_precision_is_no_excuse_for_another_head():
    """Squared means are no global average pooling, in any precision."""

    class Squares(Plain):
        def head(self, x):
            return self.fc(x.mean((2, 3)).square())

    with pytest.raises(GeometryError, match="other operations"):
        find_gap_head(Squares().half(), image().half())


def test_autocast_in_forward():
    model, x = Autocasts(), image()
    for method in ("cam", "gradcam", "occlusion", "integrated_gradients"):
        result = attribute(model, x, method=method, sanity_checks=False)
        assert result.heatmap.isfinite().all()


# --- logits in a container -----------------------------------------------------------

FORMS = ("tensor", "tuple", "list", "dict", "only matrix", "named tuple")


@pytest.mark.parametrize("form", FORMS)
def test_logits_are_taken_from_containers(form):
    x, expected = image(), Returns("tensor")
    for method in ("cam", "occlusion", "integrated_gradients", "gradcam"):
        actual = attribute(Returns(form), x, method=method, sanity_checks=False)
        wanted_map = attribute(expected, x, method=method, sanity_checks=False)
        assert torch.allclose(actual.heatmap, wanted_map.heatmap, atol=1e-6)
    value = contributions(UnitArithmetic(Returns(form), x), "output", (1,)).value
    logits = expected.eval()(x).detach()
    assert value == pytest.approx(float(logits[0, 1]))


def test_an_unclear_output_is_refused_with_a_way_out():
    with pytest.raises(GeometryError, match="a dict with a, b") as error:
        attribute(Returns("unclear"), image())
    assert "'logits' of a dict" in str(error.value)
    assert find_logits(None) is find_logits((torch.zeros(3),)) is None


# --- tokens and channels-last maps ---------------------------------------------------


def by_captum(model, x, layer, shape, target=1):
    """Grad-CAM of captum, after a change of the layer's output to NCHW by hand."""
    module = model.get_submodule(layer)

    class ToMaps(nn.Module):
        def __init__(self):
            super().__init__()
            self.maps = nn.Identity()
            self.inner = model

        def forward(self, x):
            def hook(module, inputs, output):
                maps = shape(output)
                back = self.maps(maps)
                return output + shape_back(output, back - maps.detach())

            handle = module.register_forward_hook(hook)
            try:
                return self.inner(x)
            finally:
                handle.remove()

    def shape_back(output, maps):
        if output.ndim == 3:
            tokens = maps.flatten(2).transpose(1, 2)
            return F.pad(tokens, (0, 0, output.shape[1] - tokens.shape[1], 0))
        return maps.permute(0, 2, 3, 1)

    wrapped = ToMaps().eval()
    peer = attr.LayerGradCam(wrapped, wrapped.maps)
    return peer.attribute(x, target=target, relu_attributions=True)[0, 0].detach()


def tokens_to_maps(output):
    return output[:, -16:].transpose(1, 2).unflatten(2, (4, 4))


@pytest.mark.parametrize("class_token", [True, False])
def test_tokens_become_maps_on_the_patch_grid(class_token):
    model, x = Transformer(class_token).eval(), image()
    with Unchanged(model):
        result = attribute(model, x, method="gradcam", target=1, sanity_checks=False)
    # The last block uses the image tokens for the class token only.
    assert result.layer.call == ("blocks.1" if class_token else "blocks.2")
    assert result.layer_map.shape == (4, 4)
    assert "16 channels of 4×4 tokens" in result.layer.reason
    expected = by_captum(model, x, result.layer.call, tokens_to_maps)
    assert float(expected.max()) > 0
    assert torch.allclose(result.layer_map, expected, atol=1e-6)


def test_channels_last_maps():
    model, x = ChannelsLast().eval(), image()
    layer = target_layer(model, x, "mlp")
    assert layer.layout.channel_axis == 3
    actual = grad_cam_map(model, x, layer, CLASS_1, "gradcam")
    to_maps = lambda output: output.permute(0, 3, 1, 2)  # noqa: E731
    assert actual.shape == (8, 8)
    assert torch.allclose(actual, by_captum(model, x, "mlp", to_maps), atol=1e-6)
    head = find_gap_head(model, x)
    assert head.call == "last"
    logits = model(x).detach()
    total = head.class_maps().sum((2, 3)) + model.fc.bias
    assert torch.allclose(total, logits, atol=1e-5)


def test_layers_with_tokens_are_not_drawn_as_maps():
    assert layers_with_maps(Transformer(), image()) == ["patch"]
    assert layers_with_maps(ChannelsLast(), image()) == ["patch"]


def test_attention_weights_are_no_maps():
    class Heads(Transformer):
        def __init__(self):
            super().__init__(class_token=False)
            self.weights = nn.Identity()
            self.qkv = nn.Linear(16, 48)

        def forward(self, x):
            h = self.patch(x).flatten(2).transpose(1, 2)
            parts = self.qkv(h).unflatten(2, (3, 4, 4)).permute(2, 0, 3, 1, 4)
            scores = parts[0] @ parts[1].transpose(2, 3)
            h = self.weights(scores.softmax(3)) @ parts[2]
            return self.fc(h.transpose(1, 2).flatten(2).mean(1))

    model, x = Heads(), image()
    assert target_layer(model, x).call == "patch"
    with pytest.raises(GeometryError, match="4×16×16, which is not a feature map"):
        attribute(model, x, layer="weights")


def test_a_convolution_after_unknown_operations_has_its_own_grid():
    class Fourier(Plain):
        def first(self, x):
            return torch.fft.irfft2(torch.fft.rfft2(super().first(x)))

    class OnlyFourier(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.wave = nn.Conv2d(3, 4, 3), nn.Identity()
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            h = torch.fft.irfft2(torch.fft.rfft2(self.conv(x)))
            return self.fc(self.wave(h).amax((2, 3)))

    layer = target_layer(Fourier(), image())
    assert (layer.call, layer.layout.size, layer.layout.assumed) == (
        "relu",
        (8, 8),
        False,
    )
    assert target_layer(OnlyFourier(), image()).call == "conv"
    by_name = target_layer(OnlyFourier(), image(), "wave")
    assert by_name.layout.assumed
    assert "assumed to be channels × height × width" in by_name.reason


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM])
def test_a_recurrent_head(kind):
    result = attribute(Recurrent(kind), image(), sanity_checks=False)
    assert result.layer.call == "relu"
    assert np.isfinite(result.heatmap.numpy()).all()
