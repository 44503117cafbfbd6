"""Parse a network from one line: `28x28x192 > conv 1x1 16 > conv 5x5 32 same`.

The line starts with height×width×channels of the image. Layers follow, separated by `>`
or `|`. Branches are in brackets, separated by commas, and are concatenated;
`sum [ … ]` adds them, and an empty branch is the identity. `3 * ( … )` repeats.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from striate.audit.sketch_layers import LAYERS, BuiltLayers, Shape, make_layer
from striate.core.errors import GeometryError, SettingError, StriateError
from striate.core.registry import unknown_name_error

TOKEN = re.compile(r"\s*([>|→,()\[\]*]|[^\s>|→,()\[\]*]+)")
SHOWN = 30  # characters of a long sketch before and after the position of an error


def is_sketch(text: str) -> bool:
    """Return whether a text is a sketch (a network in one line), not a name or path.

    Example:
        >>> is_sketch("28x28x1 > conv 3x3 8"), is_sketch("vgg16")
        (True, False)
    """
    return re.match(r"\s*\d+[x×]\d+[x×]\d+\s*[>|→]", text) is not None


def sketch(text: str) -> tuple[nn.Module, tuple[int, int, int]]:
    """Build the network of a sketch; return it with its input shape (C, H, W).

    Raises:
        SettingError: A word is unknown; the message lists what is allowed there.
        GeometryError: A layer does not fit the output of the layer before it.

    Example:
        >>> model, shape = sketch("8x8x3 > conv 3x3 2 > dense 10")
        >>> shape, [type(layer).__name__ for layer in model]
        ((3, 8, 8), ['Conv2d', 'Flatten', 'Linear'])
    """
    size, _, _ = re.split(r"([>|→])", text, maxsplit=1)
    height, width, channels = map(int, re.findall(r"\d+", size))
    tokens = list(TOKEN.finditer(text, len(size) + 1))
    words = [token[1].replace("→", ">").replace("|", ">") for token in tokens]
    parser = _Parser(words)
    if min(height, width, channels) < 1:
        what = f"height, width and channels must be at least 1, got {size.strip()}"
        raise SettingError(what, where="sketch")
    try:
        model, _ = parser.chain((channels, height, width))
        if parser.tokens:
            fix = "the sketch must end here, or continue with > and a layer"
            raise parser.unexpected(fix)
    except StriateError as error:
        first, last = parser.position(str(error.what))
        start = tokens[first].start(1) if tokens[first:] else len(text)
        end = tokens[last - 1].end(1) if tokens[first:] else len(text) + 1
        what = f"{error.what}\n{_underlined(text, start, end)}"
        raise type(error)(what, where=error.where, fix=error.fix) from error
    if not len(model):
        what = "the sketch has no layers"
        raise SettingError(what, where="sketch", fix="add one, such as: > conv 3x3 8")
    return model, (channels, height, width)


def _underlined(text: str, start: int, end: int) -> str:
    """Return a text with carets below a part of it; a long text is cut."""
    begin = max(start - SHOWN, 0) if len(text) > 3 * SHOWN else 0
    stop = min(end + SHOWN, len(text)) if len(text) > 3 * SHOWN else len(text)
    before = "… " if begin else ""
    after = " …" if stop < len(text) else ""
    margin = " " * (len(before) + start - begin)
    return f"    {before}{text[begin:stop]}{after}\n    {margin}{'^' * (end - start)}"


class _Parser:
    """Parser of a sketch's tokens that tracks the output shape of each layer."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self.tokens = list(tokens)  # the tokens that are not parsed yet
        self._all = list(tokens)
        self._step_start = 0  # index of the first token of the layer that is parsed

    @property
    def _index(self) -> int:
        """Return the index of the next token; repeated tokens are counted once."""
        return len(self._all) - len(self.tokens)

    def position(self, message: str) -> tuple[int, int]:
        """Return the tokens of an error, (first, last + 1): a quoted word, or a layer.

        Example:
            >>> _Parser(["conv", "typo"]).position("'typo' is no setting")
            (1, 2)
        """
        quoted = re.search(r"'([^']+)'", message)
        end = max(self._index, self._step_start + 1)
        for i in range(self._step_start, min(end + 1, len(self._all))):
            if quoted and self._all[i].lower() == quoted[1].lower():
                return i, i + 1
        return self._step_start, min(end, len(self._all))

    def unexpected(self, expected: str) -> SettingError:
        """Return the error for the next token."""
        self._step_start = self._index
        word = self.tokens[0] if self.tokens else "the end"
        return SettingError(f"unexpected '{word}'", where="sketch", fix=expected)

    def chain(self, shape: Shape) -> tuple[nn.Sequential, Shape]:
        """Parse layers separated by `>` until a comma or a closing bracket."""
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        while self.tokens and self.tokens[0] not in (",", "]", ")"):
            for kind, layer, out in self._step(shape):
                number = sum(name.startswith(kind) for name in layers) + 1
                layers[f"{kind}{number}"] = layer
                shape = out
            if self.tokens and self.tokens[0] == ">":
                self.tokens.pop(0)
        return nn.Sequential(layers), shape

    def _step(self, shape: Shape) -> BuiltLayers:
        self._step_start = self._index
        word = self.tokens.pop(0).lower()
        if word == "[":
            return [self._branches(shape, Concatenate)]
        if word == "sum":
            self._expect("[")
            return [self._branches(shape, Add)]
        if self.tokens[:2] == ["*", "("]:
            return self._repeat(word, shape)
        if word not in LAYERS:
            raise unknown_name_error("layer of a sketch", word, [*LAYERS, "sum"])
        words = []
        while self.tokens and self.tokens[0] not in (">", ",", "]", ")"):
            words.append(self.tokens.pop(0).lower())
        return make_layer(word, words, shape)

    def _expect(self, sign: str) -> None:
        if not self.tokens or self.tokens[0] != sign:
            raise self.unexpected(f"'{sign}' is expected here")
        self.tokens.pop(0)

    def _repeat(self, word: str, shape: Shape) -> BuiltLayers:
        if not word.isdecimal() or int(word) < 1:
            fix = "repeat at least 1 time: 3 * ( … )"
            raise SettingError(f"unexpected '{word}'", where="sketch", fix=fix)
        inside = list(self.tokens[2:])
        repeated: BuiltLayers = []
        for _ in range(int(word)):
            self.tokens = list(inside)
            layer, shape = self.chain(shape)
            self._expect(")")
            repeated.append(("repeat", layer, shape))
        return repeated

    def _branches(
        self, shape: Shape, join: Callable[[Sequence[nn.Module]], nn.Module]
    ) -> tuple[str, nn.Module, Shape]:
        start = self._step_start
        branches, shapes = [], []
        while True:
            layer, out = self.chain(shape)
            branches.append(layer)
            shapes.append(out)
            if not self.tokens or self.tokens[0] != ",":
                break
            self.tokens.pop(0)
        self._expect("]")
        adding = join is Add
        shapes_to_join = {out if adding else out[1:] for out in shapes}
        if len(shapes_to_join) > 1:
            sizes = ["×".join(map(str, (*out[1:], out[0]))) for out in shapes]
            repeated = " and ".join(sizes)
            what = f"branches have outputs {repeated}, which cannot be joined"
            self._step_start = start
            fix = "use `same` padding and equal strides in all branches"
            raise GeometryError(what, where="sketch", fix=fix)
        channels = shapes[0][0] if adding else sum(out[0] for out in shapes)
        return "branches", join(branches), (channels, *shapes[0][1:])


class _Branches(nn.Module):
    def __init__(self, branches: Sequence[nn.Module]) -> None:
        super().__init__()
        for number, branch in enumerate(branches, start=1):
            self.add_module(f"branch{number}", branch)


class Concatenate(_Branches):
    """Module that runs branches on the same input and concatenates their channels."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the concatenated outputs of the branches."""
        return torch.cat([branch(x) for branch in self.children()], 1)


class Add(_Branches):
    """Module that runs branches on the same input and adds their outputs."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of the outputs of the branches."""
        total: Tensor = sum(branch(x) for branch in self.children())
        return total
