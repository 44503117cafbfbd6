"""Recomputing only what changes gives what recomputing everything gives."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import striate.interpret.attribution.occlusion as occlusions
from striate.core.hooks import evaluation_mode
from striate.interpret.attribution.batched_steps import run_batched
from striate.interpret.attribution.occlusion import OcclusionWindow, full_forward_scores
from striate.interpret.attribution.partial_forward import PartialForward
from striate.interpret.attribution.target import AttributionTarget
from striate.interpret.trace import record_trace
from striate.run.create_model import create_model
from support.foreign_networks import STRANGERS, Unchanged, stranger

TARGET = AttributionTarget(class_index=1, text="1")


def both(model, x, cover):
    """The scores of every window, by patches and each whole."""
    boxes = cover.boxes(*x.shape[2:])
    with evaluation_mode(model), torch.no_grad():
        actual = occlusions._partial_scores(model, x, TARGET, cover, boxes)
        whole = full_forward_scores(model, x, TARGET, cover, boxes)
    return None if actual is None else actual[1], whole


@pytest.mark.parametrize("size", [(16, 16), (21, 14)])
@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("kind", STRANGERS)
def test_networks_that_are_not_ours(kind, channels, size):
    model, x = stranger(kind, channels), torch.randn(1, channels, *size)
    with Unchanged(model):
        actual, whole = both(
            model, x, OcclusionWindow(window=(3, 2), stride=(2, 1), value=0.3)
        )
    assert actual is not None
    assert torch.allclose(actual, whole, atol=1e-5)
    assert whole.std() > 1e-4


@pytest.mark.parametrize(
    ("name", "side", "window"),
    [
        ("tutorial_gray", 28, 5),
        ("lenet5", 32, 6),
        ("cifar_resnet20", 32, 4),
        ("resnet18", 96, 13),
        ("mobilenet_v2", 96, 16),
        ("googlenet_no_aux", 96, 24),
        ("vgg11_bn", 64, 16),
    ],
)
def test_our_networks(name, side, window):
    torch.manual_seed(0)
    channels = 1 if side < 32 or name == "lenet5" else 3
    model = create_model(name, image_size=side, num_classes=4, in_chans=channels)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.bias.data.normal_(0, 0.1)
    x = torch.randn(1, channels, side, side)
    stride = window if side > 60 else window - 1
    actual, whole = both(
        model, x, OcclusionWindow(window=(window,) * 2, stride=(stride,) * 2)
    )
    assert actual is not None
    assert torch.allclose(actual, whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seed", range(30))
def test_random_geometry(seed):
    """Kernels, strides, paddings, dilations and windows of every kind."""
    chance = torch.Generator().manual_seed(seed)

    def pick(*values):
        return values[int(torch.randint(len(values), (), generator=chance))]

    torch.manual_seed(seed)
    kernel, dilation = pick(1, 2, 3, (3, 2), 5), pick(1, 2)
    pool = pick(
        nn.MaxPool2d(3, 2, 1),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.MaxPool2d(2, 1, dilation=2),
        nn.AvgPool2d(3, 2),
        nn.AvgPool2d(3, 2, 1),
        nn.AvgPool2d(2, ceil_mode=True),
        nn.AvgPool2d((2, 3), divisor_override=5),
    )
    first = nn.Conv2d(2, 4, kernel, pick(1, 2), pick(0, 1, 2), dilation, pick(1, 2))
    last = nn.Conv2d(4, 3, 3, 1, pick(0, 1, (2, 1)))
    tail = nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 3)
    model = nn.Sequential(first, nn.ReLU(), pool, last, nn.Tanh(), *tail)
    x = torch.randn(1, 2, pick(24, 27), pick(22, 31))
    window = pick((1, 1), (3, 4), (6, 2))
    actual, whole = both(model, x, OcclusionWindow(window=window, stride=window))
    assert actual is not None
    assert torch.allclose(actual, whole, atol=1e-5)


class PerBatch(nn.Module):
    """Another way for one image than for two."""

    def forward(self, x):
        x = x.mean((2, 3))
        return x * 2 if len(x) == 1 else x.tanh()


class Mixing(nn.Module):
    """Compares images of a batch with each other."""

    def forward(self, x):
        x = x.mean((2, 3))
        return x - x.mean(0) + 1


class AllAtOnce(nn.Module):
    """Takes a mean over everything it is given, twice."""

    def forward(self, x):
        x = x - x.mean() + torch.mean(x, dim=[])
        return x.mean((2, 3)) * x.amax()


class OwnKernel(nn.Module):
    """Makes the kernel that it slides over an image from the image."""

    def forward(self, x):
        kernel = x.mean((2, 3)).view(1, 3, 1, 1).repeat(3, 1, 2, 2)
        return F.conv2d(x, kernel).tanh().sum((2, 3))


class Turned(nn.Module):
    """Puts the images' axis elsewhere, and back."""

    def forward(self, x):
        x = x.permute(1, 0, 3, 2) * 2
        return x.flip(2).cumsum(3).permute(1, 0, 2, 3)[:, :, 4, 4]


SINGULAR = [PerBatch, Mixing, AllAtOnce, OwnKernel, Turned]


@pytest.mark.parametrize("kind", SINGULAR)
def test_networks_whose_batches_are_not_images_side_by_side(kind):
    """Every window is computed as if it came alone, as the network would see it."""
    torch.manual_seed(4)
    model, x = kind(), torch.randn(1, 3, 9, 9)
    cover = OcclusionWindow(window=(3, 3), stride=(3, 3))
    with torch.no_grad():
        result = occlusions._partial_scores(model, x, TARGET, cover, cover.boxes(9, 9))
    assert result is not None
    covered = []
    for rows, columns in cover.boxes(9, 9):
        image = x.clone()
        image[..., rows, columns] = 0
        covered.append(model(image)[0, 1])
    assert torch.allclose(result[1], torch.stack(covered), atol=1e-5)


class Awkward(nn.Module):
    """Constants that differ by place, sizes taken from the batch, odd joins."""

    def __init__(self):
        super().__init__()
        self.plane = nn.Parameter(torch.randn(3, 12, 12))
        self.conv = nn.Conv2d(6, 4, 3, padding=1)
        self.up = nn.ConvTranspose2d(4, 2, 2, 2)
        self.fc = nn.Linear(2 * 24 * 24, 3)

    def forward(self, x):
        b, _, h, w = x.shape
        x = torch.cat([x * self.plane, x.flip(3)], 1)
        x = torch.cat([self.conv(x), x.new_zeros(b, 2, h, w)], 1)[:, :4]
        x = x + F.avg_pool2d(x, 3, 1, 1)
        x = torch.cat([self.up(x), self.up(x)], 3)[..., :24]
        return self.fc(x.reshape(b, 2 * 24 * 24))


def test_awkward_networks():
    torch.manual_seed(2)
    model, x = Awkward(), torch.randn(1, 3, 12, 12)
    actual, whole = both(model, x, OcclusionWindow(window=(2, 2), stride=(1, 2)))
    assert actual is not None
    assert torch.allclose(actual, whole, atol=1e-5)


def test_a_difference_is_noticed(monkeypatch):
    """Take the guard's reason away and it must refuse: a rule that is wrong."""
    monkeypatch.setattr(
        "striate.interpret.attribution.partial_forward._AxisWindow.outputs_of",
        lambda self, starts, length, outputs: (starts, length),
    )
    model, x = stranger(STRANGERS[2]), torch.randn(1, 3, 16, 16)
    cover = OcclusionWindow(window=(2, 2), stride=(2, 2), value=3.0)
    actual, whole = both(model, x, cover)
    assert actual is None
    assert whole.isfinite().all()


def test_only_boxes_are_computed():
    """The one assertion that goes red if patches silently become whole maps."""
    seen = []
    convolution = torch.ops.aten.convolution.default

    def spy(x, *rest):
        seen.append(tuple(x.shape[2:]))
        return convolution(x, *rest)

    model = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1),
        nn.Conv2d(2, 2, 3, padding=1),
        nn.Flatten(),
        nn.Linear(2 * 40 * 40, 3),
    )
    x = torch.randn(1, 1, 40, 40)
    cover = OcclusionWindow(window=(4, 4), stride=(4, 4))
    with torch.no_grad():
        trace = record_trace(model, x)
        for step in trace.steps:
            step.call = spy if step.func is convolution else step.call
        PartialForward(trace).run(
            occlusions._occluded_boxes(x, *cover.axes(40, 40), cover)
        )
    assert seen == [(8, 8), (10, 10)]


def test_pooling_in_channels_last_prints_no_warning(capfd):
    """`adaptive_avg_pool2d` then calls `as_strided_`, which vmap cannot batch."""
    conv = nn.Conv2d(3, 8, 3)
    net = nn.Sequential(conv, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    net = net.eval().to(memory_format=torch.channels_last)
    x = torch.rand(1, 3, 9, 9).to(memory_format=torch.channels_last)
    trace = record_trace(net, x)
    step = next(s for s in trace.steps if s.name.startswith("as_strided"))
    values = torch.rand(5, *step.results[0].shape)
    with torch.no_grad():
        (result,) = run_batched(trace, step, {step.refs[0]: values})
    assert torch.equal(result, values)
    assert "performance drop" not in capfd.readouterr().err
