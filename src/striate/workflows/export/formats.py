"""Contents of the files of each export format, and the same files as a target to check.

Each function returns the file contents by suffix (or by name, for a folder), and a
`ParityTarget` that runs exactly these contents.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from striate.core.errors import SettingError
from striate.exporters.c_source.c_target import CTarget
from striate.exporters.c_source.write_c import write_c
from striate.exporters.graph import NetworkGraph
from striate.exporters.onnx_file import OnnxOptions, write_onnx
from striate.exporters.onnx_target import OnnxTarget
from striate.exporters.openvino_ir import OpenvinoTarget, write_openvino
from striate.exporters.parity import NetworkPipeline, ParityTarget
from striate.exporters.triton import triton_files
from striate.workflows.export.options import ExportOptions


@dataclass(frozen=True, kw_only=True)
class ExportSource:
    """What all formats are written from."""

    name: str
    graph: NetworkGraph
    pipeline: NetworkPipeline
    options: ExportOptions
    facts: Mapping[str, Any]  # metadata of the file

    def onnx(self, default_input: str, *outputs: str) -> tuple[bytes, str]:
        """Return an ONNX file, and the kind of its input."""
        kind = self.options.input or default_input
        names = tuple(dict.fromkeys([*self.options.outputs, *outputs]))
        payload = write_onnx(
            self.graph,
            preprocess=self.pipeline.preprocess,
            probabilities=self.pipeline.probabilities,
            options=OnnxOptions(input=kind, outputs=names, batch=self.options.batch),
            metadata=self.facts,
        )
        return payload, kind


Files = dict[str, bytes]


def _onnx(source: ExportSource) -> tuple[Files, ParityTarget]:
    payload, kind = source.onnx("image")
    return {".onnx": payload}, OnnxTarget(payload, source.graph, kind)


def _openvino(source: ExportSource) -> tuple[Files, ParityTarget]:
    if source.options.input == "image":
        what = "OpenVINO computes in single precision, in which the resize is not exact"
        fix = "use --input resized, or --to onnx"
        raise SettingError(what, where="--input", fix=fix)
    payload, kind = source.onnx("resized", "logits")
    half = source.options.precision == "fp16"
    xml, weights = write_openvino(payload, half=half)
    return {".xml": xml, ".bin": weights}, OpenvinoTarget((xml, weights), kind)


def _triton(source: ExportSource) -> tuple[Files, ParityTarget]:
    payload, kind = source.onnx("image")
    files = triton_files(payload, source.name)
    return files, OnnxTarget(payload, source.graph, kind)


# Larger weights are a file beside the source: compilers need a multiple of their size.
_LARGEST_SOURCE = 1 << 24  # weights


def _c(source: ExportSource) -> tuple[Files, ParityTarget]:
    kind = source.options.input or "image"
    if kind == "resized" or source.options.outputs != ("probabilities",):
        what = "C source has a function for each input and output; it needs no choice"
        fix = "leave out --input resized and --outputs"
        raise SettingError(what, where="--to c", fix=fix)
    large = source.graph.num_weights > _LARGEST_SOURCE
    preprocess = source.pipeline.preprocess
    files = write_c(
        source.graph,
        preprocess=preprocess,
        probabilities=source.pipeline.probabilities,
        name=source.name,
        weights="beside" if large else "inside",
    )
    target = CTarget(files, preprocess, input_kind=kind)
    prefix = len(source.name)
    return {key[prefix:]: payload for key, payload in files.items()}, target


WRITERS: Mapping[str, Callable[[ExportSource], tuple[Files, ParityTarget]]] = {
    "onnx": _onnx,
    "openvino": _openvino,
    "c": _c,
    "triton": _triton,
}
FOLDERS = ("triton",)  # formats that are a folder of files
