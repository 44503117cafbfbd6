"""Contents of the files of each export format; each is compared with the run first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from striate.core.errors import SettingError
from striate.exporters.bundle.write import bundle_bytes
from striate.exporters.graph import NetworkGraph
from striate.exporters.graph_target import GraphTarget
from striate.exporters.onnx_file import OnnxOptions, write_onnx
from striate.exporters.onnx_target import OnnxTarget
from striate.exporters.openvino_ir import OpenvinoTarget, write_openvino
from striate.exporters.parity import (
    NetworkPipeline,
    ParityReport,
    ParitySample,
    ParityTarget,
)
from striate.exporters.triton import triton_files
from striate.workflows.export.bundle_contents import BUNDLED_ONNX, bundle_contents
from striate.workflows.export.options import ExportOptions

Files = dict[str, bytes]
# Compares a target with the run, and raises an error if it differs.
Check = Callable[[ParityTarget], ParityReport]


@dataclass(frozen=True, kw_only=True)
class ExportSource:
    """What all formats are written from."""

    name: str
    graph: NetworkGraph
    pipeline: NetworkPipeline
    options: ExportOptions
    metadata: Mapping[str, Any]
    samples: Sequence[ParitySample]  # validation images

    def onnx(self, default_input: str, *outputs: str) -> tuple[bytes, str]:
        """Return an ONNX file, and the kind of its input."""
        kind = self.options.input or default_input
        names = tuple(dict.fromkeys([*self.options.outputs, *outputs]))
        payload = write_onnx(
            self.graph,
            preprocess=self.pipeline.preprocess,
            probabilities=self.pipeline.probabilities,
            options=OnnxOptions(input=kind, outputs=names, batch=self.options.batch),
            metadata=self.metadata,
        )
        return payload, kind


@dataclass(frozen=True, kw_only=True)
class ExportedFiles:
    """Contents of the files, by suffix or by name in a folder, and their comparison."""

    files: Files
    input: str  # image, resized or tensor
    report: ParityReport


def _onnx(source: ExportSource, check: Check) -> ExportedFiles:
    payload, kind = source.onnx("image")
    report = check(OnnxTarget(payload, source.graph, kind))
    return ExportedFiles(files={".onnx": payload}, input=kind, report=report)


def _openvino(source: ExportSource, check: Check) -> ExportedFiles:
    if source.options.input == "image":
        what = "OpenVINO computes in single precision, in which the resize is not exact"
        fix = "use --input resized, or --to onnx"
        raise SettingError(what, where="--input", fix=fix)
    payload, kind = source.onnx("resized", "logits")
    half = source.options.precision == "fp16"
    xml, weights = write_openvino(payload, half=half)
    report = check(OpenvinoTarget((xml, weights), kind))
    files = {".xml": xml, ".bin": weights}
    return ExportedFiles(files=files, input=kind, report=report)


def _triton(source: ExportSource, check: Check) -> ExportedFiles:
    payload, kind = source.onnx("image")
    report = check(OnnxTarget(payload, source.graph, kind))
    files = triton_files(payload, source.name)
    return ExportedFiles(files=files, input=kind, report=report)


def _bundle(source: ExportSource, check: Check) -> ExportedFiles:
    report = check(GraphTarget(source.graph, source.pipeline))
    payload, kind = source.onnx("image")
    reports = {"network": report}
    reports[BUNDLED_ONNX] = check(OnnxTarget(payload, source.graph, kind))
    contents = bundle_contents(
        graph=source.graph,
        pipeline=source.pipeline,
        samples=source.samples,
        metadata=source.metadata,
        reports=reports,
        onnx=payload,
    )
    files = {".striate": bundle_bytes(contents)}
    return ExportedFiles(files=files, input=kind, report=report)


WRITERS: Mapping[str, Callable[[ExportSource, Check], ExportedFiles]] = {
    "onnx": _onnx,
    "openvino": _openvino,
    "triton": _triton,
    "bundle": _bundle,
}
FOLDERS = ("triton",)  # formats that are a folder of files
