"""The ledger: on paper, against the framework, inside the predicted field."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from striate.audit.network import audit
from striate.core.errors import GeometryError, SettingError, UnknownNameError
from striate.interpret.arithmetic.contributions import contributions
from striate.interpret.arithmetic.unit_arithmetic import UnitArithmetic
from striate.interpret.arithmetic.unit_value import COPY, FUNCTION, IMAGE, MAXIMUM, SUM
from striate.interpret.arithmetic.worked_example import (
    nearest_convolution,
    worked_example,
)
from striate.interpret.attribution.occlusion import occlusion
from striate.interpret.attribution.target import AttributionTarget
from striate.interpret.trace import TensorRef, record_trace
from striate.models.catalogue import list_models, model_entry
from striate.run.create_model import create_model
from support.foreign_networks import STRANGERS, Functional, InPlace, Unchanged, stranger

SMALL = "lenet5 lenet5_modern tutorial_gray tutorial_color cifar_resnet20 cifar_plain20"


def random_units(book, count, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        ref = TensorRef(int(rng.integers(1, len(book.trace.steps))))
        if book.trace.value(ref).shape[:1] == (1,):  # not LeNet's table, turned round
            yield ref, tuple(int(rng.integers(n)) for n in book.shape(ref))


def uneven(model):
    """Give batch norm something to do, whatever initialization made of it."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            module.bias.data.normal_(0, 0.1)
    return model


def test_a_convolution_on_paper():
    """The notes' vertical-edge filter upon a step from 10 to 0 gives 30."""
    model = nn.Sequential(nn.Conv2d(1, 1, 3, bias=False), nn.ReLU())
    model[0].weight.data[:] = torch.tensor([[1.0, 0, -1]] * 3)
    x = torch.zeros(1, 1, 6, 6)
    x[..., :3] = 10
    entry = UnitArithmetic(model, x).open("0", (0, 0, 1))
    assert (entry.value, entry.result, entry.kind) == (30, 30, SUM)
    (part,) = entry.terms
    assert part.ref == TensorRef(0)
    assert part.positions.tolist() == [1, 2, 3, 7, 8, 9, 13, 14, 15]
    assert part.values.tolist() == [10, 10, 0] * 3
    assert part.weights.tolist() == [1, 0, -1] * 3
    assert part.contributions.sum() == 30


def test_every_kind_of_unit_value():
    model, x = stranger(Functional).eval(), torch.randn(1, 3, 12, 12)
    book = UnitArithmetic(model, x)
    expected = {
        "left": (SUM, "convolution"),
        "norm": (SUM, "batch norm"),
        "top": (SUM, "convolution"),
        "head": (SUM, "linear"),
        "output": (SUM, "linear"),
    }
    for name, kinds in expected.items():
        unit = (0,) * len(book.shape(book.find(name)))
        assert (book.open(name, unit).kind, book.open(name, unit).operation) == kinds
    by_step = {step.name: i for i, step in enumerate(book.trace.steps)}
    assert book.open(f"@{by_step['cat']}", (6, 1, 1)).kind == COPY
    winner = book.open(f"@{by_step['max_pool2d_with_indices']}", (2, 1, 1))
    assert winner.kind == MAXIMUM
    window = book.trace.value(winner.terms[0].ref)[0, 2, 2:4, 2:4]
    assert winner.value == window.max()
    assert book.open(f"@{by_step['silu']}", (0, 3, 3)).kind == FUNCTION
    assert book.open("image", (1, 2, 3)).kind == IMAGE
    assert book.open("image", (1, 2, 3)).value == x[0, 1, 2, 3]
    assert book.name(TensorRef(by_step["cat"])) == "cat"
    assert set(book.names) == {
        "image",
        "left",
        "right",
        "norm",
        "top",
        "head",
        "output",
    }
    followed = book.follow(book.open("norm", (7, 2, 2)), 0, 0)
    assert followed.operation == "cat"
    assert followed.value == book.open("norm", (7, 2, 2)).terms[0].values[0]


class Rare(nn.Module):
    """Operations that the catalogue's networks do not have."""

    def __init__(self):
        super().__init__()
        self.up = nn.ConvTranspose2d(2, 4, 3, stride=2, padding=1, groups=2)
        self.wide = nn.Conv2d(4, 4, 3, dilation=2, stride=2, padding=2, groups=4)
        self.scale = nn.Parameter(torch.randn(4, 1, 1))
        self.free = nn.BatchNorm2d(4, affine=False)
        self.batch = nn.BatchNorm2d(4, track_running_stats=False)

    def forward(self, x):
        x = F.pad(self.up(x), (1, 2, 0, 1), value=0.5)
        x = F.pad(x, (1, 1, 1, 1), mode="reflect")
        x = self.batch(self.free(self.wide(x)) * self.scale)
        x = 2 - x / 3 + x.new_ones(4, 1, 1) * x.sigmoid() * x
        x = F.interpolate(x, scale_factor=2, mode="bilinear")
        x = torch.sub(x, torch.flip(x, [3]), alpha=0.5).transpose(2, 3)
        x = F.avg_pool2d(x, 3, 2, 1) + F.adaptive_avg_pool2d(x, 1)
        x = torch.stack([x, x.softmax(1)], 1).flatten(1, 2)
        x = torch.cat([x, torch.ones_like(x[:, :1])], 1)
        a, b = x.chunk(2, 1)
        y = F.max_pool2d(a, 2)[:, :, 0] @ a.new_ones(1, a.shape[3] // 2, 3)
        return y.mean(2) + b.mean((2, 3))[:, :1] + x.amax((1, 2, 3))[:, None] / a.std()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rare_operations_add_up(dtype):
    torch.manual_seed(1)
    model = Rare().to(dtype).eval()
    book = UnitArithmetic(model, torch.randn(1, 2, 7, 9, dtype=dtype))
    limit = 1e-5 if dtype == torch.float32 else 1e-12
    kinds = {}
    for ref, unit in random_units(book, 600):
        entry = book.open(ref, unit)
        assert entry.error < limit, book.name(ref)
        kinds.setdefault(book.trace.steps[ref.step].name, entry.kind)
    assert kinds["flip"] == kinds["reflection_pad2d"] == kinds["transpose"] == COPY
    assert kinds["_softmax"] == kinds["bmm"] == kinds["amax"] == FUNCTION
    assert kinds["upsample_bilinear2d"] == kinds["rsub"] == SUM


def check_units(model, x, count, limit=1e-5):
    book = UnitArithmetic(model, x)
    worst = 0.0
    for ref, unit in random_units(book, count):
        entry = book.open(ref, unit)
        worst = max(worst, entry.error)
        assert entry.error <= limit, (book.name(ref), unit, entry.operation)
        shape = book.trace.value(ref).shape
        assert entry.value == book.trace.value(ref)[(0, *unit)], shape
    return worst


@pytest.mark.parametrize("name", SMALL.split())
def test_random_units_of_small_networks_add_up(name):
    torch.manual_seed(0)
    entry = model_entry(name)
    model = uneven(create_model(name))
    check_units(model, torch.randn(1, *entry.image.shape), 60)


@pytest.mark.slow
@pytest.mark.parametrize("name", list_models())
def test_random_units_of_every_network_add_up(name):
    """32 units of each of our networks, over 1,000 in all, each to the value itself.

    In single precision to 10⁻⁵ of the terms' size, which is all that a sum that cancels
    can be known to; in double to 10⁻⁵ of the number itself, and 10⁻¹² of the terms'.
    From every one of them a random way down stays in its predicted field.
    """
    model, x = inside(name)
    check_units(model, x, 32)
    model, x = model.double(), x.double()
    check_units(model, x, 32, 1e-12)
    book = UnitArithmetic(model, x)
    for ref, unit in random_units(book, 32):
        entry = book.open(ref, unit)
        assert abs(entry.result - entry.value) <= 1e-5 * abs(entry.value)
    assert pixels_in_field(name, model, x, 32) > 0


def test_enough_units_are_tested():
    """What the slow test opens, over all our networks: a thousand and more."""
    assert 32 * len(list_models()) >= 1000


def inside(name):
    """One of our networks, small where its geometry admits it, and an image."""
    torch.manual_seed(0)
    entry = model_entry(name)
    side = min(entry.image.height, 96 if name.startswith("googlenet") else 64)
    if name.startswith(("alexnet", "lenet", "vgg", "notes")):
        side = entry.image.height
    model = uneven(create_model(name, image_size=side, num_classes=10)).eval()
    return model, torch.randn(1, entry.image.channels, side, side)


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("kind", STRANGERS)
def test_networks_that_are_not_ours_add_up_and_stay_as_they_were(kind, channels):
    model, x = stranger(kind, channels), torch.randn(1, channels, 12, 12)
    with Unchanged(model):
        check_units(model, x, 80)
    assert torch.allclose(record_trace(model, x).steps[0].results[0], x)


@pytest.mark.parametrize(
    "name", ["lenet5", "tutorial_color", "cifar_resnet20", "alexnet"]
)
def test_contributions_lie_in_the_predicted_field(name):
    """From random units by random terms to a pixel: always inside the audit's box.

    The ledger and the audit know nothing of each other.
    """
    torch.manual_seed(0)
    entry = model_entry(name)
    model = uneven(create_model(name)).eval()
    x = torch.randn(1, *entry.image.shape)
    assert pixels_in_field(name, model, x, 60) > 5


def pixels_in_field(name, model, x, count):
    """Walk down from random units; return how many ways ended at a pixel."""
    shape = tuple(x.shape[1:])
    sights = {layer.name: layer.receptive_field for layer in audit(model, shape).layers}
    book = UnitArithmetic(model, x)
    rng = np.random.default_rng(0)
    pixels = 0
    for ref, unit in random_units(book, count):
        sight = sights.get(book.name(ref))
        if sight is None or len(unit) != 3 or sight.is_bound:
            continue
        box = sight.box(*unit[1:])
        step = book.open(ref, unit)
        while step.terms and step.kind != IMAGE:
            terms = [(i, len(part.positions)) for i, part in enumerate(step.terms)]
            part, terms_of = terms[int(rng.integers(len(terms)))]
            if not terms_of:
                break
            step = book.follow(step, part, int(rng.integers(terms_of)))
        if step.kind == IMAGE:
            pixels += 1
            (top, bottom), (left, right) = box
            assert top <= step.unit[2] <= bottom, name
            assert left <= step.unit[3] <= right, name
    return pixels


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("kind", STRANGERS)
def test_every_pixel_that_adds_lies_in_the_predicted_field(kind, channels):
    """All of a unit's pixels at once, not one way down: none outside the box adds."""
    model, x = stranger(kind, channels).eval(), torch.randn(1, channels, 12, 12)
    layers = audit(model, (channels, 12, 12)).layers
    book = UnitArithmetic(model, x)
    rng = np.random.default_rng(1)
    checked = 0
    for layer in layers:
        if (
            layer.receptive_field is None
            or layer.receptive_field.is_bound
            or layer.name not in book.names
        ):
            continue
        shape = book.shape(book.find(layer.name))
        if len(shape) != 3:
            continue
        unit = tuple(int(rng.integers(n)) for n in shape)
        pixels = contributions(book, layer.name, unit).pixels.abs().sum(0)
        (top, bottom), (left, right) = layer.receptive_field.box(*unit[1:])
        pixels[top : bottom + 1, left : right + 1] = 0
        assert float(pixels.sum()) == 0
        checked += 1
    assert checked >= 3


def test_the_first_convolution_reads_its_whole_predicted_field():
    model = create_model("alexnet").eval()
    found = {layer.name: layer for layer in audit(model, (3, 227, 227)).layers}
    book = UnitArithmetic(model, torch.randn(1, 3, 227, 227))
    for unit in ((0, 0, 0), (5, 20, 54), (95, 54, 7)):
        part = book.open("features.0", unit).terms[0]
        _, _, rows, columns = np.unravel_index(part.positions, (1, 3, 227, 227))
        box = found["features.0"].receptive_field.box(*unit[1:])
        assert (rows.min(), rows.max()) == box[0]
        assert (columns.min(), columns.max()) == box[1]


# --- shared out to the pixels --------------------------------------------------------


@pytest.mark.parametrize("name", ["tutorial_gray", "lenet5_modern", "cifar_resnet20"])
def test_pixels_and_biases_add_up_to_a_logit(name):
    """The biases' part is known apart: gradient times bias, summed over places."""
    torch.manual_seed(0)
    entry = model_entry(name)
    model = uneven(create_model(name)).double().eval()
    x = torch.randn(1, *entry.image.shape, dtype=torch.float64)
    book = UnitArithmetic(model, x)
    found = contributions(book, "output", (3,))
    assert found.total == pytest.approx(found.value, rel=1e-9)
    model.requires_grad_(True)
    x.requires_grad_(True)
    logit = model(x)[0, 3]
    gradient = torch.autograd.grad(logit, [x, *model.parameters()], allow_unused=True)
    assert torch.allclose(found.pixels, (gradient[0] * x)[0].detach(), atol=1e-9)
    if name != "cifar_resnet20":
        named = [n for n, _ in model.named_parameters()]
        assert abs(found.steps.pop("rounding", 0.0)) < 1e-12
        for layer, own in found.steps.items():
            index = named.index(f"{layer}.bias") + 1
            bias = model.get_parameter(f"{layer}.bias")
            assert own == pytest.approx((gradient[index] * bias).sum().item(), rel=1e-6)


def test_nonlinear_functions_contribute_by_name():
    model, x = stranger(Functional).double().eval(), torch.randn(1, 3, 12, 12).double()
    found = contributions(UnitArithmetic(model, x), "head", (1,))
    assert "silu" in found.steps
    assert "leaky_relu" not in found.steps or abs(found.steps["leaky_relu"]) < 1e-9
    assert found.total == pytest.approx(found.value, rel=1e-9)


# --- what cannot be followed ---------------------------------------------------------


class Writes(nn.Module):
    """Writes into a part of a tensor, so that numbers are lost inside it."""

    def forward(self, x):
        y = x * 2
        y[:, :, 0] = 0
        return y + 1


class Out(nn.Module):
    def forward(self, x):
        y = torch.empty_like(x)
        torch.mul(x, 3, out=y)
        return y


def test_a_module_that_writes_into_parts_is_one_step():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), Writes(), nn.ReLU(), Out())
    x = torch.randn(1, 1, 6, 6)
    book = UnitArithmetic(model, x)
    assert [s.name for s in book.trace.steps] == [
        "image",
        "convolution",
        "Writes",
        "relu",
        "Out",
    ]
    entry = book.open("1", (1, 2, 2))
    assert (entry.kind, entry.operation) == (FUNCTION, "Writes")
    assert entry.error < 1e-6
    assert entry.terms[0].weights.tolist() == [2.0]
    assert book.open("1", (1, 0, 2)).terms[0].positions.size == 0
    assert [s.name for s in UnitArithmetic(Writes(), x).trace.steps] == [
        "image",
        "Writes",
    ]


class Restless(nn.Module):
    """Cannot be followed, and changes when it runs in training mode."""

    def __init__(self):
        super().__init__()
        self.norm, self.drop = nn.BatchNorm2d(2), nn.Dropout(0.5)

    def forward(self, x):
        x = self.drop(self.norm(x)) * 2
        x[:, :, 0] = 0
        return x


def test_what_is_computed_again_leaves_the_model_alone():
    """One step that is a whole module runs again when it is opened, long after."""
    model, x = nn.Sequential(Restless(), nn.Flatten()), torch.randn(1, 2, 3, 3)
    with Unchanged(model.train()):
        book = UnitArithmetic(model, x)
        entry = book.open("0", (1, 2, 2))
        assert entry.operation == "Restless"
        assert entry.error < 1e-6
        found = contributions(book, "output", (17,))
    assert found.total == pytest.approx(found.value, rel=1e-5)


def test_trace_has_a_memory_limit(monkeypatch):
    """Counted as numbers are made; a view of numbers that are there is none."""
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True), nn.Flatten())
    x = torch.randn(1, 1, 10, 10)
    own = 4 * (100 + 4 * 64 + 4 * 64)  # image, maps, maps before they were bent
    monkeypatch.setattr("striate.interpret.trace.MAX_BYTES", own)
    record_trace(model, x)
    monkeypatch.setattr("striate.interpret.trace.MAX_BYTES", own - 1)
    with Unchanged(model), pytest.raises(GeometryError, match="1×1×10×10 batch take"):
        record_trace(model, x)
    asked = AttributionTarget(class_index=3, text="")  # occlusion does without a tape
    assert occlusion(model, x, asked).isfinite().all()


# --- worked --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", STRANGERS)
def test_a_worked_example_adds_up_to_the_number(kind):
    model, x = stranger(kind).eval(), torch.randn(1, 3, 12, 12)
    book = UnitArithmetic(model, x)
    for name in book.names:
        ref = book.find(name)
        shape = book.shape(ref)
        if len(shape) != 3 or name == "image":
            continue
        entry = nearest_convolution(book, book.open(ref, (1, 0, shape[2] - 1)))
        if entry is None:
            continue
        table = worked_example(book, entry)
        side = (len(table.columns) - 2) // 2
        for row in table.rows:
            if row[1] is not None:
                window, kernel = row[1 : 1 + side], row[1 + side : -1]
                products = [a * b for a, b in zip(window, kernel, strict=True)]
                assert sum(products) == pytest.approx(row[-1], abs=1e-6)
        total = sum(row[-1] for row in table.rows)
        assert total == pytest.approx(table.totals[-1], abs=1e-5)
        assert len(table.rows) <= 3 * 5 + 2


def test_what_is_no_convolution_is_not_worked():
    book = UnitArithmetic(
        nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.randn(1, 1, 2, 2)
    )
    entry = book.open("1", (0,))
    assert worked_example(book, entry) is None
    assert nearest_convolution(book, entry) is None
    solid = nn.Sequential(nn.Conv2d(1, 1, 1, padding=2))
    corner = UnitArithmetic(solid, torch.randn(1, 1, 2, 2))
    assert (
        worked_example(corner, corner.open("0", (0, 0, 0))) is None
    )  # all of it is padding


def test_in_place_operations_do_not_reach_back():
    model, x = stranger(InPlace).eval(), torch.randn(1, 3, 12, 12)
    book = UnitArithmetic(model, x)
    assert book.trace.value(book.find("stem.1")).min() < 0
    assert book.trace.value(book.find("stem.2")).min() == 0


def test_wrong_names_and_units_are_refused():
    model, x = stranger(InPlace), torch.randn(1, 3, 12, 12)
    with Unchanged(model):
        book = UnitArithmetic(model, x)
    with pytest.raises(UnknownNameError, match=r"'stem\.9'") as error:
        book.open("stem.9", (0, 0, 0))
    assert "stem.0" in error.value.fix
    with pytest.raises(SettingError, match=r"no unit \(8, 0, 0\)") as error:
        book.open("stem.0", (8, 0, 0))
    assert error.value.fix == "valid units: 0…7 × 0…5 × 0…5"
    with pytest.raises(SettingError, match="no unit"):
        book.open("output", (0, 0))
    with pytest.raises(UnknownNameError):
        book.open("@99", (0,))
    with pytest.raises(GeometryError, match="needs one image, got 2"):
        UnitArithmetic(model, x.repeat(2, 1, 1, 1))
    with (
        Unchanged(model),
        pytest.raises(GeometryError, match="does not accept a batch"),
    ):
        UnitArithmetic(model, x[:, :1])
