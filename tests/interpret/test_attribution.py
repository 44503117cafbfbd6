"""Class evidence: against captum and on paper; on networks that are not ours."""

import pytest
import torch
from captum import attr
from scipy import stats
from torch import nn

import striate.interpret.attribution.cam as cam
from striate.core.errors import GeometryError, SettingError, UnknownNameError
from striate.interpret.attribution.attribute import METHODS, class_map, evidence
from striate.interpret.attribution.cam import cam_map, see
from striate.interpret.attribution.gap_head import ending
from striate.interpret.attribution.integrated_gradients import integrated_gradients
from striate.interpret.attribution.occlusion import Cover, occlusion
from striate.interpret.attribution.sanity_checks import (
    rank_correlation,
    removal,
    weight_dependence,
)
from striate.interpret.attribution.target import AttributionTarget, ask
from striate.interpret.layer_choice import calls_of, place
from striate.models.catalogue import create_model
from support.foreign_networks import (
    STRANGERS,
    Functional,
    InPlace,
    Reused,
    Unchanged,
    stranger,
)

CAT = AttributionTarget(target=1, words="cat")
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
            evidence(model, x, method=method)
        return
    with Unchanged(model):
        found = evidence(model, x, method=method, target="cat", labels=NAMES)
    assert found.heat.shape == (16, 16)
    assert found.question.words == "cat"
    assert found.heat.isfinite().all()
    assert found.signed or found.heat.min() >= 0
    assert 0 <= found.trust.deletion <= 1
    assert -1 <= (found.trust.randomized or 0) <= 1


# --- against captum ------------------------------------------------------------------


def agree(mine, theirs):
    """Within 10⁻⁵, and of small maps within 10⁻⁴ of their largest number."""
    theirs = theirs.detach()
    size = float(theirs.abs().max())
    return float((mine - theirs).abs().max()) <= 1e-5 * min(1.0, 10 * size)


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
    mine = [
        cam_map(model, x, layer, AttributionTarget(target=i, words=""), "gradcam")
        for i in range(4)
    ]
    peer = attr.LayerGradCam(model, model.get_submodule(layer))
    for i, one in enumerate(mine):
        theirs = peer.attribute(x, target=i, relu_attributions=True)[0, 0]
        assert agree(one, theirs)
    assert max(one.max() for one in mine) > 0


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("kind", STRANGERS)
def test_integrated_gradients_are_captums(kind, channels):
    model, x = stranger(kind, channels).eval(), image(channels)
    mine, gap = integrated_gradients(model, x, CAT)
    theirs, delta = attr.IntegratedGradients(model).attribute(
        x, target=1, return_convergence_delta=True
    )
    assert mine.abs().max() > 0
    assert agree(mine, theirs[0].float())
    assert gap == pytest.approx(delta.item(), abs=1e-4)


def test_one_of_ours_is_captums_too():
    """Batch norm, shortcuts, 20 layers; the maps that CAM is about, and lower ones."""
    torch.manual_seed(0)
    model, x = create_model("cifar_resnet20").eval(), image(3, 32)
    for layer in ("layer2", "layer3"):
        mine = cam_map(model, x, layer, CAT, "gradcam")
        peer = attr.LayerGradCam(model, model.get_submodule(layer))
        theirs = peer.attribute(x, target=1, relu_attributions=True)[0, 0]
        assert agree(mine, theirs)
    shares, _ = integrated_gradients(model, x, CAT)
    theirs = attr.IntegratedGradients(model).attribute(x, target=1)[0].float()
    assert agree(shares, theirs)


@pytest.mark.parametrize("kind", STRANGERS)
@pytest.mark.parametrize(
    "window", [((4, 4), (4, 4)), ((5, 3), (2, 3)), ((7, 7), (5, 5))]
)
def test_occlusion_is_captums(kind, window):
    model, x = stranger(kind).eval(), image()
    mine = occlusion(model, x, CAT, Cover(window=window[0], stride=window[1]))
    theirs = attr.Occlusion(model).attribute(
        x, (3, *window[0]), strides=(3, *window[1]), target=1
    )
    assert mine.abs().max() > 1e-3
    assert torch.allclose(mine, theirs[0, 0], atol=1e-5)


# --- on paper ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "googlenet"])
def test_cam_is_grad_cam_where_the_network_ends_in_averaging(name):
    torch.manual_seed(0)
    model = create_model(name, num_classes=4, image_size=96).train()
    x = image(3, 96)
    with Unchanged(model):
        exact = class_map(model, x, CAT)
        end = ending(model, x)
    seen = see(model, x, end.call, CAT)
    by_gradient = (seen.gradients.mean((2, 3), keepdim=True) * seen.activations).sum(1)
    assert torch.allclose(exact, by_gradient[0], atol=1e-5)
    total = exact.sum() + end.bias[1]
    assert total.item() == pytest.approx(seen.logits[0, 1].item(), abs=1e-4)
    assert end.class_maps().shape[:2] == (1, 4)


def test_functional_averaging_counts_and_its_absence_is_said():
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
    assert ending(Mean(), x).class_maps(torch.tensor([2])).shape == (1, 1, 14, 14)
    with pytest.raises(GeometryError, match="written to before"):
        ending(Mean(in_place=True), x)
    with pytest.raises(GeometryError, match="does more than average"):
        ending(Mean(twice=True), x)
    with pytest.raises(GeometryError, match="no linear layer takes"):
        ending(nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten()), x)
    with pytest.raises(GeometryError, match="there are no maps"):
        ending(nn.Sequential(nn.Flatten(), nn.Linear(768, 4)), x)
    straight = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    end = ending(straight, x)
    assert torch.allclose(end.class_maps().sum((2, 3)), end.logits, atol=1e-5)


def test_weights_of_the_table_on_paper():
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
    both = evidence(model, x, target="cat", against="dog", labels=NAMES, trust=False)
    assert both.question.words == "cat rather than dog"
    apart = [
        evidence(model, x, target=name, labels=NAMES, trust=False).own
        for name in ("cat", "dog")
    ]
    assert torch.allclose(both.own, apart[0] - apart[1], atol=1e-6)
    assert both.method == "cam"
    logits = torch.tensor([[0.0, 2.0, 1.0]])
    asked = ask(logits, against=2)
    assert asked.score(logits).item() == 1
    assert asked.chance(logits).item() == pytest.approx(0.7310586)
    with pytest.raises(SettingError, match="cannot be held against itself"):
        ask(logits, 1, 1)
    with pytest.raises(UnknownNameError, match="'cow'"):
        ask(logits, "cow", labels=["cat", "dog", "ox"])
    with pytest.raises(SettingError, match="2 class names for 3 outputs"):
        ask(logits, labels=["cat", "dog"])


def test_the_layer_is_chosen_and_said():
    x = image()
    assert place(stranger(InPlace), x).call == "body.1"
    assert place(stranger(Reused), x).call == "relu #3"
    branches = create_model("googlenet_no_aux", num_classes=4, image_size=64)
    assert place(branches, image(3, 64)).call == "inception4e"
    chosen = place(stranger(Functional), x)
    assert (chosen.call, chosen.shape) == ("top", (10, 6, 6))
    assert chosen.why == "the last layer with maps of 4×4 or finer, 6×6×10"
    assert calls_of(stranger(Reused), x)["again #2"] == (6, 16, 16)
    assert evidence(stranger(Reused), x, layer="relu", trust=False).layer.call == "relu"


def test_bad_input_is_refused_by_name():
    model, x = stranger(InPlace), image()
    cases = (
        ({"layer": "body.7"}, UnknownNameError, "'body.7'"),
        ({"layer": "fc"}, GeometryError, "fc gives 4, which is no map"),
        ({"method": "gradcan"}, UnknownNameError, "no method is called 'gradcan'"),
        ({"target": 9}, UnknownNameError, "no class index is called '9'"),
        ({"method": "cam", "layer": "stem.0"}, GeometryError, "maps that are averaged"),
    )
    for settings, kind, words in cases:
        with Unchanged(model), pytest.raises(kind, match=words):
            evidence(model, x, **settings)
    for wrong, words in (
        (x[0], "4 dimensions"),
        (x.repeat(2, 1, 1, 1), "one image at a time, got 2"),
        (x[:, :2], "refuses a batch of 1×2×16×16"),
    ):
        with Unchanged(model), pytest.raises(GeometryError, match=words):
            evidence(model, wrong)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(768, 4))
    with pytest.raises(GeometryError, match="no layer's output has height"):
        evidence(flat, x)
    assert evidence(flat, x, method="occlusion").layer is None
    with pytest.raises(GeometryError, match="the network gave 1×4×14×14"):
        evidence(nn.Sequential(nn.Conv2d(3, 4, 3)), x)
    side = stranger(Functional)
    side.unused = nn.Conv2d(3, 3, 1)
    with pytest.raises(GeometryError, match="unused gave no tensor here"):
        evidence(side, x, layer="unused")

    class Aside(nn.Module):
        def __init__(self):
            super().__init__()
            self.aside = nn.Conv2d(3, 3, 1)
            self.fc = nn.Linear(768, 4)

        def forward(self, x):
            self.aside(x)
            return self.fc(x.flatten(1))

    with pytest.raises(GeometryError, match="aside does not lead to the score"):
        evidence(Aside(), x, method="gradcam")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"window": (0, 1), "stride": (1, 1)}, "at least 1"),
        ({"window": (2, 2), "stride": (3, 2)}, "leave gaps"),
    ],
)
def test_windows_are_checked(settings, words):
    with pytest.raises(SettingError, match=words):
        Cover(**settings)


def test_it_works_without_gradients_and_in_inference_mode():
    model, x = stranger(InPlace), image()
    plain = evidence(model, x, method="gradcam", trust=False).own
    with torch.no_grad():
        assert torch.equal(evidence(model, x, method="gradcam", trust=False).own, plain)
    with torch.inference_mode():
        for method in METHODS:
            found = evidence(model, x, method=method, trust=False)
            assert found.heat.isfinite().all()


@pytest.mark.parametrize("method", METHODS)
def test_frozen_parameters_do_not_matter(method):
    model, x = stranger(InPlace), image()
    free = evidence(model, x, method=method, trust=False).own
    model.requires_grad_(False)
    assert torch.equal(evidence(model, x, method=method, trust=False).own, free)


class Widest(nn.Module):
    """Remembers the largest batch that came through."""

    def __init__(self):
        super().__init__()
        self.most = 0

    def forward(self, x):
        self.most = max(self.most, len(x))
        return x


@pytest.mark.parametrize(
    ("method", "most"), [("scorecam", 2), ("occlusion", 2), ("integrated", 2)]
)
def test_large_images_go_through_a_few_at_a_time(method, most, monkeypatch):
    """Memory has a bound in pixels; the marks' images are under it too."""
    widest = Widest()
    tail = nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 4)
    model = nn.Sequential(widest, nn.Conv2d(3, 6, 3), *tail)
    x = image(3, 16)
    monkeypatch.setattr("striate.interpret.activations_at.PIXELS", 2 * 16 * 16 + 9)
    monkeypatch.setattr(
        "striate.interpret.attribution.occlusion._patched", lambda *_: None
    )
    found = evidence(model, x, method=method, trust=False)
    assert found.heat.shape == (16, 16)
    assert widest.most == most
    widest.most = 0
    removal(model, x, found.heat, CAT)
    assert widest.most == 2


# --- trust ---------------------------------------------------------------------------


def test_a_map_that_ignores_the_weights_gets_the_red_stamp(monkeypatch):
    """The planted one is an edge detector in the guise of a method."""

    model, x = stranger(InPlace), image(3, 32)
    honest = evidence(model, x, method="gradcam")
    assert not honest.trust.blind

    def blind(network):
        return x[0].mean(0).abs()

    assert weight_dependence(model, x[0].mean(0).abs(), blind) == 1
    assert weight_dependence(model, torch.zeros(32, 32), blind) is None
    monkeypatch.setattr(
        "striate.interpret.attribution.attribute.cam_map",
        lambda network, x, *_: blind(0),
    )
    stamped = evidence(model, x, method="gradcam")
    assert stamped.trust.blind
    assert stamped.trust.randomized == 1


def test_deletion_and_insertion_know_a_good_map_from_a_bad_one():
    """A detector of one bright spot: the map that marks it wins both ways."""

    class Spot(nn.Module):
        def forward(self, x):
            bright = x[:, 0, 2:5, 3:6].mean((1, 2)) * 8
            return torch.stack([bright, torch.ones_like(bright)], 1)

    x = torch.zeros(1, 1, 32, 32)
    x[0, 0, 2:5, 3:6] = 1
    question = AttributionTarget(target=0, words="spot")
    good = removal(Spot(), x, x[0, 0], question)
    bad = removal(Spot(), x, -x[0, 0], question)
    assert good[0] < 0.4 < 0.9 < bad[0]
    assert good[1] > 0.9 > 0.7 > bad[1]
    found = evidence(Spot(), x, method="occlusion", target=0)
    assert found.trust.beats_chance
    row, column = divmod(int(found.heat.argmax()), 32)
    assert row <= 5
    assert 1 <= column <= 7


def test_rank_correlation_is_scipys():
    chance = torch.Generator().manual_seed(0)
    a = torch.randint(0, 9, (60,), generator=chance).float()
    b = a + torch.randint(0, 9, (60,), generator=chance)
    theirs = stats.spearmanr(a.numpy(), b.numpy()).statistic
    assert rank_correlation(a, b) == pytest.approx(theirs, abs=1e-6)
