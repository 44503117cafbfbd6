"""GoogLeNet (Szegedy et al. 2014, table 1): nine Inception modules, three heads.

| layer | side at 224 | 1×1 | 3×3 reduce | 3×3 | 5×5 reduce | 5×5 | pool | out   |
|-------|-------------|-----|------------|-----|------------|-----|------|-------|
| conv1 | 112, 7×7/2  |     |            |     |            |     |      | 64    |
| pool1 | 56          |     |            |     |            |     |      | 64    |
| conv2 | 56          | 64  |            |     |            |     |      | 64    |
| conv3 | 56          |     |            | 192 |            |     |      | 192   |
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

then global average pooling, dropout, dense. Pools (`maxpool1` to `maxpool4`) are 3×3/2
with sizes rounded up. LRN is after maxpool1 and before maxpool2 (figure 3), with the
constants of AlexNet, as the paper gives none. The auxiliary heads `aux1` and `aux2`
read 4a and 4d: average pooling 5×5/3, 1×1 to 128, dense 1024, dropout 0.7, dense.
Layer names are those of torchvision. In training mode, a network with auxiliary heads
returns `core.aux_heads.HeadOutputs`; `core.aux_heads.total_loss(loss, output, target)`
is its loss. In evaluation mode it returns logits only and does not run the heads.

`googlenet_bn` is the variant with public weights (torchvision): batch norm instead of
LRN, 3×3 instead of 5×5, maxpool4 2×2, average pooling to 4×4 before auxiliary heads,
dropout 0.2. These weights were trained on images normalized with mean 0.5 and std 0.5.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from striate.core.aux_heads import HeadOutputs
from striate.core.conv_arithmetic import Window
from striate.core.errors import GeometryError
from striate.core.preprocess_config import ImageSpec
from striate.layers.inception import Inception, InceptionWidths, conv_relu
from striate.layers.lrn import LRN
from striate.models.catalogue import register_model
from striate.models.classifier import HEAD_STARTS, ClassifierMethods, map_positions

IMAGE = ImageSpec(channels=3, height=224, width=224)
ROWS = {
    "3a": InceptionWidths(64, 96, 128, 16, 32, 32),
    "3b": InceptionWidths(128, 128, 192, 32, 96, 64),
    "4a": InceptionWidths(192, 96, 208, 16, 48, 64),
    "4b": InceptionWidths(160, 112, 224, 24, 64, 64),
    "4c": InceptionWidths(128, 128, 256, 24, 64, 64),
    "4d": InceptionWidths(112, 144, 288, 32, 64, 64),
    "4e": InceptionWidths(256, 160, 320, 32, 128, 128),
    "5a": InceptionWidths(256, 160, 320, 32, 128, 128),
    "5b": InceptionWidths(384, 192, 384, 48, 128, 128),
}
AUX_AFTER = {"inception4a": "aux1", "inception4d": "aux2"}
AUX_FEATURES = 1024
AUX_WEIGHT = 0.3  # section 5


@dataclass(frozen=True, kw_only=True)
class GoogLeNetConfig:
    """Configuration of GoogLeNet: the paper's network or the batch-norm variant."""

    norm: bool = False  # batch norm after every convolution, instead of two LRNs
    kernel5: int = 5  # kernel size of the "5×5" convolutions
    last_pool: int = 3  # kernel size of maxpool4
    dropout: float = 0.4  # dropout probability before the last dense layer
    aux: bool = True  # whether the network has auxiliary heads


class GoogLeNet(ClassifierMethods):
    """GoogLeNet: feature layers and classifier, with optional auxiliary heads.

    Shapes:
        (N, C, H, W) → (N, classes), or `HeadOutputs` in training with auxiliary heads
    """

    def __init__(
        self,
        features: Mapping[str, nn.Module],
        aux: Mapping[str, nn.Module],
        dropout: float,
        num_classes: int,
    ) -> None:
        super().__init__()
        for name, layer in features.items():
            self.add_module(name, layer)
        width = ROWS["5b"].total
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(width, num_classes)
        for name, head in aux.items():
            self.add_module(name, head)
        self.classifiers = {"fc": width, **{f"{n}.fc2": AUX_FEATURES for n in aux}}

    def _main_path(self) -> Iterator[tuple[str, nn.Module]]:
        auxiliary = AUX_AFTER.values()
        return ((n, m) for n, m in self.named_children() if n not in auxiliary)

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last feature maps."""
        for name, layer in self._main_path():
            if name in HEAD_STARTS:
                break
            x = layer(x)
        return x

    def forward_head(self, x: Tensor) -> Tensor:
        """Compute the logits from the last feature maps."""
        scores: Tensor = self.fc(self.dropout(self.flatten(self.avgpool(x))))
        return scores

    def forward(self, x: Tensor) -> Tensor | HeadOutputs:
        """Return logits; in training mode also the logits of the auxiliary heads."""
        auxiliary = []
        for name, layer in self._main_path():
            x = layer(x)
            head = self._modules.get(AUX_AFTER.get(name, ""))
            if self.training and head is not None:
                auxiliary.append(head(x))
        if auxiliary:
            return HeadOutputs(x, tuple(auxiliary), AUX_WEIGHT)
        return x


def googlenet(
    image: ImageSpec, num_classes: int, *, config: GoogLeNetConfig
) -> GoogLeNet:
    """Build a GoogLeNet from a configuration.

    Example:
        >>> net = googlenet(IMAGE, 10, config=GoogLeNetConfig(aux=False))
        >>> sum(p.numel() for p in net.parameters())
        5983802
    """
    map_positions(image, _windows(config))  # raises for a too small image
    aux = _aux_heads(image, num_classes, config) if config.aux else {}
    features = _features(image.channels, config)
    model = GoogLeNet(features, aux, config.dropout, num_classes)
    _initialize(model)
    return model


def _windows(config: GoogLeNetConfig) -> list[Window]:
    pool = partial(Window, kernel=3, stride=2, ceil=True)
    return [
        Window(name="conv1", kernel=7, stride=2, padding=3),
        pool(name="maxpool1"),
        Window(name="conv3", kernel=3, padding=1),
        pool(name="maxpool2"),
        pool(name="maxpool3"),
        pool(name="maxpool4", kernel=config.last_pool),
    ]


def _features(channels: int, config: GoogLeNetConfig) -> dict[str, nn.Module]:
    norm = config.norm
    layers: dict[str, nn.Module] = {
        "conv1": conv_relu(channels, 64, 7, 2, norm),
        "maxpool1": nn.MaxPool2d(3, 2, ceil_mode=True),
        **({} if norm else {"lrn1": LRN()}),
        "conv2": conv_relu(64, 64, norm=norm),
        "conv3": conv_relu(64, 192, 3, norm=norm),
        **({} if norm else {"lrn2": LRN()}),
        "maxpool2": nn.MaxPool2d(3, 2, ceil_mode=True),
    }
    channels = 192
    for row, widths in ROWS.items():
        layers[f"inception{row}"] = Inception(channels, widths, config.kernel5, norm)
        channels = widths.total
        if row == "3b":
            layers["maxpool3"] = nn.MaxPool2d(3, 2, ceil_mode=True)
        elif row == "4e":
            layers["maxpool4"] = nn.MaxPool2d(config.last_pool, 2, ceil_mode=True)
    return layers


def _aux_heads(
    image: ImageSpec, num_classes: int, config: GoogLeNetConfig
) -> dict[str, nn.Module]:
    positions = 4 * 4 if config.norm else _aux_positions(image, config)
    heads: dict[str, nn.Module] = {}
    for layer, name in AUX_AFTER.items():
        mean = nn.AdaptiveAvgPool2d(4) if config.norm else nn.AvgPool2d(5, 3)
        channels = ROWS[layer.removeprefix("inception")].total
        heads[name] = nn.Sequential(
            OrderedDict(
                avgpool=mean,
                conv=conv_relu(channels, 128, norm=config.norm),
                flatten=nn.Flatten(),
                fc1=nn.Linear(128 * positions, AUX_FEATURES),
                relu=nn.ReLU(),
                dropout=nn.Dropout(0.7),
                fc2=nn.Linear(AUX_FEATURES, num_classes),
            )
        )
    return heads


def _aux_positions(image: ImageSpec, config: GoogLeNetConfig) -> int:
    mean = Window(name="the auxiliary heads' mean", kernel=5, stride=3)
    windows = [*_windows(config)[:-1], mean]
    try:
        return map_positions(image, windows)
    except GeometryError as error:
        fix = f"{error.fix}, or build googlenet_no_aux, which has no such heads"
        raise GeometryError(error.what, fix=fix) from error


def _initialize(model: nn.Module) -> None:
    """Initialize weights by Glorot, biases to 0.2, as in Caffe's published model."""
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.constant_(layer.bias, 0.2)


def _register(name: str, summary: str, config: GoogLeNetConfig) -> None:
    register = register_model(name, image=IMAGE, classes=1000, summary=summary)
    register(partial(googlenet, config=config))


_BN = partial(GoogLeNetConfig, norm=True, kernel5=3, last_pool=2, dropout=0.2)
_PAPER, _NO_AUX = GoogLeNetConfig(), GoogLeNetConfig(aux=False)
_register("googlenet", "nine Inception modules, LRN, two auxiliary heads", _PAPER)
_register("googlenet_no_aux", "GoogLeNet without auxiliary heads", _NO_AUX)
_register("googlenet_bn", "GoogLeNet with batch norm and public weights", _BN())
_register("googlenet_bn_no_aux", "GoogLeNet with batch norm, one head", _BN(aux=False))
