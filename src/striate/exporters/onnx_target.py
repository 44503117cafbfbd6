"""An ONNX file under ONNX Runtime, with the values of its stages for a comparison."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from striate.exporters.graph import NetworkGraph, last_values
from striate.exporters.onnx_check import check_onnx
from striate.exporters.onnx_file import METADATA_PREFIX
from striate.exporters.onnx_model import import_onnx
from striate.exporters.ort_session import onnx_session

STAGES = ("resized", "normalized", "logits", "probabilities")


class OnnxTarget:
    """An ONNX file with the values of its stages and layers.

    Args:
        payload: Content of the file that is to be written.
        graph: The graph that the file was written from, for the names of the layers.
        input_kind: `image`, `resized` or `tensor`.
    """

    normalize_tolerance = 0.0

    def __init__(self, payload: bytes, graph: NetworkGraph, input_kind: str) -> None:
        self.input_kind = input_kind
        self._payload = payload
        self._graph = graph
        model = check_onnx(payload)
        self.metadata = {p.key: p.value for p in model.metadata_props}
        names: Sequence[str] = json.loads(self.metadata[f"{METADATA_PREFIX}classes"])
        self.classes = tuple(names)
        produced = {name for node in model.graph.node for name in node.output}
        stages = [name for name in STAGES if name in produced]
        self._session = onnx_session(_with_outputs(model, stages))
        self._stages = [*dict.fromkeys([*stages, *_outputs(model)])]

    def run(self, batch: np.ndarray) -> Mapping[str, np.ndarray]:
        """Return the values of all stages and outputs."""
        name = self._session.get_inputs()[0].name
        values = self._session.run(self._stages, {name: batch})
        return dict(zip(self._stages, values, strict=True))

    def run_layers(self, batch: np.ndarray) -> Mapping[str, np.ndarray]:
        """Return the output of each layer by its dotted name."""
        model = import_onnx().load_model_from_string(self._payload)
        produced = {name for node in model.graph.node for name in node.output}
        layers = {k: v for k, v in last_values(self._graph) if v in produced}
        names = list(dict.fromkeys(layers.values()))
        session = onnx_session(_with_outputs(model, names))
        batch_input = {session.get_inputs()[0].name: batch}
        values = dict(zip(names, session.run(names, batch_input), strict=True))
        return {layer: values[name] for layer, name in layers.items()}


def _outputs(model: Any) -> list[str]:
    return [output.name for output in model.graph.output]


def _with_outputs(model: Any, names: Sequence[str]) -> bytes:
    """Return the file with further values as outputs; nothing else changes."""
    onnx = import_onnx()
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    have = set(_outputs(model))
    for name in names:
        if name not in have:
            probe.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    return bytes(probe.SerializeToString())
