"""A graph that runs as a torch network gives the same values, layer by layer."""

import copy
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import striate
from striate.core.errors import GeometryError
from striate.core.hooks import capture_outputs, intercept_outputs
from striate.core.layer_names import named_layers
from striate.exporters.check_graph import check_graph
from striate.exporters.graph import OPERATIONS, GraphNode, NetworkGraph
from striate.exporters.graph_network import GraphNetwork
from striate.exporters.torch_operations import TORCH_OPERATIONS
from striate.exporters.trace_graph import trace_graph
from striate.layers.lrn import LRN
from support.foreign_networks import STRANGERS, stranger

FEW = settings(max_examples=12)  # each is traced, which takes 20 ms
SHAPE = 4, 6, 7  # channels, height, width


class Function(nn.Module):
    """A network of one function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x).flatten(1)


def kinds(graph: NetworkGraph) -> set[str]:
    return {node.kind for node in graph.nodes}


def check(graph: NetworkGraph) -> None:
    """A file with this graph is accepted: all shapes and attributes are right."""
    fields = json.loads(json.dumps(graph.as_dict()))
    check_graph(fields, {name: v.shape for name, v in graph.constants.items()})


def compare(function, shape=SHAPE) -> set[str]:
    """Compare a function with its graph, bit by bit; return the operations."""
    model = Function(function).eval()
    graph = trace_graph(model, shape)
    network = GraphNetwork(graph)
    check(graph)
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(network(x), model(x))
    return kinds(graph)


LINEAR = nn.Linear(7, 5)
BATCH_NORM = nn.BatchNorm2d(4)
nn.init.normal_(BATCH_NORM.running_mean)
nn.init.uniform_(BATCH_NORM.running_var, 0.5, 2)
FUNCTIONS = {
    "linear": LINEAR,
    "batch_norm": BATCH_NORM.eval(),
    "layer_norm": nn.LayerNorm((6, 7)),
    "group_norm": nn.GroupNorm(2, 4),
    "prelu": nn.PReLU(4),
    "lrn": LRN(3, alpha=0.1),
    "relu": F.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "silu": F.silu,
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "mish": F.mish,
    "exp": torch.exp,
    "log": lambda x: torch.log(x.abs() + 1),
    "sqrt": lambda x: torch.sqrt(x.abs()),
    "abs": torch.abs,
    "neg": torch.neg,
    "erf": torch.erf,
    "reciprocal": lambda x: torch.reciprocal(x.abs() + 1),
    "softplus": lambda x: F.softplus(x),
    "sin": torch.sin,
    "cos": torch.cos,
    "gelu": lambda x: F.gelu(x, approximate="tanh") + F.gelu(x),
    "clamp": lambda x: x.clamp(max=0.5) + F.relu6(x) + x.clamp(min=-0.1),
    "leaky_relu": lambda x: F.leaky_relu(x, 0.2),
    "elu": lambda x: F.elu(x, 0.7),
    "selu": F.selu,
    "pow": lambda x: x**3,
    "add": lambda x: x + x[:, :1],
    "sub": lambda x: 1 - x,
    "mul": lambda x: x * 0.3,
    "div": lambda x: x / (x.abs() + 1),
    "maximum": lambda x: torch.maximum(x, -x),
    "minimum": lambda x: torch.minimum(x, -x),
    "matmul": lambda x: x @ x.transpose(2, 3),
    "mean": lambda x: x.mean((2, 3)) + x.mean(1, keepdim=True).mean((2, 3)),
    "sum": lambda x: x.sum(1),
    "max": lambda x: x.amax((2, 3), keepdim=True),
    "softmax": lambda x: x.softmax(1),
    "log_softmax": lambda x: x.log_softmax(-1),
    "concat": lambda x: torch.cat([x, x * 2, x], 2),
    "reshape": lambda x: x.reshape(-1, 2, 2, 42),
    "permute": lambda x: x.permute(0, 3, 1, 2),
    "expand": lambda x: torch.cat([torch.ones(x.shape[0], 1, 6, 7), x], 1),
    "slice": lambda x: x[:, 1:, ::2],
    "flip": lambda x: x.flip(1, 3),
    "pad": lambda x: F.pad(F.pad(x, (1, 2, 3, 0, 1, 1)), (1, 1, 2, 2), "reflect"),
    "conv": nn.Conv2d(4, 6, 3, padding=1, groups=2),
    "conv_transpose": nn.ConvTranspose2d(4, 6, 3, stride=2, output_padding=1),
    "max_pool": nn.MaxPool2d(2),
    "avg_pool": nn.AvgPool2d(2),
    "resize": lambda x: F.interpolate(x, (9, 5), mode="nearest"),
}  # fmt: skip


def test_selu():
    """A trace has ELU and a multiplication instead, which round in another way."""
    x = torch.randn(3, 4)
    assert torch.equal(TORCH_OPERATIONS["selu"](x), F.selu(x))


@pytest.mark.parametrize("kind", sorted({*OPERATIONS} - {"selu"}))
def test_every_operation_computes_what_torch_computes(kind):
    assert kind in compare(FUNCTIONS[kind])
    assert kind in TORCH_OPERATIONS


WINDOWS = st.fixed_dictionaries(
    {
        "kernel_size": st.tuples(st.integers(1, 3), st.integers(1, 3)),
        "stride": st.tuples(st.integers(1, 3), st.integers(1, 3)),
    }
)
PAIRS = st.tuples(st.integers(0, 1), st.integers(0, 1))


@FEW
@given(WINDOWS, PAIRS, st.tuples(st.integers(1, 2), st.integers(1, 2)))
def test_any_convolution(window, padding, dilation):
    compare(nn.Conv2d(4, 2, **window, padding=padding, dilation=dilation))


@FEW
@given(WINDOWS, PAIRS, st.sampled_from((1, 2)))
def test_any_transposed_convolution(window, padding, groups):
    compare(nn.ConvTranspose2d(4, 2, **window, padding=padding, groups=groups))


@FEW
@given(WINDOWS, st.booleans(), st.booleans(), st.booleans())
def test_any_pooling(window, ceil, is_max, count_padding):
    padding = [k // 2 for k in window["kernel_size"]]
    if is_max:
        compare(nn.MaxPool2d(**window, padding=padding, ceil_mode=ceil))
    else:
        compare(nn.AvgPool2d(**window, padding=padding, ceil_mode=ceil,
                             count_include_pad=count_padding))  # fmt: skip


@FEW
@given(
    st.tuples(st.integers(1, 15), st.integers(1, 15)),
    st.sampled_from(("bilinear", "bicubic")),
    st.booleans(),
)
def test_any_resize(size, mode, aligned):
    compare(lambda x: F.interpolate(x, size, mode=mode, align_corners=aligned))


@FEW
@given(st.data())
def test_any_reduction_and_order_of_dimensions(data):
    dims = data.draw(st.lists(st.integers(1, 3), min_size=1, unique=True))
    keep = data.draw(st.booleans())
    order = [0, *data.draw(st.permutations((1, 2, 3)))]
    compare(lambda x: x.permute(order).sum(dims, keep).reshape(x.shape[0], -1))
    compare(lambda x: x.permute(order).mean(dims, keep).reshape(x.shape[0], -1))


def test_padding_of_one_side():
    """No torch layer has it, but a graph may: only zeros are added."""
    weight = torch.randn(2, 4, 3, 3)
    attrs = {"stride": [1, 1], "padding": [[0, 1], [2, 0]], "dilation": [1, 1]}
    x = torch.randn(1, *SHAPE)
    result = TORCH_OPERATIONS["conv"](x, weight, **attrs, groups=1)
    assert torch.equal(result, F.conv2d(F.pad(x, (2, 0, 0, 1)), weight))
    attrs["padding"] = [[0, 1], [1, 0]]
    pooled = TORCH_OPERATIONS["max_pool"](-x.abs(), kernel=[2, 2], ceil=False, **attrs)
    assert pooled.shape == (1, 4, 6, 7)
    assert pooled.isfinite().all()


def networks():
    yield from ((kind.__name__, stranger(kind), (3, 16, 16)) for kind in STRANGERS)
    yield "lenet5", striate.create_model("lenet5", num_classes=5), (1, 32, 32)
    resnet = striate.create_model("resnet18", num_classes=5, in_chans=3, image_size=32)
    yield "resnet18", resnet, (3, 32, 32)


@pytest.fixture(scope="module", params=list(networks()), ids=lambda case: case[0])
def network(request):
    _, model, shape = request.param
    model.eval()
    graph = trace_graph(model, shape)
    check(graph)
    return model, GraphNetwork(graph), torch.rand(2, *shape)


# Layers without operations.
EMPTY = nn.Dropout, nn.Identity, nn.Flatten


def outputs(model, names, x):
    """Return the outputs of layers, before an operation in place changes them."""
    values = {}
    sink = lambda name, value: values.setdefault(name, value.clone())  # noqa: E731
    with torch.no_grad(), capture_outputs(model, names, sink):
        values["logits"] = model(x)
    return values


def test_layers_have_the_names_and_outputs_of_the_original(network):
    model, twin, x = network
    modules = dict(named_layers(twin))
    names = [name for name, _ in named_layers(model) if name in modules and name]
    missing = [module for name, module in named_layers(model) if name not in modules]
    assert all(isinstance(module, EMPTY) for module in missing)
    expected, values = outputs(model, names, x), outputs(twin, names, x)
    assert expected.keys() == values.keys()
    for name, value in expected.items():
        assert torch.equal(values[name], value), name


def test_weights_keep_their_names_and_values(network):
    model, twin, _ = network
    state, own = model.state_dict(), twin.state_dict()
    assert len({*state} & {*own}) > len(own) / 2
    named = dict(twin.named_parameters())
    for name, parameter in model.named_parameters():
        if name in named and parameter.shape == named[name].shape:
            is_masked = name == "c3.weight"  # of a partial convolution
            assert is_masked or torch.equal(named[name], parameter)
    assert {n for n in own if "running" in n} == {n for n in state if "running" in n}
    assert not any("running" in name for name in named)


def test_copies_and_gradients(network):
    _, twin, x = network
    copied = copy.deepcopy(twin)
    assert torch.equal(copied(x), twin(x))
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.zero_()
    assert not torch.equal(copied(x), twin(x))
    x = x.clone().requires_grad_()
    twin(x).sum().backward()
    assert x.grad.abs().sum() > 0


def test_a_hook_replaces_the_output_of_a_layer():
    model = striate.create_model("resnet18", num_classes=5, in_chans=3, image_size=32)
    twin, x = (
        GraphNetwork(trace_graph(model.eval(), (3, 32, 32))),
        torch.rand(1, 3, 32, 32),
    )
    results = []
    for each in (model, twin):
        with torch.no_grad(), intercept_outputs(each, ["layer1.0"], lambda _, y: y * 2):
            results.append(each(x))
    assert torch.equal(*results)
    assert not torch.equal(results[0], model(x))


def test_images_of_another_shape_are_refused(network):
    _, twin, x = network
    with pytest.raises(GeometryError, match="images must have the shape"):
        twin(x[..., 1:])


def test_a_weight_and_a_layer_with_odd_names():
    """Names of a graph never hide methods or each other."""
    nodes = [
        GraphNode(kind="relu", inputs=("input",), output="a", layer="forward"),
        GraphNode(kind="relu", inputs=("a",), output="b", layer="forward.kind"),
        GraphNode(kind="mul", inputs=("b", "forward.kind"), output="c", layer=""),
        GraphNode(kind="sum", inputs=("c",), output="logits", layer="relu #2",
                  attrs={"dims": [2, 3], "keepdim": False}),
    ]  # fmt: skip
    shapes = dict.fromkeys(("input", "a", "b", "c"), (-1, 1, 2, 2))
    graph = NetworkGraph(
        nodes=tuple(nodes),
        constants={"forward.kind": torch.full((1,), 2.0).numpy()},
        shapes={**shapes, "logits": (-1, 1)},
    )
    network = GraphNetwork(graph)
    assert network(torch.ones(3, 1, 2, 2)).tolist() == [[8.0]] * 3
    assert "relu #2" in dict(network.named_modules())
