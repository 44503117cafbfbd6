"""MobileNetV2 (Sandler, Howard, Zhu, Zhmoginov, Chen 2018, table 2).

A 3×3/2 to 32 channels, seven groups of inverted residuals, a 1×1 to 1280, the global
mean, one dense layer. In each group only the first block has the stride:

| group | side in at 224 | factor t | channels c | blocks n | stride s |
|-------|----------------|----------|------------|----------|----------|
| 1     | 112            | 1        | 16         | 1        | 1        |
| 2     | 112            | 6        | 24         | 2        | 2        |
| 3     | 56             | 6        | 32         | 3        | 2        |
| 4     | 28             | 6        | 64         | 4        | 2        |
| 5     | 14             | 6        | 96         | 3        | 1        |
| 6     | 14             | 6        | 160        | 3        | 2        |
| 7     | 7              | 6        | 320        | 1        | 1        |

Padding keeps every side alive: any picture from 1×1 goes through; in training, a batch
of one whose last maps are 1×1 gives batch norm nothing to average, and torch says so.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from striate.core.preprocess import ImageSpec
from striate.layers.init import he
from striate.layers.inverted import InvertedResidual
from striate.models.catalogue import network

STEM, LAST = 32, 1280
# (t, c, n, s), as in the table
GROUPS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
DROPOUT = 0.2  # the paper has none; the public weights were trained with it


@network(
    "mobilenet_v2", image=ImageSpec(channels=3, height=224, width=224), classes=1000
)
def mobilenet_v2(image: ImageSpec, num_classes: int) -> nn.Sequential:
    """Build MobileNetV2: depth-wise and 1×1 convolutions taken to their end.

    Shapes:
        (N, C, H, W) → (N, num_classes)

    Example:
        >>> from striate.models.catalogue import create_model
        >>> sum(p.numel() for p in create_model("mobilenet_v2").parameters())
        3504872
    """
    channels, blocks = STEM, OrderedDict[str, nn.Module]()
    for expand, out, count, first in GROUPS:
        for j in range(count):
            stride = first if j == 0 else 1
            block = InvertedResidual(channels, out, stride, expand)
            blocks[f"block{len(blocks) + 1}"] = block
            channels = out
    model = nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(image.channels, STEM, 3, 2, padding=1, bias=False),
            norm1=nn.BatchNorm2d(STEM),
            relu1=nn.ReLU6(),
            **blocks,
            conv2=nn.Conv2d(channels, LAST, 1, bias=False),
            norm2=nn.BatchNorm2d(LAST),
            relu2=nn.ReLU6(),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            dropout=nn.Dropout(DROPOUT),
            head=nn.Linear(LAST, num_classes),
        )
    )
    he(model)
    return model
