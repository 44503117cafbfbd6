"""Sessions of OpenVINO on the CPU."""

from __future__ import annotations

import warnings
from threading import Lock
from typing import Any

import numpy as np

from striate.core.errors import SettingError
from striate.exporters.runtime_ports import (
    TensorPort,
    check_batch,
    named_outputs,
    runtime_errors,
)


def import_openvino() -> Any:
    """Import the package `openvino`.

    Raises:
        SettingError: It is not installed; the message names the extra.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            import openvino
    except ImportError as error:
        what = "this needs the package openvino, which is not installed"
        fix = 'install it with: pip install "striate[openvino]"'
        raise SettingError(what, where="export", fix=fix) from error
    return openvino


class OpenvinoSession:
    """An ONNX file or IR under OpenVINO, in single precision.

    Args:
        payload: Content of a checked .onnx or .xml file.
        weights: Content of the .bin file; empty for ONNX.
        threads: Number of threads.
        where: Name of the file in error messages.
    """

    engine = "openvino"

    def __init__(
        self, payload: bytes, weights: bytes, threads: int, where: str
    ) -> None:
        openvino = import_openvino()
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,
        }
        self._where = where
        with runtime_errors("OpenVINO", "load", where):
            core = openvino.Core()
            files = (payload, weights) if weights else (payload,)
            compiled = core.compile_model(core.read_model(*files), "CPU", settings)
        self._request = compiled.create_infer_request()
        self._lock = Lock()  # a request computes one batch at a time
        self.inputs = tuple(map(_port, compiled.inputs))
        self.outputs = tuple(map(_port, compiled.outputs))

    def run(
        self, array: np.ndarray, outputs: tuple[str, ...] | None = None
    ) -> dict[str, np.ndarray]:
        """Return the outputs for a batch by name; all of them by default."""
        names = named_outputs(self.outputs, outputs, self._where)
        check_batch(array, self.inputs, self._where)
        with self._lock, runtime_errors("OpenVINO", "run", self._where):
            self._request.infer([array])
            return {n: self._request.get_tensor(n).data.copy() for n in names}


def _port(info: Any) -> TensorPort:
    sizes = (d.get_length() if d.is_static else None for d in info.partial_shape)
    dtype = info.element_type.to_dtype().type
    return TensorPort(name=info.any_name, dtype=dtype, shape=tuple(sizes))
