"""Summaries of the networks of timm and torchvision with random weights (`make twins`).

The numbers are those of plain PyTorch, and the boxes that are marked exact are those of
the gradient; there is no traceback.
"""

import pytest
import torch
from torch import nn

import striate as st
from striate.core.errors import StriateError
from support.public_networks import NAMES, check_refused, first_outputs, network

# The packages warn about their own plans.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

REFUSED = {}  # by name: the reason

# Networks whose maps do not depend on all pixels from the first layer on.
WITH_BOXES = """
    timm/convnext_atto timm/cspresnet50 timm/darknet53 timm/densenet121 timm/dla34
    timm/dpn68 timm/fbnetc_100 timm/gernet_s timm/hardcorenas_a timm/hgnetv2_b0
    timm/hrnet_w18_small timm/inception_next_tiny timm/inception_v3
    timm/mobilenetv2_100 timm/mobilenetv4_conv_small timm/mobileone_s0
    timm/nextvit_small timm/poolformer_s12 timm/regnetx_002 timm/repghostnet_050
    timm/repvgg_a0 timm/res2net50_14w_8s timm/resnet18 timm/resnetv2_50
    timm/selecsls42 timm/starnet_s1 timm/vovnet39a
    timm/wide_resnet50_2 timm/xception41 torchvision/alexnet
    torchvision/convnext_tiny torchvision/googlenet torchvision/mnasnet0_5
    torchvision/regnet_x_400mf torchvision/resnext50_32x4d
    torchvision/shufflenet_v2_x0_5 torchvision/squeezenet1_1 torchvision/vgg11
"""


@pytest.mark.parametrize("name", NAMES)
def test_a_summary_has_the_numbers_of_pytorch_or_is_refused(name):
    model, size = network(name)
    try:
        summary = st.summary(model, size, batch_size=2)
    except StriateError as error:
        check_refused(REFUSED, name, error)
        return
    assert name not in REFUSED
    assert str(summary)
    assert summary.audit.parameters == sum(p.numel() for p in model.parameters())
    outputs = first_outputs(model, torch.rand(1, *size))
    expected = {name: tuple(output.shape[1:]) for name, output in outputs.items()}
    shapes = {x.name: x.output for x in summary.audit.layers if x.name in expected}
    assert len(shapes) > 5
    assert shapes == {key: expected[key] for key in shapes}


def reached(image, output):
    """The box of the inputs with a gradient, or None."""
    (gradient,) = torch.autograd.grad(output, image, retain_graph=True)
    at = (gradient[0] != 0).any(0)
    rows, columns = at.any(1).nonzero(), at.any(0).nonzero()
    if not len(rows):
        return None
    return (int(rows[0]), int(rows[-1])), (int(columns[0]), int(columns[-1]))


def without_cancelling(model):
    """Make weights positive and pooling an average: no gradient is 0 by chance."""
    model.double().eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False).uniform_(0.5, 1)
        if parameter.dim() > 1:
            parameter /= parameter[0].numel()
        else:
            parameter *= 0.2  # small values: gates that saturate have no gradient
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.MaxPool2d and child.dilation == 1:
                settings = child.kernel_size, child.stride, child.padding
                setattr(module, name, nn.AvgPool2d(*settings, child.ceil_mode))


@pytest.mark.parametrize("name", WITH_BOXES.split())
def test_exact_boxes_are_the_support_of_the_gradient(name):
    model, size = network(name)
    summary = st.summary(model, size, batch_size=2)
    fields = {
        x.name: x.receptive_field
        for x in summary.audit.layers
        if x.receptive_field and x.output and len(x.output) == 3
    }
    exact = [n for n, f in fields.items() if not f.is_bound and max(f.sides) > 1]
    modules, outputs = dict(model.named_modules()), {}
    names = [n for n in exact if n in modules][:: max(1, len(exact) // 4)]
    for layer in names:
        modules[layer].register_forward_hook(
            lambda module, inputs, out, name=layer: outputs.setdefault(name, out)
        )
    without_cancelling(model)
    image = torch.rand(1, *size, dtype=torch.double).requires_grad_()
    model(image)
    compared = 0
    for layer, out in outputs.items():
        if out.dim() != 4 or not out.requires_grad:
            continue
        row, column = out.shape[2] // 2, out.shape[3] - 1
        weights = torch.rand(out.shape[1], dtype=out.dtype)
        box = reached(image, (out[0, :, row, column] * weights).sum())
        predicted = fields[layer].box(row, column)
        assert box is None or predicted == box, (layer, (row, column), predicted, box)
        compared += box is not None
    assert compared
