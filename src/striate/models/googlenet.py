"""GoogLeNet (Szegedy et al. 2014, table 1): nine Inception modules, three heads.

| row   | side at 224 | 1×1 | 3×3 reduce | 3×3 | 5×5 reduce | 5×5 | pool | out   |
|-------|-------------|-----|------------|-----|------------|-----|------|-------|
| conv1 | 112, 7×7/2  |     |            |     |            |     |      | 64    |
| pool1 | 56          |     |            |     |            |     |      | 64    |
| conv2 | 56, 3×3     |     | 64         | 192 |            |     |      | 192   |
| pool2 | 28          |     |            |     |            |     |      | 192   |
| 3a    | 28          | 64  | 96         | 128 | 16         | 32  | 32   | 256   |
| 3b    | 28          | 128 | 128        | 192 | 32         | 96  | 64   | 480   |
| pool3 | 14          |     |            |     |            |     |      | 480   |
| 4a    | 14          | 192 | 96         | 208 | 16         | 48  | 64   | 512   |
| 4b    | 14          | 160 | 112        | 224 | 24         | 64  | 64   | 512   |
| 4c    | 14          | 128 | 128        | 256 | 24         | 64  | 64   | 512   |
| 4d    | 14          | 112 | 144        | 288 | 32         | 64  | 64   | 528   |
| 4e    | 14          | 256 | 160        | 320 | 32         | 128 | 128  | 832   |
| pool4 | 7           |     |            |     |            |     |      | 832   |
| 5a    | 7           | 256 | 160        | 320 | 32         | 128 | 128  | 832   |
| 5b    | 7           | 384 | 192        | 384 | 48         | 128 | 128  | 1024  |

then the global mean, dropout, dense. Pools are 3×3/2, rounded up. LRN (figure 3; its
constants are AlexNet's, the paper gives none) after pool1 and before pool2. The
auxiliary heads read 4a and 4d: mean 5×5/3, 1×1 to 128, dense 1024, dropout 0.7, dense.

In training the network with heads returns `core.aux_heads.HeadOutputs`, whose loss is
`core.aux_heads.total_loss(loss, output, target)`; in evaluation, as every network,
logits alone, without computing the heads. `…_no_aux` always returns logits.

`googlenet_bn` is the variant whose weights are public (torchvision): batch norm for
LRN, 3×3 where the table has 5×5, pool4 2×2, a mean to 4×4 before auxiliary heads,
dropout 0.2. Those weights were trained on pictures with mean 0.5, deviation 0.5.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from striate.core.aux_heads import HeadOutputs
from striate.core.conv_arithmetic import Window, output_side_through
from striate.core.errors import GeometryError
from striate.core.preprocess import ImageSpec
from striate.layers.inception import Inception, Widths, unit
from striate.layers.lrn import LRN
from striate.models.catalogue import network

IMAGE = ImageSpec(channels=3, height=224, width=224)
ROWS = {
    "3a": Widths(64, 96, 128, 16, 32, 32),
    "3b": Widths(128, 128, 192, 32, 96, 64),
    "4a": Widths(192, 96, 208, 16, 48, 64),
    "4b": Widths(160, 112, 224, 24, 64, 64),
    "4c": Widths(128, 128, 256, 24, 64, 64),
    "4d": Widths(112, 144, 288, 32, 64, 64),
    "4e": Widths(256, 160, 320, 32, 128, 128),
    "5a": Widths(256, 160, 320, 32, 128, 128),
    "5b": Widths(384, 192, 384, 48, 128, 128),
}
HEADS_READ = ("4a", "4d")
HEADS_WEIGHT = 0.3  # section 5


@dataclass(frozen=True, kw_only=True)
class Design:
    """What tells the paper's network from the batch-norm variant.

    Args:
        norm: Batch norm in every unit, instead of two LRNs.
        five: Side of the modules' largest window.
        last_pool: Side of pool4's window.
        dropout: Before the last dense layer.
        aux: With auxiliary heads.
    """

    norm: bool = False
    five: int = 5
    last_pool: int = 3
    dropout: float = 0.4
    aux: bool = True


class GoogLeNet(nn.Module):
    """Features, a head, and auxiliary heads by the name of the layer they read.

    Shapes:
        (N, C, H, W) → (N, classes), or `HeadOutputs` in training with auxiliary heads
    """

    def __init__(
        self, features: nn.Sequential, aux: nn.ModuleDict, dropout: float, classes: int
    ) -> None:
        super().__init__()
        self.features = features
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(ROWS["5b"].total, classes)
        self.aux = aux

    def forward(self, x: Tensor) -> Tensor | HeadOutputs:
        """Return logits; in training those of auxiliary heads too."""
        auxiliary = []
        for name, layer in self.features.named_children():
            x = layer(x)
            if self.training and name in self.aux:
                auxiliary.append(self.aux[name](x))
        logits: Tensor = self.head(self.dropout(self.flatten(self.pool(x))))
        if auxiliary:
            return HeadOutputs(logits, tuple(auxiliary), HEADS_WEIGHT)
        return logits


def googlenet(image: ImageSpec, num_classes: int, *, design: Design) -> GoogLeNet:
    """Build a GoogLeNet of a design.

    Shapes:
        (N, C, H, W) → (N, num_classes); in training with heads, `HeadOutputs`

    Raises:
        GeometryError: The picture is smaller than the windows need.

    Example:
        >>> net = googlenet(IMAGE, 10, design=Design(aux=False))
        >>> sum(p.numel() for p in net.parameters())
        5983802
    """
    windows = _windows(design)
    for side in (image.height, image.width):
        output_side_through(side, windows)
    heads = _heads(image, num_classes, design) if design.aux else {}
    features = _features(image.channels, design)
    model = GoogLeNet(features, nn.ModuleDict(heads), design.dropout, num_classes)
    _initialise(model)
    return model


def _windows(design: Design) -> list[Window]:
    pool = partial(Window, kernel=3, stride=2, ceil=True)
    return [
        Window(name="conv1", kernel=7, stride=2, padding=3),
        pool(name="pool1"),
        Window(name="conv2", kernel=3, padding=1),
        pool(name="pool2"),
        pool(name="pool3"),
        pool(name="pool4", kernel=design.last_pool),
    ]


def _features(channels: int, design: Design) -> nn.Sequential:
    norm, between = design.norm, not design.norm
    layers: dict[str, nn.Module] = {
        "conv1": unit(channels, 64, 7, 2, norm),
        "pool1": nn.MaxPool2d(3, 2, ceil_mode=True),
        **({"lrn1": LRN()} if between else {}),
        "conv2_reduce": unit(64, 64, norm=norm),
        "conv2": unit(64, 192, 3, norm=norm),
        **({"lrn2": LRN()} if between else {}),
        "pool2": nn.MaxPool2d(3, 2, ceil_mode=True),
    }
    channels = 192
    for row, widths in ROWS.items():
        layers[f"inception{row}"] = Inception(channels, widths, design.five, norm)
        channels = widths.total
        if row == "3b":
            layers["pool3"] = nn.MaxPool2d(3, 2, ceil_mode=True)
        elif row == "4e":
            layers["pool4"] = nn.MaxPool2d(design.last_pool, 2, ceil_mode=True)
    return nn.Sequential(OrderedDict(layers))


def _heads(image: ImageSpec, classes: int, design: Design) -> dict[str, nn.Module]:
    positions = 4 * 4 if design.norm else _head_positions(image, design)
    heads: dict[str, nn.Module] = {}
    for row in HEADS_READ:
        mean = nn.AdaptiveAvgPool2d(4) if design.norm else nn.AvgPool2d(5, 3)
        heads[f"inception{row}"] = nn.Sequential(
            OrderedDict(
                pool=mean,
                conv=unit(ROWS[row].total, 128, norm=design.norm),
                flatten=nn.Flatten(),
                fc1=nn.Linear(128 * positions, 1024),
                relu=nn.ReLU(),
                dropout=nn.Dropout(0.7),
                fc2=nn.Linear(1024, classes),
            )
        )
    return heads


def _head_positions(image: ImageSpec, design: Design) -> int:
    mean = Window(name="the auxiliary heads' mean", kernel=5, stride=3)
    windows = [*_windows(design)[:-1], mean]
    try:
        return output_side_through(image.height, windows) * output_side_through(
            image.width, windows
        )
    except GeometryError as error:
        fix = f"{error.fix}, or build googlenet_no_aux, which has no such heads"
        raise GeometryError(error.what, fix=fix) from error


def _initialise(model: nn.Module) -> None:
    """Draw Glorot's weights, biases 0.2: the settings of Caffe's published model."""
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.constant_(layer.bias, 0.2)


def _enter(name: str, summary: str, design: Design) -> None:
    enter = network(name, image=IMAGE, classes=1000, summary=summary)
    enter(partial(googlenet, design=design))


_BN = partial(Design, norm=True, five=3, last_pool=2, dropout=0.2)
_enter("googlenet", "nine Inception modules, LRN, two auxiliary heads", Design())
_enter("googlenet_no_aux", "GoogLeNet without auxiliary heads", Design(aux=False))
_enter("googlenet_bn", "GoogLeNet with batch norm, its weights public", _BN())
_enter("googlenet_bn_no_aux", "GoogLeNet with batch norm, one head", _BN(aux=False))
