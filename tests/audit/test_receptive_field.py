"""The predicted box is the box of non-zero input gradients, every time."""

from __future__ import annotations

import random
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from striate.audit import tracker_rules
from striate.audit.meta_device import init_empty_weights
from striate.audit.network import audit
from striate.core.errors import GeometryError
from striate.run.create_model import create_model
from support.brute_receptive_field import boxes, positive
from support.random_networks import Apply, chain


def contains(outer, inner):
    pairs = zip(outer, inner or outer, strict=True)
    return all(a[0] <= b[0] and b[1] <= a[1] for a, b in pairs)


def agree(model, shape, units):
    """Check units of a positive network; return the sight of its output."""
    result = audit(model, shape)
    end = result.container_outputs.get("") or result.layers[-1]
    out = model(torch.zeros(1, *shape, dtype=torch.double))
    for row, column in units(out.shape[2:]):
        said, real = (
            end.receptive_field.box(row, column),
            boxes(model, shape, (row, column)),
        )
        bound = end.receptive_field.is_bound and contains(said, real)
        assert said == real or bound, (model, shape, (row, column), said, real)
    return end.receptive_field


def check(seed: int) -> None:
    draw = random.Random(seed)
    torch.manual_seed(seed)
    model = positive(chain(draw, draw.randint(1, 6)))
    shape = 4, draw.randint(7, 24), draw.randint(7, 24)
    try:
        sides = audit(model, shape).container_outputs[""].output[2:]
    except GeometryError:
        return
    if min(sides):
        unit = [tuple(draw.randrange(side) for side in sides) for _ in range(4)]
        assert not agree(model, shape, lambda sides: unit).is_bound


# torch warns that it copies the image for an even kernel.
@pytest.mark.filterwarnings("ignore:Using padding='same' with even")
@pytest.mark.parametrize("times", [50, pytest.param(200, marks=pytest.mark.slow)])
def test_boxes_are_those_of_gradients(times):
    """On networks of windows, branches, reshapes, enlargements and gates."""
    case = given(st.integers(0, 2**32))(check)
    settings(max_examples=times, derandomize=True)(case)()


def stem(stride_first: bool) -> nn.Sequential:
    """ResNet-50's windows (He et al. 2015, table 1), the stride in either place."""
    layers = [nn.Conv2d(3, 1, 7, 2, 3), nn.MaxPool2d(3, 2, 1)]
    for blocks, stride in ((3, 1), (4, 2), (6, 2), (3, 2)):
        for i in range(blocks):
            s = stride if i == 0 else 1
            one, three = (s, 1) if stride_first else (1, s)
            channels = 3 if len(layers) == 0 else 1
            layers.append(nn.Conv2d(channels, 1, 1, one))
            layers.append(nn.Conv2d(1, 1, 3, three, 1))
    return nn.Sequential(*layers)


@pytest.mark.parametrize(("first", "size"), [(True, 483), (False, 427)])
def test_resnet50_with_its_stride_in_either_place(first, size):
    line = audit(stem(first), (3, 224, 224)).layers[-1].receptive_field.axes[0].formula
    assert (line.size, line.jump) == (size, 32)


@pytest.mark.parametrize(
    ("name", "side", "size"), [("alexnet", 227, 195), ("vgg16", 224, 212)]
)
def test_published_fields_at_the_last_pool(name, side, size):
    with init_empty_weights():
        model = create_model(name)
    layers = audit(model, (3, side, side)).layers
    pool = [layer for layer in layers if layer.kind == "MaxPool2d"][-1]
    assert pool.receptive_field.axes[0].formula.size == size


def test_dilation_sees_five_by_five_with_nine_weights():
    (layer,) = audit(nn.Conv2d(1, 1, 3, dilation=2, bias=False), (1, 9, 9)).layers
    assert layer.receptive_field.axes[0].formula.size == 5
    assert layer.parameters == 9


def windows(x):
    """Attention in windows of 2×2, as Swin's."""
    n, c, h, w = x.shape
    parts = x.view(n, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 3, 5, 1)
    parts = parts.reshape(-1, 4, c)
    mixed = torch.bmm(torch.softmax(torch.bmm(parts, parts.transpose(1, 2)), 2), parts)
    back = mixed.view(n, h // 2, w // 2, 2, 2, c).permute(0, 5, 1, 3, 2, 4)
    return back.reshape(n, c, h, w)


def write_part(x):
    y = x.clone()
    y[:, :, 1:] += x[:, :, :-1]
    return y


ODD = {
    "windows of attention": windows,
    "softmax over rows": lambda x: x.softmax(2),
    "layer norm over channels": lambda x: F.layer_norm(
        x.permute(0, 2, 3, 1), (4,)
    ).permute(0, 3, 1, 2),
    "layer norm over all": lambda x: F.layer_norm(x, x.shape[1:]),
    "group norm": lambda x: F.group_norm(x, 2),
    "instance norm": F.instance_norm,
    "turned": lambda x: x.transpose(2, 3),
    "flat and back": lambda x: x.flatten(2).unflatten(2, (6, 8)),
    "flat, wrongly back": lambda x: x.flatten(2).unflatten(2, (8, 6)),
    "stacked rows": lambda x: torch.cat([x, x.flip(2)], 2),
    "end to end": lambda x: torch.cat([x, x * 2], 2),
    "with a constant": lambda x: torch.cat([x, torch.ones(1, 1, 6, 8).to(x)], 1),
    "constant rows": lambda x: torch.cat([x, torch.ones(1, 4, 1, 8).to(x)], 2),
    "one row": lambda x: x.select(2, 3).unsqueeze(2),
    "unbound": lambda x: torch.stack(x.unbind(2), 2),
    "split rows": lambda x: x.split(4, 2)[1],
    "split unevenly": lambda x: x.split([1, 5], 2)[1],
    "biggest": lambda x: x.amax((2, 3), keepdim=True) * x,
    "biggest row": lambda x: x.amax(2, keepdim=True),
    "reflected": lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"),
    "cropped by padding": lambda x: F.pad(x, (-1, 1, 0, -2)),
    "rolled": lambda x: x.roll(1, 2),
    "written in part": write_part,
    "broadcast": lambda x: x * x.mean(3, keepdim=True),
    "outer": lambda x: x.mean(3, keepdim=True) * x.mean(2, keepdim=True),
    "turned and added": lambda x: x[:, :, :, :6] + x[:, :, :, :6].transpose(2, 3),
    "rows times columns": lambda x: x @ x.transpose(2, 3),
    "weights first": lambda x: torch.ones(3, 6).to(x) @ x,
    "made a filter": lambda x: F.conv2d(x, x[:, :, :3, :3]),
    "grouped in space": lambda x: F.conv2d(
        x.transpose(1, 2), torch.ones(6, 3, 1, 1).to(x), groups=2
    ).transpose(1, 2),
    "windows over flat": lambda x: F.avg_pool2d(x.flatten(2).unsqueeze(2), (1, 3)),
    "unshuffled": lambda x: F.pixel_unshuffle(x, 2),
    "gated, then padded": lambda x: F.avg_pool2d(x.mean((2, 3), keepdim=True), 3, 1, 1),
    "gated, then shuffled": lambda x: F.pixel_shuffle(x.mean((2, 3), True), 2),
    "gated, then enlarged": lambda x: F.interpolate(x.mean((2, 3), True), (3, 3)),
    "lrn": lambda x: F.local_response_norm(x, 3),
    "largest": lambda x: F.adaptive_avg_pool2d(x, (1, 1)),
    "squeezed": lambda x: x[:, :, :1].squeeze(2).unsqueeze(2),
    "whole softmax": lambda x: x * x.sum(),
    "cumulated": lambda x: x.cumsum(3),
    "half": lambda x: x.half().double(),
    "max, dim": lambda x: x.max(2, keepdim=True).values + x,
}


CHANCE = {"biggest", "biggest row", "max, dim"}


@pytest.mark.parametrize(("name", "function"), ODD.items(), ids=ODD)
def test_functions_are_followed_or_bounded(name, function):
    """Every unit, exactly where it is followed; never too small a box."""
    torch.manual_seed(0)
    model = positive(
        nn.Sequential(nn.Conv2d(4, 4, 1), Apply(function), Apply(lambda x: x * 1))
    )
    every = lambda sides: product(*({0, side // 2, side - 1} for side in sides))  # noqa: E731
    result = audit(model, (4, 6, 8)).container_outputs[""].receptive_field
    agree_inside(model, (4, 6, 8), every, chance=name in CHANCE)
    assert len(result.dims) == 4


def agree_inside(model, shape, units, chance):
    """Check units; where the largest alone has a gradient, it lies within the box."""
    end = audit(model, shape).container_outputs[""]
    out = model(torch.rand(1, *shape, dtype=torch.double))
    for unit in units(out.shape[2:]):
        said, real = end.receptive_field.box(*unit), varied(model, shape, unit)
        assert contains(said, real) if said else real is None, (unit, said, real)
        if not (end.receptive_field.is_bound or chance):
            assert said == real


def varied(model, shape, unit):
    """Unite the boxes of random images, so that chance zeros do not count."""
    result = []
    for _ in range(3):
        image = torch.rand(1, *shape, dtype=torch.double, requires_grad=True)
        out = model(image)[0, :, unit[0], unit[1]]
        total = (out * torch.rand(out.shape, dtype=out.dtype)).sum()
        if total.requires_grad:
            (gradient,) = torch.autograd.grad(total, image)
            result.append(gradient[0].abs().sum(0) > 0)
    reached = torch.stack(result).any(0) if result else torch.zeros(1, 1, dtype=bool)
    if not reached.any():
        return None
    return tuple(
        (int(at.nonzero()[0]), int(at.nonzero()[-1]))
        for at in (reached.any(1), reached.any(0))
    )


def test_a_unit_of_padding_alone_sees_nothing():
    sight = audit(nn.Conv2d(1, 1, 1, padding=1), (1, 3, 3)).layers[0].receptive_field
    assert sight.box(0, 1) is None
    assert sight.box(1, 1) == ((0, 0), (0, 0))


def test_many_paths_are_merged():
    """Branches that see padding alone are kept apart up to a limit, then bounded."""
    line = nn.Conv2d(1, 1, 1, padding=1)

    class Many(nn.Module):
        def __init__(self):
            super().__init__()
            self.formula = line

        def forward(self, x):
            shifted = [F.pad(x, (i, 20 - i, i % 3, 2 - i % 3)) for i in range(20)]
            return torch.cat(shifted, 1)

    sight = audit(Many(), (1, 4, 4)).container_outputs[""].receptive_field
    assert sight.is_bound
    assert len(sight.paths) == 1


FACTORS = (1.3, 2.6, 0.7, 0.3, 1.7, 2, 3)
MODES = {
    "nearest": {},
    "nearest-exact": {},
    "bilinear": {},
    "bilinear, aligned": {"align_corners": True},
    "bicubic": {},
    "bilinear, smoothed": {"antialias": True},
    "bicubic, smoothed": {"antialias": True},
    "by size": {"size": (7, 15)},
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("mode", MODES)
def test_resizes_round_as_torch_rounds(mode, dtype):
    """Every unit has the box of its non-zero gradients, for any scale factor."""
    settings = {"mode": mode.partition(",")[0], **MODES[mode]}
    if mode == "by size":
        settings["mode"] = "bilinear"
    for factor in (None,) if mode == "by size" else FACTORS:
        if factor is not None:
            settings["scale_factor"] = factor
        model = Apply(lambda x, settings=settings: F.interpolate(x, **settings))
        model.scale = nn.Parameter(torch.ones(1, dtype=dtype))  # sets the type
        field = audit(model, (1, 11, 11)).layers[0].receptive_field
        image = torch.rand(1, 1, 11, 11, dtype=dtype, requires_grad=True)
        out = model(image)
        for unit in range(out.shape[2]):
            row = out[0, 0, unit].sum()
            (gradient,) = torch.autograd.grad(row, image, retain_graph=True)
            rows = (gradient[0, 0] != 0).any(1).nonzero()
            box = field.box(unit, 0)[0]
            real = int(rows[0]), int(rows[-1])
            assert box == real or (field.is_bound and contains((box,), (real,)))
        exact = mode in ("nearest", "bilinear", "by size") and factor in (
            None,
            1.3,
            0.7,
            2,
        )
        assert not (exact and dtype is torch.float32 and field.is_bound)


def test_sequences_are_resized_too():
    class Rows(nn.Module):
        def forward(self, x):
            return F.interpolate(x.flatten(1, 2), scale_factor=2.0, mode="linear")

    field = audit(Rows(), (1, 1, 5)).layers[0].receptive_field
    assert field.box(0, 3)[1] == (1, 2)
    single = audit(
        Apply(lambda x: F.interpolate(x, (1, 1), mode="bilinear", align_corners=True)),
        (1, 5, 5),
    )
    assert single.layers[0].receptive_field.box(0, 0) == ((0, 0), (0, 0))
    gated = Apply(lambda x: F.interpolate(x.flatten(2)[..., None], (25, 3)))
    assert audit(gated, (1, 5, 5)).layers[0].receptive_field.is_bound


ACTIVATIONS = [
    *(nn.Hardswish(), nn.PReLU(), nn.PReLU(4), nn.GLU(1), nn.GELU(), nn.Mish()),
    *(nn.LogSigmoid(), nn.RReLU(), nn.CELU(), nn.SELU(), nn.Softsign(), nn.SiLU()),
    *(nn.Tanhshrink(), nn.Softshrink(), nn.Hardshrink(), nn.Softplus(), nn.ELU()),
    *(nn.Threshold(0, 0), nn.Hardtanh(), nn.ReLU6(), nn.LeakyReLU(), nn.Hardsigmoid()),
]


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=repr)
def test_activations_are_element_wise(activation):
    model = nn.Sequential(nn.Conv2d(1, 4, 3), activation, nn.Conv2d(4, 1, 1))
    if isinstance(activation, nn.GLU):
        model[2] = nn.Conv2d(2, 1, 1)
    field = audit(model, (1, 8, 8)).layers[-1].receptive_field
    assert (field.is_bound, field.box(2, 3)) == (False, ((2, 4), (3, 5)))


def test_a_gate_over_rows_is_a_bound():
    field = audit(Apply(lambda x: F.glu(x, 2)), (1, 4, 4)).layers[0].receptive_field
    assert field.is_bound


NORMS = {
    "normalize": F.normalize,
    "norm of order 2": lambda x: x / x.norm(p=2.0, dim=1, keepdim=True),
    "norm of order 1": lambda x: x.norm(1, dim=1),
    "vector norm": lambda x: torch.linalg.vector_norm(x, 2.0, 1),
    "logsumexp": lambda x: x.logsumexp(1),
    "deviation": lambda x: x.std(1, keepdim=True),
    "product": lambda x: x.prod(1),
}


@pytest.mark.parametrize("function", NORMS.values(), ids=NORMS)
def test_norms_over_channels_keep_positions(function):
    model = nn.Sequential(nn.Conv2d(2, 4, 3), Apply(function))
    field = audit(model, (2, 6, 6)).layers[-1].receptive_field
    assert (field.is_bound, field.box(1, 2)) == (False, ((1, 3), (2, 4)))


def test_a_rule_that_fails_gives_an_upper_bound(monkeypatch):
    """A fault of ours must not be blamed on the network."""

    def broken(field, args, shape):
        raise TypeError("'float' object is not iterable")

    monkeypatch.setitem(tracker_rules._RULES, "mean", broken)
    field = audit(Apply(lambda x: x.mean(1)), (2, 4, 4)).layers[0].receptive_field
    assert (field.is_bound, field.box(0, 0)) == (True, ((0, 3), (0, 3)))


def test_a_box_is_that_of_all_channels_of_a_position():
    """Two branches with different windows: the box unites them."""
    both = Apply(lambda x: torch.cat([x, F.avg_pool2d(x, 3, 1, 1)], 1))
    field = audit(both, (1, 5, 5)).layers[0].receptive_field
    assert field.box(2, 2) == ((1, 3), (1, 3))


def test_a_box_unites_what_its_indices_leave_open():
    """With channels last, two indices are a column and a channel: all rows remain."""
    last = nn.Sequential(nn.Conv2d(3, 4, 3), Apply(lambda x: x.permute(0, 2, 3, 1)))
    field = audit(last, (3, 8, 8)).layers[-1].receptive_field
    assert field.box(2, 1) == ((0, 7), (2, 4))
    assert field.box(5, 2, 1) == ((5, 7), (2, 4))
