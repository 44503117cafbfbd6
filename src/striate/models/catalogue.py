"""Networks by name: what exists, its paper's input and classes, how to build it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from striate.core.errors import SettingError
from striate.core.preprocess import ImageSpec
from striate.core.registry import Registry
from striate.core.seeds import derive_seed
from striate.models.timm import build, describe, is_timm

Builder = Callable[[ImageSpec, int], nn.Module]

# Each file registers its networks when it is imported; the order is history's.
_FAMILIES = (
    *("lenet", "alexnet", "vgg", "googlenet", "resnet", "mobilenet"),
    *("notes", "swift"),
)


@dataclass(frozen=True, kw_only=True)
class Network:
    """An entry of the catalogue: a builder and the paper's own input and classes."""

    name: str
    build: Builder
    image: ImageSpec
    classes: int
    summary: str


_NETWORKS: Registry[Network] = Registry("network")


def network(
    name: str, *, image: ImageSpec, classes: int, summary: str = ""
) -> Callable[[Builder], Builder]:
    """Return a decorator that enters a builder into the catalogue.

    Args:
        name: What users type.
        image: The paper's input, used where the caller gives none.
        classes: The paper's class count, likewise.
        summary: One line about it; by default the first of the builder's docstring.
    """

    def enter(build: Builder) -> Builder:
        line = summary or (build.__doc__ or "").strip().splitlines()[0]
        line = line.removeprefix("Build ").rstrip(".")
        _NETWORKS.add(name)(
            Network(name=name, build=build, image=image, classes=classes, summary=line)
        )
        return build

    return enter


def networks() -> Iterator[Network]:
    """Return every network, oldest first."""
    _load()
    # Whoever imports a family by itself enters it before the others.
    return iter(sorted((_NETWORKS[name] for name in _NETWORKS), key=_age))


def _age(entry: Network) -> int:
    """Return the place of a network's family in history; strangers' are youngest."""
    build = entry.build.func if isinstance(entry.build, partial) else entry.build
    family = build.__module__.rpartition(".")[2]
    return _FAMILIES.index(family) if family in _FAMILIES else len(_FAMILIES)


def find(name: str) -> Network:
    """Return the entry of a name, or what timm says of one of its own.

    Raises:
        UnknownNameError: No network has this name; lists the nearest.
        SettingError: It is timm's, which is not installed.
    """
    if is_timm(name):
        about = describe(name)
        return Network(
            name=name,
            build=partial(build, name),
            image=about.image,
            classes=about.classes,
            summary=about.summary,
        )
    _load()
    return _NETWORKS[name]


def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    in_chans: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    seed: int | None = None,
) -> nn.Module:
    """Build a network as a plain `nn.Module`.

    Args:
        name: A name of `striate models`, or `timm:` and one of timm.
        num_classes: Outputs; the paper's where not given.
        in_chans: Input channels; the paper's where not given.
        image_size: A side, or (height, width), in pixels; the paper's where not given.
        seed: Makes the initial weights a function of it, and leaves torch's random
            state untouched; without one, torch's own state is used.

    Raises:
        UnknownNameError: No network has this name.
        SettingError: It is timm's, which is not installed.
        GeometryError: The picture does not fit; names the layer and both sizes.

    Example:
        >>> create_model("notes_grey", num_classes=3, image_size=8).head
        Linear(in_features=200, out_features=3, bias=True)
    """
    entry = find(name)
    classes = entry.classes if num_classes is None else num_classes
    if classes < 1:
        raise SettingError(
            f"a network needs a class, got {classes}", where="num_classes"
        )
    image = _image(entry.image, in_chans, image_size)
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(derive_seed(seed, "initialise"))
        return entry.build(image, classes)


def catalogue_rows(timms: str = "") -> list[dict[str, str | int]]:
    """Return name, input, classes, parameters and summary of every network.

    Of timm's, which are many, only the one asked for. Networks are built on torch's
    meta device: counting needs no weights.

    Example:
        >>> rows = {row["name"]: row for row in catalogue_rows()}
        >>> rows["lenet5_modern"]["parameters"]
        61706
    """
    rows: list[dict[str, str | int]] = []
    for entry in [find(timms)] if is_timm(timms) else networks():
        with torch.device("meta"):
            model = entry.build(entry.image, entry.classes)
        rows.append(
            {
                "name": entry.name,
                "input": str(entry.image),
                "classes": entry.classes,
                "parameters": sum(p.numel() for p in model.parameters()),
                "what": entry.summary,
            }
        )
    return rows


def _image(
    paper: ImageSpec, in_chans: int | None, image_size: int | tuple[int, int] | None
) -> ImageSpec:
    if isinstance(image_size, int):
        image_size = (image_size, image_size)
    height, width = image_size or (paper.height, paper.width)
    channels = paper.channels if in_chans is None else in_chans
    if min(channels, height, width) < 1:
        what = f"channels and sides must be at least 1, got {height}×{width}×{channels}"
        raise SettingError(what, where="image_size and in_chans")
    return ImageSpec(channels=channels, height=height, width=width)


def _load() -> None:
    for family in _FAMILIES:
        importlib.import_module(f"striate.models.{family}")
