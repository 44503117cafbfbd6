"""Catalogue of networks: names, default input sizes and classes, builders."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import nn

from striate.core.derive_seed import derive_seed
from striate.core.errors import SettingError
from striate.core.preprocess_config import ImageSpec
from striate.core.registry import Registry
from striate.models.timm import build, describe, is_timm

Builder = Callable[[ImageSpec, int], nn.Module]

# Each file registers its networks when it is imported; the order is that of history.
_FAMILIES = (
    *("lenet", "alexnet", "vgg", "googlenet", "resnet", "mobilenet"),
    *("tutorial_nets", "fast_small"),
)


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """Catalogue entry of a network: builder, default input and number of classes."""

    name: str
    build: Builder
    image: ImageSpec
    classes: int
    summary: str


_MODELS: Registry[ModelEntry] = Registry("network")


def register_model(
    name: str, *, image: ImageSpec, classes: int, summary: str = ""
) -> Callable[[Builder], Builder]:
    """Return a decorator that adds a builder to the catalogue.

    Args:
        name: The name for `create_model` and --model.
        image: The paper's input, which is the default.
        classes: The paper's number of classes, which is the default.
        summary: One line about the network; by default the first line of the builder's
            docstring.
    """

    def register(build: Builder) -> Builder:
        line = summary or (build.__doc__ or "").strip().splitlines()[0]
        line = line.removeprefix("Build ").rstrip(".")
        entry = ModelEntry(
            name=name, build=build, image=image, classes=classes, summary=line
        )
        _MODELS.add(name)(entry)
        return build

    return register


def list_models() -> list[str]:
    """Return the names of all networks of the catalogue, the oldest first.

    Example:
        >>> list_models()[:2]
        ['lenet5', 'lenet5_modern']
    """
    return [entry.name for entry in model_entries()]


def model_entries() -> list[ModelEntry]:
    """Return all entries of the catalogue, the oldest network first."""

    def age(entry: ModelEntry) -> int:
        build = entry.build.func if isinstance(entry.build, partial) else entry.build
        family = build.__module__.rpartition(".")[2]
        return (*_FAMILIES, family).index(family)  # a user's family comes last

    _load()
    # A family that was imported by itself is registered before the others.
    return sorted((_MODELS[name] for name in _MODELS), key=age)


def model_entry(name: str) -> ModelEntry:
    """Return a network's catalogue entry; for `timm:` names, create it from timm.

    Raises:
        UnknownNameError: No network has this name; the message lists similar names.
        SettingError: The network is timm's, and timm is not installed.
    """
    if is_timm(name):
        about = describe(name)
        return ModelEntry(
            name=name,
            build=partial(build, name),
            image=about.image,
            classes=about.classes,
            summary=about.summary,
        )
    _load()
    return _MODELS[name]


def create_named_model(
    name: str,
    *,
    num_classes: int | None = None,
    in_chans: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    seed: int | None = None,
) -> nn.Module:
    """Build a network by name, as an `nn.Module`.

    Args:
        name: A name from `striate models`, or `timm:` and a name from timm.
        num_classes: Number of outputs; by default as in the paper.
        in_chans: Input channels; by default as in the paper.
        image_size: A side, or (height, width), in pixels; by default as in the paper.
        seed: Random seed of the initial weights; torch's random state is not changed.
            If None, torch's own random state is used.

    Raises:
        UnknownNameError: No network has this name.
        SettingError: The network is timm's, and timm is not installed.
        GeometryError: The image size does not fit; the message names layer and sizes.

    Example:
        >>> create_named_model("tutorial_gray", num_classes=3, image_size=8).fc
        Linear(in_features=200, out_features=3, bias=True)
    """
    entry = model_entry(name)
    classes = entry.classes if num_classes is None else num_classes
    if classes < 1:
        what = f"a network needs at least one class, got {classes}"
        raise SettingError(what, where="num_classes")
    image = _image(entry.image, in_chans, image_size)
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(derive_seed(seed, "initialise"))
        return entry.build(image, classes)


def catalogue_rows(pattern: str = "") -> list[dict[str, str | int]]:
    """Return one dict per network: name, input, classes, parameters and summary.

    Args:
        pattern: Text that the names contain, or the name of one network of timm.

    Networks are built on torch's meta device: counting parameters needs no weights.

    Example:
        >>> rows = {row["name"]: row for row in catalogue_rows()}
        >>> rows["lenet5_modern"]["parameters"]
        61706
    """
    entries = [model_entry(pattern)] if is_timm(pattern) else model_entries()
    return [
        {
            "name": entry.name,
            "input": str(entry.image),
            "classes": entry.classes,
            "parameters": _parameter_count(entry),
            "what": entry.summary,
        }
        for entry in entries
        if pattern in entry.name
    ]


@cache  # to build all networks takes two seconds
def _parameter_count(entry: ModelEntry) -> int:
    with torch.device("meta"):
        model = entry.build(entry.image, entry.classes)
    return sum(p.numel() for p in model.parameters())


def _image(
    paper: ImageSpec, in_chans: int | None, image_size: int | tuple[int, int] | None
) -> ImageSpec:
    if isinstance(image_size, int):
        image_size = (image_size, image_size)
    height, width = image_size or (paper.height, paper.width)
    channels = paper.channels if in_chans is None else in_chans
    if min(channels, height, width) < 1:
        what = f"size and channels must be at least 1, got {height}×{width}×{channels}"
        raise SettingError(what, where="image_size and in_chans")
    return ImageSpec(channels=channels, height=height, width=width)


def _load() -> None:
    for family in _FAMILIES:
        importlib.import_module(f"striate.models.{family}")
