"""Engines of a race: PyTorch, ONNX Runtime and OpenVINO, in fp32 and int8."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from striate.core.errors import SettingError
from striate.exporters.engines import (
    Engine,
    onnx_engine,
    openvino_engine,
    torch_engine,
)
from striate.exporters.fold import fold_batch_norm
from striate.exporters.graph_builder import UnsupportedOperationError
from striate.exporters.network_pipeline import NetworkPipeline
from striate.exporters.onnx_file import OnnxOptions, write_onnx
from striate.exporters.openvino_session import import_openvino
from striate.exporters.ort_session import import_onnxruntime
from striate.exporters.quantize import (
    QuantizeOptions,
    needs_seven_bits,
    quantize_onnx,
)
from striate.exporters.trace_graph import trace_graph

TORCH, CHANNELS_LAST = "pytorch", "pytorch_channels_last"
ONNX_RUNTIME, OPENVINO = "onnxruntime", "openvino"
ENGINE_TITLES = {
    TORCH: "PyTorch",
    CHANNELS_LAST: "PyTorch, channels_last",
    ONNX_RUNTIME: "ONNX Runtime",
    OPENVINO: "OpenVINO",
}


@dataclass(frozen=True, kw_only=True)
class Entrant:
    """A network in an engine and a precision, ready to start."""

    engine: str  # key of ENGINE_TITLES
    precision: str
    start: Callable[[int], Engine]  # by the number of threads
    size: int  # bytes of the weights or of the file
    payload: bytes = b""  # content of the ONNX file; empty for PyTorch

    @property
    def name(self) -> str:
        """Return the engine and the precision."""
        return f"{self.engine} {self.precision}"


@dataclass(frozen=True, kw_only=True)
class Entrants:
    """All engines of a race, and why some are missing."""

    entrants: tuple[Entrant, ...]  # the first is PyTorch, as the network was trained
    notes: tuple[str, ...] = ()
    quantization: Mapping[str, Any] | None = None  # metadata of the int8 file


def list_entrants(
    pipeline: NetworkPipeline,
    calibration: np.ndarray | None,
    weights_size: int,
    metadata: Mapping[str, Any],
) -> Entrants:
    """Return the network in all engines that are installed and that can run it.

    Args:
        pipeline: The network with its preprocessing and probabilities.
        calibration: Images for int8, (N, h, w, C) uint8; None for fp32 only.
        weights_size: Bytes of the weight file of the run.
        metadata: Metadata of the ONNX files.

    Raises:
        SettingError: onnx or onnxruntime is missing.
    """
    eager = [
        Entrant(
            engine=name,
            precision="fp32",
            start=lambda _, last=last: torch_engine(pipeline, channels_last=last),  # type: ignore[misc]
            size=weights_size,
        )
        for name, last in ((TORCH, False), (CHANNELS_LAST, True))
    ]
    import_onnxruntime()
    try:
        graph = trace_graph(pipeline.model, pipeline.preprocess.spec.shape)
    except UnsupportedOperationError as error:
        note = f"Only PyTorch can run this network: {error.what}."
        return Entrants(entrants=tuple(eager), notes=(note,))
    payload = write_onnx(
        fold_batch_norm(graph),
        preprocess=pipeline.preprocess,
        probabilities=pipeline.probabilities,
        options=OnnxOptions(input="resized"),
        metadata=metadata,
    )
    payloads, facts = {"fp32": payload}, None
    if calibration is not None:
        facts = _calibration_facts(calibration)
        options = QuantizeOptions(seven_bits=needs_seven_bits())
        payloads["int8"] = quantize_onnx(payload, calibration, options, facts)
        facts = {**options.as_dict(), **facts, "sha256": _joined(facts["sha256"])}
    notes, programs = [], {ONNX_RUNTIME: onnx_engine}
    try:
        import_openvino()
        programs[OPENVINO] = openvino_engine
    except SettingError as error:
        notes.append(f"OpenVINO is missing: {error.fix}.")
    others = _onnx_entrants(programs, payloads)
    return Entrants(entrants=(*eager, *others), notes=tuple(notes), quantization=facts)


def _onnx_entrants(
    programs: Mapping[str, Callable[[bytes, int], Engine]],
    payloads: Mapping[str, bytes],
) -> Iterator[Entrant]:
    for precision, payload in payloads.items():
        for name, program in programs.items():
            yield Entrant(
                engine=name,
                precision=precision,
                start=partial(program, payload),
                size=len(payload),
                payload=payload,
            )


def _calibration_facts(images: np.ndarray) -> dict[str, Any]:
    """Return the number of the images, and the hash of the pixels of each."""
    hashes = [hashlib.sha256(image.tobytes()).hexdigest()[:16] for image in images]
    return {"images": len(images), "sha256": hashes}


def _joined(hashes: Sequence[str]) -> str:
    """Return one hash for all calibration images."""
    return hashlib.sha256("".join(hashes).encode()).hexdigest()
