"""OpenVINO IR (.xml and .bin) of an ONNX file, in single precision."""

from __future__ import annotations

import io
import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from striate.exporters.onnx_file import METADATA_PREFIX
from striate.exporters.onnx_model import import_onnx
from striate.exporters.onnx_target import STAGES
from striate.exporters.openvino_session import compile_for_cpu, import_openvino

# A layer that OpenVINO named by its type and a number that counts up in the process.
_NUMBERED = re.compile(r'(<layer id="(\d+)" name=")([A-Z][A-Za-z]*)_\d+"')


def write_openvino(payload: bytes, *, half: bool = False) -> tuple[bytes, bytes]:
    """Convert an ONNX file to IR; return the contents of the .xml and .bin files.

    The metadata of the ONNX file are kept under `rt_info/striate`.

    Args:
        payload: Content of the ONNX file.
        half: Store the weights in half precision. OpenVINO's own default is on.
    """
    openvino = import_openvino()
    model = openvino.convert_model(io.BytesIO(payload))
    onnx_model = import_onnx().load_model_from_string(payload)
    for prop in onnx_model.metadata_props:
        key = prop.key.removeprefix(METADATA_PREFIX)
        model.set_rt_info(prop.value, ["striate", key])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.xml"
        openvino.save_model(model, path, compress_to_fp16=half)
        text = _NUMBERED.sub(r'\1\3_\2"', path.read_text("utf-8"))
        return text.encode(), path.with_suffix(".bin").read_bytes()


def compile_openvino(payload: bytes, threads: int) -> Any:
    """Return an ONNX file compiled for the processor, in single precision or int8.

    Args:
        payload: Content of the ONNX file.
        threads: Number of threads.
    """
    openvino = import_openvino()
    model = openvino.Core().read_model(io.BytesIO(payload))
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    return compile_for_cpu(model, settings)


class OpenvinoTarget:
    """An IR file under OpenVINO, with the values of its stages for a comparison.

    Args:
        files: Contents of the .xml and .bin files.
        input_kind: `image`, `resized` or `tensor`.
    """

    # OpenVINO multiplies by 1/std instead of dividing by std: two roundings.
    normalize_tolerance = 1e-6

    def __init__(self, files: tuple[bytes, bytes], input_kind: str) -> None:
        openvino = import_openvino()
        self.input_kind = input_kind
        model = openvino.Core().read_model(*files)
        names: Sequence[str] = json.loads(
            model.get_rt_info(["striate", "classes"]).astype(str)
        )
        self.classes = tuple(names)
        self._outputs = [output.any_name for output in model.outputs]
        nodes = {node.get_friendly_name() for node in model.get_ordered_ops()}
        extra = [n for n in STAGES if n in nodes and n not in self._outputs]
        inputs = {parameter.any_name for parameter in model.inputs}
        extra = [name for name in extra if name not in inputs]
        model.add_outputs([(name, 0) for name in extra])
        self._stages = [*self._outputs, *extra]
        self._compiled = compile_for_cpu(model, {"INFERENCE_PRECISION_HINT": "f32"})

    def run(self, batch: np.ndarray) -> Mapping[str, np.ndarray]:
        """Return the values of all stages and outputs."""
        values = list(self._compiled(batch).values())
        return dict(zip(self._stages, values, strict=True))

    def run_layers(self, batch: np.ndarray) -> Mapping[str, np.ndarray]:
        """Return no layers: OpenVINO merges and renames them."""
        return {}
