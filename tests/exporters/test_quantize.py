"""ONNX files in 8-bit integers, and the race of functions."""

import json

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from striate.core.preprocess_config import Preprocess
from striate.exporters import quantize
from striate.exporters.engines import onnx_engine, openvino_engine, torch_engine
from striate.exporters.fold import fold_batch_norm
from striate.exporters.onnx_file import OnnxOptions, write_onnx
from striate.exporters.parity import NetworkPipeline
from striate.exporters.probabilities import ProbabilityMap
from striate.exporters.quantize import QuantizeOptions, quantize_onnx
from striate.exporters.race import ROUNDS, prepare_race
from striate.exporters.trace_graph import trace_graph


def pipeline(**settings):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 16, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 3),
    ).eval()
    means = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.25)}
    return NetworkPipeline(
        model=model,
        preprocess=Preprocess(channels=3, height=12, width=12, **means),
        probabilities=ProbabilityMap(classes=("a", "b", "c"), **settings),
    )


def onnx_file(network):
    graph = trace_graph(network.model, network.preprocess.spec.shape)
    return write_onnx(
        fold_batch_norm(graph),
        preprocess=network.preprocess,
        probabilities=network.probabilities,
        options=OnnxOptions(input="resized"),
        metadata={"run": "cats"},
    )


IMAGES = np.random.default_rng(0).integers(0, 255, (40, 12, 12, 3), np.uint8)


@pytest.fixture(scope="module")
def network():
    return pipeline(temperature=1.7)


@pytest.fixture(scope="module")
def files(network):
    """The same network in fp32 and int8."""
    payload = onnx_file(network)
    return payload, quantize_onnx(payload, IMAGES)


def constants(payload):
    graph = onnx.load_model_from_string(payload).graph
    return {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}


@pytest.mark.parametrize("precision", [0, 1])
def test_engines_give_the_probabilities_of_pytorch(network, files, precision):
    expected = network.probabilities(network.logits(network.normalized(IMAGES)))
    limit = (1e-6, 0.02)[precision]
    for start in (onnx_engine, openvino_engine):
        if start is openvino_engine:
            pytest.importorskip("openvino")
        probs = start(files[precision], 1)(IMAGES)
        assert np.abs(probs - expected).max() < limit
        assert start(files[precision], 1)(IMAGES[:1]).shape == (1, 3)
    for last in (False, True):
        probs = torch_engine(network, channels_last=last)(IMAGES)
        assert np.abs(probs - expected).max() < 1e-6


def test_several_labels():
    settings = {"slopes": (1.0, 2.0, 0.5), "intercepts": (0.1, 0.0, -0.2)}
    network = pipeline(multi_label=True, **settings)
    expected = network.probabilities(network.logits(network.normalized(IMAGES)))
    assert np.abs(torch_engine(network)(IMAGES) - expected).max() < 1e-6
    int8 = quantize_onnx(onnx_file(network), IMAGES)
    assert np.abs(onnx_engine(int8, 1)(IMAGES) - expected).max() < 0.02


def test_weights_are_integers_with_a_scale_for_each_channel(files):
    values = constants(files[1])
    weights = {k: v for k, v in values.items() if v.dtype == np.int8 and v.ndim == 4}
    assert len(weights) == 2
    for name, weight in weights.items():
        assert np.abs(weight.astype(int)).max() in (63, 64)  # 7 bits
        scale = values[name.replace("_quantized", "_scale")]
        assert scale.shape == (16,)
    assert len(files[1]) < len(files[0]) + 20_000
    full = quantize_onnx(files[0], IMAGES, QuantizeOptions(seven_bits=False))
    largest = [np.abs(v.astype(int)).max() for v in constants(full).values()
               if v.dtype == np.int8 and v.ndim == 4]  # fmt: skip
    assert min(largest) > 120


def test_preprocessing_and_probabilities_stay_in_single_precision(files):
    nodes = onnx.load_model_from_string(files[1]).graph.node
    producers = {name: node for node in nodes for name in node.output}
    softmax = next(node for node in nodes if node.op_type == "Softmax")
    node = softmax
    while node.output[0] != "logits":
        node = producers[node.input[0]]
        assert node.op_type != "DequantizeLinear"
    assert node.op_type in ("Gemm", "Add")
    centered = next(node for node in nodes if node.op_type == "Sub")
    assert producers[centered.input[0]].op_type == "Transpose"


def test_metadata_name_the_calibration_images(network):
    facts = {"sha256": ["abc"]}
    payload = quantize_onnx(onnx_file(network), IMAGES, metadata=facts)
    model = onnx.load_model_from_string(payload)
    texts = {p.key: json.loads(p.value) for p in model.metadata_props}
    assert texts["striate.run"] == "cats"
    assert texts["striate.classes"] == ["a", "b", "c"]
    assert texts["striate.quantization"]["images"] == 40
    assert texts["striate.quantization"]["sha256"] == ["abc"]
    assert texts["striate.quantization"]["weights"] == "int8 of 7 bits"
    assert b"/tmp" not in payload


def test_the_same_bytes_twice(files):
    assert quantize_onnx(files[0], IMAGES) == files[1]


@pytest.mark.parametrize(
    ("features", "expected"),
    [("sse avx2", True), ("avx2 avx512_vnni", False), ("avx2 avx_vnni", False)],
)
def test_processors_that_saturate(tmp_path, monkeypatch, features, expected):
    path = tmp_path / "cpuinfo"
    path.write_text(f"model name : Fast CPU\nflags : {features}\n")
    monkeypatch.setattr(quantize, "CPU_INFO", path)
    assert quantize.needs_seven_bits() is expected
    assert quantize.cpu_name() == "Fast CPU"
    monkeypatch.setattr(quantize, "CPU_INFO", tmp_path / "none")
    monkeypatch.setattr(quantize.platform, "machine", lambda: "arm64")
    assert not quantize.needs_seven_bits()


def test_a_race_runs_every_function_in_every_round():
    order = []
    runners = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    race = prepare_race(runners)
    race = type(race)(runners=runners, seconds={"a": 1.0, "b": 1.0})
    order.clear()
    times = race.run(3)
    assert order == ["b", "a", "a", "b", "b", "a"]
    assert len(times["a"].wall) == len(times["b"].cpu) == 3
    assert race.round_seconds == 2
    assert ROUNDS >= 7


def test_short_functions_are_repeated():
    race = prepare_race({"short": lambda: None})
    assert race.calls("short") > 100
