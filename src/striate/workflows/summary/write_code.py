"""Write a network as standalone PyTorch code, for `striate summary NETWORK --code`.

Blocks with the same structure become one class. Arguments that differ between its
instances are parameters of the class; equal arguments share one parameter.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from textwrap import fill
from typing import Any

from torch import nn

from striate.audit.sketch_parser import Add, Concatenate
from striate.layers.inception import Inception
from striate.layers.inverted_residual import InvertedResidual
from striate.layers.residual import Residual
from striate.models.googlenet import AUX_AFTER, GoogLeNet
from striate.workflows.summary.code_format import WIDTH, CallCode, format_code, repeated
from striate.workflows.summary.code_layers import SOURCES
from striate.workflows.summary.code_tree import LayerNode, layer_tree

FEW = 3  # equal sequences from which on they become a class
SHORT = {"Conv2d": "Conv", "BatchNorm2d": "Bn", "ReLU": "Relu", "ReLU6": "Relu6"}


@dataclass
class BlockClass:
    """A class of the written file: its name, its instances and their parameters."""

    name: str
    instances: list[LayerNode] = field(default_factory=list)
    # by name of the parameter: the paths of the arguments that have its value
    parameters: dict[str, list[str]] = field(default_factory=dict)
    defaults: dict[str, Any] = field(default_factory=dict)  # of these parameters

    def find_parameters(self) -> None:
        """Find the arguments that differ between instances, and name them."""
        values = [instance.values() for instance in self.instances]
        defaults = self.instances[0].default_values()
        columns: dict[tuple[str, ...], list[str]] = {}
        for path in values[0]:
            column = tuple(repr(each[path]) for each in values)
            if len(set(column)) > 1:
                columns.setdefault(column, []).append(path)
        channels = [path for path in values[0] if _is_channels(path)]
        groups = list(columns.values())
        inner = [g for g in groups if _is_channels(g[0]) and channels[0] not in g]
        inner = [g for g in inner if channels[-1] not in g]
        # Channels are positional arguments, so they come first; then required ones.
        groups.sort(key=lambda g: (not _is_channels(g[0]), g[0] in defaults))
        for paths in groups:
            name = _parameter_name(paths, channels, alone=len(inner) == 1)
            if name in self.parameters:
                name = f"{paths[0].rpartition('.')[0].replace('.', '_')}_{name}"
            self.parameters[name] = paths
            if paths[0] in defaults:
                self.defaults[name] = defaults[paths[0]]

    @property
    def signature(self) -> tuple[str, ...]:
        """Return the parameters with their default values."""
        return tuple(
            f"{name}={_literal(self.defaults[name])}" if name in self.defaults else name
            for name in self.parameters
        )


def _is_channels(path: str) -> bool:
    return path.endswith(("channels", "_features"))


def _parameter_name(paths: list[str], channels: list[str], *, alone: bool) -> str:
    """Return a name for arguments with equal values, such as `in_channels`."""
    layer, _, argument = paths[0].rpartition(".")
    if not _is_channels(paths[0]):
        return argument
    first, last = channels[0] in paths, channels[-1] in paths
    if first or last:
        return (
            "channels" if first and last else "in_channels" if first else "out_channels"
        )
    return "hidden_channels" if alone else f"{layer.replace('.', '_')}_channels"


class CodeWriter:
    """Writer of the code of one network."""

    def __init__(self, model: nn.Module, name: str) -> None:
        self.root = layer_tree(model)
        self.classes: dict[tuple[Any, ...], BlockClass] = {}
        self.name = name
        self._find_classes()

    def _find_classes(self) -> None:
        counts = Counter(self._sequences(self.root, set()))
        names: Counter[str] = Counter([self.name])
        for node in [*self.root.walk()][1:]:
            is_block = bool(node.children) and not node.is_sequence
            if not is_block and counts[node.structure] < FEW:
                continue
            if node.structure not in self.classes:
                name = _class_name(node)
                names[name] += 1
                number = "" if names[name] == 1 else str(names[name])
                self.classes[node.structure] = BlockClass(name=name + number)
            self.classes[node.structure].instances.append(node)
        for block in self.classes.values():
            block.find_parameters()

    def _sequences(self, node: LayerNode, visited: set[Any]) -> list[Any]:
        """Return the structures of sequences, once for each place in the code."""
        result = []
        for _, child in node.children:
            leaves = all(not grandchild.children for _, grandchild in child.children)
            if child.is_sequence and leaves and len(child.children) > 1:
                result.append(child.structure)
            if child.children and not child.is_sequence:
                if child.structure in visited:
                    continue
                visited.add(child.structure)
            result += self._sequences(child, visited)
        return result

    def code(self) -> str:
        """Return the classes of the file, the network last."""
        used = {type(node.module) for node in self.root.walk()}
        sources = [
            source.strip("\n") for kind, source in SOURCES.items() if kind in used
        ]
        # Classes that others contain come first.
        classes = [*reversed(self.classes.values())]
        classes.sort(key=lambda block: not block.instances[0].is_sequence)
        blocks = [self._class(block) for block in classes]
        root = BlockClass(name=self.name, instances=[self.root])
        return "\n\n\n".join([*sources, *blocks, self._class(root, is_root=True)])

    def _class(self, block: BlockClass, *, is_root: bool = False) -> str:
        node = block.instances[0]
        names = {path: n for n, paths in block.parameters.items() for path in paths}
        arguments = CallCode("def __init__(", ("self", *block.signature))
        items = [(name, self._layer(c, f"{name}.", names)) for name, c in node.children]
        as_module = not node.is_sequence or (
            is_root and all(map(_is_name, node_names(node)))
        )
        base = "nn.Module" if as_module else "nn.Sequential"
        lines = [f"class {block.name}({base}):", format_code("", arguments, 4, ":")]
        if not as_module:
            call = _sequence("super().__init__(", items)
            return "\n".join([*lines, format_code("", call, 8)])
        lines.append("        super().__init__()")
        lines += [format_code(f"self.{name} = ", code, 8) for name, code in items]
        body = [f"        {line}" for line in _forward(node)]
        return "\n".join([*lines, "", "    def forward(self, x):", *body])

    def _layer(self, node: LayerNode, path: str, names: dict[str, str]) -> CallCode:
        """Return the code that constructs a layer; `names` are parameters by path."""
        if node.structure in self.classes:
            block = self.classes[node.structure]
            values = node.values(path)
            items = []
            for name, paths in block.parameters.items():
                full = path + paths[0]
                is_default = name in block.defaults and full not in names
                if is_default and values[full] == block.defaults[name]:
                    continue
                value = names.get(full) or _literal(values[full])
                items.append(value if _is_channels(name) else f"{name}={value}")
            return CallCode(f"{block.name}(", tuple(items))
        if node.is_sequence:
            items_by_name = [
                (name, self._layer(child, f"{path}{name}.", names))
                for name, child in node.children
            ]
            return _sequence("nn.Sequential(", items_by_name)
        return _leaf(node, path, names)


def node_names(node: LayerNode) -> list[str]:
    """Return the names of the child layers."""
    return [name for name, _ in node.children]


def _is_name(name: str) -> bool:
    return name.isidentifier()


def _leaf(node: LayerNode, path: str, names: dict[str, str]) -> CallCode:
    kind = type(node.module)
    start = kind.__name__ if kind in SOURCES else f"nn.{kind.__name__}"
    items: list[CallCode | str] = []
    for name, value in node.arguments.items():
        shown = names.get(path + name)
        required = name not in node.defaults
        if shown is None and not required and value == node.defaults[name]:
            continue
        code = shown or _literal(value)
        items.append(code if required else f"{name}={code}")
    return CallCode(f"{start}(", tuple(items))


def _literal(value: Any) -> CallCode | str:
    """Return the code of a value; a tuple of tuples can be broken into lines."""
    if isinstance(value, tuple) and len(value) > 2:
        return CallCode("(", tuple(_literal(item) for item in value))
    if isinstance(value, str):
        return f'"{value}"'
    return repr(value)


def _sequence(start: str, items: list[tuple[str, CallCode]]) -> CallCode:
    """Return the code of a sequence: layers by number, by name, or by any key."""
    names = [name for name, _ in items]
    if names == [str(i) for i in range(len(items))]:
        return CallCode(start, repeated([code for _, code in items]))
    if all(map(_is_name, names)):
        pairs = tuple(CallCode(f"{n}={c.start}", c.items, c.end) for n, c in items)
        return CallCode(start, (CallCode("OrderedDict(", pairs),))
    pairs = tuple(CallCode("(", (f'"{name}"', code)) for name, code in items)
    return CallCode(start, (CallCode("OrderedDict(", (CallCode("[", pairs, "]"),)),))


def _class_name(node: LayerNode) -> str:
    """Return a plain name for the class of a block."""
    match node.module:
        case Residual():
            names = node_names(node)
            changed = not isinstance(node.module.downsample, nn.Identity)
            return "Downsample" * changed + (
                "Bottleneck" if "conv3" in names else "BasicBlock"
            )
        case InvertedResidual():
            return "InvertedResidual" if node.module.use_shortcut else "InvertedBlock"
        case Inception():
            return "Inception"
        case Concatenate():
            return "Branches"
        case Add():
            return "Sum"
    kinds = [type(child.module).__name__ for _, child in node.children]
    return "".join(SHORT.get(k, k) for k in kinds) if len(kinds) <= FEW else "Block"


def _forward(node: LayerNode) -> list[str]:
    """Return the lines of the forward pass of a block or of the network."""
    names = node_names(node)
    match node.module:
        case Residual():
            branch = [n for n in names if n not in ("downsample", "relu")]
            first = f"y = self.{branch[0]}(x)"
            rest = [f"y = self.{name}(y)" for name in branch[1:]]
            return [first, *rest, "return self.relu(y + self.downsample(x))"]
        case InvertedResidual():
            x = "x + " if node.module.use_shortcut else ""
            return [f"return {x}self.conv(x)"]
        case Inception() | Concatenate():
            branches = tuple(f"self.{name}(x)" for name in names)
            code = CallCode("torch.cat(", (CallCode("[", branches, "]"), "dim=1"))
            return (
                format_code("return ", code, 8)
                .replace("\n        ", "\n")
                .lstrip()
                .split("\n")
            )
        case Add():
            return ["return " + " + ".join(f"self.{name}(x)" for name in names)]
        case GoogLeNet():
            return _forward_with_aux_heads(names)
    return [*(f"x = self.{name}(x)" for name in names), "return x"]


def _forward_with_aux_heads(names: list[str]) -> list[str]:
    """Return the forward pass of GoogLeNet; its auxiliary heads run in training."""
    lines, heads = [], []
    for name in names:
        head = AUX_AFTER.get(name)
        if name in AUX_AFTER.values():
            continue
        lines.append(f"x = self.{name}(x)")
        if head in names:
            lines.append(f"{head} = self.{head}(x) if self.training else None")
            heads.append(head)
    if heads:
        lines += ["if self.training:", f"    return x, {', '.join(map(str, heads))}"]
    return [*lines, "return x"]


def network_code(
    model: nn.Module, name: str, shape: tuple[int, int, int], text: str = ""
) -> str:
    """Return a network as a Python file that needs only torch.

    The file has the state_dict keys of the network, so the weights of the one load in
    the other.

    Args:
        model: A network of `striate models`, or of a sketch.
        name: Name of the network, for the docstring and the class.
        shape: (channels, height, width) of an image.
        text: More about the network, for the docstring.

    Raises:
        SettingError: The network has layers of another library or of the user.
    """
    word = "".join(part.capitalize() for part in name.split("_") if part)
    title = word if word.isidentifier() else "Net"
    body = CodeWriter(model, title).code()
    modules = ["import math"] if "math." in body else []
    modules += ["from collections import OrderedDict"] if "OrderedDict(" in body else []
    modules += [""] if modules else []
    functions = ["from torch.nn import functional as F"] if "F." in body else []
    size = ", ".join(map(str, shape))
    lines = [
        f'"""{name}: a network for images of {shape[1]}×{shape[2]}×{shape[0]}.',
        "",
        *([fill(text, WIDTH, break_long_words=False), ""] if text else []),
        "Written by `striate summary --code`; it needs only torch. To load weights:",
        'model.load_state_dict(safetensors.torch.load_file("best.safetensors"))',
        '"""',
        "",
        *modules,
        "import torch",
        "from torch import nn",
        *functions,
        "",
        "",
        body,
        "",
        "",
        'if __name__ == "__main__":',
        f"    model = {title}().eval()",
        f"    print(model(torch.zeros(1, {size})).shape)",
        "",
    ]
    return "\n".join(lines)
