"""C source of a network: compiled without a library, it gives torch's answers."""

import re
import shutil
import subprocess

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import striate as st
from striate.core.errors import SettingError, StriateError
from striate.core.logits import logits_of
from striate.core.preprocess_config import Preprocess
from striate.data.decode.preprocess import image_to_input, normalize
from striate.exporters.c_source import c_target
from striate.exporters.c_source.c_target import CTarget
from striate.exporters.c_source.c_text import c_bytes, c_string, weights_literal
from striate.exporters.c_source.write_c import write_c
from striate.exporters.fold import fold_batch_norm
from striate.exporters.graph import GraphNode, NetworkGraph
from striate.exporters.graph_builder import UnsupportedOperationError
from striate.exporters.network_pipeline import NetworkPipeline, ParitySample
from striate.exporters.parity import check_parity
from striate.exporters.probabilities import ProbabilityMap
from striate.exporters.trace_graph import trace_graph
from striate.layers.lrn import LRN

needs_compiler = pytest.mark.skipif(
    shutil.which("cc") is None, reason="there is no C compiler (cc)"
)
STRICT = ("-Wall", "-Wextra", "-Werror")
SANITIZERS = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
VECTORS = ("-march=x86-64-v3",)


def preprocess(shape, mode="stretch", **fields):
    channels, height, width = shape
    mean, std = (0.45, 0.5, 0.3) * 2, (0.23, 0.2, 0.11) * 2
    stats = {"mean": mean[:channels], "std": std[:channels]}
    return Preprocess(
        channels=channels, height=height, width=width, resize=mode, **stats, **fields
    )


def names(count):
    return tuple(f"class {i}" for i in range(count))


def files_of(model, shape, mode="stretch", **settings):
    graph = fold_batch_norm(trace_graph(model.eval(), shape))
    probabilities = ProbabilityMap(classes=names(graph.num_classes), temperature=1.3)
    settings = {"probabilities": probabilities, **settings}
    return write_c(graph, preprocess=preprocess(shape, mode), **settings)


def randomized(model):
    """Statistics and weights of trained size, so that every part of a layer counts."""
    draw = torch.Generator().manual_seed(3)
    for name, value in model.state_dict().items():
        if name.endswith("running_var"):
            value.copy_(torch.rand(value.shape, generator=draw) + 0.5)
        elif value.is_floating_point() and value.ndim == 1:
            value.copy_(torch.rand(value.shape, generator=draw) * 0.5 + 0.3)
    return model.eval()


def compare(model, shape, flags=("-O1",), count=2, tolerance=2e-5):
    """The compiled source gives the logits of torch."""
    target = CTarget(
        files_of(model, shape), preprocess(shape), input_kind="tensor", flags=flags
    )
    x = torch.randn((count, *shape), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = logits_of(model(x)).numpy()
    values = target.run(x.numpy())
    scale = max(1.0, float(np.abs(expected).max()))
    assert np.abs(values["logits"] - expected).max() <= tolerance * scale
    assert (values["logits"].argmax(1) == expected.argmax(1)).all()
    probs = ProbabilityMap(classes=names(expected.shape[1]), temperature=1.3)(expected)
    assert np.abs(values["probabilities"] - probs).max() < 1e-4


SMALL = [
    ("tutorial_gray", (1, 28, 28)),
    ("lenet5", (1, 32, 32)),
    ("cifar_resnet20", (3, 32, 32)),
]
LARGE = [
    ("resnet18", (3, 224, 224)),
    ("mobilenet_v2", (3, 224, 224)),
    ("googlenet", (3, 224, 224)),
    ("antialiased_resnet18", (3, 224, 224)),
    ("alexnet", (3, 227, 227)),
    ("vgg11_bn", (3, 64, 64)),
    ("resnet50", (3, 64, 64)),
]


@needs_compiler
@pytest.mark.parametrize(("name", "shape"), SMALL)
def test_small_networks(name, shape):
    torch.manual_seed(0)
    model = st.create_model(name, num_classes=7, in_chans=shape[0])
    compare(randomized(model), shape)


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("flags", [("-O2",), ("-O3", *VECTORS)])
@pytest.mark.parametrize(("name", "shape"), LARGE)
def test_large_networks(name, shape, flags):
    torch.manual_seed(0)
    model = randomized(st.create_model(name, num_classes=100, in_chans=shape[0]))
    graph = fold_batch_norm(trace_graph(model, shape))
    p, m = preprocess(shape), ProbabilityMap(classes=names(100))
    files = write_c(graph, preprocess=p, probabilities=m, weights="beside")
    assert len(files["model.c"]) + len(files["model.h"]) < 60_000
    target = CTarget(files, p, flags=(*flags, *STRICT))
    draw = np.random.default_rng(0)
    samples = [
        ParitySample(
            path=str(i), pixels=draw.integers(0, 256, (*s, shape[0]), np.uint8)
        )
        for i, s in enumerate([(300, 200), (90, 500), shape[1:]])
    ]
    pipeline = NetworkPipeline(model=model, preprocess=p, probabilities=m)
    report = check_parity(target, pipeline, samples)
    assert report.passed, report.first_difference
    assert report.same_class == len(samples)


class Layers(nn.Module):
    """Operations on feature maps, given as a function."""

    def __init__(self, function, *layers):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.function = function

    def forward(self, x):
        return self.function(x, *self.layers).flatten(1)


class Together(nn.Module):
    """Several networks, so that one compilation is enough for all of them."""

    def __init__(self, parts):
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x):
        return torch.cat([part(x) for part in self.parts], 1)


def compare_together(parts, shape, flags):
    """Return for each part the largest relative difference of its values."""
    torch.manual_seed(0)
    model = randomized(Together(parts.values()))
    x = torch.randn((2, *shape), generator=torch.Generator().manual_seed(1))
    files, p = files_of(model, shape), preprocess(shape)
    target = CTarget(files, p, input_kind="tensor", flags=flags)
    values, start, differences = target.run(x.numpy())["logits"], 0, {}
    for name, part in parts.items():
        with torch.no_grad():
            expected = part(x).numpy()
        actual = values[:, start : start + expected.shape[1]]
        start += expected.shape[1]
        scale = max(1.0, float(np.abs(expected).max()))
        differences[name] = np.abs(actual - expected).max() / scale
    return differences


def shuffled(x):
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


FUNCTIONS = {
    "activations": lambda x: torch.cat(
        [f(x) for f in (F.gelu, F.silu, F.hardswish, F.hardsigmoid, F.elu, F.mish)], 1
    ),
    "more activations": lambda x: (
        F.leaky_relu(x, 0.2) + F.leaky_relu(x, 0.1) * x.sigmoid() - torch.tanh(x)
    ),
    "tanh gelu": lambda x: F.gelu(x, approximate="tanh"),
    "clamps": lambda x: x.clamp(-0.5) + x.clamp(max=0.3) + F.relu6(x * 3),
    "arithmetic": lambda x: (2 - x) / (x.abs() + 1.5) * 0.25 + x.square().sqrt(),
    "broadcasting": lambda x: (
        x * x.mean((2, 3), keepdim=True) + torch.arange(6.0)[:, None, None] - x[:, :1]
    ),
    "columns": lambda x: x * torch.arange(7.0) + torch.arange(9.0)[:, None],
    "max and min": lambda x: torch.maximum(x, x * 2) - torch.minimum(x, x * 0.5),
    "means": lambda x: x.mean((2, 3)) + x.sum((2, 3)) * 0.01 + x.amax((2, 3)),
    "mean over channels": lambda x: x.mean(1) + x.mean((1, 3), keepdim=True)[:, 0],
    "softmax": lambda x: torch.cat([x.softmax(1), x.softmax(-1)], 1),
    "slices": lambda x: x[:, 1:, 1::2, -5:] * x[:, :1, :-1:2, 2:],
    "concat": lambda x: torch.cat([x, x.relu(), x[:, 2:5]], 1),
    "concat of rows": lambda x: torch.cat([x[:, :, 3:], x[:, :, :3]], 2),
    "flatten": lambda x: x.relu().flatten(1),
    "channel shuffle": lambda x: F.relu(shuffled(x)),
    "permute": lambda x: x.permute(0, 2, 3, 1).reshape(len(x), -1, 6) + 1,
    "pads": lambda x: F.pad(x, (1, 2, 0, 3), value=0.5),
    "reflection": lambda x: F.pad(F.pad(x, (2, 1, 1, 3), mode="reflect"), (1,) * 4),
    "edges": lambda x: F.pad(x, (2, 1, 1, 3), mode="replicate"),
    "channels": lambda x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 2)),
    "max pool": lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True),
    "dilated pool": lambda x: F.max_pool2d(x, 2, 1, 1, dilation=2),
    "avg pool": lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True),
    "avg pool without padding": lambda x: F.avg_pool2d(
        x, (3, 2), (2, 1), (1, 0), count_include_pad=False
    ),
    "pool of a slice": lambda x: F.max_pool2d(x[:, 1:4, 1:], 2),
}


@pytest.fixture(scope="module")
def function_differences():
    parts = {name: Layers(function) for name, function in FUNCTIONS.items()}
    return compare_together(parts, (6, 9, 7), ("-O1", *STRICT))


@needs_compiler
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name, function_differences):
    assert function_differences[name] < 2e-6


def residual(x, first, second):
    y = F.relu(first(x))
    return F.relu6(second(y) + y * 2)


LAYERS = {
    "groups": lambda: Layers(
        lambda x, a, b: b(a(x).relu()),
        nn.Conv2d(6, 40, 3, 2, 1, groups=2),
        nn.Conv2d(40, 8, (1, 3), (1, 2), groups=4, bias=False),
    ),
    "dilation": lambda: Layers(lambda x, a: a(x), nn.Conv2d(6, 17, 3, 1, 2, 2)),
    "few channels": lambda: Layers(
        lambda x, a: a(x[:, :2]), nn.Conv2d(2, 3, (5, 4), (2, 3), (2, 1))
    ),
    "depthwise": lambda: Layers(
        lambda x, a, b: b(F.relu(a(x.repeat(1, 3, 1, 1)))) + 1,
        nn.Conv2d(18, 18, 3, 1, 1, groups=18),
        nn.Conv2d(18, 18, (3, 5), 2, 1, groups=18, bias=False),
    ),
    "multiplier": lambda: Layers(
        lambda x, a: a(x), nn.Conv2d(6, 12, 3, padding=1, groups=6)
    ),
    "pointwise": lambda: Layers(lambda x, a: a(x[:, :, 1:, ::2]), nn.Conv2d(6, 33, 1)),
    "residual": lambda: Layers(
        residual, nn.Conv2d(6, 24, 3, padding=1), nn.Conv2d(24, 24, 3, padding=1)
    ),
    "residual twice": lambda: Layers(
        lambda x, a: F.relu(a(x) + x + a(x)), nn.Conv2d(6, 6, 3, padding=1)
    ),
    "linear of rows": lambda: Layers(
        lambda x, a, b: b(F.relu(a(x)).flatten(1)), nn.Linear(7, 5), nn.Linear(270, 3)
    ),
    "batch norm": lambda: Layers(
        lambda x, a, b: b(a(x).flatten(1)), nn.BatchNorm2d(6), nn.BatchNorm1d(378)
    ),
    "lrn": lambda: Layers(
        lambda x, a, b: a(x) + b(x), LRN(), LRN(3, alpha=0.1, beta=0.6)
    ),
    "winograd": lambda: Layers(
        lambda x, a, b: b(F.relu(a(x.repeat(1, 4, 3, 3)))).mean((2, 3)),
        nn.Conv2d(24, 40, 3, padding=1),
        nn.Conv2d(40, 20, 3),
    ),
}


@pytest.fixture(scope="module", params=[(), VECTORS, ("-DLANES=1",)])
def layer_differences(request):
    if request.param == VECTORS and "avx2" not in _flags_of_this_processor():
        pytest.skip("this processor has no AVX2")
    flags = ("-O1", *request.param, *STRICT)
    parts = {name: layer() for name, layer in LAYERS.items()}
    return compare_together(parts, (6, 9, 7), flags)


@needs_compiler
@pytest.mark.parametrize("name", LAYERS)
def test_layers(name, layer_differences):
    assert layer_differences[name] < 1e-5


def _flags_of_this_processor():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next((line for line in file if line.startswith("flags")), "")
    except OSError:
        return ""


@needs_compiler
@pytest.mark.parametrize("mode", ["stretch", "crop", "pad"])
def test_resized_values_are_bit_equal(mode):
    shape = (3, 41, 50)
    p = preprocess(shape, mode, background=77)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 41 * 50, 2))
    graph = trace_graph(model, shape)
    m = ProbabilityMap(classes=("a", "b"))
    target = CTarget(write_c(graph, preprocess=p, probabilities=m), p, flags=("-O1",))
    draw = np.random.default_rng(5)
    sizes = [(1, 1), (1, 60), (60, 1), (41, 50), (2000, 3), (3, 2000), (42, 51)]
    sizes += [tuple(draw.integers(1, 400, 2)) for _ in range(40)]
    for height, width in sizes:
        pixels = draw.integers(0, 256, (height, width, 3), np.uint8)
        expected = image_to_input(pixels, p)
        values = target.run(pixels[None])
        assert np.array_equal(values["resized"][0], expected.numpy()), (height, width)
        with torch.no_grad():
            logits = model(normalize(expected[None], p))
        assert np.abs(values["logits"] - logits.numpy()).max() < 1e-4


MAIN = """
#include <stdio.h>
#include <stdlib.h>
#include "model.h"
int main(void) {
    for (int height = 1; height < 90; height += 11) {
        int width = 1 + height * 37 % 71;
        size_t count = (size_t)(height * width * MODEL_CHANNELS);
        uint8_t *pixels = malloc(count);
        float *probabilities = malloc(MODEL_CLASSES * sizeof *probabilities);
        for (size_t i = 0; i < count; i++) pixels[i] = (uint8_t)(i * 31);
        if (model_predict(pixels, height, width, probabilities)) return 1;
        printf("%s %f\\n", model_class_names[0], probabilities[0]);
        free(pixels);
        free(probabilities);
    }
    return model_predict(NULL, 1, 1, NULL) != MODEL_BAD_ARGUMENT
        || model_predict((const uint8_t *)"", 0, 1, (float[9]){0}) == MODEL_OK
        || model_predict((const uint8_t *)"", 70000, 70000, (float[9]){0}) == MODEL_OK;
}
"""


def compiled(folder, files, compiler="gcc", flags=(), main=MAIN):
    for key, payload in files.items():
        (folder / key).write_bytes(payload)
    (folder / "main.c").write_text(main)
    command = [compiler, "-std=c99", "-O1", *STRICT, *flags, "-o", "main"]
    command += ["main.c", "model.c", "-lm"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "main"


@needs_compiler
@pytest.mark.parametrize(
    "compiler",
    [pytest.param(name, marks=pytest.mark.slow) for name in ("gcc", "clang")],
)
def test_sanitizers_find_nothing(compiler, tmp_path):
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    torch.manual_seed(0)
    features = nn.Sequential(
        nn.Conv2d(3, 20, 3, 2, 1),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.Conv2d(20, 20, 3, padding=1, groups=20),
        nn.Hardswish(),
        nn.Conv2d(20, 17, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
    )
    model = nn.Sequential(features, nn.Flatten(), nn.Linear(17, 9))
    files = files_of(model, (3, 33, 29), "crop")
    program = compiled(tmp_path, files, compiler, SANITIZERS)
    done = subprocess.run([program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("class 0 0.") == 9


@needs_compiler
def test_class_names_of_all_kinds(tmp_path):
    texts = ('say "hi"', "back\\slash", "??/ trigraph", "Ä\n2", "%s", "\x011", "猫")
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, len(texts)))
    graph = trace_graph(model, (1, 2, 2))
    p = preprocess((1, 2, 2))
    files = write_c(graph, preprocess=p, probabilities=ProbabilityMap(classes=texts))
    assert CTarget(files, p, flags=("-O1", *STRICT)).classes == texts
    assert files["model.c"].isascii()


@needs_compiler
def test_several_labels():
    torch.manual_seed(0)
    m = ProbabilityMap(
        classes=("a", "b", "c"),
        multi_label=True,
        slopes=(1.5, 0.7, 1.0),
        intercepts=(0.1, -0.4, 0.0),
        thresholds=(0.5, 0.3, 0.2),
    )
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    p = preprocess((3, 2, 2))
    graph = trace_graph(model, (3, 2, 2))
    files = write_c(graph, preprocess=p, probabilities=m)
    assert (
        b"extern const float model_class_thresholds[MODEL_CLASSES]" in files["model.h"]
    )
    values = CTarget(files, p, flags=("-O1", *STRICT)).run(np.ones((2, 5, 4, 3), "u1"))
    assert np.abs(values["probabilities"] - m(values["logits"])).max() < 1e-6


@needs_compiler
def test_weights_beside_the_source():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Flatten(), nn.Linear(5 * 4, 3))
    shape, pixels = (3, 4, 4), np.full((1, 9, 9, 3), 40, np.uint8)
    inside = files_of(model, shape)
    beside = files_of(model, shape, weights="beside", name="my-net 2")
    assert list(beside) == ["my-net 2.c", "my-net 2.h", "my-net 2.weights"]
    p = preprocess(shape)
    a, b = (CTarget(files, p, flags=("-O1", *STRICT)) for files in (inside, beside))
    assert np.array_equal(a.run(pixels)["logits"], b.run(pixels)["logits"])
    other = files_of(nn.Sequential(nn.Flatten(), nn.Linear(48, 3)), shape)
    damaged = {**beside, "my-net 2.weights": other["model.c"]}
    with pytest.raises(StriateError, match="check_weights returned 3"):
        CTarget(damaged, p, flags=("-O1",))


def test_the_same_bytes_twice_without_paths():
    torch.manual_seed(0)
    model = st.create_model("tutorial_gray", num_classes=3, in_chans=1)
    first, second = (files_of(model, (1, 28, 28)) for _ in range(2))
    assert first == second
    assert not re.search(rb"/(home|tmp|usr|root)/|site-packages", first["model.c"])


def test_only_the_needed_kernels():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    source = files_of(model, (1, 2, 2))["model.c"].decode()
    assert "static void conv(" in source
    for name in ("max_pool", "depthwise", "softmax", "winograd", "binary", "copy"):
        assert f"static void {name}(" not in source


def test_an_operation_that_c_lacks():
    model = nn.Sequential(nn.Conv2d(1, 4, 1), nn.GroupNorm(2, 4), nn.Flatten())
    graph = trace_graph(model, (1, 2, 2))
    with pytest.raises(UnsupportedOperationError, match="group_norm") as error:
        write_c(
            graph,
            preprocess=preprocess((1, 2, 2)),
            probabilities=ProbabilityMap(classes=names(16)),
        )
    assert "layer 1" in str(error.value)


@pytest.mark.parametrize("name", ["", "a/b", 'a"b', "a\\b", "a\nb"])
def test_names_that_are_no_file_names(name):
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(SettingError, match="name of a C file"):
        files_of(model, (1, 2, 2), name=name)


def test_a_machine_without_compiler(monkeypatch):
    monkeypatch.setattr(c_target.shutil, "which", lambda name: None)
    with pytest.raises(StriateError, match="C compiler"):
        CTarget({"model.c": b"", "model.h": b""}, preprocess((1, 2, 2)))


@needs_compiler
def test_source_that_does_not_compile():
    files = {"model.c": b"int x = ;", "model.h": b""}
    with pytest.raises(StriateError, match="the C compiler failed: "):
        CTarget(files, preprocess((1, 2, 2)))


@needs_compiler
def test_a_planted_fault_is_found():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 36, 4))
    shape, p = (3, 8, 8), preprocess((3, 8, 8))
    files = files_of(model, shape)
    m = ProbabilityMap(classes=names(4), temperature=1.3)
    pipeline = NetworkPipeline(model=model.eval(), preprocess=p, probabilities=m)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    samples = [ParitySample(path="a", pixels=pixels)]
    assert check_parity(CTarget(files, p, flags=("-O1",)), pipeline, samples).passed
    faults = {
        "resize": (b"index + 0.5", b"index + 0.6"),
        "logits": (b"sum += load(out->bias + channel);", b""),
        "classes": (b'"class 1"', b'"class l"'),
    }
    for stage, (right, wrong) in faults.items():
        assert right in files["model.c"]
        faulty = {**files, "model.c": files["model.c"].replace(right, wrong)}
        report = check_parity(CTarget(faulty, p, flags=("-O1",)), pipeline, samples)
        assert report.first_difference.stage == stage


def test_bytes_as_c_strings():
    payload = bytes(range(256)) * 3 + b"0?1" * 50
    lines = [payload[i : i + 64] for i in range(0, len(payload), 64)]
    expected = [f'"{c_bytes(line)}"' for line in lines]
    assert weights_literal(payload).splitlines() == expected
    assert c_string("\x001") == '"\\0001"'


def test_a_value_that_several_layers_read_stays():
    """Memory is used again only after the last reader."""
    graph = NetworkGraph(
        nodes=(
            GraphNode(kind="relu", inputs=("input",), output="a"),
            GraphNode(kind="tanh", inputs=("a",), output="b"),
            GraphNode(kind="tanh", inputs=("b",), output="c"),
            GraphNode(kind="add", inputs=("a", "c"), output="d"),
            GraphNode(kind="reshape", inputs=("d",), output="logits",
                      attrs={"shape": [-1, 4]}),
        ),
        constants={},
        shapes={**dict.fromkeys(("input", *"abcd"), (-1, 1, 2, 2)), "logits": (-1, 4)},
    )  # fmt: skip
    source = write_c(
        graph,
        preprocess=preprocess((1, 2, 2)),
        probabilities=ProbabilityMap(classes=names(4)),
    )["model.c"].decode()
    (a, b), (c,) = (
        re.findall(r"apply_tanh\(m \+ (\d+), m \+ (\d+)", source)[0],
        re.findall(r"apply_tanh\(m \+ \d+, m \+ (\d+)", source)[1:],
    )
    assert len({a, b, c}) == 3
