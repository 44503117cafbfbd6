"""Classification networks with timm's methods, such as `reset_classifier`."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor, nn

from striate.core.conv_arithmetic import Window, output_side_through
from striate.core.preprocess_config import ImageSpec

HEAD_STARTS = ("avgpool", "flatten")  # first layer behind the feature maps


class ClassifierMethods(nn.Module):
    """Mixin with timm's methods `get_classifier` and `reset_classifier`.

    Attributes:
        classifiers: Dotted names of the layers that return class scores, with the
            number of their input features; auxiliary classifiers come last.
    """

    classifiers: dict[str, int]

    @property
    def num_features(self) -> int:
        """Number of input features of the classifier."""
        return next(iter(self.classifiers.values()))

    def get_classifier(self) -> nn.Module:
        """Return the layer that computes the logits."""
        return self.get_submodule(next(iter(self.classifiers)))

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the classifier and the auxiliary classifiers by new layers.

        Args:
            num_classes: Outputs of the new classifier; with 0 the network returns the
                input features of the classifier.
        """
        like = next(self.parameters())
        for name, features in self.classifiers.items():
            layer = self._new_classifier(features, num_classes)
            layer = layer.to(like.device, like.dtype).train(self.training)
            parent, _, key = name.rpartition(".")
            setattr(self.get_submodule(parent), key, layer)

    def _new_classifier(self, features: int, num_classes: int) -> nn.Module:
        if num_classes == 0:
            return nn.Identity()
        return nn.Linear(features, num_classes)


class ImageClassifier(ClassifierMethods, nn.Sequential):
    """Chain of layers from images to logits, with timm's classifier methods.

    The feature maps end before the layer `avgpool` or `flatten`. The classifier is the
    last layer; if the last layer is a sequence, its last layer.

    Args:
        layers: The layers by name, in order.

    Shapes:
        (N, C, H, W) → (N, classes)

    Example:
        >>> import torch
        >>> layers = {"conv1": nn.Conv2d(1, 4, 3), "flatten": nn.Flatten()}
        >>> model = ImageClassifier({**layers, "fc": nn.Linear(16, 10)})
        >>> model.forward_features(torch.zeros(2, 1, 4, 4)).shape
        torch.Size([2, 4, 2, 2])
        >>> model.reset_classifier(3)
        >>> model.get_classifier()
        Linear(in_features=16, out_features=3, bias=True)
    """

    def __init__(self, layers: Mapping[str, nn.Module]) -> None:
        super().__init__(OrderedDict(layers))
        names: list[str] = []
        layer: nn.Module = self
        while isinstance(layer, nn.Sequential) and len(layer):
            name, layer = list(layer.named_children())[-1]
            names.append(name)
        self.classifiers = {".".join(names): getattr(layer, "in_features", 0)}

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last feature maps."""
        for name, layer in self.named_children():
            if name in HEAD_STARTS:
                break
            x = layer(x)
        return x

    def forward_head(self, x: Tensor) -> Tensor:
        """Compute the logits from the last feature maps."""
        names = list(self._modules)
        start = min(names.index(name) for name in HEAD_STARTS if name in names)
        for layer in list(self)[start:]:
            x = layer(x)
        return x


def dense_classifier(features: int, num_classes: int) -> nn.Sequential:
    """Return the three dense layers of AlexNet and VGG, with ReLU and dropout."""
    return nn.Sequential(
        nn.Linear(features, 4096),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(4096, 4096),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(4096, num_classes),
    )


def features_and_classifier(
    features: nn.Sequential, classifier: nn.Sequential
) -> ImageClassifier:
    """Return AlexNet or VGG as a network with torchvision's layer names.

    torchvision averages the last maps to the size that the classifier expects. Here the
    classifier is built for the image size, so no average pooling is necessary.
    """
    between = {"avgpool": nn.Identity(), "flatten": nn.Flatten()}
    return ImageClassifier({"features": features, **between, "classifier": classifier})


def flat_features(
    layers: Iterable[tuple[str, nn.Module]], image: ImageSpec, prefix: str = ""
) -> int:
    """Return the number of features after flattening the last feature maps.

    Raises:
        GeometryError: The image is too small for the convolutions and pools.

    Example:
        >>> layers = nn.Sequential(nn.Conv2d(1, 5, 3), nn.MaxPool2d(2))
        >>> image = ImageSpec(channels=1, height=28, width=28)
        >>> flat_features(layers.named_children(), image)
        845
    """
    channels = image.channels
    windows = []
    for name, layer in layers:
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
            window = Window(
                name=f"{prefix}{name}",
                kernel=_side(layer.kernel_size),
                stride=_side(layer.stride),
                padding=_side(layer.padding),
            )
            windows.append(window)
        if isinstance(layer, nn.Conv2d):
            channels = layer.out_channels
    return map_positions(image, windows) * channels


def map_positions(image: ImageSpec, windows: Sequence[Window]) -> int:
    """Return the number of positions in the feature map after a chain of windows."""
    rows = output_side_through(image.height, windows)
    return rows * output_side_through(image.width, windows)


def _side(value: int | str | tuple[int, ...]) -> int:
    return int(value[0] if isinstance(value, tuple) else value)
