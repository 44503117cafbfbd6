"""`st.create_model`: build a network by name, from a Python file, or from a sketch."""

from __future__ import annotations

import torch
from torch import nn

from striate.audit.meta_device import init_empty_weights
from striate.audit.sketch_parser import is_sketch, sketch
from striate.core.errors import SettingError
from striate.core.lazy_layers import lazy_layer_names, materialize_lazy
from striate.models.catalogue import create_named_model
from striate.run.build_network import check_network_name, outputs_fix, seeded
from striate.run.python_network import is_python_network, load_python_network
from striate.run.resolve_model import first_channels


def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    in_chans: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    seed: int | None = None,
) -> nn.Module:
    """Build a network, as an `nn.Module`; it takes what `--model` takes.

    Args:
        name: A name from `striate models`, `timm:` and a name from timm, a Python file
            such as `net.py` or `net.py:Net(width=32)`, which is executed, or a sketch.
        num_classes: Number of outputs; by default as in the paper, file or sketch.
        in_chans: Input channels; by default as in the paper, file or sketch.
        image_size: A side, or (height, width), in pixels; the same defaults.
        seed: Random seed of the initial weights; torch's random state is not changed.
            If None, torch's own random state is used.

    Raises:
        UnknownNameError: No network has this name.
        SettingError: The network is timm's, and timm is not installed; the code of a
            file fails; or a number differs from that of the sketch.
        GeometryError: The image size does not fit; the message names layer and sizes.

    Example:
        >>> create_model("tutorial_gray", num_classes=3, image_size=8).fc
        Linear(in_features=200, out_features=3, bias=True)
        >>> create_model("8x8x1 > conv 3x3 4 > dense 2").dense1
        Linear(in_features=144, out_features=2, bias=True)
    """
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    if is_sketch(name):
        _check_sketch(name, num_classes, in_chans, size)
        with seeded(seed):
            return sketch(name)[0]
    if is_python_network(name):
        with seeded(seed):
            return _from_file(name, num_classes, in_chans, size)
    check_network_name(name)
    return create_named_model(
        name,
        num_classes=num_classes,
        in_chans=in_chans,
        image_size=size,
        seed=seed,
    )


def _check_sketch(
    text: str,
    num_classes: int | None,
    in_chans: int | None,
    size: tuple[int, int] | None,
) -> None:
    """Raise an error if a given number differs from that of the sketch."""
    with init_empty_weights(), seeded(0):
        model, (channels, height, width) = sketch(text)
    if size not in (None, (height, width)) or in_chans not in (None, channels):
        given = size or (height, width)
        what = f"the sketch begins with {height}x{width}x{channels}, but image_size "
        what += f"and in_chans give {given[0]}x{given[1]}x{in_chans or channels}"
        fix = "change the sketch, or leave out image_size and in_chans"
        raise SettingError(what, where="create_model", fix=fix)
    if num_classes is None:
        return
    with torch.no_grad():
        output = model.eval()(torch.empty(1, channels, height, width, device="meta"))
    if output.shape[1:] != (num_classes,):
        shape = "×".join(map(str, output.shape[1:]))
        what = f"the sketch ends with {shape} outputs, but num_classes is {num_classes}"
        fix = outputs_fix(text, num_classes)
        raise SettingError(what, where="create_model", fix=fix)


def _from_file(
    name: str,
    num_classes: int | None,
    in_chans: int | None,
    size: tuple[int, int] | None,
) -> nn.Module:
    """Build the network of a Python file; lazy layers need an image size."""
    network = load_python_network(name)
    side = size[0] if size and size[0] == size[1] else size
    numbers = {"num_classes": num_classes, "in_chans": in_chans, "image_size": side}
    model = network.build(numbers)
    if lazy := lazy_layer_names(model):
        if size is None:
            what = f"the lazy layer {lazy[0]} needs the size of the images"
            raise SettingError(what, where=name, fix="give image_size and in_chans")
        materialize_lazy(model, (in_chans or first_channels(model), *size))
    return model
