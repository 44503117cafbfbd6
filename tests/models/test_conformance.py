"""One suite over every network: what each must do, whatever its paper.

Sizes and shapes go over all of them on the meta device. What needs numbers runs on
small pictures: one or two of each family in every commit, all of them as slow tests.
"""

import copy
import functools

import pytest
import torch
from torch.nn import functional as F

from striate.core.aux_heads import HeadOutputs, total_loss
from striate.models.catalogue import list_models, model_entry
from striate.run.create_model import create_model
from support.networks_of_each_kind import EVERY, marked_slow

NAMES = list_models()
CLASSES = 3
# Height and width, of unequal sides, that every network of a family admits.
SMALL = {
    "lenet5": (20, 16),
    "lenet5_modern": (16, 12),
    "tutorial": (16, 8),
    "alexnet": (67, 83),
    "vgg": (32, 64),
    "googlenet": (79, 95),
    "resnet": (65, 48),
    "antialiased": (65, 48),
    "plain": (65, 48),
    "cifar": (16, 20),
    "mobilenet": (65, 48),
    "fast": (20, 16),
}


def small(name):
    families = [family for family in SMALL if name.startswith(family)]
    return SMALL[max(families, key=len)]


@functools.cache
def _built(name):
    return create_model(name, num_classes=CLASSES, image_size=small(name), seed=0)


def built(name):
    """Return a small network that the test may change."""
    return copy.deepcopy(_built(name))


def batch(name, count=4, dtype=torch.float32):
    draw = torch.Generator().manual_seed(7)
    shape = (count, model_entry(name).image.channels, *small(name))
    x = torch.randn(shape, generator=draw, dtype=torch.float64).to(dtype)
    return x, torch.arange(count) % CLASSES


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("size", ["the paper's", "small"])
def test_any_size_channels_and_classes(name, size):
    if size == "small":
        height, width, channels, classes = *small(name), 1, 1
    else:
        paper = model_entry(name).image
        height, width, channels, classes = paper.height, paper.width, 5, 7
    settings = {"in_chans": channels, "num_classes": classes}
    with torch.device("meta"):
        model = create_model(name, image_size=(height, width), **settings)
    x = torch.zeros(2, channels, height, width, device="meta")
    assert model.eval()(x).shape == (2, classes)
    y = model.train()(x)
    answers = [y.logits, *y.auxiliary] if isinstance(y, HeadOutputs) else [y]
    assert {tuple(a.shape) for a in answers} == {(2, classes)}


@pytest.mark.parametrize("name", EVERY)
def test_every_parameter_receives_a_gradient(name):
    torch.manual_seed(0)
    model = built(name).train()
    x, y = batch(name)
    loss = total_loss(F.cross_entropy, model(x), y)
    loss.backward()
    assert loss.isfinite()
    learning = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    assert len(learning) >= len(list(model.parameters())) - 1  # computed filters
    without = [n for n, grad in learning.items() if grad is None]
    assert without == []
    dead = [n for n, grad in learning.items() if not grad.any()]
    broken = [n for n, grad in learning.items() if not grad.isfinite().all()]
    assert (dead, broken) == ([], [])


@pytest.mark.parametrize("name", EVERY)
def test_the_seed_repeats_the_weights_and_leaves_torchs_state(name):
    before = torch.get_rng_state()
    again = create_model(name, num_classes=CLASSES, image_size=small(name), seed=0)
    assert torch.equal(torch.get_rng_state(), before)
    ours = _built(name).state_dict()
    assert all(torch.equal(v, ours[n]) for n, v in again.state_dict().items())


def test_another_seed_gives_other_weights():
    one, other = (create_model("tutorial_gray", seed=s).fc.weight for s in (0, 1))
    assert not torch.equal(one, other)


@pytest.mark.parametrize("name", EVERY)
def test_pictures_do_not_see_each_other_in_evaluation(name):
    model = built(name).eval()
    x, _ = batch(name)
    with torch.no_grad():
        together, alone = model(x), torch.cat([model(x[i : i + 1]) for i in range(4)])
    assert torch.equal(together, model(x))
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", EVERY)
def test_channels_last_answers_alike(name):
    model, (x, _) = built(name).eval(), batch(name)
    with torch.no_grad():
        expected = model(x)
        model = model.to(memory_format=torch.channels_last)
        got = model(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", EVERY)
def test_float64_answers_alike_and_in_float64(name):
    model, (x, _) = built(name).eval(), batch(name)
    with torch.no_grad():
        expected = model(x)
        got = model.double()(batch(name, dtype=torch.float64)[0])
    assert got.dtype == torch.float64
    torch.testing.assert_close(got.float(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", EVERY)
def test_a_state_dict_makes_another_network_the_same(name):
    model, (x, _) = built(name).eval(), batch(name, 1)
    size = small(name)
    other = create_model(name, num_classes=CLASSES, image_size=size, seed=1).eval()
    other.load_state_dict(model.state_dict(), strict=True)
    with torch.no_grad():
        assert torch.equal(other(x), model(x))


@pytest.mark.parametrize("name", EVERY)
def test_trains_on_a_batch_of_one(name):
    torch.manual_seed(0)
    model, (x, y) = built(name).train(), batch(name, 1)
    total_loss(F.cross_entropy, model(x), y).backward()


@pytest.mark.parametrize("name", ["resnet18", "plain18", "mobilenet_v2"])
def test_batch_norm_cannot_average_one_value(name):
    model = create_model(name, image_size=32)
    assert model.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 1000)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        model.train()(torch.zeros(1, 3, 32, 32))


def test_auxiliary_heads_count_for_three_tenths():
    torch.manual_seed(0)
    model, (x, y) = built("googlenet").train(), batch("googlenet")
    out = model(x)
    parts = [F.cross_entropy(z, y) for z in (out.logits, *out.auxiliary)]
    expected = parts[0] + 0.3 * (parts[1] + parts[2])
    assert torch.allclose(total_loss(F.cross_entropy, out, y), expected)


SLOW_TO_EXPORT = {
    "googlenet",
    "googlenet_bn",
    "mobilenet_v2",
    "plain18",
    "resnet50",
    "vgg11_bn",
}


@pytest.mark.parametrize("name", marked_slow(SLOW_TO_EXPORT))
def test_exports(name):
    model, (x, _) = built(name).eval(), batch(name)
    dynamic = ({0: torch.export.Dim("batch", min=2)},)
    program = torch.export.export(model, (x,), dynamic_shapes=dynamic)
    with torch.no_grad():
        more = torch.cat([x, x[:1]])
        got, expected = program.module()(more), model(more)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_compiles_to_one_graph(name):
    compiled_answers_alike(name, "aot_eager")


@pytest.mark.slow
# torch's own compiler uses what torch has deprecated.
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize(
    "name", ["lenet5", "alexnet", "cifar_resnet20", "mobilenet_v2"]
)
def test_compiles_to_machine_code(name):
    compiled_answers_alike(name, "inductor")


def compiled_answers_alike(name, backend):
    torch.compiler.reset()
    model, (x, _) = built(name).eval(), batch(name)
    with torch.no_grad():
        compiled = torch.compile(model, backend=backend, fullgraph=True)
        got, expected = compiled(x), model(x)
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_answers_at_the_papers_size(name):
    image = model_entry(name).image
    model = create_model(name, seed=0).eval()
    with torch.no_grad():
        logits = model(torch.randn(1, *image.shape))
    assert logits.shape == (1, model_entry(name).classes)
    assert logits.isfinite().all()
