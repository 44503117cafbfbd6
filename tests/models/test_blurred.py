"""Blurred residual networks: equal to others' code, and steadier under a shift."""

import copy
import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from striate.audit.network import audit
from striate.core.errors import SettingError
from striate.layers.blur import BlurPool
from striate.models.resnet import IMAGENET, ResNetConfig, resnet
from striate.models.weights import load_pretrained
from striate.run.create_model import create_model
from support.optional_packages import imported

PAIRS = {"resnetblur18": "resnet18", "resnetblur50": "resnet50_v1_5"}
NAMES = ("resnetblur18", "antialiased_resnet18", "antialiased_resnet18_slim")
TRIANGLE = torch.tensor([1.0, 2.0, 1.0]) / 4


def blur(x):
    """Blur and halve by hand: mirrored borders, [1 2 1] along rows and columns."""
    weight = torch.outer(TRIANGLE, TRIANGLE).expand(x.shape[1], 1, 3, 3)
    padded = F.pad(x, (1, 1, 1, 1), mode="reflect")
    return F.conv2d(padded, weight.contiguous(), stride=2, groups=x.shape[1])


def by_hand(model, x, blurred_shortcut):
    """Run an 18-layer network's weights through plain torch."""
    x = model.relu(model.bn1(F.conv2d(x, model.conv1.weight, None, 2, 3)))
    size, padding = (2, 0) if blurred_shortcut else (3, 1)
    x = blur(F.max_pool2d(x, size, 1, padding))
    for i, stage in enumerate((model.layer1, model.layer2, model.layer3, model.layer4)):
        for j, block in enumerate(stage):
            steps = i > 0 and j == 0
            side = x
            out = F.relu(block.bn1(F.conv2d(x, block.conv1.weight, None, 1, 1)))
            out = blur(out) if steps else out
            out = block.bn2(F.conv2d(out, block.conv2.weight, None, 1, 1))
            if steps:
                side = blur(x) if blurred_shortcut else x[:, :, ::2, ::2]
                conv, norm = list(block.downsample)[-2:]
                side = norm(F.conv2d(side, conv.weight))
            x = F.relu(out + side)
    return model.fc(x.mean((2, 3)))


@pytest.mark.parametrize("name", NAMES)
def test_eighteen_layers_written_out_by_hand(name):
    model = create_model(name, num_classes=5, image_size=(65, 48), seed=1).eval()
    x = torch.randn(2, 3, 65, 48, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = by_hand(model, x, name.startswith("antialiased"))
        torch.testing.assert_close(model(x), expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", PAIRS)
def test_timm_has_the_same_networks_under_these_names(name, tmp_path):
    timm = imported("timm")
    torch.manual_seed(0)
    theirs = timm.create_model(name, num_classes=7).eval()
    path = tmp_path / "theirs.pth"
    torch.save(theirs.state_dict(), path)  # noqa: TID251 - as they publish it
    ours = create_model(name, num_classes=7, image_size=(65, 48)).eval()
    load_pretrained(ours, path, trust=True)
    x = torch.randn(2, 3, 65, 48)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x))


def renamed(name):
    """Return our name for the author's, whose blurs are counted among the layers."""
    name = re.sub(r"(layer[234]\.0\.conv[23])\.1\.", r"\1.", name)
    name = re.sub(r"(layer[234]\.0\.downsample)\.1\.", r"\1.0.", name)
    return re.sub(r"(layer[234]\.0\.downsample)\.2\.", r"\1.1.", name)


@pytest.mark.slow
@pytest.mark.parametrize("depth", [18, 50])
def test_the_authors_own_networks(depth):
    theirs_of = pytest.importorskip("antialiased_cnns", reason="not installed")
    torch.manual_seed(0)
    build = getattr(theirs_of, f"resnet{depth}")
    theirs = build(pretrained=False, filter_size=3).eval()
    ours = create_model(f"antialiased_resnet{depth}").eval()
    state = {
        renamed(name): value
        for name, value in theirs.state_dict().items()
        # The first projection does not step: it has no blur and is numbered from 0.
        if not name.endswith("filt")
    }
    ours.load_state_dict(state, strict=True)
    x = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("blurred", PAIRS)
def test_a_blurred_network_has_the_plain_ones_weights_and_costs_more(blurred):
    with torch.device("meta"):
        one, other = create_model(blurred), create_model(PAIRS[blurred])
    assert one.state_dict().keys() == other.state_dict().keys()
    macs = [audit(model, (3, 224, 224)).macs for model in (one, other)]
    more = {"resnetblur18": 1.289, "resnetblur50": 1.255}[blurred]
    assert macs[0] / macs[1] == pytest.approx(more, abs=1e-3)


def steps_by_blur_alone(config):
    """Return the layers behind conv1 that step, all of which must be blurs."""
    model = resnet(IMAGENET, 2, config=config)
    steps = [
        module
        for name, module in model.named_modules()
        if getattr(module, "stride", 1) not in (1, (1, 1)) and name != "conv1"
    ]
    return {type(module) for module in steps}, len(steps)


def test_what_steps():
    made = {"blocks": (1, 1, 1), "width": 8, "blur": 3}
    assert steps_by_blur_alone(ResNetConfig(**made, shortcut="")) == ({BlurPool}, 3)
    assert steps_by_blur_alone(ResNetConfig(**made)) == ({BlurPool, nn.Conv2d}, 5)
    every = ResNetConfig(**made, blurred_shortcut=True)
    assert steps_by_blur_alone(every) == ({BlurPool}, 5)
    for place in ("1x1", "3x3"):
        steps = ResNetConfig(**made, blurred_shortcut=True, stride_in=place)
        assert steps_by_blur_alone(steps) == ({BlurPool}, 5)


def test_what_cannot_be_blurred_is_refused():
    for wrong in ({"blur": 0}, {"blur": 3, "shortcut": "A"}):
        with pytest.raises(SettingError, match="only a 1×1 shortcut"):
            ResNetConfig(blocks=(1, 1), blurred_shortcut=True, **wrong)


def photographs(count, side):
    """Return pictures with photographs' spectrum: amplitude one over frequency."""
    draw = torch.Generator().manual_seed(3)
    line = torch.fft.fftfreq(side)
    frequency = (line[:, None] ** 2 + line**2).sqrt().clamp(min=1 / side)
    noise = torch.fft.fft2(torch.randn(count, 3, side, side, generator=draw))
    x = torch.fft.ifft2(noise / frequency).real
    return (x - x.mean((2, 3), keepdim=True)) / x.std((1, 2, 3), keepdim=True)


def change_by_a_shift(model, x):
    """Return how much the last features change when the picture moves by a pixel.

    The picture goes round, so that nothing comes or leaves. Distances are over those
    between pictures, which any network has.
    """
    features = copy.deepcopy(model)
    features.reset_classifier(0)
    with torch.no_grad():
        for norm in features.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.momentum = None
        features.train()(x)  # norms take the statistics of these pictures
        here, there = (features.eval()(x.roll(by, -1)) for by in (0, 1))
    return ((here - there).norm(dim=1).mean() / torch.pdist(here).mean()).item()


@pytest.mark.parametrize(
    ("kind", "most"), [("resnetblur18", 0.85), ("antialiased_resnet18", 0.65)]
)
def test_features_change_less_when_the_picture_moves_by_a_pixel(kind, most):
    """Measured 0.80 and 0.58 of the plain network's change."""
    x = photographs(12, 64)
    for seed in range(2):
        plain = create_model("resnet18", image_size=64, seed=seed)
        blurred = create_model(kind, image_size=64, seed=seed)
        blurred.load_state_dict(plain.state_dict())  # nothing but the blur differs
        assert change_by_a_shift(blurred, x) < most * change_by_a_shift(plain, x)
