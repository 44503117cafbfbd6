"""Networks that reach their accuracy soon on small pictures: own designs, no paper's.

| name    | at 28×28×1, layer by layer                       | products    |
|---------|--------------------------------------------------|-------------|
| `swift` | whitening 5×5/2, 24 → 3×3/2, 48 → 3×3, 48 → dense | 1.7 million |

Both ideas are of the speed records on CIFAR-10 (Page 2019; Jordan 2024): a first layer
that whitens patches, so that learning begins at once, and few large steps of width.
What they do not take over is pictures at full resolution: on a processor the products
of the first layers are the whole time, so the whitening layer already halves the side.
Every other convolution is followed by batch norm and ReLU. Measured in NOTEBOOK.md,
2026-11-22.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from striate.core.arithmetic import Window, walk
from striate.core.spec import ImageSpec
from striate.layers.whiten import Whiten
from striate.models.catalogue import network

SMALL = ImageSpec(channels=1, height=28, width=28)
WHITENED = 24  # filters: twelve of 25 directions, and their negatives
WIDTH = 48


@network("swift", image=SMALL, classes=10)
def swift(image: ImageSpec, num_classes: int) -> nn.Sequential:
    """Build a whitening layer, two 3×3 convolutions and a dense layer: the soonest.

    Shapes:
        N×28×28×1 → N×14×14×24 → N×7×7×48 → N×7×7×48 → N×10

    Example:
        >>> from striate.models.catalogue import create_model
        >>> model = create_model("swift")
        >>> sum(p.numel() for p in model.parameters() if p.requires_grad)
        54850
    """
    windows = [
        Window(name="whiten", kernel=5, stride=2, padding=2),
        Window(name="conv1", kernel=3, stride=2, padding=1),
    ]
    flat = walk(image.height, windows) * walk(image.width, windows) * WIDTH
    return nn.Sequential(
        OrderedDict(
            whiten=Whiten(image.channels, WHITENED, kernel_size=5, stride=2),
            block1=_block(WHITENED, WIDTH, stride=2),
            block2=_block(WIDTH, WIDTH),
            flatten=nn.Flatten(),
            head=nn.Linear(flat, num_classes),
        )
    )


def _block(channels: int, width: int, stride: int = 1) -> nn.Sequential:
    """Return a 3×3 convolution, batch norm and ReLU."""
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(channels, width, 3, stride, padding=1, bias=False),
            norm=nn.BatchNorm2d(width),
            relu=nn.ReLU(),
        )
    )
