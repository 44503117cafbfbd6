"""MobileNetV2 (Sandler et al. 2018, table 2).

The layers are a 3×3/2 convolution to 32 channels, seven groups of inverted residuals, a
1×1 to 1280, global average pooling and a dense layer. Only the first block of a group
has the stride. Names are torchvision's: `features.0` to `features.18`, `classifier`.

| group | side in at 224 | factor t | channels c | blocks n | stride s |
|-------|----------------|----------|------------|----------|----------|
| 1     | 112            | 1        | 16         | 1        | 1        |
| 2     | 112            | 6        | 24         | 2        | 2        |
| 3     | 56             | 6        | 32         | 3        | 2        |
| 4     | 28             | 6        | 64         | 4        | 2        |
| 5     | 14             | 6        | 96         | 3        | 1        |
| 6     | 14             | 6        | 160        | 3        | 2        |
| 7     | 7              | 6        | 320        | 1        | 1        |

Because of padding, images of any size from 1×1 on work. In training mode, torch raises
an error for a single image with 1×1 last maps: batch norm needs more than one value.
"""

from __future__ import annotations

from torch import nn

from striate.core.preprocess_config import ImageSpec
from striate.layers.init import he
from striate.layers.inverted_residual import InvertedResidual, conv_bn_relu6
from striate.models.catalogue import register_model
from striate.models.classifier import ImageClassifier

IMAGE = ImageSpec(channels=3, height=224, width=224)
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


@register_model("mobilenet_v2", image=IMAGE, classes=1000)
def mobilenet_v2(image: ImageSpec, num_classes: int) -> ImageClassifier:
    """Build MobileNetV2: inverted residuals of 1×1 and depthwise convolutions.

    Example:
        >>> from striate.models.catalogue import create_named_model
        >>> sum(p.numel() for p in create_named_model("mobilenet_v2").parameters())
        3504872
    """
    blocks: list[nn.Module] = [conv_bn_relu6(image.channels, STEM, 3, stride=2)]
    channels = STEM
    for expand, out, count, first in GROUPS:
        for j in range(count):
            stride = first if j == 0 else 1
            blocks.append(InvertedResidual(channels, out, stride, expand))
            channels = out
    blocks.append(conv_bn_relu6(channels, LAST, 1))
    classifier = nn.Sequential(nn.Dropout(DROPOUT), nn.Linear(LAST, num_classes))
    model = ImageClassifier(
        {
            "features": nn.Sequential(*blocks),
            "avgpool": nn.AdaptiveAvgPool2d(1),
            "flatten": nn.Flatten(),
            "classifier": classifier,
        }
    )
    he(model)
    return model
