"""Build a network by name: a catalogue name, `net.py:Net`, or a sketch of layers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import nn

from striate.audit.meta_device import init_empty_weights
from striate.audit.sketch_parser import is_sketch, sketch
from striate.core.derive_seed import derive_seed
from striate.core.errors import SettingError, StriateError, UnknownNameError
from striate.core.lazy_layers import materialize_lazy
from striate.core.preprocess_config import Preprocess
from striate.core.registry import closest_names
from striate.core.settings import AUTO
from striate.finetune.freeze import freeze
from striate.models.catalogue import create_named_model, list_models, model_entry
from striate.models.head import deepen
from striate.models.timm import is_timm
from striate.run.python_network import (
    PythonNetwork,
    is_python_network,
    load_python_network,
)
from striate.run.recipe import Recipe

CUSTOM = "custom:"  # name prefix of a model that was given as a Python object
SKETCH = "sketch"  # short name of a network that is given as a sketch


def short_name(model: str) -> str:
    """Return a short network name for folders and titles.

    Example:
        >>> short_name("custom:mine.nets.Small"), short_name("timm:resnet18.a1_in1k")
        ('Small', 'timm:resnet18.a1_in1k')
        >>> short_name("nets/net.py:Net(depth=3)"), short_name("8x8x1 > dense 10")
        ('Net', 'sketch')
    """
    if is_sketch(model):
        return SKETCH
    if is_python_network(model):
        expression = model.rpartition(".py")[2].removeprefix(":")
        return expression.partition("(")[0] or model
    name = model.removeprefix(CUSTOM)
    return name if name == model else name.rpartition(".")[2]


def network_title(model: str) -> str:
    """Return the name of a network for titles: the name itself, or `sketch`.

    Example:
        >>> network_title("resnet18"), network_title("8x8x1 > dense 10")
        ('resnet18', 'sketch')
    """
    return SKETCH if is_sketch(model) else model


def is_own_network(model: str) -> bool:
    """Return whether a network is a Python file or a sketch, not a known name.

    Example:
        >>> is_own_network("net.py:Net"), is_own_network("resnet18")
        (True, False)
    """
    return is_python_network(model) or is_sketch(model)


def build_network(
    name: str,
    *,
    num_classes: int,
    in_chans: int,
    image_size: tuple[int, int],
    seed: int | None = None,
) -> nn.Module:
    """Build a network by name, as `create_model` does; also a user's own network.

    Args:
        name: A name from `striate models`, `timm:NAME`, `FILE.py:CLASS`, or a sketch.
        num_classes: Number of outputs.
        in_chans: Input channels.
        image_size: (height, width) in pixels.
        seed: Random seed of the initial weights.

    Raises:
        StriateError: The name is unknown, or the network does not fit the images.

    Example:
        >>> sizes = {"num_classes": 2, "in_chans": 1, "image_size": (8, 8)}
        >>> build_network("8x8x1 > dense 2", **sizes)
        Sequential(
          (flatten1): Flatten(start_dim=1, end_dim=-1)
          (dense1): Linear(in_features=64, out_features=2, bias=True)
        )
    """
    if is_python_network(name):
        settings = (num_classes, in_chans, image_size)
        with seeded(seed):
            return _build_python(load_python_network(name), settings)
    if is_sketch(name):
        with seeded(seed):
            return sketch(name)[0]
    check_network_name(name)
    return create_named_model(
        name,
        num_classes=num_classes,
        in_chans=in_chans,
        image_size=image_size,
        seed=seed,
    )


def build_for_run(
    name: str, recipe: Recipe, preprocess: Preprocess, num_classes: int
) -> nn.Module:
    """Build the network of a run by name, with its deeper head and frozen layers."""
    model = build_network(
        name,
        num_classes=num_classes,
        in_chans=preprocess.channels,
        image_size=(preprocess.height, preprocess.width),
        seed=recipe.seed,
    )
    if recipe.head_hidden:
        deepen(model, recipe.head_hidden, recipe.seed)
    if recipe.freeze:
        freeze(model, recipe.freeze)
    return model


def _build_python(
    network: PythonNetwork, settings: tuple[int, int, tuple[int, int]]
) -> nn.Module:
    """Build the network of a Python file, with shapes of its lazy layers.

    `settings` are the number of classes, the input channels, and (height, width).
    """
    num_classes, in_chans, (height, width) = settings
    size = height if height == width else (height, width)
    values = {"num_classes": num_classes, "in_chans": in_chans, "image_size": size}
    model = network.build(values)
    materialize_lazy(model, (in_chans, height, width))
    return model


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Context manager: seed the initial weights as `create_model` does."""
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(derive_seed(seed, "initialise"))
        yield


def resolve_network(recipe: Recipe) -> Recipe:
    """Return the recipe with the class of a Python file, and the input of a sketch.

    A wrong name, file or sketch fails here, before any image is read.

    Raises:
        SettingError: The network is unknown or invalid, or the image size or channels
            differ from those of the sketch.
    """
    name = recipe.model
    if is_sketch(name):
        with init_empty_weights(), seeded(0):
            _, (channels, height, width) = sketch(name)
        _check_sketch_input(recipe, channels, (height, width))
        return replace(recipe, image_size=(height, width), in_chans=channels)
    if is_python_network(name):
        with seeded(0):  # the file may build the network
            network = load_python_network(name)
        return replace(recipe, model=f"{network.path}:{network.expression}")
    if name != AUTO:
        check_network_name(name)
    return recipe


def _check_sketch_input(recipe: Recipe, channels: int, size: tuple[int, int]) -> None:
    side = recipe.image_size
    given = (side, side) if isinstance(side, int) else side
    if given not in (None, size) or recipe.in_chans not in (None, channels):
        height, width = given or size
        values = f"{height}x{width}x{recipe.in_chans or channels}"
        what = f"the sketch begins with {size[0]}x{size[1]}x{channels}, but "
        what += f"--image-size and --in-chans give {values}"
        fix = "change the sketch, or leave out --image-size and --in-chans"
        raise SettingError(what, where="--model", fix=fix)


def check_network_name(name: str) -> None:
    """Raise an error if neither the catalogue nor timm has a network of this name.

    Raises:
        UnknownNameError: No network has this name; the message lists similar names.
    """
    try:
        model_entry(name)
    except StriateError as error:
        if is_timm(name):
            raise
        raise unknown_network_error(name) from error


def unknown_network_error(name: str) -> UnknownNameError:
    """Return the error for an unknown network, with all forms of a network's name."""
    close = closest_names(name, list_models())
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    forms = "a name from `striate models`, file.py:Class, a run folder, or a sketch"
    example = "such as '28x28x1 > conv 3x3 8'"
    what = f"no network is called '{name}'"
    if name.endswith((".pt", ".pth", ".safetensors")):
        fix = "give weights with --pretrained, and the network with --model"
        return UnknownNameError(what, fix=fix)
    return UnknownNameError(what, fix=f"{hint}give {forms} {example}")


def outputs_fix(model: str, classes: int) -> str:
    """Return how to give a network the number of outputs that the data needs.

    Example:
        >>> outputs_fix("8x8x1 > conv 3x3 4", 5)
        'end the sketch with: > dense 5'
    """
    if is_sketch(model):
        return f"end the sketch with: > dense {classes}"
    if is_python_network(model):
        path = model.rpartition(".py")[0] + ".py"
        example = f"{path}:{short_name(model)}(num_classes={classes})"
        return f"give the network a parameter num_classes, or write {example}"
    return f"build the model with num_classes={classes}"
