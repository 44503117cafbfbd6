"""The ONNX file of a network: images in, probabilities out, settings as metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from striate.core.errors import SettingError
from striate.core.preprocess_config import Preprocess
from striate.core.registry import unknown_name_error
from striate.exporters.graph import BATCH, GraphNode, NetworkGraph
from striate.exporters.onnx_model import OnnxModel
from striate.exporters.onnx_nodes import write_nodes
from striate.exporters.onnx_preprocess import write_preprocess
from striate.exporters.probabilities import ProbabilityMap

INPUT_KINDS = ("image", "resized", "tensor")
OUTPUTS = ("probabilities", "logits", "features", "cam")
METADATA_PREFIX = "striate."


@dataclass(frozen=True, kw_only=True)
class OnnxOptions:
    """What the file takes and returns."""

    # image: 8-bit pixels of any size; resized: 8-bit pixels of the network's size;
    # tensor: normalized float32 values
    input: str = "image"
    outputs: tuple[str, ...] = ("probabilities",)  # some of OUTPUTS
    batch: int | None = None  # fixed batch size; None for any

    def __post_init__(self) -> None:
        if self.input not in INPUT_KINDS:
            raise unknown_name_error("input", self.input, INPUT_KINDS)
        for name in self.outputs:
            if name not in OUTPUTS:
                raise unknown_name_error("output", name, OUTPUTS)
        if self.batch is not None and self.batch < 1:
            what = f"the batch size must be at least 1, got {self.batch}"
            raise SettingError(what, where="--batch")


def write_onnx(
    graph: NetworkGraph,
    *,
    preprocess: Preprocess,
    probabilities: ProbabilityMap,
    options: OnnxOptions,
    metadata: Mapping[str, Any],
) -> bytes:
    """Return an ONNX file (opset 18) of a network with its preprocessing.

    Outputs: `probabilities`, with `label_index` (the most probable class) and `unknown`
    (its probability is below the threshold); for several labels per image
    `predicted` instead, which is true for each class above its threshold. Metadata are
    JSON texts under the prefix `striate.`.

    Args:
        graph: The network.
        preprocess: Preprocessing of the images.
        probabilities: Classes, temperature and thresholds.
        options: Inputs and outputs of the file.
        metadata: Further values for the metadata, by key.

    Raises:
        SettingError: The network has no such output, or the package onnx is missing.
    """
    model = OnnxModel()
    batch: int | str = "batch" if options.batch is None else options.batch
    x = write_preprocess(model, preprocess, input_kind=options.input, batch=batch)
    write_nodes(model, graph.renamed_input(x))
    if "probabilities" in options.outputs:
        _write_answers(model, graph, probabilities, batch)
    for name in options.outputs:
        if name != "probabilities":
            value, shape = _extra_output(model, graph, name)
            model.output(value, np.float32, [batch, *shape[1:]])
    facts = {
        "classes": list(probabilities.classes),
        "preprocess": preprocess.as_dict(),
        "probabilities": {
            k: v for k, v in probabilities.as_dict().items() if k != "classes"
        },
        "input": options.input,
        **metadata,
    }
    texts = {
        f"{METADATA_PREFIX}{key}": json.dumps(value, ensure_ascii=False)
        for key, value in facts.items()
    }
    return model.as_bytes(texts)


def _write_answers(
    model: OnnxModel,
    graph: NetworkGraph,
    probabilities: ProbabilityMap,
    batch: int | str,
) -> None:
    logits, classes = graph.output, graph.num_classes
    if probabilities.multi_label:
        _write_label_sets(model, logits, probabilities, batch)
        return
    if probabilities.temperature != 1:
        temperature = probabilities.temperature
        logits = model.binary("Div", logits, temperature, "logits/temperature")
    model.add("Softmax", [logits], "probabilities", axis=1)
    model.add("ArgMax", ["probabilities"], "label_index", axis=1, keepdims=0)
    axis = model.constant(np.array([1], np.int64))
    model.add("ReduceMax", ["probabilities", axis], "highest", keepdims=0)
    model.binary("Less", "highest", probabilities.threshold, "unknown")
    model.output("probabilities", np.float32, [batch, classes])
    model.output("label_index", np.int64, [batch])
    model.output("unknown", np.bool_, [batch])


def _write_label_sets(
    model: OnnxModel, logits: str, probabilities: ProbabilityMap, batch: int | str
) -> None:
    if probabilities.slopes:
        slopes = model.constant(np.array([probabilities.slopes], np.float32))
        intercepts = model.constant(np.array([probabilities.intercepts], np.float32))
        logits = model.binary("Mul", logits, slopes, "logits/slopes")
        logits = model.binary("Add", logits, intercepts, "logits/scaled")
    classes = len(probabilities.classes)
    model.add("Sigmoid", [logits], "probabilities")
    thresholds = probabilities.thresholds or [0.5] * classes
    limits = model.constant(np.array([thresholds], np.float32))
    model.binary("GreaterOrEqual", "probabilities", limits, "predicted")
    model.output("probabilities", np.float32, [batch, classes])
    model.output("predicted", np.bool_, [batch, classes])


def _extra_output(
    model: OnnxModel, graph: NetworkGraph, name: str
) -> tuple[str, tuple[int, ...]]:
    """Return the name and the shape of logits, features or class activation maps."""
    if name == "logits":
        return graph.output, graph.shape(graph.output)
    last = _last_linear(graph)
    if name == "features":
        model.add("Identity", [last.inputs[0]], "features")
        return "features", graph.shape(last.inputs[0])
    maps = _pooled_maps(graph, last)
    classes, channels = graph.constants[last.inputs[1]].shape
    weight = graph.constants[last.inputs[1]].reshape(classes, channels, 1, 1)
    model.add("Conv", [maps, model.constant(weight, "cam/weight")], "cam")
    return "cam", (BATCH, classes, *graph.shape(maps)[2:])


def _last_linear(graph: NetworkGraph) -> GraphNode:
    last = graph.nodes[-1]
    if last.kind == "linear" and len(graph.shape(last.inputs[0])) == 2:
        return last
    what = f"the last operation is {last.where}, not a linear layer"
    fix = "remove features and cam from --outputs"
    raise SettingError(what, where="--outputs", fix=fix)


def _pooled_maps(graph: NetworkGraph, last: GraphNode) -> str:
    """Return the feature maps whose global mean the last linear layer reads."""
    producers = {node.output: node for node in graph.nodes}
    node = producers.get(last.inputs[0])
    while node is not None and node.kind == "reshape":
        node = producers.get(node.inputs[0])
    if node is not None and node.kind == "mean" and node.attrs["dims"] == [2, 3]:
        return node.inputs[0]
    is_pool = node is not None and node.kind == "avg_pool"
    if is_pool and node is not None and graph.shape(node.output)[2:] == (1, 1):
        return node.inputs[0]
    what = "class activation maps need global average pooling before the last layer"
    fix = "remove cam from --outputs; Grad-CAM is in `striate explain`"
    raise SettingError(what, where="--outputs", fix=fix)
