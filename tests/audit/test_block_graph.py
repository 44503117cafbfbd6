"""The diagram of a network against the graph that torch.fx traces."""

import pytest
import torch
from torch import nn

from striate.audit.block_graph import IMAGE, MOST_BLOCKS, block_graph, inner_graphs
from striate.audit.network import audit
from striate.models.catalogue import model_entry
from striate.run.create_model import create_model

NO_LIMIT = 10**6


def sources_by_fx(model, names):
    """Return the nearest modules of `names` that feed each of them, by torch.fx."""

    class Tracer(torch.fx.Tracer):
        def is_leaf_module(self, module, name):
            return name in names or super().is_leaf_module(module, name)

    nodes = Tracer().trace(model).nodes
    targets = {node: node.target for node in nodes if node.op == "call_module"}

    def feeding(node):
        found = set()
        for source in node.all_input_nodes:
            if source.op == "placeholder":
                found.add("image")
            elif targets.get(source) in names:
                found.add(targets[source])
            else:
                found |= feeding(source)
        return found

    return {targets[n]: feeding(n) for n in nodes if targets.get(n) in names}


def sources_by_graph(graph):
    names = [block.name for block in graph.blocks]

    def feeding(target):
        found = set()
        for source, end in graph.edges:
            if end != target:
                continue
            if source == IMAGE:
                found.add("image")
            elif "(" in names[source]:  # an operation outside of modules
                found |= feeding(source)
            else:
                found.add(names[source])
        return found

    return {name: feeding(i) for i, name in enumerate(names) if "(" not in name}


@pytest.mark.parametrize(
    "name", ["tutorial_gray", "resnet18", "cifar_resnet20", "mobilenet_v2", "vgg11_bn"]
)
def test_edges_are_those_of_fx(name):
    model = create_model(name).eval()
    image = model_entry(name).image
    graph = block_graph(audit(model, image.shape), most=NO_LIMIT)
    sources = sources_by_graph(graph)
    assert sources == sources_by_fx(model, set(sources))


def test_branches_of_an_inception_module_meet():
    graph = block_graph(audit(create_model("googlenet"), (3, 224, 224)), most=NO_LIMIT)
    names = [block.name for block in graph.blocks]
    pool = names.index("maxpool2")
    branches = [target for source, target in graph.edges if source == pool]
    assert len(branches) == 4
    ranks = graph.ranks
    assert all(ranks[target] == ranks[pool] + 1 for target in branches)


@pytest.mark.parametrize("name", ["resnet50", "googlenet", "resnet152", "plain34"])
def test_a_deep_network_has_few_blocks_and_loses_nothing(name):
    result = audit(create_model(name), (3, 224, 224))
    graph = block_graph(result)
    assert len(graph.blocks) <= MOST_BLOCKS
    parameters = sum(layer.parameters for layer in result.layers)
    assert sum(block.parameters for block in graph.blocks) == parameters
    assert sum(block.macs for block in graph.blocks) == result.macs
    assert all(source < target for source, target in graph.edges)


def test_two_inputs_of_one_layer():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(1, 2, 1), nn.Conv2d(1, 2, 1)
            self.last = nn.Conv2d(4, 1, 1)

        def forward(self, x):
            return self.last(torch.cat([self.first(x), self.second(x)], 1))

    graph = block_graph(audit(Twice(), (1, 4, 4)))
    names = [block.name for block in graph.blocks]
    assert names == ["first", "second", "(cat)", "last"]
    assert graph.edges == ((IMAGE, 0), (IMAGE, 1), (0, 2), (1, 2), (2, 3))
    assert graph.ranks == (0, 0, 1, 2)


def test_the_inside_of_folded_blocks_has_their_branches_and_shortcuts():
    (inception,) = inner_graphs(audit(create_model("googlenet"), (3, 224, 224)))
    assert inception.names[0] == "inception3a"
    assert len(inception.names) == 9
    assert inception.input == (192, 28, 28)
    assert [target for source, target in inception.graph.edges if source == IMAGE] == [
        *(0, 1, 3, 5)
    ]
    first, other = inner_graphs(audit(create_model("resnet50"), (3, 224, 224)))
    assert (first.names[0], len(first.names)) == ("layer1.0", 4)
    assert (other.names[0], len(other.names)) == ("layer1.1", 12)
    # The shortcut of the first block of a stage has a convolution.
    for inner, has_convolution in ((first, True), (other, False)):
        addition = len(inner.graph.blocks) - 1
        assert ((IMAGE, addition) in inner.graph.edges) is not has_convolution


@pytest.mark.parametrize("name", ["resnet50", "googlenet", "mobilenet_v2"])
def test_inner_edges_are_those_of_the_whole_graph(name):
    result = audit(create_model(name), (3, 224, 224))
    whole = block_graph(result, most=NO_LIMIT)
    names = [block.name for block in whole.blocks]
    edges = {(names[a], names[b]) for a, b in whole.edges if a != IMAGE}
    for inner in inner_graphs(result):
        own = [block.name for block in inner.graph.blocks]
        inside = {(a, b) for a, b in edges if a in own and b in own}
        assert {(own[a], own[b]) for a, b in inner.graph.edges if a != IMAGE} == inside
        assert inside


def test_a_small_network_has_nothing_inside():
    assert inner_graphs(audit(create_model("tutorial_gray"), (1, 28, 28))) == ()
    first = nn.Sequential(nn.Sequential(nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1)))
    (inner,) = inner_graphs(audit(first, (1, 4, 4)), most=1)
    assert inner.input == (1, 4, 4)  # the image
