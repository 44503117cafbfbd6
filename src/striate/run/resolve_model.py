"""Build the network of TARGET: model name, FILE.py:CLASS, run, or sketch of layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from striate.audit.meta_device import init_empty_weights
from striate.audit.sketch_parser import is_sketch, sketch
from striate.core.errors import SettingError
from striate.core.lazy_layers import lazy_layer_names, materialize_lazy
from striate.core.preprocess_config import Preprocess
from striate.models.catalogue import create_named_model, model_entry
from striate.models.timm import is_timm
from striate.run.build_network import check_network_name
from striate.run.layout import existing_run
from striate.run.python_network import is_python_network, load_python_network
from striate.run.run import Run

Shape = tuple[int, int, int]
Sides = tuple[int, int]
DEFAULT_SIZE = 224  # default input size of a Python file


@dataclass(frozen=True, kw_only=True)
class Target:
    """A network with its name and its input shape."""

    name: str
    model: nn.Module
    shape: Shape  # input shape (channels, height, width)
    # preprocessing that the network was trained with, if known
    preprocess: Preprocess | None = None
    # whether the network has trained weights; None: the code of a file may load some
    trained: bool | None = False


@dataclass(frozen=True, kw_only=True)
class SummaryRequest:
    """Image size, input channels and class count; None for a value that is not set."""

    image_size: int | tuple[int, int] | None = None
    in_chans: int | None = None
    num_classes: int | None = None


def resolve_target(
    target: str, request: SummaryRequest, *, real: bool = False, trust: bool = False
) -> Target:
    """Build the network of a TARGET given on the command line.

    With `real`, the weights are allocated, so that the network can run. With `trust`,
    the network code of a run folder from another machine is executed.

    Raises:
        SettingError: The target is invalid; the message lists similar names.
        GeometryError: The network cannot be built for this image size.
    """
    if is_sketch(target):
        return _sketched(target, request, real)
    if is_python_network(target):
        return _from_file(target, request, real)
    if existing_run(target):
        return _from_run(target, request, real, trust)
    return _named(target, request, real)


def _built(build: Callable[[], nn.Module], real: bool, name: str = "") -> nn.Module:
    if real:
        return build()
    # timm reads weight values while it builds a model, which needs the meta device.
    with torch.device("meta") if is_timm(name) else init_empty_weights():
        return build()


def _sketched(target: str, request: SummaryRequest, real: bool) -> Target:
    if request != SummaryRequest():
        what = "--image-size, --in-chans and --num-classes do not apply to a sketch"
        raise SettingError(what, where=target, fix="change the sketch instead")
    shapes: list[Shape] = []

    def build() -> nn.Module:
        model, shape = sketch(target)
        shapes.append(shape)
        return model

    return Target(name=target, model=_built(build, real), shape=shapes[0])


def _named(target: str, request: SummaryRequest, real: bool) -> Target:
    check_network_name(target)
    entry = model_entry(target)
    model = _built(lambda: create_named_model(target, **vars(request)), real, target)
    height, width = _sides(request.image_size, (entry.image.height, entry.image.width))
    channels = entry.image.channels if request.in_chans is None else request.in_chans
    return Target(name=target, model=model, shape=(channels, height, width))


def _sides(size: int | Sides | None, default: Sides) -> Sides:
    if size is None:
        return default
    return (size, size) if isinstance(size, int) else size


def _from_run(target: str, request: SummaryRequest, real: bool, trust: bool) -> Target:
    if request != SummaryRequest():
        what = "--image-size, --in-chans and --num-classes do not apply to a run"
        raise SettingError(what, where=target, fix="leave out these flags")
    run = Run(target, trust=trust)
    # The code of a user may look at values, which the meta device does not have.
    real = real or is_python_network(run.recipe.model)
    model = run.model if real else _built(run.fresh_model, real, run.recipe.model)
    return Target(
        name=run.path.name,
        model=model,
        shape=run.preprocess.spec.shape,
        preprocess=run.preprocess,
        trained=True,
    )


def _from_file(target: str, request: SummaryRequest, real: bool) -> Target:
    network = load_python_network(target)
    settings = vars(request)
    model = network.build(settings) if real else network.build_empty(settings)
    if lazy_layer_names(model) and not real:
        model = network.build(settings)  # lazy layers need values for their run
    height, width = _sides(request.image_size, (DEFAULT_SIZE, DEFAULT_SIZE))
    channels = request.in_chans or first_channels(model)
    shape = channels, height, width
    materialize_lazy(model, shape)
    name = f"{network.path}:{network.expression}"
    return Target(name=name, model=model, shape=shape, trained=None)


def first_channels(model: nn.Module) -> int:
    """Return the channel count of the first convolution's input; 3 if there is none.

    Example:
        >>> first_channels(nn.Sequential(nn.Conv2d(1, 6, 5)))
        1
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            return module.in_channels or 3  # 0: a lazy layer
    return 3
