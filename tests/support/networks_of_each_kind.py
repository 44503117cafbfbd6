"""The networks that stand for all in fast tests; the others are marked slow."""

from __future__ import annotations

import pytest

from striate.models.catalogue import list_models

KINDS = {
    *("lenet5", "tutorial_gray", "alexnet", "vgg11_bn", "googlenet", "resnet18"),
    *("resnet50", "cifar_resnet20", "mobilenet_v2"),
    *("fast_small", "resnetblur18"),
}


def marked_slow(slow=()):
    """Return all networks as parameters; those given are slow beside the usual ones."""
    fast = KINDS - set(slow)
    return [
        pytest.param(name, marks=() if name in fast else pytest.mark.slow)
        for name in list_models()
    ]


EVERY = marked_slow()
