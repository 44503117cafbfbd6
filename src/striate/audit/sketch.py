"""A network in one line: `28x28x192 > conv 1x1 16 > conv 5x5 32 same`.

Height×width×channels of the image, then layers in order, parted by `>` or `|`.
Branches stand in brackets, parted by commas, and are concatenated; `sum [ … ]` adds
them, and an empty branch passes its input on. `3 * ( … )` repeats.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from striate.audit.sketch_layers import LAYERS, Made, Shape, make_layer
from striate.core.errors import GeometryError, SettingError
from striate.core.registry import unknown_name_error

SIGNS = re.compile(r"\s*([>|→,()\[\]*]|[^\s>|→,()\[\]*]+)")


def is_sketch(text: str) -> bool:
    """Tell a sketch from a name or a path.

    Example:
        >>> is_sketch("28x28x1 > conv 3x3 8"), is_sketch("vgg16")
        (True, False)
    """
    return re.match(r"\s*\d+[x×]\d+[x×]\d+\s*[>|→]", text) is not None


def sketch(text: str) -> tuple[nn.Module, tuple[int, int, int]]:
    """Return the network that a line describes, and (channels, height, width).

    Raises:
        SettingError: A word is not understood; says which and what could stand there.
        GeometryError: A layer does not fit what comes before it.

    Example:
        >>> model, shape = sketch("8x8x3 > conv 3x3 2 > dense 10")
        >>> shape, [type(layer).__name__ for layer in model]
        ((3, 8, 8), ['Conv2d', 'Flatten', 'Linear'])
    """
    size, _, rest = re.split(r"([>|→])", text, maxsplit=1)
    height, width, channels = map(int, re.findall(r"\d+", size))
    signs = [s.replace("→", ">").replace("|", ">") for s in SIGNS.findall(rest)]
    reader = _Reader(signs)
    if min(height, width, channels) < 1:
        what = f"sides and channels must be at least 1, got {size.strip()}"
        raise SettingError(what, where="sketch")
    model, _ = reader.chain((channels, height, width))
    if reader.signs:
        raise _puzzled(reader.signs[0], "the end, or > and a layer")
    if not len(model):
        what = "the sketch has no layer"
        raise SettingError(what, where="sketch", fix="write one: > conv 3x3 8")
    return model, (channels, height, width)


def _puzzled(word: str, wanted: str) -> SettingError:
    return SettingError(f"'{word}' is not understood", where="sketch", fix=wanted)


class _Reader:
    """Reads signs from the left, knowing the shape at each point."""

    def __init__(self, signs: Sequence[str]) -> None:
        self.signs = list(signs)

    def chain(self, shape: Shape) -> tuple[nn.Sequential, Shape]:
        """Read layers parted by `>` until a comma or bracket closes them."""
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        while self.signs and self.signs[0] not in (",", "]", ")"):
            for kind, layer, out in self._step(shape):
                number = sum(name.startswith(kind) for name in layers) + 1
                layers[f"{kind}{number}"] = layer
                shape = out
            if self.signs and self.signs[0] == ">":
                self.signs.pop(0)
        return nn.Sequential(layers), shape

    def _step(self, shape: Shape) -> Made:
        word = self.signs.pop(0).lower()
        if word == "[":
            return [self._branches(shape, Concatenate)]
        if word == "sum":
            self._expect("[")
            return [self._branches(shape, Add)]
        if self.signs[:2] == ["*", "("]:
            return self._repeat(word, shape)
        if word not in LAYERS:
            raise unknown_name_error("layer of a sketch", word, [*LAYERS, "sum"])
        words = []
        while self.signs and self.signs[0] not in (">", ",", "]", ")"):
            words.append(self.signs.pop(0).lower())
        return make_layer(word, words, shape)

    def _expect(self, sign: str) -> None:
        if not self.signs or self.signs[0] != sign:
            got = self.signs[0] if self.signs else "the end"
            raise _puzzled(got, f"'{sign}' must stand here")
        self.signs.pop(0)

    def _repeat(self, word: str, shape: Shape) -> Made:
        if not word.isdecimal() or int(word) < 1:
            raise _puzzled(word, "a repetition is a number, at least 1: 3 * ( … )")
        inside = list(self.signs[2:])
        found: Made = []
        for _ in range(int(word)):
            self.signs = list(inside)
            layer, shape = self.chain(shape)
            self._expect(")")
            found.append(("repeat", layer, shape))
        return found

    def _branches(
        self, shape: Shape, join: Callable[[Sequence[nn.Module]], nn.Module]
    ) -> tuple[str, nn.Module, Shape]:
        branches, shapes = [], []
        while True:
            layer, out = self.chain(shape)
            branches.append(layer)
            shapes.append(out)
            if not self.signs or self.signs[0] != ",":
                break
            self.signs.pop(0)
        self._expect("]")
        adding = join is Add
        alike = {out if adding else out[1:] for out in shapes}
        if len(alike) > 1:
            found = " and ".join(_text(out) for out in shapes)
            what = f"branches give {found}, which cannot be joined"
            fix = "give each branch the same sides: `same` padding, equal strides"
            raise GeometryError(what, where="sketch", fix=fix)
        channels = shapes[0][0] if adding else sum(out[0] for out in shapes)
        return "branches", join(branches), (channels, *shapes[0][1:])


def _text(shape: Shape) -> str:
    return "×".join(map(str, (*shape[1:], shape[0])))


class Concatenate(nn.Module):
    """Branches of one input, their channels laid side by side."""

    def __init__(self, branches: Sequence[nn.Module]) -> None:
        super().__init__()
        for number, branch in enumerate(branches, start=1):
            self.add_module(f"branch{number}", branch)

    def forward(self, x: Tensor) -> Tensor:
        """Return all branches' maps."""
        return torch.cat([branch(x) for branch in self.children()], 1)


class Add(nn.Module):
    """Branches of one input, added."""

    def __init__(self, branches: Sequence[nn.Module]) -> None:
        super().__init__()
        for number, branch in enumerate(branches, start=1):
            self.add_module(f"branch{number}", branch)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of all branches."""
        total: Tensor = sum(branch(x) for branch in self.children())
        return total
