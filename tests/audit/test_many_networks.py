"""Summaries of 100 networks of timm and torchvision with random weights."""

from __future__ import annotations

import random

import pytest
import torch
from torch import nn

import striate as st
from striate.core.errors import StriateError
from support.optional_packages import imported

COUNT, BOXES = 100, 30
MAX_PARAMETERS = 30e6
WORDS = (
    *("convnext", "coat", "davit", "densenet", "dla", "efficientformer", "edgenext"),
    *("efficientnet_b0", "efficientnet_lite0", "ghostnet", "hardcorenas", "hrnet"),
    *("lcnet", "levit", "mixer", "mixnet", "mnasnet", "mobilenetv2", "mobilenetv3"),
    *("mobileone", "mobilevit", "nest", "nf_resnet", "pit", "poolformer", "pvt"),
    *(
        "regnetx",
        "regnety",
        "repvgg",
        "res2net",
        "resmlp",
        "resnest",
        "resnet",
        "rexnet",
    ),
    *("sequencer", "skresnet", "swin", "tinynet", "tnt", "twins", "vgg", "vit_tiny"),
    *("volo", "vovnet", "xcit", "crossvit", "cait", "convmixer", "cs3", "cspresnet"),
    *("deit", "eca", "fbnet", "gcresnet", "gernet", "gmixer", "inception", "maxvit"),
)


def networks():
    """Yield (name, network) of many families, the small ones first."""
    timm = imported("timm")
    tested = 0
    for word in (*WORDS, *WORDS):
        names = [n for n in timm.list_models(f"{word}*") if "384" not in n]
        random.Random(f"{word}{tested}").shuffle(names)
        for name in names[:3]:
            with torch.device("meta"):
                try:
                    size = sum(p.numel() for p in timm.create_model(name).parameters())
                except (RuntimeError, NotImplementedError):
                    continue
            if size < MAX_PARAMETERS:
                tested += 1
                yield f"timm:{name}", timm.create_model(name)
                break
        if tested >= COUNT:
            return


def reached(model, image, output):
    """Return the box of the inputs with a gradient, or None."""
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


def check_boxes(model, summary):
    """Compare boxes that are called exact with gradients; return their number."""
    layers = {
        x.name: x.receptive_field
        for x in summary.audit.layers
        if x.receptive_field and x.output and len(x.output) == 3
    }
    exact = [n for n, f in layers.items() if not f.is_bound and max(f.sides) > 1]
    modules, outputs = dict(model.named_modules()), {}
    names = [n for n in exact if n in modules][:: max(1, len(exact) // 4)]
    for name in names:
        modules[name].register_forward_hook(
            lambda module, inputs, out, name=name: outputs.setdefault(name, out)
        )
    without_cancelling(model)
    size = summary.audit.shape
    image = torch.rand(1, *size, dtype=torch.double).requires_grad_()
    model(image)
    for name, out in outputs.items():
        if out.dim() != 4 or not out.requires_grad:
            continue
        row, column = out.shape[2] // 2, out.shape[3] - 1
        weights = torch.rand(out.shape[1], dtype=out.dtype)
        box = reached(model, image, (out[0, :, row, column] * weights).sum())
        predicted = layers[name].box(row, column)
        assert box is None or predicted == box, (name, (row, column), predicted, box)
    return len(outputs)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_hundred_networks_are_summarized():
    """0 tracebacks: a summary, or an error that striate designed."""
    boxes, refused, count = 0, [], 0
    for name, model in networks():
        count += 1
        shape = getattr(model, "default_cfg", {}).get("input_size", (3, 224, 224))
        torch.manual_seed(0)
        try:
            summary = st.summary(model, shape, batch_size=2)
            str(summary)
        except StriateError as error:
            refused.append((name, str(error)))
            continue
        total = sum(p.numel() for p in model.parameters())
        assert summary.audit.parameters == total, name
        if boxes < BOXES and isinstance(model, nn.Module):
            try:
                boxes += check_boxes(model, summary) > 0
            except AssertionError as error:
                raise AssertionError(f"{name}: {error}") from error
    assert count >= COUNT
    assert boxes >= BOXES
    assert len(refused) <= 5, refused
