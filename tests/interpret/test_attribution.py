"""Class evidence: against captum and on paper; on networks that are not ours."""

import io

import pytest
import torch
from captum import attr
from scipy import stats
from torch import nn

import striate.interpret.attribution.grad_cam as cam
from striate.core.errors import GeometryError, SettingError, UnknownNameError
from striate.interpret.attribution.attribute import METHODS, attribute
from striate.interpret.attribution.cam import cam_map, find_gap_head
from striate.interpret.attribution.grad_cam import grad_cam_map, layer_gradients
from striate.interpret.attribution.integrated_gradients import integrated_gradients
from striate.interpret.attribution.occlusion import OcclusionWindow, occlusion
from striate.interpret.attribution.sanity_checks import (
    deletion_and_insertion,
    rank_correlation,
    shuffled_weights_correlation,
)
from striate.interpret.attribution.target import AttributionTarget, make_target
from striate.interpret.layer_choice import layer_shapes, target_layer
from striate.run.create_model import create_model
from support.foreign_networks import (
    STRANGERS,
    Functional,
    InPlace,
    Reused,
    Unchanged,
    stranger,
)

CAT = AttributionTarget(class_index=1, text="cat")
NAMES = ["bird", "cat", "dog", "fish"]


def image(channels=3, side=16):
    return torch.randn(
        1, channels, side, side, generator=torch.Generator().manual_seed(1)
    )


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", STRANGERS)
def test_every_method_on_networks_that_are_not_ours(kind, method, channels):
    model, x = stranger(kind, channels), image(channels)
    if method == "cam" and kind is not InPlace:
        with Unchanged(model), pytest.raises(GeometryError, match="global average"):
            attribute(model, x, method=method)
        return
    with Unchanged(model):
        result = attribute(model, x, method=method, target="cat", labels=NAMES)
    assert result.heatmap.shape == (16, 16)
    assert result.target.text == "cat"
    assert result.heatmap.isfinite().all()
    assert result.signed or result.heatmap.min() >= 0
    assert 0 <= result.sanity_checks.deletion <= 1
    assert -1 <= (result.sanity_checks.shuffled_correlation or 0) <= 1


# --- against captum ------------------------------------------------------------------


def agree(actual, expected):
    """Within 10⁻⁵, and of small maps within 10⁻⁴ of their largest number."""
    expected = expected.detach()
    size = float(expected.abs().max())
    return float((actual - expected).abs().max()) <= 1e-5 * min(1.0, 10 * size)


LAYERS = [
    (InPlace, "stem.1"),
    (InPlace, "body.0"),
    (Reused, "first"),  # captum hears a module's last call alone
    (Functional, "top"),
]


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize(("kind", "layer"), LAYERS)
def test_grad_cam_is_captums(kind, layer, channels):
    model, x = stranger(kind, channels).eval(), image(channels)
    where = target_layer(model, x, layer)
    actual = [
        grad_cam_map(
            model, x, where, AttributionTarget(class_index=i, text=""), "gradcam"
        )
        for i in range(4)
    ]
    peer = attr.LayerGradCam(model, model.get_submodule(layer))
    for i, one in enumerate(actual):
        expected = peer.attribute(x, target=i, relu_attributions=True)[0, 0]
        assert agree(one, expected)
    assert max(one.max() for one in actual) > 0


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("kind", STRANGERS)
def test_integrated_gradients_are_captums(kind, channels):
    model, x = stranger(kind, channels).eval(), image(channels)
    actual, gap = integrated_gradients(model, x, CAT)
    expected, delta = attr.IntegratedGradients(model).attribute(
        x, target=1, return_convergence_delta=True
    )
    assert actual.abs().max() > 0
    assert agree(actual, expected[0].float())
    assert gap == pytest.approx(delta.item(), abs=1e-4)


def test_grad_cam_of_cifar_resnet_is_captums():
    """Batch norm, shortcuts, 20 layers; the maps that CAM is about, and lower ones."""
    torch.manual_seed(0)
    model, x = create_model("cifar_resnet20").eval(), image(3, 32)
    for layer in ("layer2", "layer3"):
        actual = grad_cam_map(model, x, target_layer(model, x, layer), CAT, "gradcam")
        peer = attr.LayerGradCam(model, model.get_submodule(layer))
        expected = peer.attribute(x, target=1, relu_attributions=True)[0, 0]
        assert agree(actual, expected)
    shares, _ = integrated_gradients(model, x, CAT)
    expected = attr.IntegratedGradients(model).attribute(x, target=1)[0].float()
    assert agree(shares, expected)


@pytest.mark.parametrize("kind", STRANGERS)
@pytest.mark.parametrize(
    "window", [((4, 4), (4, 4)), ((5, 3), (2, 3)), ((7, 7), (5, 5))]
)
def test_occlusion_is_captums(kind, window):
    model, x = stranger(kind).eval(), image()
    actual = occlusion(
        model, x, CAT, OcclusionWindow(window=window[0], stride=window[1])
    )
    expected = attr.Occlusion(model).attribute(
        x, (3, *window[0]), strides=(3, *window[1]), target=1
    )
    assert actual.abs().max() > 1e-3
    assert torch.allclose(actual, expected[0, 0], atol=1e-5)


# --- on paper ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "googlenet"])
def test_cam_is_grad_cam_where_the_network_ends_in_averaging(name):
    torch.manual_seed(0)
    model = create_model(name, num_classes=4, image_size=96).train()
    x = image(3, 96)
    with Unchanged(model):
        exact = cam_map(model, x, CAT)
        end = find_gap_head(model, x)
    seen = layer_gradients(model, x, end.call, CAT)
    by_gradient = (seen.gradients.mean((2, 3), keepdim=True) * seen.activations).sum(1)
    assert torch.allclose(exact, by_gradient[0], atol=1e-5)
    total = exact.sum() + end.bias[1]
    assert total.item() == pytest.approx(seen.logits[0, 1].item(), abs=1e-4)
    assert end.class_maps().shape[:2] == (1, 4)


def test_cam_with_functional_pooling_and_without_pooling():
    class Mean(nn.Module):
        def __init__(self, *, in_place=False, twice=False):
            super().__init__()
            self.conv = nn.Conv2d(3, 5, 3)
            self.in_place = in_place
            self.head = nn.Sequential(nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 4))
            self.single = nn.Linear(5, 4, bias=False)
            self.twice = twice

        def forward(self, x):
            x = self.conv(x)
            if self.in_place:
                x.relu_()
            x = x.mean((2, 3))
            return self.head(x) if self.twice else self.single(x)

    x = image()
    assert find_gap_head(Mean(), x).class_maps(torch.tensor([2])).shape == (
        1,
        1,
        14,
        14,
    )
    with pytest.raises(GeometryError, match="changed in place before"):
        find_gap_head(Mean(in_place=True), x)
    with pytest.raises(GeometryError, match="operations between pooling and logits"):
        find_gap_head(Mean(twice=True), x)
    with pytest.raises(GeometryError, match="no linear layer follows"):
        find_gap_head(nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten()), x)
    with pytest.raises(GeometryError, match="no layer has feature maps"):
        find_gap_head(nn.Sequential(nn.Flatten(), nn.Linear(768, 4)), x)
    straight = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    end = find_gap_head(straight, x)
    assert torch.allclose(end.class_maps().sum((2, 3)), end.logits, atol=1e-5)


def test_cam_weights_by_hand():
    """Two channels of 1×2; every number below was worked out by hand."""
    a = torch.tensor([[[[1.0, 3.0]], [[2.0, 0.0]]]])
    g = torch.tensor([[[[2.0, 4.0]], [[-1.0, 0.0]]]])
    none = None
    assert cam.METHODS["gradcam"](a, g, none).flatten().tolist() == [3.0, -0.5]
    assert cam.METHODS["layercam"](a, g, none).flatten().tolist() == [2, 4, 0, 0]
    # α = g²/(2g² + ΣA·g³): 4/(8 + 4·8) = 0.1 and 16/(32 + 4·64) = 1/18.
    plus = cam.METHODS["gradcam++"](a, g, none).flatten().tolist()
    assert plus == pytest.approx([0.1 * 2 + 4 / 18, 0.0])
    told = cam.METHODS["scorecam"](a, g, lambda masks: masks[:, 0, 0, 0])
    assert told.flatten().tolist() == pytest.approx([1 / (1 + 2.718281828), 0.7310586])


def test_contrast_is_the_difference():
    model, x = stranger(InPlace), image()
    both = attribute(
        model, x, target="cat", against="dog", labels=NAMES, sanity_checks=False
    )
    assert both.target.text == "cat rather than dog"
    apart = [
        attribute(model, x, target=name, labels=NAMES, sanity_checks=False).layer_map
        for name in ("cat", "dog")
    ]
    assert torch.allclose(both.layer_map, apart[0] - apart[1], atol=1e-6)
    assert both.method == "cam"
    logits = torch.tensor([[0.0, 2.0, 1.0]])
    asked = make_target(logits, against=2)
    assert asked.score(logits).item() == 1
    assert asked.probability(logits).item() == pytest.approx(0.7310586)
    with pytest.raises(SettingError, match="is compared with itself"):
        make_target(logits, 1, 1)
    with pytest.raises(UnknownNameError, match="'cow'"):
        make_target(logits, "cow", labels=["cat", "dog", "ox"])
    with pytest.raises(SettingError, match="2 class names for 3 outputs"):
        make_target(logits, labels=["cat", "dog"])


def test_automatic_target_layer():
    x = image()
    assert target_layer(stranger(InPlace), x).call == "body.1"
    assert target_layer(stranger(Reused), x).call == "relu #3"
    branches = create_model("googlenet_no_aux", num_classes=4, image_size=64)
    assert target_layer(branches, image(3, 64)).call == "inception4e"
    chosen = target_layer(stranger(Functional), x)
    assert (chosen.call, chosen.shape) == ("top", (10, 6, 6))
    assert chosen.reason == "the last layer with maps of 4×4 or finer, 6×6×10"
    assert layer_shapes(stranger(Reused), x)["again #2"] == (6, 16, 16)
    assert (
        attribute(stranger(Reused), x, layer="relu", sanity_checks=False).layer.call
        == "relu"
    )


def test_bad_input_is_refused_by_name():
    model, x = stranger(InPlace), image()
    cases = (
        ({"layer": "body.7"}, UnknownNameError, "'body.7'"),
        (
            {"layer": "fc"},
            GeometryError,
            "fc has the output 4, which is not a feature map",
        ),
        ({"method": "gradcan"}, UnknownNameError, "no method is called 'gradcan'"),
        ({"target": 9}, UnknownNameError, "no class index is called '9'"),
        (
            {"method": "cam", "layer": "stem.0"},
            GeometryError,
            "layer before global average pooling",
        ),
    )
    for settings, kind, words in cases:
        with Unchanged(model), pytest.raises(kind, match=words):
            attribute(model, x, **settings)
    for wrong, words in (
        (x[0], "4 dimensions"),
        (x.repeat(2, 1, 1, 1), "one image at a time, got 2"),
        (x[:, :2], "does not accept a batch of 1×2×16×16"),
    ):
        with Unchanged(model), pytest.raises(GeometryError, match=words):
            attribute(model, wrong)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(768, 4))
    with pytest.raises(GeometryError, match="no layer's output has height"):
        attribute(flat, x)
    assert attribute(flat, x, method="occlusion").layer is None
    with pytest.raises(GeometryError, match="got 1×4×14×14"):
        attribute(nn.Sequential(nn.Conv2d(3, 4, 3)), x)
    side = stranger(Functional)
    side.unused = nn.Conv2d(3, 3, 1)
    with pytest.raises(GeometryError, match="unused returned no tensor"):
        attribute(side, x, layer="unused")

    class Aside(nn.Module):
        def __init__(self):
            super().__init__()
            self.aside = nn.Conv2d(3, 3, 1)
            self.fc = nn.Linear(768, 4)

        def forward(self, x):
            self.aside(x)
            return self.fc(x.flatten(1))

    with pytest.raises(
        GeometryError, match="score of class 2 does not depend on aside"
    ):
        attribute(Aside(), x, method="gradcam")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"window": (0, 1), "stride": (1, 1)}, "at least 1"),
        ({"window": (2, 2), "stride": (3, 2)}, "leaves gaps"),
    ],
)
def test_windows_are_checked(settings, words):
    with pytest.raises(SettingError, match=words):
        OcclusionWindow(**settings)


def test_it_works_without_gradients_and_in_inference_mode():
    model, x = stranger(InPlace), image()
    plain = attribute(model, x, method="gradcam", sanity_checks=False).layer_map
    with torch.no_grad():
        assert torch.equal(
            attribute(model, x, method="gradcam", sanity_checks=False).layer_map, plain
        )
    with torch.inference_mode():
        for method in METHODS:
            result = attribute(model, x, method=method, sanity_checks=False)
            assert result.heatmap.isfinite().all()


@pytest.mark.parametrize("method", METHODS)
def test_frozen_parameters_do_not_matter(method):
    model, x = stranger(InPlace), image()
    free = attribute(model, x, method=method, sanity_checks=False).layer_map
    model.requires_grad_(False)
    assert torch.equal(
        attribute(model, x, method=method, sanity_checks=False).layer_map, free
    )


class Widest(nn.Module):
    """Records its batch sizes in a text stream: attributes are restored."""

    def __init__(self):
        super().__init__()
        self.sizes = io.StringIO()

    @property
    def most(self):
        return max(map(int, self.sizes.getvalue().split()), default=0)

    def forward(self, x):
        self.sizes.write(f"{len(x)} ")
        return x


@pytest.mark.parametrize(
    ("method", "most"), [("scorecam", 2), ("occlusion", 2), ("integrated_gradients", 2)]
)
def test_large_images_go_through_a_few_at_a_time(method, most, monkeypatch):
    """Memory has a bound in pixels; the marks' images are under it too."""
    widest = Widest()
    tail = nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 4)
    model = nn.Sequential(widest, nn.Conv2d(3, 6, 3), *tail)
    x = image(3, 16)
    monkeypatch.setattr("striate.interpret.activations_at.MAX_PIXELS", 2 * 16 * 16 + 9)
    monkeypatch.setattr(
        "striate.interpret.attribution.occlusion._partial_scores", lambda *_: None
    )
    result = attribute(model, x, method=method, sanity_checks=False)
    assert result.heatmap.shape == (16, 16)
    assert widest.most == most
    widest.sizes = io.StringIO()
    deletion_and_insertion(model, x, result.heatmap, CAT)
    assert widest.most == 2


# --- trust ---------------------------------------------------------------------------


def test_sanity_check_detects_an_edge_detector(monkeypatch):
    """The planted one is an edge detector in the guise of a method."""

    model, x = stranger(InPlace), image(3, 32)
    honest = attribute(model, x, method="gradcam")
    assert not honest.sanity_checks.ignores_weights

    def edge_detector(network):
        return x[0].mean(0).abs()

    assert shuffled_weights_correlation(model, x[0].mean(0).abs(), edge_detector) == 1
    assert (
        shuffled_weights_correlation(model, torch.zeros(32, 32), edge_detector) is None
    )
    monkeypatch.setattr(
        "striate.interpret.attribution.attribute.grad_cam_map",
        lambda network, x, *_: edge_detector(0),
    )
    stamped = attribute(model, x, method="gradcam")
    assert stamped.sanity_checks.ignores_weights
    assert stamped.sanity_checks.shuffled_correlation == 1


def test_deletion_and_insertion_rank_maps():
    """A detector of one bright spot: the map that marks it wins both ways."""

    class Spot(nn.Module):
        def forward(self, x):
            bright = x[:, 0, 2:5, 3:6].mean((1, 2)) * 8
            return torch.stack([bright, torch.ones_like(bright)], 1)

    x = torch.zeros(1, 1, 32, 32)
    x[0, 0, 2:5, 3:6] = 1
    question = AttributionTarget(class_index=0, text="spot")
    good = deletion_and_insertion(Spot(), x, x[0, 0], question)
    bad = deletion_and_insertion(Spot(), x, -x[0, 0], question)
    assert good[0] < 0.4 < 0.9 < bad[0]
    assert good[1] > 0.9 > 0.7 > bad[1]
    result = attribute(Spot(), x, method="occlusion", target=0)
    assert result.sanity_checks.beats_random
    row, column = divmod(int(result.heatmap.argmax()), 32)
    assert row <= 5
    assert 1 <= column <= 7


def test_rank_correlation_is_scipys():
    chance = torch.Generator().manual_seed(0)
    a = torch.randint(0, 9, (60,), generator=chance).float()
    b = a + torch.randint(0, 9, (60,), generator=chance)
    expected = stats.spearmanr(a.numpy(), b.numpy()).statistic
    assert rank_correlation(a, b) == pytest.approx(expected, abs=1e-6)
