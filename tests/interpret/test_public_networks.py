"""Default maps and features of the networks of timm and torchvision (`make twins`).

Every network has random weights. Its map is that of an independent computation, or the
network is refused with the reason; there is no traceback.
"""

import pytest
import torch

import striate as st
from striate.core.errors import StriateError
from striate.core.logits import logits_of
from striate.interpret.attribution.attribute import attribute
from support import public_networks
from support.public_networks import NAMES, check_refused, first_outputs

# The packages warn about their own plans.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

REFUSED = {}  # by name: the reason


def network(name):
    """A network of `public_networks` without constant weights, and an image."""
    model, size = public_networks.network(name)
    _spread(model)
    draw = torch.Generator().manual_seed(1)
    return model, torch.randn(1, *size, generator=draw)


def _spread(model):
    """Replace constant weights, such as zero layer scales, by random values."""
    for weight in model.parameters():
        if float(weight.detach().std(unbiased=False)) == 0:
            weight.data += 0.1 * torch.randn_like(weight)


def cells(output, size):
    """A layer's output as NCHW, by the shapes alone; None if two readings fit."""
    height, width = size
    count = height * width
    readings = []
    if output.ndim == 4:
        if tuple(output.shape[2:]) == size:
            readings.append(output)
        if tuple(output.shape[1:3]) == size and output.shape[3] not in size:
            readings.append(output.permute(0, 3, 1, 2))
    if output.ndim == 3 and output.shape[1] >= count:
        tokens = output[:, output.shape[1] - count :]  # class tokens come first
        readings.append(tokens.transpose(1, 2).unflatten(2, size))
    return readings[0] if len(readings) == 1 else None


def independent_grad_cam(model, x, layer, size, target):
    """Grad-CAM in plain PyTorch: a hook, one backward pass and the paper's formula."""
    outputs = []
    name, _, number = layer.partition(" #")
    module = model.get_submodule(name)

    def hook(module, inputs, output):
        output = output.clone()
        output.retain_grad()
        outputs.append(output)
        return output.clone()

    handle = module.register_forward_hook(hook)
    try:
        score = logits_of(model(x))[0, target]
    finally:
        handle.remove()
    output = outputs[int(number or 1) - 1]
    (gradient,) = torch.autograd.grad(score, output)
    maps, gradients = cells(output.detach(), size), cells(gradient, size)
    if maps is None or gradients is None:
        return None
    weights = gradients.mean((2, 3), keepdim=True)
    return (weights * maps).sum(1).relu()[0]


@pytest.mark.parametrize("name", NAMES)
def test_the_default_map_is_right_or_refused(name):
    model, x = network(name)
    try:
        result = attribute(model, x, target=3, sanity_checks=False)
    except StriateError as error:
        check_refused(REFUSED, name, error)
        return
    assert name not in REFUSED
    height, width = x.shape[2:]
    assert result.heatmap.shape == (height, width)
    assert result.heatmap.isfinite().all()
    rows, columns = result.layer_map.shape
    # Cells are about as wide as they are high.
    assert abs(rows * width - columns * height) <= max(height, width)
    assert not result.layer.layout.assumed
    if result.method == "cam":
        # The maps of a convolution that is the classifier contain its bias.
        linear = _last_linear(model)
        bias = 0 if linear is None else linear.bias[3]
        with torch.no_grad():
            logit = float(logits_of(model(x))[0, 3])
        assert float(result.layer_map.sum() + bias) == pytest.approx(
            logit, rel=1e-5, abs=1e-3
        )
        return
    expected = independent_grad_cam(model, x, result.layer.call, (rows, columns), 3)
    assert expected is not None
    limit = 1e-4 * float(expected.max()) + 1e-8  # of the smallest gradients
    assert torch.allclose(result.layer_map, expected, atol=limit)


def _last_linear(model):
    linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
    return linear[-1] if linear else None


@pytest.mark.parametrize("name", NAMES)
def test_features_of_every_layer(name):
    """All layers of one image: those that ran are as in plain PyTorch."""
    model, x = network(name)
    expected = first_outputs(model, x)
    result = st.features(model, x, "*")
    shapes = {call: tuple(output.shape) for call, output in expected.items()}
    assert result.shapes == shapes
    for call in [*expected][:: max(1, len(expected) // 5)]:
        assert torch.equal(result[call], expected[call])
    assert set(result.left_out) == {n for n, _ in model.named_modules() if n} - {
        *expected
    }
    assert all(result.left_out.values())
