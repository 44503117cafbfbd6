"""Exported files as functions from arrays to arrays, under any of the runtimes.

No torch is imported. A file may come from anywhere: it is read only up to a size, and
refused if it names other files, operators that are not standard, or loops.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Protocol

import numpy as np

from striate.core.errors import DataError, SettingError
from striate.core.registry import unknown_name_error
from striate.exporters.onnx_check import check_onnx
from striate.exporters.onnx_model import MAX_BYTES
from striate.exporters.openvino_session import OpenvinoSession, import_openvino
from striate.exporters.ort_session import OrtSession, import_onnxruntime
from striate.exporters.runtime_ports import TensorPort

ENGINES = ("onnxruntime", "openvino")
# The versions of the standard operators in an IR file.
_OPERATOR_SET = re.compile(rb"opset\d{1,2}")
_LAYER_VERSION = re.compile(rb'<layer\b[^>]*?\bversion="([^"]*)"')
_LAYER_TYPE = re.compile(rb'<layer\b[^>]*?\btype="(Loop|TensorIterator)"')


class RuntimeSession(Protocol):
    """A loaded file: a function from a batch to its outputs."""

    engine: str
    inputs: tuple[TensorPort, ...]
    outputs: tuple[TensorPort, ...]

    def run(
        self, array: np.ndarray, outputs: tuple[str, ...] | None = None
    ) -> dict[str, np.ndarray]:
        """Return the outputs for a batch by name; all of them by default."""


def open_session(
    file: Path | str | bytes, engine: str = "onnxruntime", threads: int = 1
) -> RuntimeSession:
    """Load an exported file.

    Args:
        file: Path of an .onnx file, or of an .xml file with its .bin file beside it;
            or the content of an ONNX file.
        engine: `onnxruntime` or `openvino`.
        threads: Number of threads for one call.

    Raises:
        DataError: The file is damaged, too large, or has parts that are refused.
        SettingError: The engine's package is missing, or it cannot read such a file.
    """
    if engine not in ENGINES:
        raise unknown_name_error("engine", engine, ENGINES)
    if threads < 1:
        raise SettingError(f"threads must be at least 1, got {threads}")
    where = "the ONNX file" if isinstance(file, bytes) else str(file)
    is_ir = not isinstance(file, bytes) and Path(file).suffix.lower() == ".xml"
    if engine == "onnxruntime" and is_ir:
        what, fix = "ONNX Runtime does not read .xml files", "use the engine openvino"
        raise SettingError(what, where=where, fix=fix)
    # First of all, a message on a missing package.
    import_onnxruntime() if engine == "onnxruntime" else import_openvino()
    payload = _content(file, where)
    if is_ir:
        check_openvino(payload, where)
        weights = _content(Path(where).with_suffix(".bin"), where)
        return OpenvinoSession(payload, weights, threads, where)
    check_onnx(payload, where)
    if engine == "openvino":
        return OpenvinoSession(payload, b"", threads, where)
    return OrtSession(payload, threads, where)


def _content(file: Path | str | bytes, where: str) -> bytes:
    """Return the content of a file that is not too large."""
    try:
        size = len(file) if isinstance(file, bytes) else Path(file).stat().st_size
        if size > MAX_BYTES:
            what = f"the file has {size:,} bytes; the limit is {MAX_BYTES:,}"
            raise DataError(what, where=where)
        return file if isinstance(file, bytes) else Path(file).read_bytes()
    except OSError as error:
        what = f"the file cannot be read: {error.strerror}"
        raise DataError(what, where=file) from error


def check_openvino(payload: bytes, where: str) -> None:
    """Raise an error if an IR file has parts that striate never writes.

    Raises:
        DataError: It is no IR file, or it has custom operators, entities or loops.
    """
    if b"<net" not in payload or b"<layer" not in payload:
        raise DataError("this is not an OpenVINO file", where=where)
    versions = _LAYER_VERSION.findall(payload)
    strange = [v for v in versions if not _OPERATOR_SET.fullmatch(v)]
    loop = _LAYER_TYPE.search(payload)
    problem = ""
    if b"<!DOCTYPE" in payload or b"<!ENTITY" in payload:
        problem = "it defines XML entities"
    elif strange:
        problem = f"operators of {strange[0].decode(errors='replace')} are not standard"
    elif loop is not None:
        problem = f"operator {loop[1].decode()} could run forever"
    if problem:
        fix = "use a file that striate exported"
        raise DataError(f"the file is refused: {problem}", where=where, fix=fix)
