"""The graph of a network and its ONNX file, against torch."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import striate as st
from striate.core.errors import StriateError
from striate.core.logits import logits_of
from striate.exporters.fold import fold_batch_norm
from striate.exporters.graph import GraphNode, NetworkGraph
from striate.exporters.graph_builder import UnsupportedOperationError
from striate.exporters.onnx_model import OnnxModel
from striate.exporters.onnx_nodes import write_nodes
from striate.exporters.ort_session import onnx_session
from striate.exporters.trace_graph import trace_graph


def onnx_of(graph):
    model = OnnxModel()
    model.input("input", np.float32, ["batch", *graph.input_shape])
    write_nodes(model, graph)
    shape = ["batch", *graph.shapes["logits"][1:]]
    model.output("logits", np.float32, shape)
    return model.as_bytes({})


def randomize(model):
    """Statistics and weights of trained size, so that every part of a layer counts."""
    draw = torch.Generator().manual_seed(3)
    for name, value in model.state_dict().items():
        if name.endswith("running_var"):
            value.copy_(torch.rand(value.shape, generator=draw) + 0.5)
        elif name.endswith("running_mean"):
            value.copy_(torch.randn(value.shape, generator=draw) * 0.3)
        elif value.is_floating_point() and value.ndim == 1:
            value.copy_(torch.rand(value.shape, generator=draw) * 0.5 + 0.5)
    return model.eval()


def check(model, shape, tolerance=2e-6, batches=(1, 4)):
    model.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    graph = fold_batch_norm(trace_graph(model, shape))
    program = onnx_session(onnx_of(graph), threads=1)
    draw = torch.Generator().manual_seed(1)
    for batch in batches:
        x = torch.randn((batch, *shape), generator=draw)
        with torch.no_grad():
            output = model(x)
        expected = output if isinstance(output, torch.Tensor) else logits_of(output)
        (actual,) = program.run(None, {"input": x.numpy()})
        scale = max(1.0, float(expected.abs().max()))
        assert np.abs(actual - expected.numpy()).max() <= tolerance * scale
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    return graph


SMALL = [
    ("tutorial_gray", (1, 28, 28)),
    ("tutorial_color", (3, 32, 32)),
    ("lenet5", (1, 32, 32)),
    ("lenet5_modern", (1, 28, 28)),
    ("cifar_resnet20", (3, 32, 32)),
    ("fast_small", (1, 28, 28)),
    ("fast_small_large", (1, 28, 28)),
    ("mobilenet_v2", (3, 64, 64)),
    ("resnet18", (3, 64, 64)),
    ("antialiased_resnet18_slim", (3, 64, 64)),
    ("googlenet_no_aux", (3, 64, 64)),
]


@pytest.mark.parametrize(("name", "shape"), SMALL)
def test_bundled_networks(name, shape):
    torch.manual_seed(0)
    model = st.create_model(name, num_classes=7, in_chans=shape[0])
    graph = check(randomize(model), shape, tolerance=1e-5)
    assert "batch_norm" not in {node.kind for node in graph.nodes} or "fast" in name


@pytest.mark.slow
@pytest.mark.parametrize("name", st.list_models())
def test_every_bundled_network(name):
    torch.manual_seed(0)
    model = st.create_model(name, num_classes=7)
    for shape in ((3, 227, 227), (3, 224, 224), (1, 32, 32), (1, 28, 28), (3, 32, 32)):
        try:
            trace_graph(model, shape)
        except StriateError:
            continue
        check(model, shape, tolerance=1e-5)
        return
    pytest.fail("no shape fits")


class Layers(nn.Module):
    """Operations on feature maps, given as a function."""

    def __init__(self, function, *layers):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.function = function

    def forward(self, x):
        return self.function(x, *self.layers).flatten(1)


FUNCTIONS = {
    "activations": lambda x: torch.cat(
        [f(x) for f in (F.gelu, F.silu, F.mish, F.hardswish, F.hardsigmoid, F.elu)], 1
    ),
    "more activations": lambda x: (
        F.leaky_relu(x, 0.2) + F.relu6(x) * F.softplus(x) + F.selu(x) - torch.tanh(x)
    ),
    "tanh gelu": lambda x: F.gelu(x, approximate="tanh"),
    "clamps": lambda x: x.clamp(-0.5) + x.clamp(max=0.3) + x.clamp(-0.1, 0.2),
    "arithmetic": lambda x: (
        (2 - x) / (x.abs() + 1.5) * 0.25 + torch.rsqrt(x.square() + 1)
    ),
    "powers": lambda x: x.abs().pow(1.5) + x**3 + torch.exp(-x.abs()) + x.sin(),
    "max and min": lambda x: torch.maximum(x, x.flip(3)) - torch.minimum(x, x * 0.5),
    "alpha": lambda x: torch.add(x, x.abs(), alpha=-2.5),
    "addcmul": lambda x: torch.addcmul(x, x, x, value=0.5),
    "means": lambda x: x.mean((2, 3)) + x.sum((2, 3)) * 0.01 + x.amax((2, 3)),
    "norm": lambda x: F.normalize(x, dim=1),
    "softmax": lambda x: torch.cat([x.softmax(1), x.log_softmax(-1)], 1),
    "slices": lambda x: x[:, 1:, ::2, -5:] * x[:, :1, 1::2, 2:7],
    "select": lambda x: x[:, :, 0] + x[:, :, :, -1],
    "chunks": lambda x: torch.cat(x.chunk(2, dim=2)[::-1], 2),
    "split": lambda x: torch.stack(x.split([3, 5, 2], dim=3)[1:2], 1),
    "unbind": lambda x: sum(x.unbind(1)),
    "roll": lambda x: torch.roll(x, (2, -3), (2, 3)),
    "flip": lambda x: x.flip((2, 3)) + x,
    "permute": lambda x: x.permute(0, 2, 3, 1).reshape(len(x), -1, 6),
    "transpose": lambda x: x.flatten(2).transpose(1, 2) @ x.flatten(2),
    "pads": lambda x: F.pad(x, (1, 2, 0, 3), value=0.5),
    "negative pads": lambda x: F.pad(x, (-1, 2, 0, -3)),
    "reflection": lambda x: F.pad(x, (1, 2, 2, 1), mode="reflect"),
    "edge": lambda x: F.pad(x, (1, 2, 2, 1), mode="replicate"),
    "expand": lambda x: x[:, :, :1].expand(-1, -1, 4, -1),
    "max pool": lambda x: F.max_pool2d(x, 3, 2, 1),
    "max pool up": lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True),
    "dilated pool": lambda x: F.max_pool2d(x, 2, 1, dilation=2),
    "average pool": lambda x: F.avg_pool2d(x, 3, 2, 1),
    "average pool, own count": lambda x: F.avg_pool2d(
        x, 3, 2, 1, count_include_pad=False
    ),
    "adaptive": lambda x: F.adaptive_avg_pool2d(x, (5, 2)),
    "adaptive, unequal": lambda x: F.adaptive_avg_pool2d(x, (4, 3)),
    "adaptive max": lambda x: F.adaptive_max_pool2d(x, 5),
    "local response": lambda x: F.local_response_norm(x, 3),
    "nearest": lambda x: F.interpolate(x, scale_factor=2),
    "bilinear": lambda x: F.interpolate(x, (17, 9), mode="bilinear"),
    "aligned": lambda x: F.interpolate(x, (17, 9), mode="bilinear", align_corners=True),
    "bicubic": lambda x: F.interpolate(x, scale_factor=2, mode="bicubic"),
    "einsum": lambda x: torch.einsum("nchw,ndhw->ncd", x, x),
    "attention": lambda x: F.scaled_dot_product_attention(
        x, x.flip(3), x.abs(), scale=0.3
    ),
    "in place": lambda x: (x * 1.0).add_(1).relu_().mul_(0.5),
    "shuffle": lambda x: F.pixel_shuffle(x[:, :3].repeat(1, 4, 1, 1), 2),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_operations(name):
    check(Layers(FUNCTIONS[name]), (6, 10, 10), tolerance=5e-6)


LAYERS = {
    "grouped": nn.Conv2d(6, 12, 3, groups=3, dilation=2, stride=(2, 1)),
    "same": nn.Conv2d(6, 4, (3, 5), padding="same"),
    "reflect": nn.Conv2d(6, 4, 3, padding=1, padding_mode="reflect"),
    "transposed": nn.ConvTranspose2d(6, 4, 3, 2, 1, output_padding=1, groups=2),
    "group norm": nn.GroupNorm(3, 6),
    "layer norm": nn.LayerNorm((10, 10)),
    "plain layer norm": nn.LayerNorm(10, elementwise_affine=False),
    "prelu": nn.PReLU(6),
    "one prelu": nn.PReLU(),
    "linear of maps": nn.Linear(10, 4),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name):
    torch.manual_seed(1)
    model = Layers(lambda x, layer: layer(x) * 1.5, LAYERS[name])
    check(randomize(model), (6, 10, 10), tolerance=5e-6)


@pytest.mark.parametrize("batch_first", [True, False])
def test_attention_layers(batch_first):
    torch.manual_seed(1)
    layer = nn.TransformerEncoderLayer(
        12, 3, 20, batch_first=True, norm_first=batch_first, activation="gelu"
    )
    model = Layers(lambda x, layer: layer(x.flatten(2).transpose(1, 2)), layer)
    check(model, (12, 3, 3), tolerance=1e-5)


class ClassToken(nn.Module):
    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 4))
        self.position = nn.Parameter(torch.randn(1, 10, 4))

    def forward(self, x):
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.position
        return x[:, 0] + x.mean(1)


def test_a_token_is_repeated_for_each_image_of_the_batch():
    check(ClassToken(), (4, 3, 3), batches=(1, 2, 7))


def test_folding_is_exact_for_shared_and_branching_layers():
    """A layer whose output or weights another operation reads stays as it is."""
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6)
    twice = Layers(lambda x, c, n: n(c(n(c(x)))), conv, norm)
    graph = check(randomize(twice), (6, 8, 8), tolerance=5e-6)
    assert [n.kind for n in graph.nodes].count("batch_norm") == 2
    both = Layers(lambda x, c, n: n(y := c(x)) + y, conv, norm)
    graph = check(randomize(both), (6, 8, 8), tolerance=5e-6)
    assert [n.kind for n in graph.nodes].count("batch_norm") == 1
    up = Layers(
        lambda x, c, n: n(c(x)),
        nn.ConvTranspose2d(6, 8, 2, 2, groups=2),
        nn.BatchNorm2d(8),
    )
    graph = check(randomize(up), (6, 4, 4), tolerance=5e-6)
    assert "batch_norm" not in {node.kind for node in graph.nodes}


class ByValue(nn.Module):
    def forward(self, x):
        return x.flatten(1) * (2.0 if x.mean() > 0 else 1.0)


class ByBatch(nn.Module):
    def forward(self, x):
        return x.flatten(1) if len(x) == 2 else x.flatten(1).relu()


class Noise(nn.Module):
    def forward(self, x):
        return x.flatten(1) + torch.rand(1)


class Norm(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(2, track_running_stats=False)

    def forward(self, x):
        return self.norm(x).flatten(1)


class Sorted(nn.Module):
    def __init__(self):
        super().__init__()
        self.sorting = Layers(lambda x: x.sort(3)[0])

    def forward(self, x):
        return self.sorting(x)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (ByValue(), ("Python numbers", "torch.where")),
        (ByBatch(), ("batch size",)),
        (Noise(), ("random values",)),
        (Norm(), ("statistics of the batch", "layer norm")),
        (Sorted(), ("'sort'", "layer sorting")),
        (nn.Sequential(nn.Flatten(), nn.Linear(8, 2)).double(), ("float32",)),
        (Layers(lambda x: x.mean(0, keepdim=True) + x), ("images of the batch",)),
        (Layers(lambda x: x + x[:1]), ("images of the batch",)),
    ],
)
def test_refused_networks(model, words):
    with pytest.raises(UnsupportedOperationError) as error:
        trace_graph(model.eval(), (2, 2, 2))
    for word in words:
        assert word in str(error.value)


def test_the_file_has_the_same_bytes_twice_and_no_paths():
    torch.manual_seed(0)
    model = st.create_model("cifar_resnet20", num_classes=3)
    files = {onnx_of(fold_batch_norm(trace_graph(model, (3, 16, 16)))) for _ in "ab"}
    assert len(files) == 1
    content = files.pop()
    assert b"striate/" not in content
    assert b"/home" not in content
    assert b".py" not in content


def test_a_graph_as_json_and_back():
    graph = trace_graph(st.create_model("tutorial_gray", num_classes=4), (1, 28, 28))
    again = NetworkGraph.from_dict(graph.as_dict(), graph.constants)
    assert again.nodes == graph.nodes
    assert again.shapes == graph.shapes


def test_a_damaged_graph_is_refused():
    graph = trace_graph(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten()), (1, 4, 4))
    node = GraphNode(kind="relu", inputs=("nowhere",), output="y")
    with pytest.raises(StriateError, match="nowhere"):
        graph.with_nodes([node])
    with pytest.raises(StriateError, match="operation"):
        GraphNode(kind="system", inputs=(), output="y")
