"""Classification networks with timm's methods, such as `reset_classifier`."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping

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
        name, layer = _last_layer(self)
        self.classifiers = {name: getattr(layer, "in_features", 0)}

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


def _last_layer(model: nn.Module) -> tuple[str, nn.Module]:
    names: list[str] = []
    while isinstance(model, nn.Sequential) and len(model):
        name, model = list(model.named_children())[-1]
        names.append(name)
    return ".".join(names), model


def features_and_classifier(
    features: nn.Sequential, classifier: nn.Sequential
) -> ImageClassifier:
    """Return AlexNet or VGG as a network with torchvision's layer names.

    torchvision averages the last maps to the size that the classifier expects. Here the
    classifier is built for the image size, so no average pooling is necessary.
    """
    return ImageClassifier(
        {
            "features": features,
            "avgpool": nn.Identity(),
            "flatten": nn.Flatten(),
            "classifier": classifier,
        }
    )


def flat_features(
    layers: Iterable[tuple[str, nn.Module]], image: ImageSpec, prefix: str = ""
) -> int:
    """Return the number of features after flattening the last feature maps.

    Args:
        layers: Names and layers, in order; only convolutions and max pools count.
        image: The network's input.
        prefix: Text before the layer names in error messages.

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
            windows.append(_window(f"{prefix}{name}", layer))
        if isinstance(layer, nn.Conv2d):
            channels = layer.out_channels
    return (
        output_side_through(image.height, windows)
        * output_side_through(image.width, windows)
        * channels
    )


def _window(name: str, layer: nn.Conv2d | nn.MaxPool2d) -> Window:
    kernel, stride, padding = map(
        _side, (layer.kernel_size, layer.stride, layer.padding)
    )
    return Window(name=name, kernel=kernel, stride=stride, padding=padding)


def _side(value: int | str | tuple[int, ...]) -> int:
    return int(value[0] if isinstance(value, tuple) else value)
