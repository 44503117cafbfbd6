"""Graph of a network for drawing: blocks of layers, and which block feeds which."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from striate.audit.layer import Layer, Shape
from striate.audit.network import Audit
from striate.audit.recorder import IMAGE

MOST_BLOCKS = 40
MERGED_KINDS = (  # drawn in one box with the layer before them
    *("BatchNorm", "ReLU", "Dropout", "Identity", "Flatten", "Softmax", "GELU"),
    *("SiLU", "Sigmoid", "Tanh", "Hardswish", "LayerNorm", "DropPath", "LRN"),
    *("relu", "flatten", "dropout", "view", "reshape"),
)


@dataclass(frozen=True, kw_only=True)
class NetworkBlock:
    """A box of the diagram: one layer with what follows it, or a container.

    Example:
        >>> NetworkBlock(name="", kinds=("Conv2d",), output=(8, 14, 14)).title
        '(network)'
    """

    name: str  # dotted name of the first layer, or of the container
    kinds: tuple[str, ...]  # kinds of the layers, in order, without repetition
    output: Shape | None  # shape of the output of the last layer
    layers: int = 1
    parameters: int = 0
    macs: int = 0

    @property
    def title(self) -> str:
        """Return the name; operations outside of modules have names in parentheses."""
        return self.name or "(network)"


@dataclass(frozen=True, kw_only=True)
class BlockGraph:
    """Blocks in the order of execution, and edges (from, to); −1 is the input image."""

    blocks: tuple[NetworkBlock, ...]
    edges: tuple[tuple[int, int], ...]

    @property
    def ranks(self) -> tuple[int, ...]:
        """Return the rank of each block: the longest path from the input image.

        Example:
            >>> pair = NetworkBlock(name="a", kinds=(), output=None)
            >>> edges = (-1, 0), (0, 1), (0, 2), (1, 3), (2, 3)
            >>> BlockGraph(blocks=(pair,) * 4, edges=edges).ranks
            (0, 1, 1, 2)
        """
        ranks = [0] * len(self.blocks)
        for source, target in sorted(self.edges, key=lambda edge: edge[1]):
            if source != IMAGE:
                ranks[target] = max(ranks[target], ranks[source] + 1)
        return tuple(ranks)


def block_graph(audit: Audit, most: int = MOST_BLOCKS) -> BlockGraph:
    """Return the graph of a network with at most `most` blocks, if names permit it.

    Layers such as batch norm and ReLU are in the block of the layer before them. If
    there are still too many blocks, blocks of one container become one block: first
    those of the innermost containers.

    Example:
        >>> from torch import nn
        >>> from striate.audit.network import audit
        >>> net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3))
        >>> graph = block_graph(audit(net, (1, 8, 8)))
        >>> [block.kinds for block in graph.blocks], graph.edges
        ([('Conv2d', 'ReLU'), ('Conv2d',)], ((-1, 0), (0, 1)))
    """
    layers = [layer for layer in audit.layers if layer.operations]
    sources = _sources(layers)
    groups, depth = _grouped(layers, sources, most)
    return _graph(layers, sources, groups, folded=depth)


@dataclass(frozen=True, kw_only=True)
class InnerGraph:
    """What is inside of a block, and of other blocks with the same structure."""

    names: tuple[str, ...]  # names of the blocks
    input: Shape | None  # shape of the input of the first of them
    graph: BlockGraph  # of the first of them; −1 is everything outside of it


def inner_graphs(audit: Audit, most: int = MOST_BLOCKS) -> tuple[InnerGraph, ...]:
    """Return the graphs inside of the blocks of `block_graph` that contain several.

    Blocks have the same structure if the kinds of their layers and the edges between
    them are the same; the shapes may differ.

    Example:
        >>> from torch import nn
        >>> from striate.audit.network import audit
        >>> pair = lambda: nn.Sequential(nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1))
        >>> result = audit(nn.Sequential(pair(), pair()), (1, 8, 8))
        >>> (inner,) = inner_graphs(result, most=2)
        >>> inner.names, [block.name for block in inner.graph.blocks]
        (('0', '1'), ['0.0', '0.1'])
    """
    layers = [layer for layer in audit.layers if layer.operations]
    sources = _sources(layers)
    groups, depth = _grouped(layers, sources, most)
    whole = _graph(layers, sources, groups, folded=depth)
    inner: dict[object, InnerGraph] = {}
    for number, block in enumerate(whole.blocks):
        own = [i for i, group in enumerate(groups) if group == number]
        graph, outside = _graph_of(layers, sources, own)
        if len(graph.blocks) < 2:
            continue
        structure = tuple((each.kinds, each.layers) for each in graph.blocks)
        key = structure, graph.edges
        if key in inner:
            other = inner[key]
            names = *other.names, block.title
            inner[key] = InnerGraph(names=names, input=other.input, graph=other.graph)
            continue
        entry = layers[outside].output if outside != IMAGE else audit.shape
        inner[key] = InnerGraph(names=(block.title,), input=entry, graph=graph)
    return tuple(inner.values())


def _graph_of(
    layers: Sequence[Layer],
    sources: Sequence[Sequence[int]],
    own: Sequence[int],
) -> tuple[BlockGraph, int]:
    """Return the graph of some layers, and the first layer outside that feeds them."""
    places = {layer: place for place, layer in enumerate(own)}
    inside = [layers[i] for i in own]
    feeding = [sorted({places.get(j, IMAGE) for j in sources[i]}) for i in own]
    outside = [j for i in own for j in sources[i] if j not in places]
    groups, depth = _grouped(inside, feeding, MOST_BLOCKS)
    graph = _graph(inside, feeding, groups, folded=depth)
    return graph, outside[0] if outside else IMAGE


def _grouped(
    layers: Sequence[Layer], sources: Sequence[Sequence[int]], most: int
) -> tuple[list[int], int]:
    """Return the group of each layer, and the depth of names down to which it folds."""
    groups = _merge_followers(layers, sources)
    depth = max((name_depth(layer.name) for layer in layers), default=1)
    while max(groups, default=-1) + 1 > most and depth > 0:
        depth -= 1
        groups = _fold(layers, groups, depth)
    return groups, depth


def name_depth(name: str) -> int:
    """Return the number of parts of a dotted name."""
    return name.count(".") + 1


def _sources(layers: Sequence[Layer]) -> list[list[int]]:
    """Return the layers that feed each layer; −1 is the image."""
    owner = {o.number: i for i, layer in enumerate(layers) for o in layer.operations}
    owner[IMAGE] = IMAGE
    sources = []
    for i, layer in enumerate(layers):
        producers = (n for o in layer.operations for _, n in o.producers)
        feeding = (owner[n] for n in producers if n in owner)
        sources.append(sorted({j for j in feeding if j != i}))
    return sources


def _merge_followers(
    layers: Sequence[Layer], sources: Sequence[Sequence[int]]
) -> list[int]:
    """Return a group for each layer; batch norm, ReLU … join the layer before them."""
    consumers: dict[int, int] = defaultdict(int)
    for feeding in sources:
        for source in feeding:
            consumers[source] += 1
    groups: list[int] = []
    count = 0
    for layer, feeding in zip(layers, sources, strict=True):
        only = feeding[0] if len(feeding) == 1 else IMAGE
        follows = only != IMAGE and consumers[only] == 1
        if follows and layer.kind.startswith(MERGED_KINDS) and not layer.macs:
            groups.append(groups[only])
            continue
        groups.append(count)
        count += 1
    return groups


def _fold(layers: Sequence[Layer], groups: Sequence[int], depth: int) -> list[int]:
    """Return groups in which successive layers with equal name prefixes are one."""
    folded: list[int] = []
    numbers: dict[int, int] = {}
    count, before = -1, None
    for layer, group in zip(layers, groups, strict=True):
        if group in numbers:  # a follower stays with the layer before it
            folded.append(numbers[group])
            continue
        prefix = ".".join(layer.name.split(".")[:depth])
        inside = depth > 0 and name_depth(layer.name) > depth
        if not (inside and prefix == before):
            count += 1
        before = prefix if inside else None
        numbers[group] = count
        folded.append(count)
    return folded


def _graph(
    layers: Sequence[Layer],
    sources: Sequence[Sequence[int]],
    groups: Sequence[int],
    folded: int,
) -> BlockGraph:
    members: dict[int, list[Layer]] = defaultdict(list)
    for layer, group in zip(layers, groups, strict=True):
        members[group].append(layer)
    edges = {
        (groups[source] if source != IMAGE else IMAGE, group)
        for feeding, group in zip(sources, groups, strict=True)
        for source in feeding
    }
    blocks = tuple(_block(own, folded) for _, own in sorted(members.items()))
    inner = {(source, target) for source, target in edges if source != target}
    return BlockGraph(blocks=blocks, edges=tuple(sorted(inner)))


def _block(layers: Sequence[Layer], folded: int) -> NetworkBlock:
    weighty = [layer for layer in layers if not layer.kind.startswith(MERGED_KINDS)]
    name = layers[0].name
    if len(weighty) > 1 and folded:
        name = ".".join(name.split(".")[:folded])
    return NetworkBlock(
        name=name,
        kinds=tuple(dict.fromkeys(layer.kind for layer in layers)),
        output=layers[-1].output,
        layers=len(layers),
        parameters=sum(layer.parameters for layer in layers),
        macs=sum(layer.macs for layer in layers),
    )
