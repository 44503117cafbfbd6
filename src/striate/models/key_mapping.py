"""Publishers' tensor names → ours, one table a family."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import nn

from striate.layers.residual import Residual
from striate.models.timm import heads_of

Rename = Callable[[str, nn.Module], str]


def _nothing(model: nn.Module) -> str:
    return ""


@dataclass(frozen=True, kw_only=True)
class Naming:
    """A publisher's names of one family.

    Args:
        source: Whose they are, for messages.
        rename: (their name, our network) → our name.
        spare: What a network of ours may lack: a pattern over our names.
        objection: Why a network must not take weights whose names and shapes agree.
    """

    source: str
    rename: Rename
    spare: str = r"(?!)"
    objection: Callable[[nn.Module], str] = _nothing


def by_rules(*rules: tuple[str, str]) -> Rename:
    """Return a renaming by regular expressions, applied in order.

    Example:
        >>> by_rules(("^fc", "head"))("fc.weight", nn.Identity())
        'head.weight'
    """

    def rename(name: str, model: nn.Module) -> str:
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        return name

    return rename


def by_position(name: str, model: nn.Module) -> str:
    """Rename `features.3.weight` and `classifier.1.weight` by counting layers.

    Torchvision's AlexNet and VGG have two lists of layers; ours is one, of the same
    layers in the same order, cut where it flattens.

    Example:
        >>> from collections import OrderedDict
        >>> layers = OrderedDict(conv1=nn.ReLU(), flatten=nn.Flatten(), head=nn.ReLU())
        >>> ours = nn.Sequential(layers)
        >>> [by_position(f"{part}.0.bias", ours) for part in _LISTS]
        ['conv1.bias', 'head.bias']
    """
    layers = [layer for layer, _ in model.named_children()]
    part, _, rest = name.partition(".")
    place, _, tensor = rest.partition(".")
    if part not in _LISTS or not place.isdecimal() or "flatten" not in layers:
        return name
    start = 0 if part == "features" else layers.index("flatten") + 1
    if start + int(place) >= len(layers):
        return name
    return f"{layers[start + int(place)]}.{tensor}"


_LISTS = ("features", "classifier")

_RESNET = by_rules(
    *((rf"^layer{i}\.", f"conv{i + 1}.") for i in range(1, 5)),
    (r"\.downsample\.0\.", ".shortcut.conv."),
    (r"\.downsample\.1\.", ".shortcut.norm."),
    (r"^(conv\d\.\d+)\.(conv|bn)", r"\1.body.\2"),
    (r"\bbn(\d)", r"norm\1"),
    (r"^fc\.", "head."),
)
_GOOGLENET = by_rules(
    (r"\.bn\.", ".norm."),
    (r"^conv([12])\.", r"features.conv\1."),
    (r"^features\.conv2\.", "features.conv2_reduce."),
    (r"^conv3\.", "features.conv2."),
    (r"^(inception\w+)\.branch1\.", r"features.\1.one."),
    (r"^(inception\w+)\.branch2\.0\.", r"features.\1.three.reduce."),
    (r"^(inception\w+)\.branch2\.1\.", r"features.\1.three.main."),
    (r"^(inception\w+)\.branch3\.0\.", r"features.\1.five.reduce."),
    (r"^(inception\w+)\.branch3\.1\.", r"features.\1.five.main."),
    (r"^(inception\w+)\.branch4\.1\.", r"features.\1.pool.project."),
    (r"^aux1\.", "aux.inception4a."),
    (r"^aux2\.", "aux.inception4d."),
    (r"^fc\.", "head."),
)
_MOBILENET = by_rules(
    (r"^features\.0\.0\.", "conv1."),
    (r"^features\.0\.1\.", "norm1."),
    (r"^features\.18\.0\.", "conv2."),
    (r"^features\.18\.1\.", "norm2."),
    (r"^features\.1\.conv\.0\.0\.", "block1.body.depth."),
    (r"^features\.1\.conv\.0\.1\.", "block1.body.depth_norm."),
    (r"^features\.1\.conv\.1\.", "block1.body.down."),
    (r"^features\.1\.conv\.2\.", "block1.body.down_norm."),
    (r"^features\.(\d+)\.conv\.0\.0\.", r"block\1.body.up."),
    (r"^features\.(\d+)\.conv\.0\.1\.", r"block\1.body.up_norm."),
    (r"^features\.(\d+)\.conv\.1\.0\.", r"block\1.body.depth."),
    (r"^features\.(\d+)\.conv\.1\.1\.", r"block\1.body.depth_norm."),
    (r"^features\.(\d+)\.conv\.2\.", r"block\1.body.down."),
    (r"^features\.(\d+)\.conv\.3\.", r"block\1.body.down_norm."),
    (r"^classifier\.1\.", "head."),
)


def _steps_in_1x1(model: nn.Module) -> str:
    for block in model.modules():
        body = block.body if isinstance(block, Residual) else None
        first = getattr(body, "conv1", None)
        if hasattr(body, "conv3") and getattr(first, "stride", None) != (1, 1):
            return "they were trained with the stride in the 3×3: build resnet…_v1_5"
    return ""


_TIMM = Naming(source="timm", rename=by_rules())
NAMINGS = (
    Naming(source="striate", rename=by_rules()),
    Naming(source="torchvision", rename=_RESNET, objection=_steps_in_1x1),
    Naming(source="torchvision", rename=_GOOGLENET, spare=r"aux\."),
    Naming(source="torchvision", rename=_MOBILENET),
    Naming(source="torchvision", rename=by_position),
)


def choose(names: Iterable[str], model: nn.Module) -> Naming:
    """Return the naming under which most names are the network's.

    Example:
        >>> choose(["weight"], nn.Linear(1, 1)).source
        'striate'
    """
    if heads_of(model):
        return _TIMM
    wanted, names = model.state_dict().keys(), list(names)

    def matches(naming: Naming) -> int:
        return sum(naming.rename(name, model) in wanted for name in names)

    return max(NAMINGS, key=matches)
