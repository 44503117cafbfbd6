"""Contents of the files of each export format; each is compared with the run first."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from striate.core.errors import SettingError
from striate.exporters.bundle.check_bundle import check_bundle
from striate.exporters.bundle.write import bundle_bytes
from striate.exporters.c_source.c_target import CTarget
from striate.exporters.c_source.write_c import write_c
from striate.exporters.graph import NetworkGraph
from striate.exporters.graph_target import GraphTarget
from striate.exporters.network_pipeline import NetworkPipeline, ParitySample
from striate.exporters.onnx_file import OnnxOptions, write_onnx
from striate.exporters.onnx_target import OnnxTarget
from striate.exporters.openvino_ir import OpenvinoTarget, write_openvino
from striate.exporters.parity import ParityReport, ParityTarget
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
    content = bundle_bytes(contents)
    check_bundle(io.BytesIO(content), len(content))  # only what can be read is written
    files = {".striate": content}
    return ExportedFiles(files=files, input=kind, report=report)


# Larger weights are a file beside the source: compilers need a multiple of their size.
_LARGEST_SOURCE = 1 << 24  # weights


def _c(source: ExportSource, check: Check) -> ExportedFiles:
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
    report = check(CTarget(files, preprocess, input_kind=kind))
    prefix = len(source.name)
    contents = {key[prefix:]: payload for key, payload in files.items()}
    return ExportedFiles(files=contents, input=kind, report=report)


WRITERS: Mapping[str, Callable[[ExportSource, Check], ExportedFiles]] = {
    "onnx": _onnx,
    "openvino": _openvino,
    "c": _c,
    "triton": _triton,
    "bundle": _bundle,
}
FOLDERS = ("triton",)  # formats that are a folder of files
