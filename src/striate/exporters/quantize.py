"""ONNX files in 8-bit integers: static quantization with calibration images."""

from __future__ import annotations

import json
import logging
import platform
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from striate.exporters.onnx_file import METADATA_PREFIX
from striate.exporters.onnx_model import PRODUCER, import_onnx
from striate.exporters.onnx_target import import_onnxruntime

# Operators that are computed in integers, or only move values. Softmax, and what comes
# before the network, stay in single precision.
INTEGER_OPERATORS = (
    *("Conv", "Gemm", "MatMul", "Add", "Relu", "Clip", "Concat", "MaxPool"),
    *("AveragePool", "GlobalAveragePool", "ReduceMean", "Mul", "Sigmoid", "HardSwish"),
    *("Reshape", "Transpose", "Slice", "Flatten"),
)
# Processor features that add products of 8 bits in 32 bits, without saturation.
DOT_PRODUCTS = ("avx512_vnni", "avx_vnni", "asimddp")
CPU_INFO = Path("/proc/cpuinfo")
LOGITS = "logits"  # output of the network
BATCH = 16  # calibration images in one pass


@dataclass(frozen=True, kw_only=True)
class QuantizeOptions:
    """How weights and activations become integers."""

    # Weights of 7 bits: the AVX2 instruction for 8-bit products adds two of them in 16
    # bits, which 8-bit weights can exceed. The results would then be wrong.
    seven_bits: bool = True
    calibration: str = "minmax"  # range of the activations: minmax, or percentile

    def as_dict(self) -> dict[str, Any]:
        """Return what the metadata of the file say."""
        return {
            "method": "static, QDQ, per channel",
            "weights": "int8 of 7 bits" if self.seven_bits else "int8",
            "activations": "uint8",
            "calibration": self.calibration,
        }


def needs_seven_bits() -> bool:
    """Return whether 8-bit weights could give wrong results on this processor."""
    try:
        features = set(CPU_INFO.read_text("utf-8").split())
    except OSError:
        return platform.machine().lower() not in ("arm64", "aarch64")
    return features.isdisjoint(DOT_PRODUCTS)


def cpu_name() -> str:
    """Return the name of the processor."""
    try:
        lines = CPU_INFO.read_text("utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.processor() or platform.machine()


def quantize_onnx(
    payload: bytes,
    images: Sequence[np.ndarray] | np.ndarray,
    options: QuantizeOptions | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> bytes:
    """Return an ONNX file in 8-bit integers, with the metadata of the given file.

    Weights have a scale for each channel. The ranges of the activations are those of
    the calibration images.

    Args:
        payload: Content of an ONNX file in single precision with one input.
        images: Calibration images, (N, …) as the file takes them.
        options: How weights and activations become integers.
        metadata: Further values for the metadata under `striate.quantization`.

    Raises:
        SettingError: A package is missing.
    """
    options = options or QuantizeOptions()
    onnx = import_onnx()
    import_onnxruntime()
    from onnxruntime import quantization

    model = onnx.load_model_from_string(payload)
    with tempfile.TemporaryDirectory() as folder, _quiet_log():
        target = Path(folder) / "int8.onnx"
        quantization.quantize_static(
            _prepared(onnx, model),
            target,
            _Images(model.graph.input[0].name, images),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=list(INTEGER_OPERATORS),
            per_channel=True,
            reduce_range=options.seven_bits,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=_METHODS[options.calibration](quantization),
            nodes_to_exclude=_single_precision(model),
        )
        result = onnx.load(target)
    facts = {**options.as_dict(), "images": len(images), **(metadata or {})}
    return _finished(onnx, result, model, facts)


_METHODS = {
    "minmax": lambda q: q.CalibrationMethod.MinMax,
    "percentile": lambda q: q.CalibrationMethod.Percentile,
}


class _Images:
    """The calibration images in batches, as `quantize_static` reads them."""

    def __init__(self, name: str, images: Sequence[np.ndarray] | np.ndarray) -> None:
        self._batches = iter(
            {name: np.stack(list(images[i : i + BATCH]))}
            for i in range(0, len(images), BATCH)
        )

    def get_next(self) -> Mapping[str, np.ndarray] | None:
        """Return the next batch; None at the end."""
        return next(self._batches, None)

    def __iter__(self) -> Iterator[Mapping[str, np.ndarray]]:
        return self._batches

    def __next__(self) -> Mapping[str, np.ndarray]:
        return next(self._batches)


def _prepared(onnx: Any, model: Any) -> Any:
    """Return a copy of the file with the shapes of its values."""
    copy = onnx.shape_inference.infer_shapes(model)
    copy.metadata_props.add(key="onnx.infer", value="onnxruntime.quant")
    return copy


def _single_precision(model: Any) -> list[str]:
    """Return the nodes that stay in single precision: before and after the network."""
    nodes = list(model.graph.node)
    outputs = [node.output[0] for node in nodes]
    first = outputs.index("normalized") + 1 if "normalized" in outputs else 0
    return [node.name for node in (*nodes[:first], *_after_logits(nodes))]


def _after_logits(nodes: Sequence[Any]) -> Iterator[Any]:
    values = {LOGITS}
    for node in nodes:
        if values & set(node.input):
            values |= set(node.output)
            yield node


def _without_rounded_logits(graph: Any) -> None:
    """Remove the rounding of the logits to 8 bits: it costs accuracy and time."""
    rounding = [node for node in graph.node if LOGITS in node.input]
    if len(rounding) != 1 or rounding[0].op_type != "QuantizeLinear":
        return
    rounded = rounding[0].output[0]
    back = next(node for node in graph.node if node.input[0] == rounded)
    for node in graph.node:
        for i, name in enumerate(node.input):
            if name == back.output[0]:
                node.input[i] = LOGITS
    for node in (*rounding, back):
        graph.node.remove(node)
    read = {name for node in graph.node for name in node.input}
    for tensor in [t for t in graph.initializer if t.name not in read]:
        graph.initializer.remove(tensor)


def _finished(onnx: Any, result: Any, original: Any, facts: Mapping[str, Any]) -> bytes:
    """Return the content of the quantized file, the same bytes each time."""
    _without_rounded_logits(result.graph)
    result.producer_name = PRODUCER
    result.producer_version = ""
    result.ir_version = original.ir_version
    texts = {prop.key: prop.value for prop in original.metadata_props}
    texts[f"{METADATA_PREFIX}quantization"] = json.dumps(facts, ensure_ascii=False)
    del result.metadata_props[:]
    onnx.helper.set_model_props(result, texts)
    del result.graph.value_info[:]
    onnx.checker.check_model(result)
    return bytes(result.SerializeToString(deterministic=True))


@contextmanager
def _quiet_log() -> Iterator[None]:
    """Context manager: no advice of the package in the log of the program."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
